"""One language model's version on this worker: its queue's consumer, its streams, and what becomes of them."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from headrace.v1.fleet_pb2 import HeldModel
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Reply, Verdict
from headrace.v1.text_generation_pb2 import GenerateRequest
from services.common.broker.port import Broker, Delivery
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, ModelFailed
from services.common.text_requests import sampling_params
from services.worker.execution import failure
from services.worker.intake import Held, opened
from services.worker.llm.port import TokenOutput
from services.worker.loading import Loader
from services.worker.meter import Meter
from services.worker.occupancy import Entered, Occupancy
from services.worker.replies.link import Link
from services.worker.replies.links import Links
from services.worker.replies.ticket import Ticket
from services.worker.residents import Residents
from services.worker.subscription import Subscription
from services.worker.text.generation import Generation
from services.worker.text.model import TextModel

log = logging.getLogger(__name__)

# Sequences taken where the package does not say how many run at a time.
DEFAULT_AHEAD = 256
# A longer pause between two steps is taken for idleness.
LONGEST_STEP_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Job:
    """One request from its delivery to its last token.

    Attributes:
        begun: its first output came, or it is over.
        generation: None until it is with the engine.
    """

    held: Held
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    generation: Generation | None = None


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
    ) -> None:
        self.version = version
        self.loader = loader
        self.completed = 0
        self.meter = Meter()
        self.consuming = asyncio.Event()
        self._eager = eager
        self._links = links
        self._patience = patience
        ahead = version.spec.text.max_num_seqs or DEFAULT_AHEAD
        self._subscription = Subscription(broker, version, self._on_delivery, ahead, worker_id=worker_id)
        key = (version.name, version.version)
        self.occupancy = Occupancy(
            key,
            loader,
            residents,
            self._subscription,
            busy=lambda: bool(self._jobs),
            close=self._close_engine,
        )
        self.occupancy.want(eager)
        self._residents = residents
        self._jobs: dict[tuple[str, int], _Job] = {}
        self._sequences: dict[str, _Job] = {}
        self._tickets: set[Ticket] = set()
        self._group: asyncio.TaskGroup
        self._open: TextModel | None = None
        # One request at a time that may be what killed its last worker.
        self._alone = asyncio.Lock()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._stopping = False

    @property
    def running(self) -> int:
        """Requests taken and not yet answered."""
        return len(self._jobs)

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
                if self._eager:
                    await self._enter()
                await self._subscription.open(loaded=self.loader.loaded)
                self.consuming.set()
                while True:
                    await self._work.wait()
                    self._work.clear()
                    if not self.loader.loaded and (self._eager or self._jobs):
                        await self._enter()
                    await self.occupancy.come_back()
        finally:
            if self._open is not None:
                await asyncio.shield(self._open.close())

    def want(self, wanted: bool) -> None:
        """Something names this version (it is the latest, or has an alias): load it before it is asked for."""
        if wanted and not self.occupancy.wanted:
            self._eager = True
            self._work.set()
        self.occupancy.want(wanted)

    def gone(self) -> None:
        """The version was deleted and the lane has drained: nothing of it is kept."""
        self.occupancy.gone()

    async def drain(self, *, hand_back: bool = True) -> None:
        """Stops consuming and returns once all that was taken is answered, or in other hands.

        Args:
            hand_back: what has not begun, and after `patience` what has, goes back to the queue, for other workers.
        """
        self._stopping = True
        await self._subscription.close()
        if hand_back:
            self._hand_back()
            asyncio.get_running_loop().call_later(self._patience, self._release_all)
        while self._tickets:
            self._settled.clear()
            await self._settled.wait()

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for this request any more."""
        if (job := self._jobs.get((reply_to, request_id))) is not None:
            self._drop(job)

    def link_changed(self, link: Link) -> None:
        """A gateway can be asked for claims now, or it is gone and takes its requests with it."""
        if link.gone:
            for job in [job for job in self._jobs.values() if job.held.link is link]:
                self._drop(job)
        self._tell()

    async def _enter(self) -> None:
        """Brings the model into memory; one that is wanted at once and fails is tried again a while later."""
        eager, self._eager = self._eager, False
        entered = await self.occupancy.enter(urgent=bool(self._jobs))
        if self.loader.model is not None:
            self._open = self.loader.model
            self._group.create_task(self._pump(self._open), name=f"tokens of {self.version.name}")
        elif entered is Entered.FAILED and eager:
            self._eager = True
            asyncio.get_running_loop().call_later(self.loader.retry_in(), self._work.set)
        if entered is not Entered.LOADED and self._jobs and await self.occupancy.stand_aside(self._work.set):
            self._hand_back()
        self._tell()

    async def _close_engine(self) -> None:
        """The model leaves memory; its pump ends with it."""
        model, self._open = self._open, None
        if model is not None:
            await model.close()

    def _hand_back(self) -> None:
        """What is not with the engine goes to other workers."""
        for job in [job for job in self._jobs.values() if job.generation is None]:
            self._end(job)
            job.held.ticket.hand_back()

    def _on_delivery(self, delivery: Delivery) -> None:
        """Opens an envelope and begins what is in it."""
        if self._stopping:
            delivery.requeue()
            return
        if (found := opened(delivery, self._links)) is None:
            return
        envelope, link = found
        ticket = Ticket(delivery, max(1, len(envelope.requests)), lambda ticket: self._on_settled(ticket, link))
        self._tickets.add(ticket)
        link.owe()
        self.occupancy.used_at = asyncio.get_running_loop().time()
        now_us = time.time_ns() // 1000
        for work in envelope.requests:
            self._take(Held(work, ticket, link, now_us, delivery.redelivered or work.attempt > 0))
        if not envelope.requests:
            ticket.settle()

    def _take(self, held: Held) -> None:
        key = (held.link.reply_to, held.work.id)
        known = self._jobs.get(key)
        if held.seconds_left() <= 0 or self._links.is_cancelled(*key):
            held.ticket.settle()
        elif known is not None:
            # It runs here: the broker or the gateway gave it out again. Only the debt is a new one.
            known.held.ticket.settle()
            known.held.ticket = held.ticket
        else:
            job = self._jobs[key] = _Job(held)
            job.task = self._group.create_task(self._serve(job), name=f"generation {held.work.id}")
            self._work.set()

    async def _serve(self, job: _Job) -> None:
        """Brings a request to the engine; from there on its outputs carry it."""
        try:
            async with asyncio.timeout(job.held.seconds_left()):
                await self._begin(job)
        except TimeoutError:
            self._drop(job)  # its gateway knows by its own clock
        except HeadraceError as error:
            self._fail(job, error)
        except Exception as error:  # one bad request must not end the lane
            log.exception("a request of '%s' could not be begun", self.version.name)
            self._fail(job, ModelFailed(f"model '{self.version.name}' could not begin this request: {error}"))

    async def _begin(self, job: _Job) -> None:
        held = job.held
        body = held.work.body
        if held.work.WhichOneof("payload") == "held_bytes":
            fetched = await held.link.fetch(held.work.id)
            if fetched is None:
                self._drop(job)
                return
            body = fetched
        verdict = await self._claim(held) if held.suspicious else Verdict(run=True, attempt=1)
        if not verdict.run:
            self._drop(job)
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

    async def _claim(self, held: Held) -> Verdict:
        """Asks the gateway until it answers, or is gone."""
        while not held.link.gone:
            news = self._news
            verdict = await held.link.claim(held.work.id)
            if verdict is not None:
                return verdict
            if not held.link.connected:
                await news.wait()
        return Verdict()

    async def _submit(self, job: _Job, request: GenerateRequest, verdict: Verdict) -> None:
        params = sampling_params(request.sampling)
        model = await self._model()
        prompt = await model.prompt(request)
        if model is not self.loader.model:  # its engine broke meanwhile
            self._release(job)
            return
        job.generation = Generation(job.held, self.version.version, model.prompts.piece)
        job.held.ticket.started = True
        for sequence in job.generation.requests(prompt, params, request.priority, verdict.progress):
            self._sequences[sequence.id] = job
            model.engine.submit(sequence)
        if not job.generation.unfinished:
            self._drop(job)

    async def _model(self) -> TextModel:
        """The model, once it is in memory. Raises FailedPrecondition where it does not load."""
        while self.loader.model is None:
            if self.loader.retry_in() > 0:
                raise FailedPrecondition(self.loader.why_not())
            news = self._news
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
                self.meter.ran(ended, min(stepped - before, LONGEST_STEP_SECONDS))
                companions = len(self._sequences)
                for output in outputs:
                    self._pass_on(output, companions)
        except Exception:  # whatever happens to an engine, its requests go on elsewhere and it is loaded anew
            log.exception("the engine of '%s' version %d broke", self.version.name, self.version.version)
            self.occupancy.lost()
            self._release_all()
            self._open = None
            await model.close()
            self._work.set()

    def _pass_on(self, output: TokenOutput, companions: int) -> None:
        job = self._sequences.get(output.id)
        if job is None or job.generation is None:
            return
        job.begun.set()
        if output.finish_reason == "abort":
            if output.error is None:
                self._drop(job)
            else:
                self._fail(job, output.error)
            return
        reply = job.generation.reply(output, companions)
        if output.finish_reason is not None:
            del self._sequences[output.id]
        if reply is None:
            return
        if reply.more:
            job.held.link.reply(reply, _nothing)
        else:
            self._end(job)
            self.completed += 1
            job.held.link.reply(reply, job.held.ticket.settle)

    def _fail(self, job: _Job, error: HeadraceError) -> None:
        """Answers with an error."""
        self._end(job)
        job.held.link.reply(failure(job.held.work.id, error), job.held.ticket.settle)

    def _drop(self, job: _Job) -> None:
        """Nobody waits for it, or another has it."""
        self._end(job)
        job.held.ticket.settle()

    def _release(self, job: _Job) -> None:
        """Lets another worker go on with it: once the gateway knows, the message goes back to the queue."""
        self._end(job)
        job.held.link.reply(Reply(id=job.held.work.id, released=True), job.held.ticket.hand_back)

    def _release_all(self) -> None:
        for job in [job for job in self._jobs.values() if job.generation is not None]:
            self._release(job)

    def _end(self, job: _Job) -> None:
        """It leaves this worker; the engine forgets what is unfinished of it."""
        self._jobs.pop((job.held.link.reply_to, job.held.work.id), None)
        for sequence in job.generation.unfinished if job.generation is not None else ():
            self._sequences.pop(sequence, None)
            if self.loader.model is not None:
                self.loader.model.engine.abort(sequence)
        job.begun.set()
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()

    def _tell(self) -> None:
        """Wakes those who wait for the model or for a gateway."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _on_settled(self, ticket: Ticket, link: Link) -> None:
        self._tickets.discard(ticket)
        link.paid()
        self._settled.set()
        self._residents.changed()


def _nothing() -> None:
    """A piece in the middle of a stream settles nothing."""
