import { count } from "../format";
import { type Entry, type Fill, sizeOf } from "../tensors";
import { Choice } from "./Choice";

const FILLS: [Fill, string][] = [
  ["random", "random"],
  ["zeros", "zeros"],
  ["ones", "ones"],
  ["values", "values"],
];

/** One input: its free sizes, and what it is filled with. */
export function TensorInput({ entry, onChange }: { entry: Entry; onChange: (next: Entry) => void }) {
  const { spec, shape, fill, typed } = entry;
  return (
    <fieldset class="tensor">
      <legend>
        <code>{spec.name}</code> <span class="unit">{spec.datatype}</span>
      </legend>
      <div class="row">
        <span class="shape">
          {spec.shape.map((size, axis) => [
            axis > 0 && <span class="muted">×</span>,
            size >= 0 ? (
              <span>{size}</span>
            ) : (
              <input
                type="number"
                min={0}
                required
                aria-label={`${spec.name}: size of axis ${axis}`}
                value={shape[axis]}
                onInput={(event) =>
                  onChange({ ...entry, shape: shape.map((old, at) => (at === axis ? event.currentTarget.valueAsNumber || 0 : old)) })
                }
              />
            ),
          ])}
          <span class="muted">= {count(sizeOf(shape))} elements</span>
        </span>
        <Choice legend={`${spec.name}: filled with`} options={FILLS} value={fill} onChange={(next) => onChange({ ...entry, fill: next })} />
      </div>
      {fill === "values" && (
        <textarea
          rows={4}
          spellcheck={false}
          aria-label={`${spec.name}: values`}
          placeholder={spec.datatype === "BYTES" ? "one text a line, or a JSON array" : "0.1 0.2 0.3 …, or a JSON array"}
          value={typed}
          onInput={(event) => onChange({ ...entry, typed: event.currentTarget.value })}
        />
      )}
    </fieldset>
  );
}
