// The overview's plots: of all models, or of one.

import { useMemo } from "preact/hooks";
import type { Feed } from "../feed";
import { count, figure, ms } from "../format";
import type { Figure, Sample } from "../history";
import { busiest, COLOURS, type Line, meanBatch, Palette, type Totals, totals } from "../series";
import { Plot } from "./Plot";

interface PlotsProps {
  feed: Feed;
  /** The model; null: all of them. */
  scope: string | null;
  /** Seconds. */
  window: number;
}

/** What each group of plots draws. */
interface Drawn extends PlotsProps {
  samples: Sample[];
  times: number[];
}

export function Plots(props: PlotsProps) {
  const { feed, window } = props;
  const all = feed.history.samples;
  const since = (feed.history.latest?.at ?? 0) - window - 2;
  const samples = all.slice(all.findIndex((each) => each.at >= since));
  const drawn = { ...props, samples, times: samples.map((each) => each.at) };
  const alone = feed.snapshot?.replica !== null;
  return (
    <section class={alone ? "plots two" : "plots"} aria-label="Plots">
      <TrafficPlots {...drawn} alone={alone} />
      <ModelPlots {...drawn} />
      {!alone && <WorkerPlots {...drawn} />}
    </section>
  );
}

/** `alone`: there is no broker in which requests could wait. */
function TrafficPlots({ samples, times, scope, window, alone }: Drawn & { alone: boolean }) {
  const sums = samples.map((each) => totals(each, scope));
  const line = (label: string, colour: string, value: (each: Totals) => Figure): Line => ({
    label,
    colour,
    values: sums.map((each) => (each === null ? null : value(each))),
  });
  const waiting = line("waiting in the broker", "series-2", (each) => each.queued);
  const unanswered = line("unanswered", "series-1", (each) => each.unanswered);
  return (
    <>
      <Plot
        title="Throughput"
        unit="requests/s"
        times={times}
        window={window}
        show={figure}
        lines={[line("failed", "bad", (each) => each.failed), line("answered", "series-1", (each) => each.answered)]}
      />
      <Plot
        title={alone ? "Unanswered" : "Queue"}
        unit="requests"
        times={times}
        window={window}
        show={count}
        lines={alone ? [unanswered] : [waiting, unanswered]}
      />
    </>
  );
}

/** A line for each of the busiest models; of one model, its own. */
function ModelPlots({ feed, samples, times, scope, window }: Drawn) {
  const palette = useMemo(() => new Palette(), []);
  const shown = palette.assign(busiest(feed.history, COLOURS.length));
  const one = (label: string, colour: string, key: string, value: (sample: Sample, key: string) => Figure): Line => ({
    label,
    colour,
    values: samples.map((each) => value(each, key)),
  });
  const each = (value: (sample: Sample, key: string) => Figure) => shown.map(({ key, colour }) => one(key, colour, key, value));
  const p50 = (sample: Sample, key: string) => sample.models.get(key)?.p50 ?? null;
  const p99 = (sample: Sample, key: string) => sample.models.get(key)?.p99 ?? null;
  const batch = (sample: Sample, key: string) => meanBatch(sample.models.get(key));
  return (
    <>
      <Plot
        title={scope === null ? "Latency, p99" : "Latency"}
        unit={`ms of the last ${feed.snapshot?.window_seconds ?? 5} s, log scale`}
        times={times}
        window={window}
        log
        show={ms}
        lines={scope === null ? each(p99) : [one("p99", "series-2", scope, p99), one("p50", "series-1", scope, p50)]}
      />
      <Plot
        title="Batch size"
        unit="mean rows"
        times={times}
        window={window}
        show={figure}
        lines={scope === null ? each(batch) : [one("mean", "series-1", scope, batch)]}
      />
    </>
  );
}

function WorkerPlots({ feed, samples, times, window }: Drawn) {
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
