// Calls to the server of this page, a gateway or a single replica, with the API key where one was given.

const STORED = "headrace-api-key";

export const apiKey = {
  get: (): string => sessionStorage.getItem(STORED) ?? "",
  set: (key: string): void => (key ? sessionStorage.setItem(STORED, key) : sessionStorage.removeItem(STORED)),
};

/** The server answered, and it was no. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Fetches a path below the server's root. Throws Refused with the server's own words. */
export async function call(path: string, options: { body?: string; signal?: AbortSignal } = {}): Promise<Response> {
  const headers = new Headers();
  if (apiKey.get()) headers.set("authorization", `Bearer ${apiKey.get()}`);
  const init: RequestInit = { headers, cache: "no-store" };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    headers.set("content-type", "application/json");
    Object.assign(init, { method: "POST", body: options.body });
  }
  const response = await fetch(path, init);
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

/** What any call went wrong with, for people. */
export function wordsOf(error: unknown): string {
  if (error instanceof Refused) return error.message;
  if (error instanceof TypeError) return "the server cannot be reached";
  return error instanceof Error ? error.message : String(error);
}

async function reason(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error?: string | { message?: string } };
    const said = typeof error === "string" ? error : error?.message;
    if (said) return said;
  } catch {
    // no JSON: a proxy's page, most often
  }
  return `the server answered ${response.status} ${response.statusText}`.trim();
}
