import { useEffect, useState } from "preact/hooks";
import type { ViewProps } from "../App";
import { call, wordsOf } from "../api";
import { TensorForm } from "../parts/TensorForm";
import { TextForm } from "../parts/TextForm";
import { keyOf } from "../snapshot";
import { linkTo } from "../state";

/** Asks a model, as any client would: tensors over the Open Inference Protocol, text over OpenAI's. */
export function Playground({ feed, detail }: ViewProps) {
  const models = feed.snapshot!.status.models;
  const text = useTextModels(models.map(keyOf).join());
  const tensors = models.filter((each) => !each.language_model).map(keyOf);
  const versions = models.filter((each) => each.language_model).map(keyOf);
  const texts = [...(text.names ?? []), ...versions];
  const chosen = [...texts, ...tensors].includes(detail) ? detail : (tensors[0] ?? texts[0]);
  if (models.length === 0) return <p class="empty">There is no model to ask yet.</p>;
  // Until then the model that is asked could turn into another one under its reader's hands.
  if (text.names === null && !text.error) return <p class="empty">Reading the list of language models …</p>;
  return (
    <section class="playground">
      <div class="head">
        <label>
          Ask{" "}
          <select value={chosen} onChange={(event) => (location.hash = linkTo("playground", event.currentTarget.value))}>
            <Group label="Language models" keys={texts} />
            <Group label="Tensor models" keys={tensors} />
          </select>
        </label>
        {text.error && <p class="hint bad">The list of language models cannot be had: {text.error}</p>}
        {text.names?.length === 0 && feed.snapshot!.replica === null && (
          <p class="hint">
            No language model is here; <code>headrace push NAME FOLDER</code> takes a Hugging Face folder.
          </p>
        )}
      </div>
      {chosen !== undefined && (texts.includes(chosen) ? <TextForm key={chosen} model={chosen} /> : <TensorForm key={chosen} model={chosen} />)}
    </section>
  );
}

function Group({ label, keys }: { label: string; keys: string[] }) {
  if (keys.length === 0) return null;
  return (
    <optgroup label={label}>
      {keys.map((key) => (
        <option key={key} value={key}>
          {key}
        </option>
      ))}
    </optgroup>
  );
}

/** What /v1/models lists, asked again when `models` changes. */
function useTextModels(models: string): { names: string[] | null; error: string } {
  const [found, set] = useState<{ names: string[] | null; error: string }>({ names: null, error: "" });
  useEffect(() => {
    const leaving = new AbortController();
    const ask = async () => {
      const list = (await (await call("v1/models", { signal: leaving.signal })).json()) as { data: { id: string }[] };
      set({ names: list.data.map((each) => each.id), error: "" });
    };
    ask().catch((error: unknown) => leaving.signal.aborted || set({ names: null, error: wordsOf(error) }));
    return () => leaving.abort();
  }, [models]);
  return found;
}
