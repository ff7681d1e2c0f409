// Jobs as /console/jobs lists them (protobuf's JSON of ListJobsResponse), and how fast they get on. Pure.

import type { Figure } from "./history";
import type { Int64 } from "./snapshot";

export interface Job {
  id: string;
  state: string;
  tenant: string;
  /** NAME or NAME:VERSION → requests. */
  models: Record<string, Int64>;
  total: Int64;
  completed: Int64;
  failed: Int64;
  created_unix_ms: Int64;
  ended_unix_ms: Int64;
}

export interface JobList {
  jobs: Job[];
  has_more: boolean;
}

/** Results are written in chunks: over so many seconds a rate is steady enough to be read. */
const RATE_SECONDS = 15;

/** Requests that have a result, an error perhaps. */
export function doneOf(job: Job): number {
  return Number(job.completed) + Number(job.failed);
}

/** "digits", or "digits and 2 more": the models with the most requests come first. */
export function modelsOf(job: Job): string {
  const [first, ...others] = Object.entries(job.models).sort(([, a], [, b]) => Number(b) - Number(a));
  if (first === undefined) return "";
  return others.length === 0 ? first[0] : `${first[0]} and ${others.length} more`;
}

/** What each job did of late. */
export class Rates {
  #seen = new Map<string, { at: number; done: number }[]>();

  /** Takes a list that came at `at`, in seconds; jobs that are not in it are forgotten. */
  push(at: number, jobs: Job[]): void {
    const before = this.#seen;
    this.#seen = new Map(
      jobs.map((job) => {
        const recent = (before.get(job.id) ?? []).filter((each) => at - each.at <= RATE_SECONDS && each.at < at);
        return [job.id, [...recent, { at, done: doneOf(job) }]];
      }),
    );
  }

  /** Requests a second; null before the second look, and of a job that has ended. */
  of(job: Job): Figure {
    const seen = this.#seen.get(job.id) ?? [];
    const [first, last] = [seen[0], seen.at(-1)];
    if (job.ended_unix_ms !== "0" || first === undefined || last === undefined || first === last) return null;
    return Math.max(0, last.done - first.done) / (last.at - first.at);
  }
}
