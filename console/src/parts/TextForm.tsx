// A prompt, and its text as it comes.

import { useState } from "preact/hooks";
import { figure, ms } from "../format";
import { type Asked, useGeneration } from "../generation";
import { Choice } from "./Choice";

const KINDS: [Asked["kind"], string][] = [
  ["completions", "completion"],
  ["chat/completions", "chat"],
];

export function TextForm({ model }: { model: string }) {
  const [asked, setAsked] = useState<Asked>({
    kind: "completions",
    prompt: "",
    maxTokens: 128,
    temperature: 0.7,
    seed: "",
  });
  const { state, start, stop } = useGeneration(model);
  const change = (part: Partial<Asked>) => setAsked({ ...asked, ...part });
  return (
    <div class="ask">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void start(asked);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
        }}
      >
        <Choice legend="Kind" options={KINDS} value={asked.kind} onChange={(kind) => change({ kind })} />
        <label class="block">
          {asked.kind === "completions" ? "Prompt" : "Message"}
          <textarea rows={6} required value={asked.prompt} onInput={(event) => change({ prompt: event.currentTarget.value })} />
        </label>
        <Sampling asked={asked} change={change} />
        <div class="row">
          {/* Keys: one element turned into the other during its click would send the form. */}
          {state.running ? (
            <button key="stop" type="button" onClick={stop}>
              Stop
            </button>
          ) : (
            <button key="go" type="submit">Generate</button>
          )}
          <span class="hint">
            POST <code>/v1/{asked.kind}</code>, streamed; Ctrl+Enter sends
          </span>
        </div>
      </form>
      <div class="answer" data-answer={state.done ? "there" : ""}>
        {state.error && (
          <p class="notice bad" role="alert">
            {state.error}
          </p>
        )}
        {state.began ? <pre class="text">{state.text}</pre> : <p class="empty">The text comes here, piece by piece.</p>}
        <dl class="facts">
          <Fact label="first piece after" value={state.firstMs === null ? null : `${ms(state.firstMs)} ms`} />
          <Fact label="tokens" value={state.tokens === null ? null : String(state.tokens)} />
          <Fact label="tokens/s after the first" value={state.rate === null ? null : figure(state.rate)} />
          <Fact label="ended by" value={state.reason} />
        </dl>
      </div>
    </div>
  );
}

function Sampling({ asked, change }: { asked: Asked; change: (part: Partial<Asked>) => void }) {
  return (
    <div class="row">
      <label>
        most tokens
        <input
          type="number"
          min={1}
          required
          value={asked.maxTokens}
          onInput={(event) => change({ maxTokens: event.currentTarget.valueAsNumber })}
        />
      </label>
      <label>
        temperature
        <input
          type="number"
          min={0}
          max={2}
          step={0.1}
          required
          value={asked.temperature}
          onInput={(event) => change({ temperature: event.currentTarget.valueAsNumber })}
        />
      </label>
      <label>
        seed
        <input
          type="number"
          min={0}
          placeholder="any"
          value={asked.seed}
          onInput={(event) => change({ seed: event.currentTarget.value })}
        />
      </label>
    </div>
  );
}

function Fact({ label, value }: { label: string; value: string | null }) {
  if (value === null) return null;
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}
