"""The requests that stand in a lane's line, by who asked for them: what befalls them while they wait. No I/O."""

from collections.abc import Callable, Iterable

from services.worker.batcher import Entry
from services.worker.intake import Held


class Entries:
    """Beside the batcher, which knows their order."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int], Entry[Held]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, entry: Entry[Held]) -> None:
        """It came into line."""
        self._by_key[_key(entry.item)] = entry

    def again(self, held: Held) -> bool:
        """Whether it stands here already: the broker or the gateway gave it out again. Only the debt is a new one."""
        known = self._by_key.get(_key(held))
        if known is None or known.cancelled:
            return False
        known.item.ticket.settle()
        known.item.ticket = held.ticket
        return True

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for this one any more."""
        if (entry := self._by_key.get((reply_to, request_id))) is not None:
            entry.cancelled = True

    def cancel_where(self, lost: Callable[[Held], bool]) -> None:
        """Nobody waits here any more for those of which this is true."""
        for entry in self._by_key.values():
            entry.cancelled = entry.cancelled or lost(entry.item)

    def left(self, entries: Iterable[Entry[Held]]) -> None:
        """They stand in line no longer."""
        for entry in entries:
            self._by_key.pop(_key(entry.item), None)

    def forget(self, dropped: list[Entry[Held]]) -> None:
        """They left the line, and nobody waits for them."""
        self.left(dropped)
        for entry in dropped:
            entry.item.ticket.settle()


def _key(held: Held) -> tuple[str, int]:
    return held.link.reply_to, held.work.id
