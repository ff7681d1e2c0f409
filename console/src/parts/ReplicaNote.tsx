import { keyOf, type ModelStatus, type Replica } from "../snapshot";

/** What a single replica is, and which parts of the console it therefore has not. */
export function ReplicaNote({ replica, model }: { replica: Replica; model: ModelStatus }) {
  return (
    <section class="headline">
      <p>
        This process holds <strong>{keyOf(model)}</strong> and runs {model.language_model ? "many requests" : "one request"} at a time.
        {!replica.ready && <span class="tag warn">being loaded again: requests are refused meanwhile</span>}
      </p>
      {replica.members.length > 0 && (
        <p>
          Its steps:{" "}
          {replica.members.map((each, place) => [place > 0 && " → ", `${keyOf(each)} (${each.runtime})`])}
        </p>
      )}
      <p class="hint">
        A single replica has no queue, workers, autoscaler, rollouts or jobs, so this page has no views of them;{" "}
        <code>headrace up</code> runs all of these.
      </p>
    </section>
  );
}
