// What is drawn of the history: sums over models, and lines for the busiest of them. Pure.

import type { Figure, History, ModelPoint, Sample } from "./history";

export interface Line {
  label: string;
  /** A variable of style.css. */
  colour: string;
  values: Figure[];
  dashed?: boolean;
}

export interface Totals {
  queued: number;
  unanswered: number;
  answered: Figure;
  failed: Figure;
  /** Rows in the mean batch. */
  batch: Figure;
}

export const COLOURS = ["series-1", "series-2", "series-3", "series-4", "series-5"];
const RANKED_SAMPLES = 30;

/** Over all models, or of one. Null in a gap, when nothing is known. */
export function totals(sample: Sample, scope: string | null): Totals | null {
  const points = scope === null ? [...sample.models.values()] : [sample.models.get(scope)].filter(isPoint);
  if (points.length === 0) return null;
  const batches = sum(points.map((each) => each.batches.batches)) ?? 0;
  return {
    queued: sum(points.map((each) => each.queued)) ?? 0,
    unanswered: sum(points.map((each) => each.unanswered)) ?? 0,
    answered: sum(points.map((each) => each.answered)),
    failed: sum(points.map((each) => each.failed)),
    batch: batches > 0 ? (sum(points.map((each) => each.batches.rows)) ?? 0) / batches : null,
  };
}

export function meanBatch(point: ModelPoint | undefined): Figure {
  return point !== undefined && point.batches.batches > 0 ? point.batches.rows / point.batches.batches : null;
}

/** The models that answered most of late, the busiest first; at least one where there is any. */
export function busiest(history: History, most: number): string[] {
  const answered = new Map<string, number>();
  for (const sample of history.samples.slice(-RANKED_SAMPLES)) {
    for (const [key, point] of sample.models) answered.set(key, (answered.get(key) ?? 0) + (point.answered ?? 0));
  }
  const ranked = [...answered].sort(([, a], [, b]) => b - a);
  return ranked.filter(([, total], place) => total > 0 || place === 0).map(([key]) => key).slice(0, most);
}

/** Keeps each line its colour while others come and go. */
export class Palette {
  #places = new Map<string, number>();

  /** The same keys, in an order that does not change with their rank, each with a colour. */
  assign(keys: string[]): { key: string; colour: string }[] {
    const kept = keys.slice(0, COLOURS.length);
    for (const key of this.#places.keys()) if (!kept.includes(key)) this.#places.delete(key);
    for (const key of kept) {
      if (this.#places.has(key)) continue;
      const taken = new Set(this.#places.values());
      this.#places.set(key, COLOURS.findIndex((_, place) => !taken.has(place)));
    }
    const placed = [...this.#places].sort(([, a], [, b]) => a - b);
    return placed.map(([key, place]) => ({ key, colour: COLOURS[place] ?? "series-1" }));
  }
}

/** Null where no part is known. */
function sum(parts: Figure[]): Figure {
  const there = parts.filter((each): each is number => each !== null);
  return there.length > 0 ? there.reduce((a, b) => a + b, 0) : null;
}

function isPoint(point: ModelPoint | undefined): point is ModelPoint {
  return point !== undefined;
}
