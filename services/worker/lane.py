"""One model version on this worker: its queue's consumer, its line, its turns on the device."""

import asyncio

from google.protobuf.message import DecodeError

from headrace.v1.fleet_pb2 import HeldModel
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.work_pb2 import Envelope
from services.common.broker.port import Broker
from services.common.errors import InvalidArgument
from services.worker.assembly import Assembly
from services.worker.batcher import Batcher, Entry
from services.worker.device import Device
from services.worker.eagerness import Eagerness
from services.worker.entries import Entries
from services.worker.execution import failure
from services.worker.instances import several
from services.worker.intake import Held, Intake, batch_shape
from services.worker.loading import Loader
from services.worker.observation import BatchObserver
from services.worker.occupancy import Entered, Occupancy
from services.worker.recorder import Recorder
from services.worker.replies.link import Link
from services.worker.replies.links import Links
from services.worker.residents import Residents
from services.worker.runs import Runs
from services.worker.runtime.port import LoadedModel
from services.worker.subscription import Subscription
from services.worker.suspects import Suspects, claim


class Lane:
    """Consumes one version's queue for as long as `run` runs.

    Args:
        eager: load and warm up before consuming, where there is room; otherwise the first request makes it load.
        assembly: the models that it runs, where it is an ensemble.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        eager: bool,
        broker: Broker,
        links: Links,
        device: Device,
        loader: Loader[LoadedModel],
        observer: BatchObserver,
        residents: Residents,
        recorder: Recorder,
        worker_id: str,
        assembly: Assembly | None = None,
    ) -> None:
        self.version = version
        self.loader = loader
        self.consuming = asyncio.Event()
        self._links = links
        self._device = device
        self._observer = observer
        self._runs = Runs(version, loader, device, recorder, observer)
        batching = version.spec.batching
        # Batches that run at a time; two of each ahead.
        instances = self._runs.instances
        levels = version.spec.queue.priority_levels > 0
        # With levels one more, so that what goes first finds room behind what came before.
        ahead = (3 if levels else 2) * instances * batching.max_batch_size or instances + 1
        self._intake = Intake(
            links,
            came=self._came,
            take=self._take,
            settled=residents.changed,
            ahead=ahead,
        )
        self._subscription = Subscription(
            broker, version, self._intake.deliver, ahead, behind=ahead, worker_id=worker_id
        )
        key = (version.name, version.version)
        self.occupancy = Occupancy(
            key, loader, residents, self._subscription, busy=lambda: self.running > 0, parts=assembly
        )
        self._assembly = assembly
        self._work = asyncio.Event()
        self.eagerness = Eagerness(eager, self.occupancy, loader, self._work.set)
        delay = batching.max_queue_delay_us / 1e6
        turns = device.turns
        self._batcher: Batcher[Held] = Batcher(
            batching.max_batch_size, delay, turns.shares, turns.overdrafts, levels=levels
        )
        self._shape = batch_shape(version.spec)
        self._suspects = Suspects()
        self._fetching: set[asyncio.Task[None]] = set()
        self._entries = Entries()
        self._claiming = 0

    @property
    def running(self) -> int:
        """Requests taken and not yet answered."""
        waiting = len(self._entries) + len(self._suspects) + len(self._fetching)
        return waiting + self._claiming + self._runs.under_way

    @property
    def completed(self) -> int:
        """Requests run since the start."""
        return self._runs.completed

    def held(self) -> HeldModel | None:
        """What the fleet is told; None while nobody has asked for the model."""
        if (status := self.loader.status()) is not None:
            status.running, status.max_batch_size = self.running, max(1, self.version.spec.batching.max_batch_size)
            self._runs.meter.tell(status)
        return status

    async def run(self) -> None:
        """Consumes until cancelled."""
        try:
            if self.eagerness.pending:
                await self._enter()
            await self._subscription.open(loaded=self.loader.loaded)
            self.consuming.set()
            while True:
                await self._work.wait()
                self._work.clear()
                await self.occupancy.come_back()
                await self._subscription.make_room()
                if not self.loader.loaded and (self.eagerness.pending or self.running) and not await self._enter():
                    continue
                while (held := self._suspects.take(callers_wait=self._batcher.urgent)) is not None:
                    await self._run_suspect(held)
                await self._run_line()
        finally:
            for task in self._fetching:
                task.cancel()

    async def follow(self) -> None:
        """The models that an ensemble's steps name may be others now."""
        if self._assembly is not None:
            await self._assembly.follow(self.occupancy, self.loader)
            if self.occupancy.wanted and not self.loader.loaded:
                self.eagerness.again()

    def gone(self) -> None:
        """The version was deleted and the lane has drained: nothing of it is kept or exported."""
        self.occupancy.gone()
        self._observer.forget()

    async def run_dry(self, patience: float) -> None:
        """Goes on until its queue is empty: the version goes, and nobody else will answer what still waits there."""
        if self.loader.loaded:
            await self._subscription.run_dry(patience)

    async def drain(self, *, hand_back: bool = True) -> None:
        """Stops consuming and returns once all that was taken is answered and confirmed.

        Args:
            hand_back: what has not begun goes back to the queue, for other workers.
        """
        self._intake.stopping = True
        await self._subscription.close()
        if hand_back:
            self._intake.hand_back()
        self._entries.cancel_where(lambda held: held.ticket.closed)
        self._work.set()
        await self._intake.emptied()

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for this request any more."""
        self._entries.cancel(reply_to, request_id)

    def link_changed(self, link: Link) -> None:
        """A gateway can be asked for claims now, or it is gone and takes its requests with it."""
        if link.gone:
            self._entries.cancel_where(lambda held: held.link is link)
        self._work.set()

    async def _enter(self) -> bool:
        """Brings the model into memory. False: what is in line must wait; else it can be run, or told why it cannot."""
        entered = await self.eagerness.enter(asked_for=self.running > 0)
        if entered is Entered.LOADED:
            return True
        if not self.running:
            return False
        if await self.occupancy.stand_aside(self._work.set):
            self._intake.hand_back()
            self._entries.forget(self._batcher.clear())
            self._suspects.drop_closed()
            return False
        if entered is Entered.NO_ROOM:  # nobody else could run it either: ask again, for those who still wait
            self._entries.forget(self._batcher.drop(asyncio.get_running_loop().time()))
            self._work.set()
        return entered is Entered.FAILED

    def _came(self, envelope: Envelope) -> None:
        self.occupancy.came(envelope)

    def _take(self, held: Held) -> None:
        """Puts a request where it belongs."""
        work = held.work
        if held.seconds_left() <= 0 or self._links.is_cancelled(held.link.reply_to, work.id):
            held.ticket.settle()
        elif held.suspicious and self._entries.again(held):
            return
        elif work.WhichOneof("payload") == "held_bytes":
            task = asyncio.create_task(self._fetch(held), name="payload")
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        else:
            self._admit(held, work.body)

    async def _fetch(self, held: Held) -> None:
        """Claim check: the payload stayed at the gateway."""
        body = await held.link.fetch(held.work.id)
        if body is None:
            held.ticket.settle()
        elif not held.ticket.closed:  # else it was handed back meanwhile
            self._admit(held, body)

    def _admit(self, held: Held, body: bytes) -> None:
        try:
            held.parse(body, batched=self._batcher.max_rows > 0)
        except DecodeError:
            held.link.reply(failure(held.work.id, InvalidArgument("not a ModelInferRequest")), held.ticket.settle)
            return
        assert held.job is not None
        if held.suspicious:
            self._suspects.add(held)
        else:
            now, work = asyncio.get_running_loop().time(), held.work
            shape, deadline = self._shape(held.job.request), now + held.seconds_left()
            entry = Entry(held, held.job.rows, shape, now, deadline, background=held.background)
            entry.tenant, entry.weight, entry.level = work.tenant, work.weight or 1.0, work.level
            self._entries.add(entry)
            self._batcher.add(entry)
        self._work.set()

    async def _run_suspect(self, held: Held) -> None:
        """It may have been run before, and may have killed who ran it: claim it, then run it alone.

        The device is held from the claim on: a claim counts as an attempt, so no other may end the process in between.
        """
        if held.ticket.closed or held.link.gone or held.seconds_left() <= 0:
            held.ticket.settle()
            return
        held.ticket.started = True
        self._claiming = 1
        async with self._device.turns.mine(lambda: self._batcher.urgent or not held.background):
            verdict = await claim(held)
            self._claiming = 0
            if verdict is not None and verdict.run:
                await self._runs.run([held])
                return
        if verdict is None and not held.link.gone:
            self._suspects.add(held)
        else:
            held.ticket.settle()

    async def _run_line(self) -> None:
        """Batches until the line is empty or something more urgent came."""
        loop = asyncio.get_running_loop()
        while len(self._batcher):
            ready_at = self._batcher.ready_at()
            if ready_at is not None and ready_at > loop.time() and not self._intake.stopping:
                loop.call_at(ready_at, self._work.set)
                return
            async with self._device.turns.mine(lambda: self._batcher.urgent, self._batcher.had):
                if (batch := self._next_batch()) is None:
                    continue
                if self._runs.instances == 1:
                    await self._run_batch(batch)
                else:
                    await several(self._runs.instances, batch, self._another, self._run_batch, self._work)
                    self._work.set()
            if self._suspects:
                self._work.set()
                return

    def _next_batch(self) -> list[Entry[Held]] | None:
        batch, dropped = self._batcher.take(asyncio.get_running_loop().time())
        self._entries.left(batch)
        self._entries.forget(dropped)
        return batch or None

    def _another(self) -> list[Entry[Held]] | None:
        """One more batch in this turn, unless others wait for the device or company may still come."""
        ready_at = self._batcher.ready_at()
        if ready_at is None or self._device.turns.contended or self._suspects:
            return None
        loop = asyncio.get_running_loop()
        if ready_at > loop.time() and not self._intake.stopping:
            loop.call_at(ready_at, self._work.set)
            return None
        return self._next_batch()

    async def _run_batch(self, batch: list[Entry[Held]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._runs.run([entry.item for entry in batch])
        # With several at a time, each takes its part of the device's time.
        self._batcher.ran(batch, (loop.time() - began) / self._runs.instances, loop.time())
