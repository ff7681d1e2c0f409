"""Parts of a run: what each found or why it failed, kept as they come, since a machine may be gone at any time."""

import json
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


class Report:
    """Runs parts one after the other until the time is up.

    Args:
        path: where everything found so far is written after each part, as JSON; None: nowhere.
        seconds: when this much has passed, no further part begins.
    """

    def __init__(self, path: Path | None, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.parts: dict[str, dict[str, Any]] = {}

    async def part(self, name: str, run: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any] | None:
        """Runs one part. One that raises is noted, and the others go on: a GPU is not at hand every day."""
        began = time.monotonic()
        if began > self._end:
            self._note(name, {"skipped": "the time was up"})
            return None
        try:
            found: dict[str, Any] | None = await run()
        except Exception as error:
            found = None
            self._note(name, {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})
        else:
            self._note(name, {**(found or {}), "seconds": round(time.monotonic() - began, 1)})
        return found

    @property
    def complete(self) -> bool:
        """Whether every part ran and none failed."""
        return not any("failed" in part or "skipped" in part for part in self.parts.values())

    def _note(self, name: str, found: dict[str, Any]) -> None:
        self.parts[name] = found
        print(f"{name}: {_line(found)}", flush=True)
        if self._path is not None:
            self._path.write_text(json.dumps(self.parts, indent=2) + "\n")


def _line(found: dict[str, Any]) -> str:
    if "trace" in found:
        return f"FAILED\n{found['trace']}"
    return ", ".join(f"{key} {_short(value)}" for key, value in found.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(parts: dict[str, dict[str, Any]]) -> str:
    """The loads as Markdown: a line for each number of callers and engine."""
    lines = [
        "| engine | callers | tokens/s | decode tokens/s | TTFT p50 / p99 ms | between tokens p50 / p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for found in parts.values():
        if "first_p99" not in found:
            continue
        first, gap = (f"{found[f'{kind}_p50']:.1f} / {found[f'{kind}_p99']:.1f}" for kind in ("first", "gap"))
        rates = f"{found['tokens_per_second']:.0f} | {found['decode_per_second']:.0f}"
        lines.append(f"| {found['engine']} | {found['callers']} | {rates} | {first} | {gap} |")
    return "\n".join(lines)
