// The figures that tell at a glance whether all is well.

import type { Feed } from "../feed";
import { count, figure, ms, NONE, percent } from "../format";
import type { Sample } from "../history";
import { totals } from "../series";
import { keyOf, type ModelStatus } from "../snapshot";

interface FigureProps {
  label: string;
  value: string;
  unit?: string;
  note?: string;
  bad?: boolean;
}

export function Figures({ feed, scope }: { feed: Feed; scope: string | null }) {
  const { snapshot, history } = feed;
  const sample = history.latest;
  if (snapshot === null || sample === undefined) return null;
  const alone = snapshot.replica !== null;
  const models = snapshot.status.models.filter((each) => scope === null || keyOf(each) === scope);
  const sums = totals(sample, scope);
  const failed = models.reduce((sum, each) => sum + Number(each.failed), 0);
  return (
    <dl class="figures">
      <Fact label="Answered" value={figure(sums?.answered)} unit="/s" note={`${count(answeredOf(models))} since start`} />
      <Fact
        label="Failed"
        value={figure(sums?.failed)}
        unit="/s"
        note={`${count(failed)} since start`}
        bad={(sums?.failed ?? 0) > 0}
      />
      <Fact
        label="Unanswered"
        value={count(sums?.unanswered)}
        note={alone ? "running, or in line" : `${count(sums?.queued)} waiting in the broker`}
      />
      {scope === null ? <Slowest models={models} /> : <Latency model={models[0]!} />}
      <Fact label="Mean batch" value={figure(sums?.batch)} unit="rows" note="of the last second" />
      {!alone && <WorkersFact sample={sample} />}
    </dl>
  );
}

function answeredOf(models: ModelStatus[]): number {
  return models.reduce((sum, each) => sum + Number(each.answered), 0);
}

function Latency({ model }: { model: ModelStatus }) {
  const asked = model.requests_per_second > 0;
  return (
    <Fact
      label="Latency p50"
      value={asked ? ms(model.p50_ms) : NONE}
      unit="ms"
      note={asked ? `p99 ${ms(model.p99_ms)} ms` : "no requests of late"}
    />
  );
}

function Slowest({ models }: { models: ModelStatus[] }) {
  const asked = models.filter((each) => each.requests_per_second > 0).sort((a, b) => b.p99_ms - a.p99_ms);
  const slowest = asked[0];
  return (
    <Fact
      label="Slowest p99"
      value={slowest ? ms(slowest.p99_ms) : NONE}
      unit="ms"
      note={slowest ? keyOf(slowest) : "no requests of late"}
    />
  );
}

function WorkersFact({ sample }: { sample: Sample }) {
  const busy = [...sample.workers.values()].map((each) => each.busy).filter((each) => each !== null);
  const mean = busy.length > 0 ? busy.reduce((a, b) => a + b, 0) / busy.length : null;
  const note = sample.target === null ? `devices ${percent(mean)} busy` : `${count(sample.target)} wanted, ${percent(mean)} busy`;
  return <Fact label="Workers" value={count(sample.workers.size)} note={note} />;
}

function Fact({ label, value, unit, note, bad }: FigureProps) {
  return (
    <div class={bad ? "fact bad" : "fact"}>
      <dt>{label}</dt>
      <dd>
        <span class="value">{value}</span>
        {unit && value !== NONE && <span class="unit"> {unit}</span>}
        {note && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}
