"""One language model's version on this worker: its queue's consumer, its engine, and the way of requests to it."""

import asyncio
import logging
import time

from google.protobuf.message import DecodeError

from headrace.v1.fleet_pb2 import HeldModel
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Verdict
from headrace.v1.text_generation_pb2 import GenerateRequest
from headrace.v1.work_pb2 import Envelope
from services.common.broker.port import Broker
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, ModelFailed
from services.common.text_requests import sampling_params
from services.worker.eagerness import Eagerness
from services.worker.intake import Held, Intake
from services.worker.llm.port import TextEngine
from services.worker.loading import Loader
from services.worker.meter import Meter
from services.worker.occupancy import Entered, Occupancy
from services.worker.replies.link import Link
from services.worker.replies.links import Links
from services.worker.residents import Residents
from services.worker.subscription import Subscription
from services.worker.text.arrival import News, claimed, payload
from services.worker.text.generation import Generation
from services.worker.text.model import TextModel
from services.worker.text.observation import TextObserver
from services.worker.text.streams import Job, Streams

log = logging.getLogger(__name__)

# Sequences taken where the package does not say how many run at a time.
DEFAULT_AHEAD = 256
# A longer pause between two steps is taken for idleness.
LONGEST_STEP_SECONDS = 1.0
# Behind every priority that a caller can give (32 bits).
BACKGROUND = 2**33


class TextLane:
    """Consumes one version's queue for as long as `run` runs; implements the same as Lane.

    Args:
        eager: load before consuming; otherwise the first request makes it load.
        patience: seconds that a drain lets generations go on before it hands them to other workers.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        eager: bool,
        broker: Broker,
        links: Links,
        loader: Loader[TextModel],
        patience: float,
        residents: Residents,
        worker_id: str,
        observer: TextObserver,
    ) -> None:
        self.version = version
        self.loader = loader
        self.completed = 0
        self.meter = Meter()
        self.consuming = asyncio.Event()
        self._links = links
        self._patience = patience
        self._observer = observer
        ahead = version.spec.text.max_num_seqs or DEFAULT_AHEAD
        self._intake = Intake(
            links,
            came=self._came,
            take=self._take,
            settled=residents.changed,
            ahead=ahead,
        )
        # The background has half of the engine's places at most, so that a caller finds one.
        self._subscription = Subscription(
            broker, version, self._intake.deliver, ahead, behind=ahead // 2, worker_id=worker_id
        )
        self._streams = Streams(self._engine, self._finished)
        key = (version.name, version.version)
        self.occupancy = Occupancy(
            key,
            loader,
            residents,
            self._subscription,
            busy=lambda: bool(self._streams),
            close=self._close_engine,
        )
        self._work = asyncio.Event()
        self.eagerness = Eagerness(eager, self.occupancy, loader, self._work.set)
        self._group: asyncio.TaskGroup
        self._open: TextModel | None = None
        # One request at a time that may be what killed its last worker.
        self._alone = asyncio.Lock()
        self._news = News()

    @property
    def running(self) -> int:
        """Requests taken and not yet answered."""
        return len(self._streams)

    def held(self) -> HeldModel | None:
        """What the fleet is told; None while nobody has asked for the model. Its batches are the engine's steps."""
        if (status := self.loader.status()) is not None:
            status.running = self.running
            self.meter.tell(status)
        return status

    async def run(self) -> None:
        """Consumes until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                if self.eagerness.pending:
                    await self._enter()
                await self._subscription.open(loaded=self.loader.loaded)
                self.consuming.set()
                while True:
                    await self._work.wait()
                    self._work.clear()
                    await self.occupancy.come_back()
                    await self._subscription.make_room()
                    if not self.loader.loaded and (self.eagerness.pending or self._streams):
                        await self._enter()
        finally:
            if self._open is not None:
                await asyncio.shield(self._open.close())

    def gone(self) -> None:
        """The version was deleted and the lane has drained: nothing of it is kept or exported."""
        self.occupancy.gone()
        self._observer.forget()

    async def run_dry(self, patience: float) -> None:
        """Goes on until its queue is empty: the version goes, and nobody else will answer what still waits there."""
        if self.loader.loaded:
            await self._subscription.run_dry(patience)

    async def drain(self, *, hand_back: bool = True) -> None:
        """Stops consuming and returns once all that was taken is answered, or in other hands.

        Args:
            hand_back: what has not begun, and after `patience` what has, goes back to the queue, for other workers.
        """
        self._intake.stopping = True
        await self._subscription.close()
        if hand_back:
            self._hand_back()
            asyncio.get_running_loop().call_later(self._patience, self._streams.release_all)
        await self._intake.emptied()

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for this request any more."""
        if (job := self._streams.get((reply_to, request_id))) is not None:
            self._streams.drop(job)

    def link_changed(self, link: Link) -> None:
        """A gateway can be asked for claims now, or it is gone and takes its requests with it."""
        if link.gone:
            for job in self._streams.jobs():
                if job.held.link is link:
                    self._streams.drop(job)
        self._news.tell()

    async def _enter(self) -> None:
        """Brings the model into memory, or leaves what waits for it to others."""
        entered = await self.eagerness.enter(asked_for=bool(self._streams))
        if self.loader.model is not None:
            self._open = self.loader.model
            self._group.create_task(self._pump(self._open), name=f"tokens of {self.version.name}")
        if entered is not Entered.LOADED and self._streams and await self.occupancy.stand_aside(self._work.set):
            self._hand_back()
        self._news.tell()

    async def _close_engine(self) -> None:
        """The model leaves memory; its pump ends with it."""
        model, self._open = self._open, None
        if model is not None:
            await model.close()

    def _hand_back(self) -> None:
        """What is not with the engine goes to other workers."""
        for job in self._streams.jobs():
            if job.generation is None:
                self._streams.end(job)
                job.held.ticket.hand_back()

    def _came(self, envelope: Envelope) -> None:
        self.occupancy.came(envelope)

    def _take(self, held: Held) -> None:
        key = (held.link.reply_to, held.work.id)
        known = self._streams.get(key)
        if held.seconds_left() <= 0 or self._links.is_cancelled(*key):
            held.ticket.settle()
        elif known is not None:
            # It runs here: the broker or the gateway gave it out again. Only the debt is a new one.
            known.held.ticket.settle()
            known.held.ticket = held.ticket
        else:
            job = Job(held)
            self._streams.add(job)
            job.task = self._group.create_task(self._serve(job), name=f"generation {held.work.id}")
            self._work.set()

    async def _serve(self, job: Job) -> None:
        """Brings a request to the engine; from there on its outputs carry it."""
        try:
            async with asyncio.timeout(job.held.seconds_left()):
                await self._begin(job)
        except TimeoutError:
            self._streams.drop(job)  # its gateway knows by its own clock
        except HeadraceError as error:
            self._streams.fail(job, error)
        except Exception as error:  # one bad request must not end the lane
            log.exception("a request of '%s' could not be begun", self.version.name)
            self._streams.fail(job, ModelFailed(f"model '{self.version.name}' could not begin this request: {error}"))

    async def _begin(self, job: Job) -> None:
        held = job.held
        body = await payload(held)
        verdict = await claimed(held, self._news) if body is not None else Verdict()
        if body is None or not verdict.run:
            self._streams.drop(job)
            return
        try:
            request = GenerateRequest.FromString(body)
        except DecodeError as error:
            raise InvalidArgument("not a GenerateRequest") from error
        if held.suspicious and (verdict.attempt > 1 or not verdict.progress):
            # It may have killed who ran it, before it brought a token: the others must not die with it again.
            async with self._alone:
                await self._submit(job, request, verdict)
                await job.begun.wait()
        else:
            await self._submit(job, request, verdict)

    async def _submit(self, job: Job, request: GenerateRequest, verdict: Verdict) -> None:
        params = sampling_params(request.sampling)
        model = await self._model()
        prompt = await model.prompt(request)
        if model is not self.loader.model:  # its engine broke meanwhile
            self._streams.release(job)
            return
        held, gateway = job.held, job.held.link.reply_to.split("/")[1]
        job.generation = Generation(
            held.work, gateway, held.received_unix_us, self.version.version, model.prompts.piece
        )
        job.held.ticket.started = True
        priority = request.priority - (BACKGROUND if job.held.background else 0)
        requests = job.generation.requests(prompt, params, priority, verdict.progress)
        self._streams.submit(job, requests, model.engine)
        if not job.generation.unfinished:
            self._streams.drop(job)

    async def _model(self) -> TextModel:
        """The model, once it is in memory. Raises FailedPrecondition where it does not load."""
        while self.loader.model is None:
            if self.loader.retry_in() > 0:
                raise FailedPrecondition(self.loader.why_not())
            news = self._news.next()
            self._work.set()
            await news.wait()
        return self.loader.model

    async def _pump(self, model: TextModel) -> None:
        """Passes on what the engine brings, a step at a time: all of it leaves in one frame for each gateway."""
        stepped = time.perf_counter()
        try:
            async for outputs in model.engine.outputs():
                before, stepped = stepped, time.perf_counter()
                ended = sum(output.finish_reason is not None for output in outputs)
                seconds = min(stepped - before, LONGEST_STEP_SECONDS)
                self.meter.ran(ended, seconds, seconds)
                self._streams.pass_on(outputs)
                self._observer.step()
        except Exception:  # whatever happens to an engine, its requests go on elsewhere and it is loaded anew
            log.exception("the engine of '%s' version %d broke", self.version.name, self.version.version)
            self.occupancy.lost()
            self._streams.release_all()
            self._open = None
            await model.close()
            self._work.set()

    def _engine(self) -> TextEngine | None:
        return None if self.loader.model is None else self.loader.model.engine

    def _finished(self, job: Job, companions: int) -> None:
        self.completed += 1
        if job.generation is not None:
            self._observer.finished(job.generation, companions)
