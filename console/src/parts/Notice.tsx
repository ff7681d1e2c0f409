import type { Feed } from "../feed";
import { clock } from "../format";
import { ApiKeyForm } from "./ApiKeyForm";

/** Says when what is on the page is not what is going on. */
export function Notice({ feed }: { feed: Feed }) {
  const { phase, reason } = feed.connection;
  const age = feed.snapshot === null ? "" : ` This page shows ${clock(feed.snapshot.unix_ms / 1000)}.`;
  return (
    <div class="notices" role="status">
      {phase === "connecting" && <p class="notice">Connecting …</p>}
      {phase === "lost" && (
        <p class="notice bad">
          <strong>Connection lost:</strong> {reason}. Trying again …{age}
        </p>
      )}
      {phase === "denied" && (
        <div class="notice bad">
          <p>
            <strong>This server asks for an API key:</strong> {reason}
          </p>
          <ApiKeyForm feed={feed} />
        </div>
      )}
    </div>
  );
}
