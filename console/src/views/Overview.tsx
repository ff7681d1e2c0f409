import { useState } from "preact/hooks";
import type { ViewProps } from "../App";
import type { Feed } from "../feed";
import { Bars } from "../parts/Bars";
import { Figures } from "../parts/Figures";
import { ModelTable } from "../parts/ModelTable";
import { Plots } from "../parts/Plots";
import { ReplicaNote } from "../parts/ReplicaNote";
import { Rollouts } from "../parts/Rollouts";
import { WindowChoice } from "../parts/WindowChoice";
import { keyOf } from "../snapshot";
import { linkTo } from "../state";

/** Everything about all models, or about the one in the address. */
export function Overview({ feed, detail }: ViewProps) {
  const [window, setWindow] = useState(120);
  const { replica, status } = feed.snapshot!;
  const { models } = status;
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
      {replica !== null && <ReplicaNote replica={replica} model={models[0]!} />}
      <Figures feed={feed} scope={scope} />
      <Plots feed={feed} scope={scope} window={window} />
      {scope !== null && <Bars model={models.find((each) => keyOf(each) === scope)!} />}
      <ModelTable feed={feed} scope={scope} window={window} />
      {replica === null && <Rollouts status={status} />}
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
