// What the plots draw: rates from the differences of counters, kept while the page is open. Pure.

import { keyOf, type ModelStatus, type Snapshot, type Worker } from "./snapshot";

/** null: not known, or nothing to measure; a line has a gap there. Rates are a second's. */
export type Figure = number | null;

export interface ModelPoint {
  queued: number;
  unanswered: number;
  answered: Figure;
  failed: Figure;
  p50: Figure;
  p99: Figure;
  /** Batches run since the sample before, and the rows in them. */
  batches: Batches;
}

export interface Batches {
  batches: number;
  rows: number;
}

export interface WorkerPoint {
  running: number;
  completed: Figure;
  /** Share of the time that its device spent on batches, 0 to 1. */
  busy: Figure;
}

export interface Sample {
  /** Seconds since 1970, by the server's clock. */
  at: number;
  models: Map<string, ModelPoint>;
  workers: Map<string, WorkerPoint>;
  target: Figure;
}

/** The longest window that the plots offer. */
export const KEPT_SECONDS = 30 * 60;
/** Workers report once a second, not at our seconds: over so many the error is small. */
export const WORKER_SECONDS = 5;
/** Two samples further apart have something between them that nobody saw. */
const GAP_SECONDS = 4;

export class History {
  samples: Sample[] = [];
  #recent: Snapshot[] = [];

  get latest(): Sample | undefined {
    return this.samples.at(-1);
  }

  /** Takes the next snapshot. Counters of another gateway, or of one that restarted, are not compared with the last. */
  push(next: Snapshot): void {
    const at = next.unix_ms / 1000;
    const last = this.latest;
    if (last !== undefined && (at <= last.at || at - last.at > GAP_SECONDS || !this.#same(next))) {
      this.#recent = [];
      if (at <= last.at) this.samples = [];
      else this.samples.push({ at: (last.at + at) / 2, models: new Map(), workers: new Map(), target: null });
    }
    this.#recent = this.#recent.filter((each) => at - each.unix_ms / 1000 <= WORKER_SECONDS + 0.5);
    this.samples.push({ at, models: this.#models(next), workers: this.#workers(next), target: targetOf(next) });
    this.#recent.push(next);
    const dropped = this.samples.findIndex((each) => each.at >= at - KEPT_SECONDS);
    if (dropped > 60) this.samples.splice(0, dropped);
  }

  #same(next: Snapshot): boolean {
    return this.#recent.at(-1)?.status.gateway_id === next.status.gateway_id;
  }

  #models(next: Snapshot): Map<string, ModelPoint> {
    const before = this.#recent.at(-1);
    const seconds = before === undefined ? 0 : (next.unix_ms - before.unix_ms) / 1000;
    const old = new Map(before?.status.models.map((each) => [keyOf(each), each]));
    const elsewhere = unansweredElsewhere(next);
    return new Map(
      next.status.models.map((each) => {
        const key = keyOf(each);
        return [key, modelPoint(each, old.get(key), seconds, elsewhere.get(key) ?? 0)];
      }),
    );
  }

  #workers(next: Snapshot): Map<string, WorkerPoint> {
    const before = this.#recent[0];
    const seconds = before === undefined ? 0 : (next.unix_ms - before.unix_ms) / 1000;
    const old = new Map(before?.status.workers.map((each) => [each.id, each]));
    return new Map(next.status.workers.map((each) => [each.id, workerPoint(each, old.get(each.id), seconds)]));
  }
}

function targetOf(snapshot: Snapshot): Figure {
  return snapshot.autoscaler?.state?.decision?.target ?? null;
}

/** What other gateways have accepted and not answered, by model version. */
function unansweredElsewhere(snapshot: Snapshot): Map<string, number> {
  const sums = new Map<string, number>();
  for (const gateway of snapshot.status.gateways) {
    if (gateway.id === snapshot.status.gateway_id) continue;
    for (const queue of gateway.queues) sums.set(keyOf(queue), (sums.get(keyOf(queue)) ?? 0) + queue.in_flight);
  }
  return sums;
}

function modelPoint(now: ModelStatus, before: ModelStatus | undefined, seconds: number, elsewhere: number): ModelPoint {
  const asked = now.requests_per_second > 0;
  return {
    queued: Number(now.queued),
    unanswered: now.in_flight + elsewhere,
    answered: rate(now.answered, before?.answered, seconds),
    failed: rate(now.failed, before?.failed, seconds),
    p50: asked ? now.p50_ms : null,
    p99: asked ? now.p99_ms : null,
    batches: before === undefined ? { batches: 0, rows: 0 } : newBatches(now.batch_sizes, before.batch_sizes),
  };
}

function workerPoint(now: Worker, before: Worker | undefined, seconds: number): WorkerPoint {
  const busy = before === undefined ? null : rate(busySeconds(now, before), 0, seconds);
  return {
    running: now.running,
    completed: rate(now.completed, before?.completed, seconds),
    busy: busy === null ? null : Math.min(1, busy),
  };
}

/** Device seconds between two reports, of the models that are in both. */
function busySeconds(now: Worker, before: Worker): number {
  const old = new Map(before.models.map((each) => [keyOf(each), Number(each.busy_us)]));
  const spent = now.models.map((each) => Number(each.busy_us) - (old.get(keyOf(each)) ?? Number(each.busy_us)));
  return spent.reduce((sum, each) => sum + Math.max(0, each), 0) / 1e6;
}

function rate(now: string | number, before: string | number | undefined, seconds: number): Figure {
  const more = Number(now) - Number(before);
  return seconds > 0 && more >= 0 ? more / seconds : null;
}

function newBatches(now: Record<string, string>, before: Record<string, string>): Batches {
  const since = { batches: 0, rows: 0 };
  for (const [size, count] of Object.entries(now)) {
    const more = Math.max(0, Number(count) - Number(before[size] ?? 0));
    since.batches += more;
    since.rows += more * Number(size);
  }
  return since;
}
