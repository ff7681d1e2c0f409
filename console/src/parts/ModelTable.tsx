import { useState } from "preact/hooks";
import type { Feed } from "../feed";
import { count, figure, ms, NONE } from "../format";
import { meanBatch } from "../series";
import { keyOf, type ModelStatus, type Status } from "../snapshot";
import { linkTo } from "../state";
import { Spark } from "./Spark";

/** A filter is offered from here on, and rows beyond are shown when asked for. */
const MANY = 12;
const MOST = 50;

interface TableProps {
  feed: Feed;
  scope: string | null;
  window: number;
}

export function ModelTable({ feed, scope, window }: TableProps) {
  const [filter, setFilter] = useState("");
  const [all, setAll] = useState(false);
  const status = feed.snapshot!.status;
  const cluster = feed.snapshot!.replica === null;
  const found = status.models.filter((each) => keyOf(each).includes(filter.trim()));
  const shown = all ? found : found.slice(0, MOST);
  return (
    <section>
      <h2>
        Models <span class="unit">{status.models.length}</span>
        {status.models.length > MANY && (
          <input
            type="search"
            class="filter"
            aria-label="Filter models"
            placeholder="filter"
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        )}
      </h2>
      <table class="models">
        <thead>
          <tr>
            <th scope="col">model</th>
            <th scope="col" class="wide">
              runtime
            </th>
            <th scope="col" class="mid" title="answered/s over the window, each line on a scale of its own">
              traffic
            </th>
            <Head label="answered/s" />
            <Head label="unanswered" />
            <Head label="p50 ms" kind="wide" />
            <Head label="p99 ms" />
            <Head label="batch" kind="mid" />
            <Head label="failed" kind="mid" />
            {cluster && <Head label="consumers" kind="wide" />}
          </tr>
        </thead>
        <tbody>
          {shown.map((model) => (
            <Row key={keyOf(model)} model={model} status={status} feed={feed} scope={scope} window={window} />
          ))}
        </tbody>
      </table>
      {found.length === 0 && <p class="empty">No model's name has “{filter}” in it.</p>}
      {shown.length < found.length && (
        <button type="button" class="quiet" onClick={() => setAll(true)}>
          Show all {found.length}
        </button>
      )}
    </section>
  );
}

function Head({ label, kind = "" }: { label: string; kind?: string }) {
  return (
    <th scope="col" class={`number ${kind}`}>
      {label}
    </th>
  );
}

function Row({ model, status, feed, scope, window }: TableProps & { model: ModelStatus; status: Status }) {
  const key = keyOf(model);
  const samples = feed.history.samples;
  const point = feed.history.latest?.models.get(key);
  const asked = model.requests_per_second > 0;
  return (
    <tr class={key === scope ? "chosen" : ""}>
      <th scope="row">
        <a href={linkTo("overview", key)}>{key}</a> <Tags model={model} status={status} />
        <a class="try" href={linkTo("playground", key)} aria-label={`Try ${key} in the playground`}>
          try
        </a>
      </th>
      <td class="wide">{model.runtime}</td>
      <td class="mid">
        <Spark
          times={samples.map((each) => each.at)}
          values={samples.map((each) => each.models.get(key)?.answered ?? null)}
          window={window}
        />
      </td>
      <td class="number">{figure(point?.answered)}</td>
      <td class="number">{count(point?.unanswered)}</td>
      <td class="number wide">{asked ? ms(model.p50_ms) : NONE}</td>
      <td class="number">{asked ? ms(model.p99_ms) : NONE}</td>
      <td class="number mid">{figure(meanBatch(point))}</td>
      <td class={Number(model.failed) > 0 ? "number mid bad" : "number mid"}>{count(Number(model.failed))}</td>
      {feed.snapshot?.replica === null && (
        <td class={model.consumers === 0 ? "number wide muted" : "number wide"}>{count(model.consumers)}</td>
      )}
    </tr>
  );
}

/** Aliases, and the part that a version plays in its rollout. */
function Tags({ model, status }: { model: ModelStatus; status: Status }) {
  const rollout = status.rollouts.find((each) => each.name === model.name)?.rollout;
  const named = new Set(model.aliases);
  if (rollout?.stable === model.version) named.add("production");
  if (rollout?.candidate === model.version) named.add(rollout.shadow ? "shadow" : `canary ${rollout.weight} %`).delete("canary");
  return (
    <>
      {[...named].map((name) => (
        <span key={name} class="tag">
          {name}
        </span>
      ))}
    </>
  );
}
