import { useState } from "preact/hooks";
import type { Feed } from "../feed";
import { clock } from "../format";
import { linkTo } from "../state";
import { choose, theme, type Theme } from "../theme";
import { ApiKeyForm } from "./ApiKeyForm";

interface HeaderProps {
  feed: Feed;
  /** Each view's key and title. */
  titles: [string, string][];
  current: string;
}

export function Header({ feed, titles, current }: HeaderProps) {
  return (
    <header>
      <div class="bar">
        <a class="brand" href={linkTo("overview")}>
          <img src="console/icon.svg" alt="" width="20" height="20" />
          Headrace
        </a>
        <nav aria-label="Views">
          {titles.map(([key, title]) => (
            <a key={key} href={linkTo(key)} aria-current={key === current ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <Controls feed={feed} />
      </div>
      <Where feed={feed} />
    </header>
  );
}

function Controls({ feed }: { feed: Feed }) {
  const [chosen, setChosen] = useState(theme());
  const next: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
  const turn = () => {
    choose(next[chosen]);
    setChosen(next[chosen]);
  };
  return (
    <div class="controls">
      <details class="popover">
        <summary>API key</summary>
        <ApiKeyForm feed={feed} />
      </details>
      <button type="button" class="quiet" onClick={turn} title="Colours: the system's, light, dark">
        Colours: {chosen}
      </button>
    </div>
  );
}

/** Which gateway this is, or that it is a single replica; what it is connected to, and how old the picture is. */
function Where({ feed }: { feed: Feed }) {
  const status = feed.snapshot?.status;
  const scaling = feed.snapshot?.autoscaler;
  const jobs = feed.snapshot?.jobs;
  const replica = feed.snapshot?.replica;
  return (
    <div class="where">
      <span class={`phase ${feed.connection.phase}`}>
        <i class="dot" />
        {feed.connection.phase}
      </span>
      {status && (
        <>
          <time>{clock((feed.snapshot?.unix_ms ?? 0) / 1000)}</time>
          {replica ? (
            <span>single replica</span>
          ) : (
            <span>
              gateway <code>{status.gateway_id}</code>
              {status.gateways.length > 1 && `, one of ${status.gateways.length}`}
            </span>
          )}
          <span>
            {status.front === "envoy" ? "Envoy front" : "grpc.aio front"}, version {status.version}
          </span>
          {replica ? (
            <Peer name="model" up={replica.ready} />
          ) : (
            <>
              <Peer name="registry" up={status.registry_connected} />
              <Peer name="broker" up={status.broker_connected} />
            </>
          )}
          {jobs && <Peer name="jobs" up={jobs.up} />}
          {scaling && <Peer name="autoscaler" up={scaling.state !== null} />}
        </>
      )}
    </div>
  );
}

function Peer({ name, up }: { name: string; up: boolean }) {
  return (
    <span class={up ? "peer" : "peer away"}>
      <i class="dot" />
      {name} {up ? "up" : "away"}
    </span>
  );
}
