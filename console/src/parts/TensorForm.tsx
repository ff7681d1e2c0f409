// A form made of a model's metadata, and the answer to what it sends.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, wordsOf } from "../api";
import { type Entry, entryOf, requestBody, type TensorSpec, unsupported } from "../tensors";
import { type Answer, TensorAnswer } from "./TensorAnswer";
import { TensorInput } from "./TensorInput";

interface Metadata {
  platform: string;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

export function TensorForm({ model }: { model: string }) {
  const path = `v2/models/${model.split(":").map(encodeURIComponent).join("/versions/")}`;
  const { metadata, error } = useMetadata(path);
  if (error) return <p class="notice bad">The model's metadata cannot be had: {error}</p>;
  if (metadata === null) return <p class="empty">Reading the model's metadata …</p>;
  const why = unsupported(metadata.inputs);
  if (why !== null) return <p class="empty">This page sends JSON: {why}.</p>;
  return <Form path={path} metadata={metadata} />;
}

function useMetadata(path: string): { metadata: Metadata | null; error: string } {
  const [metadata, setMetadata] = useState<Metadata | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    const ask = async () => setMetadata((await (await call(path)).json()) as Metadata);
    ask().catch((problem: unknown) => setError(wordsOf(problem)));
  }, [path]);
  return { metadata, error };
}

function Form({ path, metadata }: { path: string; metadata: Metadata }) {
  const [entries, setEntries] = useState(() => metadata.inputs.map(entryOf));
  const { answer, error, asking, send } = useInference(path);
  const change = (place: number, next: Entry) => setEntries(entries.map((each, at) => (at === place ? next : each)));
  return (
    <div class="ask">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void send(entries);
        }}
      >
        {entries.map((entry, place) => (
          <TensorInput key={entry.spec.name} entry={entry} onChange={(next) => change(place, next)} />
        ))}
        <div class="row">
          <button type="submit" disabled={asking}>
            {asking ? "Waiting …" : "Send"}
          </button>
          <span class="hint">
            POST <code>/{path}/infer</code>
          </span>
        </div>
      </form>
      <div class="answer" aria-live="polite" data-answer={answer ? "there" : ""}>
        {error && <p class="notice bad">{error}</p>}
        {answer && <TensorAnswer answer={answer} />}
        {!answer && !error && <p class="empty">The answer comes here: {describe(metadata.outputs)}.</p>}
      </div>
    </div>
  );
}

function describe(outputs: TensorSpec[]): string {
  return outputs.map((each) => `${each.name} ${each.datatype} [${each.shape.join(", ")}]`).join("; ");
}

function useInference(path: string) {
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [error, setError] = useState("");
  const [asking, setAsking] = useState(false);
  const leaving = useRef(new AbortController());
  useEffect(() => () => leaving.current.abort(), []);
  const send = async (entries: Entry[]) => {
    setError("");
    setAnswer(null);
    setAsking(true);
    try {
      const body = requestBody(entries);
      const began = performance.now();
      const response = await call(`${path}/infer`, { body, signal: leaving.current.signal });
      const text = await response.text();
      setAnswer({ body, text, ms: performance.now() - began, receipt: response.headers.get("headrace-receipt") });
    } catch (problem) {
      setError(wordsOf(problem));
    }
    setAsking(false);
  };
  return { answer, error, asking, send };
}
