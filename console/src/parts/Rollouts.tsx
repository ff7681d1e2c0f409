import { clock, count } from "../format";
import type { RolloutStatus, Status } from "../snapshot";

export function Rollouts({ status }: { status: Status }) {
  return (
    <section>
      <h2>Rollouts</h2>
      {status.rollouts.length === 0 ? (
        <p class="empty">
          No model has one: callers who name no version get the latest. <code>headrace promote NAME VERSION</code> begins
          one.
        </p>
      ) : (
        <table>
          <thead>
            <tr>
              <th scope="col">model</th>
              <th scope="col" class="number">
                production
              </th>
              <th scope="col">on trial</th>
              <th scope="col">last change</th>
            </tr>
          </thead>
          <tbody>
            {status.rollouts.map((each) => (
              <Row key={each.name} {...each} />
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Row({ name, rollout, shadow }: RolloutStatus) {
  const tried = rollout.candidate !== "0";
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="number">{rollout.stable}</td>
      <td>
        {tried ? `version ${rollout.candidate}, ${rollout.shadow ? "copies of " : ""}${rollout.weight} % of requests` : "none"}
        {shadow && (
          <span class="note">
            copies: {count(Number(shadow.matched))} alike, {count(Number(shadow.differed))} different,{" "}
            {count(Number(shadow.failed))} failed
          </span>
        )}
      </td>
      <td>
        {rollout.reason}
        <span class="note">{clock(Number(rollout.changed_unix_ms) / 1000)}</span>
      </td>
    </tr>
  );
}
