"""Who takes more than his part while others are there too. Pure: time is an argument.

Rules that never idle give a flood all that others leave, and fill the others' batches up with it: a full batch takes
longer than the small one that they would have had. So a batch takes rows of a tenant who is over his part only as long
as that keeps it short: `STRETCH` times what a batch without rows takes, as learnt (`batch_cost.py`). By construction:

    the others    wait for at most STRETCH empty batches of the flood's, and it adds no more than that to theirs
    the flood     keeps (STRETCH - 1) / STRETCH of what batches of any size could give, two thirds; where rows cost
                  nothing, or batches nothing, it loses nothing
    starvation    who is not served is soon not over his part, and then his rows count like everybody's

A leaky bucket for each tenant tells who is over: what he was given fills it, his part of the device's time empties it.
Disk schedulers do likewise: whose rate stays below a bound goes first (Valente and Andreolini, "Improving Application
Responsiveness with the BFQ Disk I/O Scheduler", 2012).
"""

from collections import OrderedDict
from dataclasses import dataclass

# In simulation, where rows cost: 2 takes two thirds of its throughput from a flood, 4 adds a third to the others' p99.
STRETCH = 3
# What a tenant may be given beyond his part, in requests of the usual cost, before it counts.
BURST = 24
# Seconds for which a tenant counts as there after something of his ran.
RECENT = 10.0
# Each count takes this part of what is thought usual.
_NEW = 1 / 512


@dataclass(slots=True)
class _Account:
    weight: float
    at: float
    drawn: float = 0.0


class Overdrafts:
    """What each tenant was given beyond his part, of one device."""

    def __init__(self) -> None:
        # The longest unseen first.
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._weights = 0.0
        self._high: set[str] = set()
        self._seconds = self._requests = 0.0

    def served(self, tenant: str, weight: float, seconds: float, requests: float, now: float) -> None:
        """Something of a tenant's ran.

        Args:
            seconds: what it costs in full batches: what small ones waste is nobody's fault.
            requests: how many it were.
        """
        self._forget(now)
        account = self._accounts.setdefault(tenant, _Account(0.0, now))
        self._accounts.move_to_end(tenant)
        self._weights += weight - account.weight
        account.weight = weight
        account.drawn, account.at = self._drawn(account, now) + seconds, now
        self._seconds += (seconds - self._seconds) * _NEW
        self._requests += (requests - self._requests) * _NEW
        if account.drawn * self._requests > BURST * self._seconds:
            self._high.add(tenant)

    def over(self, now: float) -> frozenset[str]:
        """Those over their part, for the sake of somebody who is not; nobody if all are."""
        if not self._high:
            return frozenset()
        self._forget(now)
        most = BURST * self._seconds
        self._high = {
            tenant for tenant in self._high if self._drawn(self._accounts[tenant], now) * self._requests > most
        }
        return frozenset(self._high) if len(self._high) < len(self._accounts) else frozenset()

    def _drawn(self, account: _Account, now: float) -> float:
        return max(0.0, account.drawn - (now - account.at) * account.weight / self._weights)

    def _forget(self, now: float) -> None:
        while self._accounts:
            tenant, account = next(iter(self._accounts.items()))
            if account.at > now - RECENT:
                return
            del self._accounts[tenant]
            self._high.discard(tenant)
            self._weights -= account.weight
