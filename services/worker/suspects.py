"""Requests that may have been run before, and may have killed who ran them: each is claimed, then run alone."""

import asyncio
from collections import deque

from headrace.v1.reply_pb2 import Verdict
from services.worker.intake import Held

# How long a gateway may take to answer a claim: the device waits.
CLAIM_SECONDS = 2.0


class Suspects:
    """A version's line of them."""

    def __init__(self) -> None:
        self._line: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def add(self, held: Held) -> None:
        """Puts one at the end of the line."""
        self._line.append(held)

    def drop_closed(self) -> None:
        """Forgets those that were handed back."""
        self._line = deque(held for held in self._line if not held.ticket.closed)

    def take(self, *, callers_wait: bool) -> Held | None:
        """The oldest whose gateway can be asked now, or that needs no asking; a lost gateway holds up only its own.

        Callers' come before the line of those that are no suspects, those of the background after the callers in it.
        """
        for held in sorted(self._line, key=lambda held: held.background):
            if held.background and callers_wait:
                return None
            if held.link.connected or held.link.gone or held.ticket.closed or held.seconds_left() <= 0:
                self._line.remove(held)
                return held
        return None


async def claim(held: Held) -> Verdict | None:
    """Asks the gateway; None: it did not answer, and other models wait for the device."""
    try:
        return await asyncio.wait_for(held.link.claim(held.work.id), CLAIM_SECONDS)
    except TimeoutError:
        return None
