import { count, many, ms } from "../format";

export interface Answer {
  /** What was sent, and what came. */
  body: string;
  text: string;
  /** As seen from this browser. */
  ms: number;
  /** The server's receipt, JSON. */
  receipt: string | null;
}

interface Output {
  name: string;
  datatype: string;
  shape: number[];
  data: unknown[];
}

interface Receipt {
  queue_us: number;
  batch_us: number;
  compute_us: number;
  batch_rows: number;
  batch_requests: number;
  model_version: number;
}

const MOST_VALUES = 64;
const MOST_TEXT = 20_000;

export function TensorAnswer({ answer }: { answer: Answer }) {
  const outputs = (JSON.parse(answer.text) as { outputs: Output[] }).outputs;
  return (
    <>
      <Times answer={answer} />
      {outputs.map((output) => (
        <div key={output.name} class="output">
          <h3>
            <code>{output.name}</code>{" "}
            <span class="unit">
              {output.datatype} [{output.shape.join(", ")}]
            </span>
          </h3>
          <p class="values">
            {output.data.slice(0, MOST_VALUES).map((value, place) => (
              <span key={place}>{shown(value)}</span>
            ))}
            {output.data.length > MOST_VALUES && <span class="muted">… {count(output.data.length)} in all</span>}
          </p>
        </div>
      ))}
      <details>
        <summary>Answer as it came</summary>
        <pre>{cut(answer.text)}</pre>
      </details>
      <details>
        <summary>Request as it was sent</summary>
        <pre>{cut(answer.body)}</pre>
      </details>
    </>
  );
}

/** Where the time went, by the server's receipt; the rest is HTTP, JSON and the network. */
function Times({ answer }: { answer: Answer }) {
  if (answer.receipt === null) return <p class="hint">{ms(answer.ms)} ms, as seen from here.</p>;
  const receipt = JSON.parse(answer.receipt) as Receipt;
  const parts: [string, string][] = [
    ["seen from here", `${ms(answer.ms)} ms`],
    ["in the queue", `${ms(receipt.queue_us / 1000)} ms`],
    ["until its batch began", `${ms(receipt.batch_us / 1000)} ms`],
    ["computing", `${ms(receipt.compute_us / 1000)} ms`],
    ["batch", `${many(receipt.batch_rows, "row")} of ${many(receipt.batch_requests, "request")}`],
    ["version", String(receipt.model_version)],
  ];
  return (
    <dl class="facts">
      {parts.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function shown(value: unknown): string {
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function cut(text: string): string {
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} … (${count(text.length)} characters in all)` : text;
}
