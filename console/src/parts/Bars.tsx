// How large batches were: most of what there is to know about whether batching works.

import { count, percent } from "../format";
import type { ModelStatus } from "../snapshot";

const MOST_BARS = 16;

interface Bar {
  label: string;
  batches: number;
}

export function Bars({ model }: { model: ModelStatus }) {
  const bars = barsOf(model.batch_sizes);
  const total = bars.reduce((sum, each) => sum + each.batches, 0);
  const top = Math.max(1, ...bars.map((each) => each.batches));
  return (
    <section>
      <h2>
        Batches by size <span class="unit">rows per batch, since the start</span>
      </h2>
      {total === 0 ? (
        <p class="empty">No batch was run yet.</p>
      ) : (
        <dl class="bars">
          {bars.map((bar) => (
            <div key={bar.label}>
              <dt>{bar.label}</dt>
              <dd>
                <meter min={0} max={top} value={bar.batches} />
                <span>
                  {count(bar.batches)} <span class="muted">{percent(bar.batches / total)}</span>
                </span>
              </dd>
            </div>
          ))}
        </dl>
      )}
    </section>
  );
}

/** One bar a size; where there are many sizes, one for each power of two. */
function barsOf(sizes: Record<string, string>): Bar[] {
  const known = Object.entries(sizes).map(([rows, batches]) => ({ rows: Number(rows), batches: Number(batches) }));
  if (known.length <= MOST_BARS) {
    return known.sort((a, b) => a.rows - b.rows).map(({ rows, batches }) => ({ label: String(rows), batches }));
  }
  const grouped = new Map<number, number>();
  for (const { rows, batches } of known) {
    const power = Math.floor(Math.log2(Math.max(1, rows)));
    grouped.set(power, (grouped.get(power) ?? 0) + batches);
  }
  const label = (power: number) => (power === 0 ? "1" : `${2 ** power}–${2 ** (power + 1) - 1}`);
  return [...grouped].sort(([a], [b]) => a - b).map(([power, batches]) => ({ label: label(power), batches }));
}
