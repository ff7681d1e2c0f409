import type { ViewProps } from "../App";
import { bytes, count, duration, figure, NONE, percent } from "../format";
import type { WorkerPoint } from "../history";
import { type HeldModel, keyOf, type Worker } from "../snapshot";

/** Each worker: what it is doing, and what it holds. */
export function Workers({ feed }: ViewProps) {
  const snapshot = feed.snapshot!;
  const { workers, registry_connected } = snapshot.status;
  const points = feed.history.latest?.workers;
  if (workers.length === 0) return <NoWorkers registry={registry_connected} scaled={snapshot.autoscaler?.state != null} />;
  return (
    <section class="workers" aria-label="Workers">
      {workers.map((worker) => (
        <WorkerCard key={worker.id} worker={worker} point={points?.get(worker.id)} now={snapshot.unix_ms} />
      ))}
    </section>
  );
}

function NoWorkers({ registry, scaled }: { registry: boolean; scaled: boolean }) {
  const why = !registry
    ? "The registry is away, and it is the registry that knows the workers. Those that run go on."
    : scaled
      ? "The autoscaler has sent them all away: nothing has waited for a while. The next request wakes one."
      : "None has reported to the registry. Requests wait in the queue until one comes or they expire.";
  return (
    <section class="empty-page">
      <h2>No workers</h2>
      <p>{why}</p>
    </section>
  );
}

function WorkerCard({ worker, point, now }: { worker: Worker; point: WorkerPoint | undefined; now: number }) {
  const budget = Number(worker.memory_budget_bytes);
  const used = Number(worker.memory_used_bytes);
  return (
    <article class="worker">
      <h2>
        {worker.id} <span class="unit">{worker.device}</span>
        {worker.draining && <span class="tag">leaving</span>}
      </h2>
      <dl class="facts">
        <Fact label="requests in hand" value={count(worker.running)} />
        <Fact label="answered/s" value={figure(point?.completed)} />
        <Fact label="device busy" value={percent(point?.busy)} />
        <Fact label="answered" value={count(Number(worker.completed))} />
        <Fact label="memory" value={bytes(Number(worker.resident_bytes))} />
        <Fact label="loaded, evicted" value={`${count(Number(worker.loads))}, ${count(Number(worker.evictions))}`} />
        <Fact label="up for" value={duration((now - Number(worker.started_unix_ms)) / 1000)} />
      </dl>
      <h3>
        Holds <span class="unit">{budget > 0 ? `${bytes(used)} of ${bytes(budget)}` : `${bytes(used)}, no limit set`}</span>
      </h3>
      {budget > 0 && <meter class="budget" min={0} max={budget} value={used} aria-label="Memory that models take" />}
      {worker.models.length === 0 ? (
        <p class="empty">No model; it loads one when a request for it comes.</p>
      ) : (
        <table class="held">
          <tbody>
            {worker.models.map((model) => (
              <Held key={keyOf(model)} model={model} />
            ))}
          </tbody>
        </table>
      )}
    </article>
  );
}

function Held({ model }: { model: HeldModel }) {
  const state = model.state.replace("LOAD_STATE_", "").toLowerCase();
  return (
    <tr>
      <th scope="row">{keyOf(model)}</th>
      <td class={model.state === "LOAD_STATE_FAILED" ? "bad" : ""}>
        {state === "loading" ? `loading, ${percent(model.progress)}` : state}
        {model.reason && <span class="note">{model.reason}</span>}
      </td>
      <td class="number">{model.running > 0 ? `${count(model.running)} in hand` : ""}</td>
      <td class="number">{Number(model.memory_bytes) > 0 ? bytes(Number(model.memory_bytes)) : NONE}</td>
    </tr>
  );
}

function Fact({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}
