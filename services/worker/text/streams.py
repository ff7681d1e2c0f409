"""The requests of a text lane: which sequence is whose, where the engine's outputs go, and the ways requests end."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.v1.reply_pb2 import Reply
from services.common.errors import HeadraceError
from services.worker.execution import failure
from services.worker.intake import Held
from services.worker.llm.port import GenerationRequest, TextEngine, TokenOutput
from services.worker.text.generation import Generation

Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class Job:
    """One request from its delivery to its last token.

    Attributes:
        begun: its first output came, or it is over.
        task: brings it to the engine.
        generation: None until it is with the engine.
    """

    held: Held
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    generation: Generation | None = None

    @property
    def key(self) -> Key:
        """Gateways number alike: the id alone is not enough."""
        return self.held.link.reply_to, self.held.work.id


class Streams:
    """All jobs by key, and their sequences by id.

    Args:
        engine: the one that runs them now; None while there is none.
        on_finished: told of each generation that came to its own end, and of how many sequences ran beside it.
    """

    def __init__(self, engine: Callable[[], TextEngine | None], on_finished: Callable[[Job, int], None]) -> None:
        self._engine = engine
        self._on_finished = on_finished
        self._jobs: dict[Key, Job] = {}
        self._sequences: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, key: Key) -> Job | None:
        """The job of this key."""
        return self._jobs.get(key)

    def jobs(self) -> list[Job]:
        """All."""
        return list(self._jobs.values())

    def add(self, job: Job) -> None:
        """One more."""
        self._jobs[job.key] = job

    def submit(self, job: Job, requests: Sequence[GenerationRequest], engine: TextEngine) -> None:
        """Gives a job's sequences to the engine. Raises InvalidArgument for what can never run."""
        for request in requests:
            self._sequences[request.id] = job
            engine.submit(request)

    def pass_on(self, outputs: list[TokenOutput]) -> None:
        """What one step brought: all of it leaves in one frame for each gateway."""
        companions = len(self._sequences)
        for output in outputs:
            job = self._sequences.get(output.id)
            if job is not None and job.generation is not None:
                self._pass_on(job, job.generation, output, companions)

    def fail(self, job: Job, error: HeadraceError) -> None:
        """Answers with an error."""
        self.end(job)
        job.held.link.reply(failure(job.held.work.id, error), job.held.ticket.settle)

    def drop(self, job: Job) -> None:
        """Nobody waits for it, or another has it."""
        self.end(job)
        job.held.ticket.settle()

    def release(self, job: Job) -> None:
        """Lets another worker go on with it: once the gateway knows, the message goes back to the queue."""
        self.end(job)
        job.held.link.reply(Reply(id=job.held.work.id, released=True), job.held.ticket.hand_back)

    def release_all(self) -> None:
        """Whatever is with the engine."""
        for job in self.jobs():
            if job.generation is not None:
                self.release(job)

    def end(self, job: Job) -> None:
        """It leaves this worker; the engine forgets what is unfinished of it."""
        self._jobs.pop(job.key, None)
        engine = self._engine()
        for sequence in job.generation.unfinished if job.generation is not None else ():
            self._sequences.pop(sequence, None)
            if engine is not None:
                engine.abort(sequence)
        job.begun.set()
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()

    def _pass_on(self, job: Job, generation: Generation, output: TokenOutput, companions: int) -> None:
        job.begun.set()
        if output.finish_reason == "abort":
            if output.error is None:
                self.drop(job)
            else:
                self.fail(job, output.error)
            return
        reply = generation.reply(output, companions)
        if output.finish_reason is not None:
            del self._sequences[output.id]
        if reply is None:
            return
        if reply.more:
            job.held.link.reply(reply, _nothing)
        else:
            self.end(job)
            self._on_finished(job, companions)
            job.held.link.reply(reply, job.held.ticket.settle)


def _nothing() -> None:
    """A piece in the middle of a stream settles nothing."""
