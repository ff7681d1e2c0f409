"""The loop: look, decide, act, tell."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from math import inf

from headrace.v1.fleet_pb2 import WatchFleetResponse
from services.autoscaler.limits import Orders
from services.autoscaler.observation import ScalingObserver
from services.autoscaler.orchestrators.port import Instance, Orchestrator
from services.autoscaler.orchestrators.victims import victims
from services.autoscaler.policy.config import PolicyConfig
from services.autoscaler.policy.decide import Memory, decide
from services.autoscaler.policy.observation import Decision
from services.autoscaler.senses import FleetWatch
from services.autoscaler.signals.picture import Painter
from services.autoscaler.signals.views import Picture, QueueDepth, QueueKey
from services.autoscaler.signals.workers import Phase
from services.common.errors import HeadraceError

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# Not more often, whatever news there is.
PAUSE_SECONDS = 0.05
CHANGES_KEPT = 50

Depths = Callable[[list[QueueKey]], Awaitable[dict[QueueKey, QueueDepth] | None]]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, when it was made, and the target before it."""

    decision: Decision
    previous: int
    unix_ms: int

    @property
    def changed(self) -> bool:
        """The target is another than before."""
        return self.decision.target != self.previous


class Scaling:
    """Decides each second, and at once when a request finds no worker.

    An autoscaler that is not active decides, too, so that it knows the past when it becomes active; it does not act.

    Args:
        orchestrator: None: others act.
        observer: told of every look and decision.
        active: whether this process may act now.
    """

    def __init__(
        self,
        config: PolicyConfig,
        *,
        painter: Painter,
        fleet: FleetWatch,
        depths: Depths,
        orchestrator: Orchestrator | None,
        observer: ScalingObserver,
        active: Callable[[], bool],
    ) -> None:
        self._config = self._default = config
        self._painter = painter
        self._fleet = fleet
        self._depths = depths
        self._orchestrator = orchestrator
        self._observer = observer
        self._active = active
        self._memory = Memory()
        self._told = asyncio.Condition()
        self.orders = Orders()
        self.picture = painter.paint(time.monotonic(), WatchFleetResponse(), inf, None, None)
        self.decided: Decided | None = None
        self.changes: deque[Decided] = deque(maxlen=CHANGES_KEPT)

    @property
    def config(self) -> PolicyConfig:
        """With the limits as they are now."""
        return self._config

    def obey(self, orders: Orders) -> None:
        """What the operator has set, now and from the next decision on."""
        self._config = replace(self._default, limits=orders.limits or self._default.limits)
        self.orders = orders

    def take_over(self) -> None:
        """This process becomes the active one: it begins from what is there, not from what it would have done."""
        self._memory = replace(self._memory, targets=())

    async def run(self) -> None:
        """Ticks for ever."""
        while True:
            try:
                await self.tick()
            except HeadraceError as error:
                log.warning("nothing decided: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await asyncio.wait_for(self._fleet.news.wait(), TICK_SECONDS - PAUSE_SECONDS)
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """One look, one decision, and what follows from it. Raises Unavailable."""
        self._fleet.news.clear()
        instances = None if self._orchestrator is None else await self._orchestrator.instances()
        depths = await self._depths(self._fleet.queues())
        now = time.monotonic()
        self.picture = self._painter.paint(now, self._fleet.latest, self._fleet.age(now), depths, instances)
        previous = self.decided.decision.target if self.decided else self.picture.observation.workers
        decision, self._memory = decide(now, self.picture.observation, self._memory, self._config)
        self.decided = Decided(decision, previous, time.time_ns() // 1_000_000)
        self._observer.saw(self.picture)
        self._observer.decided(decision, previous, self._config.limits, active=self._active())
        if self.decided.changed:
            self.changes.append(self.decided)
            log.info("%d → %d workers: %s", previous, decision.target, decision.reason)
        async with self._told:
            self._told.notify_all()
        if self._orchestrator is not None and instances is not None and self._active() and not self.orders.paused:
            await _act(self._orchestrator, decision.target, self.picture, instances)

    async def decisions(self) -> AsyncIterator[Decided]:
        """The last one, then each as it is made; who is slow misses some."""
        last: Decided | None = None
        while True:
            async with self._told:
                while self.decided is None or self.decided is last:
                    await self._told.wait()
                last = self.decided
            yield last


async def _act(orchestrator: Orchestrator, target: int, picture: Picture, instances: list[Instance]) -> None:
    """Makes the number true: the stuck are replaced, the missing added, the superfluous told to leave."""
    known = {instance.id for instance in instances if not instance.leaving}
    staying = [worker for worker in picture.workers if worker.id in known and worker.phase is not Phase.LEAVING]
    if stuck := [worker.id for worker in staying if worker.phase is Phase.STUCK]:
        log.warning("no progress, replaced: %s", ", ".join(stuck))
        await orchestrator.remove(stuck)
        staying = [worker for worker in staying if worker.id not in stuck]
    if target > len(staying):
        await orchestrator.add(target - len(staying))
    elif leaving := victims(staying, len(staying) - target):
        log.info("leaving: %s", ", ".join(leaving))
        await orchestrator.remove(leaving)
