import { clock } from "../format";
import type { History } from "../history";
import { Choice } from "./Choice";

const WINDOWS: [number, string][] = [
  [120, "2 min"],
  [600, "10 min"],
  [1800, "30 min"],
];

interface WindowProps {
  history: History;
  value: number;
  onChange: (value: number) => void;
}

/** How much of the past plots show, and where that past begins. */
export function WindowChoice({ history, value, onChange }: WindowProps) {
  return (
    <>
      <Choice legend="Window" options={WINDOWS} value={value} onChange={onChange} />
      <p class="hint">
        Seen since {clock(history.samples[0]?.at)}; this page keeps half an hour, <code>/metrics</code> is for more.
      </p>
    </>
  );
}
