// Light or dark: the system's choice until the reader makes one, which his browser keeps.

export type Theme = "system" | "light" | "dark";

const STORED = "headrace-theme";
const changed = new EventTarget();
const dark = matchMedia("(prefers-color-scheme: dark)");

export function theme(): Theme {
  const said = localStorage.getItem(STORED);
  return said === "light" || said === "dark" ? said : "system";
}

export function choose(next: Theme): void {
  if (next === "system") localStorage.removeItem(STORED);
  else localStorage.setItem(STORED, next);
  apply();
}

export function apply(): void {
  const chosen = theme();
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
  changed.dispatchEvent(new Event("change"));
}

/** Calls `listener` when colours change; returns what ends that. */
export function onColours(listener: () => void): () => void {
  changed.addEventListener("change", listener);
  dark.addEventListener("change", listener);
  return () => {
    changed.removeEventListener("change", listener);
    dark.removeEventListener("change", listener);
  };
}

/** A colour of style.css by its variable's name, as it is now. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
