"""Stop strings in text that comes in pieces: no part of one is ever let out, wherever the pieces are cut."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class StopStrings:
    """Lets text through until a stop string is complete.

    Of several the one that is complete first counts, and of those that end together the longest. So what comes out
    depends on the text alone, not on its pieces, and replaying it leads to the same state.

    Attributes:
        strings: none of them empty.
        include: whether the one that is found belongs to the text (`include_stop_str_in_output`).
        found: the one that ended the text; nothing comes out after it.
    """

    strings: tuple[str, ...]
    include: bool = False
    found: str | None = None
    _held: str = field(default="", init=False)

    def push(self, piece: str, *, counts: bool = True) -> str:
        """The text that is certain after one more piece: what may be the beginning of a stop string waits.

        Args:
            counts: whether a stop string that this piece completes ends the text.
        """
        if self.found is not None:
            return ""
        text = self._held + piece
        ends = self._ends(text) if counts else []
        if ends:
            end, length, self.found = min(ends)
            self._held = ""
            return text[: end if self.include else end + length]
        keep = max((_overlap(text, stop) for stop in self.strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What waited, at the end of the text: it became no stop string."""
        held, self._held = self._held, ""
        return held

    def _ends(self, text: str) -> list[tuple[int, int, str]]:
        """Each stop string that ends past what was held: where, its length negated, and itself."""
        found = []
        for stop in self.strings:
            at = text.find(stop, max(0, len(self._held) + 1 - len(stop)))
            if at >= 0:
                found.append((at + len(stop), -len(stop), stop))
        return found


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of the whole of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
