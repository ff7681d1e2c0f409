import { useState } from "preact/hooks";
import { apiKey } from "../api";
import type { Feed } from "../feed";

/** Keeps the key for as long as this tab is open. */
export function ApiKeyForm({ feed }: { feed: Feed }) {
  const [key, setKey] = useState(apiKey.get());
  const [kept, setKept] = useState(apiKey.get());
  const keep = (next: string) => {
    apiKey.set(next);
    setKey(next);
    setKept(next);
    feed.restart();
  };
  return (
    <form
      class="key-form"
      onSubmit={(event) => {
        event.preventDefault();
        keep(key.trim());
      }}
    >
      <label>
        API key
        <input
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={key}
          onInput={(event) => setKey(event.currentTarget.value)}
        />
      </label>
      <div class="row">
        <button type="submit">Use it</button>
        {kept && (
          <button type="button" class="quiet" onClick={() => keep("")}>
            Forget it
          </button>
        )}
      </div>
      <p class="hint">Sent as “Authorization: Bearer …” to this server only; kept in this tab until it is closed.</p>
    </form>
  );
}
