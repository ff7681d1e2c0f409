"""One model version on this worker: its queue's consumer, its line, its turns on the device."""

import asyncio
import contextlib
import logging
import time
from collections import deque

from google.protobuf.message import DecodeError

from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Reply
from headrace.v1.work_pb2 import Envelope
from services.common.broker.port import Broker, Consumer, Delivery
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, Unavailable
from services.common.queues import queue_name, queue_spec
from services.worker.batcher import Batcher, Entry
from services.worker.device import Device
from services.worker.execution import Job, failure, run_batch
from services.worker.intake import Held, batch_shape
from services.worker.loading import Loader
from services.worker.replies.links import Links
from services.worker.replies.ticket import Ticket

log = logging.getLogger(__name__)

# Consumers of a loaded model are served first; work spills to those who must load it when they are saturated.
LOADED_PRIORITY = 10
RETRY_SECONDS = 0.5


class Lane:
    """Consumes one version's queue for as long as `run` runs.

    Args:
        eager: load and warm up before consuming; otherwise the first request makes it load.
    """

    def __init__(
        self, version: ModelVersion, *, eager: bool, broker: Broker, links: Links, device: Device, loader: Loader
    ) -> None:
        self.version = version
        self.loader = loader
        self.completed = 0
        self._eager = eager
        self._broker = broker
        self._links = links
        self._device = device
        batching = version.spec.batching
        self._batcher: Batcher[Held] = Batcher(batching.max_batch_size, batching.max_queue_delay_us / 1e6)
        self._shape = batch_shape(version.spec)
        self._suspects: deque[Held] = deque()
        self._fetching: set[asyncio.Task[None]] = set()
        self._entries: dict[tuple[str, int], Entry[Held]] = {}
        self._tickets: set[Ticket] = set()
        self._work = asyncio.Event()
        self._consumer: Consumer | None = None
        self._stopping = False
        self.settled = asyncio.Event()
        self.consuming = asyncio.Event()

    @property
    def running(self) -> int:
        """Requests taken and not yet answered."""
        return len(self._entries) + len(self._suspects)

    async def run(self) -> None:
        """Consumes until cancelled."""
        if self._eager:
            await self.loader.load()
        await self._consume(loaded=self.loader.loaded)
        while True:
            await self._work.wait()
            self._work.clear()
            if not self.loader.loaded:
                await self.loader.load()
                await self._consume_if_loaded()
            while self._suspects:
                await self._run_suspect(self._suspects.popleft())
            await self._run_line()

    async def drain(self) -> None:
        """Stops consuming, hands back what has not begun, and returns once the rest is confirmed."""
        self._stopping = True
        if self._consumer is not None:
            with contextlib.suppress(Unavailable):  # the broker is away: nothing comes from it either
                await self._consumer.cancel()
        for ticket in [ticket for ticket in self._tickets if not ticket.started]:
            ticket.hand_back()
        for entry in self._entries.values():
            entry.cancelled = entry.cancelled or entry.item.ticket.closed
        self._suspects = deque(held for held in self._suspects if not held.ticket.closed)
        self._work.set()
        while self._tickets:
            self.settled.clear()
            await self.settled.wait()

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for this request any more."""
        if (entry := self._entries.get((reply_to, request_id))) is not None:
            entry.cancelled = True

    async def _consume_if_loaded(self) -> None:
        if self.loader.loaded and not self._stopping:
            await self._consume(loaded=True)

    async def _consume(self, *, loaded: bool) -> None:
        """Subscribes, at full prefetch once the model is loaded."""
        old, batch = self._consumer, self.version.spec.batching.max_batch_size
        prefetch, priority = (max(2, 2 * batch), LOADED_PRIORITY) if loaded else (1, 0)
        while True:
            try:
                await self._broker.declare(queue_spec(self.version))
                self._consumer = await self._broker.consume(
                    queue_name(self.version.name, self.version.version),
                    self._on_delivery,
                    prefetch=prefetch,
                    priority=priority,
                )
                if old is not None:
                    await old.cancel()
                self.consuming.set()
                return
            except HeadraceError as error:
                log.warning("cannot consume %s: %s", queue_name(self.version.name, self.version.version), error)
                await asyncio.sleep(RETRY_SECONDS)

    def _on_delivery(self, delivery: Delivery) -> None:
        """Opens an envelope. What cannot be read goes to the dead letters, with a word in the log."""
        if self._stopping:
            delivery.requeue()
            return
        try:
            envelope = Envelope.FromString(delivery.message.body)
            link = self._links.to(delivery.message.reply_to)
        except (DecodeError, ValueError) as error:
            log.warning("a message that is not an envelope was rejected: %s", error)
            delivery.reject()
            return
        ticket = Ticket(delivery, len(envelope.requests), self._on_settled)
        self._tickets.add(ticket)
        link.owe(ticket)
        now_us = time.time_ns() // 1000
        for work in envelope.requests:
            held = Held(work, ticket, link, now_us, delivery.redelivered or work.attempt > 0)
            if held.seconds_left() <= 0 or self._links.is_cancelled(link.reply_to, work.id):
                ticket.settle()
            elif work.WhichOneof("payload") == "held_bytes":
                task = asyncio.create_task(self._fetch(held), name="payload")
                self._fetching.add(task)
                task.add_done_callback(self._fetching.discard)
            else:
                self._admit(held, work.body)
        if not envelope.requests:
            ticket.settle()

    async def _fetch(self, held: Held) -> None:
        """Claim check: the payload stayed at the gateway."""
        body = await held.link.fetch(held.work.id)
        if body is None:
            held.ticket.settle()
        else:
            self._admit(held, body)

    def _admit(self, held: Held, body: bytes) -> None:
        try:
            held.parse(body)
        except DecodeError:
            held.link.reply(failure(held.work.id, InvalidArgument("not a ModelInferRequest")), held.ticket)
            return
        assert held.job is not None
        if held.suspicious:
            self._suspects.append(held)
        else:
            loop_now = asyncio.get_running_loop().time()
            entry = Entry(held, held.job.rows, self._shape(held.job.request), loop_now, loop_now + held.seconds_left())
            self._entries[held.link.reply_to, held.work.id] = entry
            self._batcher.add(entry)
        self._work.set()

    async def _run_suspect(self, held: Held) -> None:
        """It may have been run before, and may have killed who ran it: claim it, then run it alone."""
        held.ticket.started = True
        if held.seconds_left() <= 0 or not await held.link.claim(held.work.id):
            held.ticket.settle()
            return
        async with self._device.turn:
            await self._execute([held])

    async def _run_line(self) -> None:
        """Batches until the line is empty or something more urgent came."""
        loop = asyncio.get_running_loop()
        while len(self._batcher) and not self._suspects:
            ready_at = self._batcher.ready_at()
            if ready_at is not None and ready_at > loop.time():
                loop.call_at(ready_at, self._work.set)
                return
            async with self._device.turn:
                batch, dropped = self._batcher.take(loop.time())
                for entry in [*batch, *dropped]:
                    self._entries.pop((entry.item.link.reply_to, entry.item.work.id), None)
                for entry in dropped:
                    entry.item.ticket.settle()
                if batch:
                    await self._execute([entry.item for entry in batch])
        if self._suspects:
            self._work.set()

    async def _execute(self, batch: list[Held]) -> None:
        """Runs a batch on the device and hands the replies over."""
        for held in batch:
            held.ticket.started = True
        jobs = [held.job for held in batch if held.job is not None]
        for held, reply in zip(batch, await self._replies(jobs), strict=True):
            held.link.reply(reply, held.ticket)
        self.completed += len(batch)

    async def _replies(self, jobs: list[Job]) -> list[Reply]:
        model = self.loader.model
        if model is None:
            error = FailedPrecondition(self.loader.why_not())
            return [failure(job.id, error) for job in jobs]
        return await self._device.run(lambda: run_batch(model, self.version, jobs))

    def _on_settled(self, ticket: Ticket) -> None:
        self._tickets.discard(ticket)
        self.settled.set()
