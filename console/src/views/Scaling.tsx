import { useState } from "preact/hooks";
import type { ViewProps } from "../App";
import { clock, count, duration, figure, ms, NONE } from "../format";
import { Plot } from "../parts/Plot";
import { WindowChoice } from "../parts/WindowChoice";
import type { Decision, QueueState, Scaling as State } from "../snapshot";
import { keyOf } from "../snapshot";

/** What the autoscaler sees, decides, and why. */
export function Scaling({ feed }: ViewProps) {
  const { autoscaler } = feed.snapshot!;
  const [window, setWindow] = useState(120);
  if (autoscaler === null) return <NoAutoscaler />;
  if (autoscaler.state === null) {
    return (
      <section class="empty-page">
        <h2>The autoscaler does not answer</h2>
        <p>
          Nobody is at <code>{autoscaler.address}</code>. Workers stay as they are until it is back.
        </p>
      </section>
    );
  }
  const samples = feed.history.samples;
  const times = samples.map((each) => each.at);
  const there = samples.map((each) => (each.models.size > 0 ? each.workers.size : null));
  const backlog = samples.map((each) => {
    const points = [...each.models.values()];
    return points.length > 0 ? points.reduce((sum, point) => sum + point.unanswered, 0) : null;
  });
  return (
    <>
      <Headline state={autoscaler.state} />
      <div class="head">
        <WindowChoice history={feed.history} value={window} onChange={setWindow} />
      </div>
      <section class="plots two" aria-label="Plots">
        <Plot
          title="Workers"
          unit="there, and wanted"
          times={times}
          window={window}
          show={count}
          lines={[
            { label: "there", colour: "series-1", values: there },
            { label: "wanted", colour: "series-2", dashed: true, values: samples.map((each) => each.target) },
          ]}
        />
        <Plot
          title="Backlog"
          unit="requests accepted, not answered"
          times={times}
          window={window}
          show={count}
          lines={[{ label: "all models", colour: "series-1", values: backlog }]}
        />
      </section>
      <Changes state={autoscaler.state} />
      <Queues queues={autoscaler.state.queues} />
    </>
  );
}

function NoAutoscaler() {
  return (
    <section class="empty-page">
      <h2>No autoscaler</h2>
      <p>
        This gateway was told of none: the number of workers is what somebody set. <code>headrace up --workers 0..6</code>{" "}
        runs one; elsewhere set <code>HEADRACE_AUTOSCALER</code> to its host and port at the gateway.
      </p>
    </section>
  );
}

function Headline({ state }: { state: State }) {
  const { decision } = state;
  return (
    <section class="headline">
      <p>
        <strong>{decision ? count(decision.target) : NONE}</strong> workers wanted, of {state.min_workers} to{" "}
        {state.max_workers}
        {decision && <span class="unit"> ({figure(decision.needed)} by the signals alone)</span>}
        {state.paused && <span class="tag warn">paused: nothing is done</span>}
        {!state.active && <span class="tag warn">standby; active is {state.active_address || "nobody yet"}</span>}
        {decision?.panic && <span class="tag warn">burst: nobody leaves</span>}
      </p>
      {decision && <p>{decision.reason}</p>}
      <p class="hint">
        Mode {state.mode}; acts on {state.orchestrator}
        {state.start_seconds > 0 && `; a worker takes ${figure(state.start_seconds)} s to start`}.
      </p>
    </section>
  );
}

function Changes({ state }: { state: State }) {
  const changes = [...state.changes].reverse();
  return (
    <section>
      <h2>
        Decisions <span class="unit">that changed the number, the latest first</span>
      </h2>
      {changes.length === 0 ? (
        <p class="empty">None since the autoscaler's start.</p>
      ) : (
        <ol class="changes">
          {changes.map((each) => (
            <Change key={each.unix_ms} decision={each} />
          ))}
        </ol>
      )}
    </section>
  );
}

function Change({ decision }: { decision: Decision }) {
  return (
    <li>
      <time>{clock(Number(decision.unix_ms) / 1000)}</time>
      <span class="step">
        {decision.previous} → <b>{decision.target}</b>
      </span>
      <span>{decision.reason}</span>
    </li>
  );
}

function Queues({ queues }: { queues: QueueState[] }) {
  return (
    <section>
      <h2>Signals</h2>
      {queues.length === 0 ? (
        <p class="empty">No model was asked for yet.</p>
      ) : (
        <table>
          <thead>
            <tr>
              <th scope="col">model</th>
              {["backlog", "in/s", "out/s", "ms each", "oldest"].map((label) => (
                <th key={label} scope="col" class="number">
                  {label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {queues.map((queue) => (
              <tr key={keyOf(queue)}>
                <th scope="row">{keyOf(queue)}</th>
                <td class="number">{count(queue.backlog)}</td>
                <td class="number">{figure(queue.arrival_rate)}</td>
                <td class="number">{figure(queue.service_rate)}</td>
                <td class="number">{queue.service_seconds > 0 ? ms(queue.service_seconds * 1000) : NONE}</td>
                <td class="number">{duration(queue.oldest_seconds)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
