// What every view needs of the feed, and the address in the page's URL.

import { useEffect, useState } from "preact/hooks";
import type { Feed } from "./feed";

/** Draws again with each snapshot and each change of the connection. */
export function useFeed(feed: Feed): void {
  const [, set] = useState(0);
  useEffect(() => feed.subscribe(() => set((number) => number + 1)), [feed]);
}

export interface Address {
  view: string;
  /** A model's name or NAME:VERSION, where the view has one. */
  detail: string;
}

function addressOf(hash: string): Address {
  const [view = "", detail = ""] = hash.replace(/^#\/?/, "").split("/");
  return { view: view || "overview", detail: decodeURIComponent(detail) };
}

export function useAddress(): Address {
  const [address, set] = useState(() => addressOf(location.hash));
  useEffect(() => {
    const listener = () => set(addressOf(location.hash));
    addEventListener("hashchange", listener);
    return () => removeEventListener("hashchange", listener);
  }, []);
  return address;
}

/** The URL of a view. */
export function linkTo(view: string, detail = ""): string {
  return detail ? `#/${view}/${encodeURIComponent(detail)}` : `#/${view}`;
}
