import { useEffect, useRef, useState } from "preact/hooks";
import type { ViewProps } from "../App";
import { call, wordsOf } from "../api";
import { count } from "../format";
import { type JobList, Rates } from "../jobs";
import { JobTable } from "../parts/JobTable";
import type { Backlog } from "../snapshot";

const PERIOD_MS = 2000;
const FEW = 20;
/** The most that the service lists in one answer. */
const MOST = 100;

/** Jobs as `headrace job list` has them, and what of them is still to be sent. */
export function Jobs({ feed }: ViewProps) {
  const [limit, setLimit] = useState(FEW);
  const { list, error, rates } = useJobs(limit);
  const snapshot = feed.snapshot!;
  return (
    <>
      {snapshot.jobs?.up === false ? (
        <p class="notice bad" role="status">
          <strong>The job service is away:</strong> nobody answers at {snapshot.jobs.address}. Jobs are kept, and go on when it is back.
        </p>
      ) : (
        error && (
          <p class="notice bad" role="status">
            <strong>The list of jobs cannot be had:</strong> {error}. Trying again …
          </p>
        )
      )}
      <Waiting backlogs={snapshot.status.backlogs} />
      <section>
        <h2>
          Jobs <span class="unit">the latest first</span>
        </h2>
        {list === null && !error && <p class="empty">Reading the list of jobs …</p>}
        {list?.jobs.length === 0 && (
          <p class="empty">
            There is none. <code>headrace job submit requests.jsonl --model NAME</code> hands one over.
          </p>
        )}
        {list !== null && list.jobs.length > 0 && <JobTable jobs={list.jobs} rates={rates} now={snapshot.unix_ms} />}
        {list?.has_more && <More limit={limit} show={() => setLimit(MOST)} last={list.jobs.at(-1)!.id} />}
      </section>
    </>
  );
}

function More({ limit, show, last }: { limit: number; show: () => void; last: string }) {
  if (limit < MOST) {
    return (
      <button type="button" class="quiet" onClick={show}>
        Show more
      </button>
    );
  }
  return (
    <p class="hint">
      There are older ones: <code>headrace job list --after {last}</code>
    </p>
  );
}

/** The backlog: it is not in any queue yet. */
function Waiting({ backlogs }: { backlogs: Backlog[] }) {
  const waiting = backlogs.flatMap((each) => each.waiting);
  const all = waiting.reduce((sum, each) => sum + Number(each.requests), 0);
  return (
    <section class="headline">
      <p>
        <strong>{count(all)}</strong> requests of jobs are still to be sent
        {waiting.length > 0 && ": "}
        {waiting.map((each) => `${count(Number(each.requests))} to ${each.name}${each.version === "0" ? "" : `:${each.version}`}`).join(", ")}
      </p>
      <p class="hint">They are sent a few at a time, in the background: everybody else's requests go first.</p>
    </section>
  );
}

/** Asked again and again while the view is open, with this tab's key: who asks sees what is his to see. */
function useJobs(limit: number) {
  const [list, setList] = useState<JobList | null>(null);
  const [error, setError] = useState("");
  const rates = useRef(new Rates()).current;
  useEffect(() => {
    const leaving = new AbortController();
    let timer = 0;
    const ask = async () => {
      try {
        const response = await call(`console/jobs?limit=${limit}`, { signal: leaving.signal });
        const next = (await response.json()) as JobList;
        rates.push(performance.now() / 1000, next.jobs);
        setList(next);
        setError("");
      } catch (problem) {
        if (!leaving.signal.aborted) setError(wordsOf(problem));
      }
    };
    const turn = async () => {
      if (!document.hidden) await ask();
      if (!leaving.signal.aborted) timer = setTimeout(() => void turn(), PERIOD_MS) as unknown as number;
    };
    void turn();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [limit]);
  return { list, error, rates };
}
