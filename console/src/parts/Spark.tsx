// A line as small as a word: the shape of one model's traffic, on a scale of its own.

import type { Figure } from "../history";

const WIDTH = 96;
const HEIGHT = 20;

export function Spark({ times, values, window }: { times: number[]; values: Figure[]; window: number }) {
  const last = times.at(-1) ?? 0;
  const top = Math.max(1e-9, ...values.map((value) => value ?? 0));
  let path = "";
  let pen = "M";
  values.forEach((value, place) => {
    const x = WIDTH * (1 - (last - (times[place] ?? 0)) / window);
    if (value === null) pen = "M";
    else if (x >= 0) {
      path += `${pen}${x.toFixed(1)} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`;
      pen = "L";
    }
  });
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} aria-hidden="true">
      <path d={`M0 ${HEIGHT - 0.5}H${WIDTH}`} class="spark-base" />
      {path && <path d={path} class="spark-line" />}
    </svg>
  );
}
