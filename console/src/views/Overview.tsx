import { useMemo, useState } from "preact/hooks";
import type { ViewProps } from "../App";
import type { Feed } from "../feed";
import { count, figure, ms } from "../format";
import type { Sample } from "../history";
import { Bars } from "../parts/Bars";
import { Figures } from "../parts/Figures";
import { ModelTable } from "../parts/ModelTable";
import { Plot } from "../parts/Plot";
import { Rollouts } from "../parts/Rollouts";
import { WindowChoice } from "../parts/WindowChoice";
import { busiest, COLOURS, type Line, meanBatch, Palette, totals } from "../series";
import { keyOf } from "../snapshot";
import { linkTo } from "../state";

/** Everything about all models, or about the one in the address. */
export function Overview({ feed, detail }: ViewProps) {
  const [window, setWindow] = useState(120);
  const models = feed.snapshot?.status.models ?? [];
  const scope = models.length === 1 ? keyOf(models[0]!) : models.some((each) => keyOf(each) === detail) ? detail : null;
  if (models.length === 0) return <NoModels />;
  return (
    <>
      <div class="head">
        <label>
          Show{" "}
          <select
            value={scope ?? ""}
            onChange={(event) => (location.hash = linkTo("overview", event.currentTarget.value))}
          >
            {models.length > 1 && <option value="">all models</option>}
            {models.map((each) => (
              <option key={keyOf(each)} value={keyOf(each)}>
                {keyOf(each)}
              </option>
            ))}
          </select>
        </label>
        <WindowChoice history={feed.history} value={window} onChange={setWindow} />
        <Scope feed={feed} />
      </div>
      <Figures feed={feed} scope={scope} />
      <Plots feed={feed} scope={scope} window={window} />
      {scope !== null && <Bars model={models.find((each) => keyOf(each) === scope)!} />}
      <ModelTable feed={feed} scope={scope} window={window} />
      <Rollouts status={feed.snapshot!.status} />
    </>
  );
}

function NoModels() {
  return (
    <section class="empty-page">
      <h2>No models yet</h2>
      <p>
        The registry knows of no model. Push one: <code>headrace push NAME PATH</code>. It appears here by itself.
      </p>
    </section>
  );
}

/** What the figures are of. */
function Scope({ feed }: { feed: Feed }) {
  const gateways = feed.snapshot?.status.gateways.length ?? 1;
  if (gateways < 2) return null;
  return (
    <p class="hint">
      Throughput, latency and batch sizes are this gateway's, one of {gateways}; queues and workers are everybody's.
    </p>
  );
}

function Plots({ feed, scope, window }: { feed: Feed; scope: string | null; window: number }) {
  const palette = useMemo(() => new Palette(), []);
  const all = feed.history.samples;
  const since = (feed.history.latest?.at ?? 0) - window - 2;
  const samples = all.slice(all.findIndex((each) => each.at >= since));
  const times = samples.map((each) => each.at);
  const sums = samples.map((each) => totals(each, scope));
  const shown = palette.assign(busiest(feed.history, COLOURS.length));
  const models = (value: (sample: Sample, key: string) => number | null): Line[] =>
    shown.map(({ key, colour }) => ({ label: key, colour, values: samples.map((each) => value(each, key)) }));
  const one = (value: (sample: Sample) => number | null | undefined, label: string, colour: string): Line => ({
    label,
    colour,
    values: samples.map((each) => value(each) ?? null),
  });
  const shared = { times, window };
  const seconds = feed.snapshot?.window_seconds ?? 5;
  return (
    <section class="plots" aria-label="Plots">
      <Plot
        {...shared}
        title="Throughput"
        unit="requests/s"
        show={figure}
        lines={[
          { label: "failed", colour: "bad", values: sums.map((each) => each?.failed ?? null) },
          { label: "answered", colour: "series-1", values: sums.map((each) => each?.answered ?? null) },
        ]}
      />
      <Plot
        {...shared}
        title="Queue"
        unit="requests"
        show={count}
        lines={[
          { label: "waiting in the broker", colour: "series-2", values: sums.map((each) => each?.queued ?? null) },
          { label: "unanswered", colour: "series-1", values: sums.map((each) => each?.unanswered ?? null) },
        ]}
      />
      <Plot
        {...shared}
        title={scope === null ? "Latency, p99" : "Latency"}
        unit={`ms of the last ${seconds} s, log scale`}
        log
        show={ms}
        lines={
          scope === null
            ? models((sample, key) => sample.models.get(key)?.p99 ?? null)
            : [
                one((sample) => sample.models.get(scope)?.p99, "p99", "series-2"),
                one((sample) => sample.models.get(scope)?.p50, "p50", "series-1"),
              ]
        }
      />
      <Plot
        {...shared}
        title="Batch size"
        unit="mean rows"
        show={figure}
        lines={
          scope === null
            ? models((sample, key) => meanBatch(sample.models.get(key)))
            : [one((sample) => meanBatch(sample.models.get(scope)), "mean", "series-1")]
        }
      />
      <WorkerPlots feed={feed} samples={samples} times={times} window={window} />
    </section>
  );
}

interface WorkerPlotsProps {
  feed: Feed;
  samples: Sample[];
  times: number[];
  window: number;
}

function WorkerPlots({ feed, samples, times, window }: WorkerPlotsProps) {
  const scaled = feed.snapshot?.autoscaler?.state != null;
  const devices = samples.map(({ workers }) => [...workers.values()].flatMap(({ busy }) => (busy === null ? [] : [100 * busy])));
  const counts: Line = {
    label: "there",
    colour: "series-1",
    values: samples.map((each) => (each.models.size > 0 ? each.workers.size : null)),
  };
  const target: Line = { label: "wanted", colour: "series-2", dashed: true, values: samples.map((each) => each.target) };
  return (
    <>
      <Plot
        title="Workers"
        unit={scaled ? "and the autoscaler's target" : ""}
        times={times}
        window={window}
        show={count}
        lines={scaled ? [counts, target] : [counts]}
      />
      <Plot
        title="Devices busy"
        unit="% of the last 5 s"
        times={times}
        window={window}
        show={count}
        top={100}
        lines={[
          { label: "busiest", colour: "series-2", values: devices.map((each) => (each.length ? Math.max(...each) : null)) },
          { label: "mean", colour: "series-1", values: devices.map(mean) },
        ]}
      />
    </>
  );
}

function mean(values: number[]): number | null {
  return values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : null;
}
