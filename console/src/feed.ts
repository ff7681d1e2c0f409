// The live data: one stream, begun again whenever it breaks.

import { call, Refused, wordsOf } from "./api";
import { History } from "./history";
import type { Snapshot } from "./snapshot";
import { events } from "./sse";

/** No word for so long: the connection is dead, whatever TCP believes. */
const SILENCE_MS = 15_000;
const LONGEST_WAIT_MS = 8_000;

export interface Connection {
  /** "denied": the server wants an API key, or a better one. */
  phase: "connecting" | "live" | "lost" | "denied";
  /** Why, where it is not live. */
  reason: string;
}

export class Feed {
  readonly history = new History();
  snapshot: Snapshot | null = null;
  connection: Connection = { phase: "connecting", reason: "" };
  #listeners = new Set<() => void>();
  #attempt = new AbortController();

  /** Calls `listener` after every change; returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begins again at once: there is a new API key. */
  restart(): void {
    this.#attempt.abort(new Error("asking again with the new key"));
  }

  /** Reads for ever. */
  async run(): Promise<never> {
    let wait = 500;
    while (true) {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      try {
        await this.#read(signal);
      } catch (error) {
        const denied = error instanceof Refused && (error.status === 401 || error.status === 403);
        wait = this.connection.phase === "live" ? 500 : Math.min(2 * wait, LONGEST_WAIT_MS);
        this.#tell({ phase: denied ? "denied" : "lost", reason: wordsOf(error) });
      }
      await this.#pause(wait);
    }
  }

  async #read(signal: AbortSignal): Promise<never> {
    const response = await call("console/live", { signal });
    if (response.body === null) throw new Error("the server sent nothing");
    const attempt = this.#attempt;
    const silence = new Watchdog(() => attempt.abort(new Error(`the server has been silent for ${SILENCE_MS / 1000} s`)));
    try {
      for await (const data of events(response.body)) {
        silence.reset();
        this.snapshot = JSON.parse(data) as Snapshot;
        this.history.push(this.snapshot);
        this.#tell({ phase: "live", reason: "" });
      }
    } finally {
      silence.end();
    }
    throw new Error("the server ended the stream");
  }

  /** Waits, unless a restart comes: that also ends the wait. */
  #pause(ms: number): Promise<void> {
    const { signal } = (this.#attempt = new AbortController());
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }

  #tell(connection: Connection): void {
    this.connection = connection;
    for (const listener of this.#listeners) listener();
  }
}

class Watchdog {
  #timer = 0;
  constructor(private readonly bark: () => void) {
    this.reset();
  }
  reset(): void {
    this.end();
    this.#timer = setTimeout(this.bark, SILENCE_MS) as unknown as number;
  }
  end(): void {
    clearTimeout(this.#timer);
  }
}
