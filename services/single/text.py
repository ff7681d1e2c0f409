"""A language model in this very process as a Backend: many callers at a time, no queue, a latency line for each."""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Reply
from headrace.v1.text_generation_pb2 import GenerateRequest
from headrace.v1.work_pb2 import WorkRequest
from services.common.errors import DeadlineExceeded, HeadraceError, QueueFull, Unavailable, Unimplemented
from services.common.text_requests import sampling_params
from services.gateway.backend import Answer, Events, TextEnd, Work
from services.gateway.dispatch.text_stream import TextStream
from services.gateway.quotas import Quotas
from services.gateway.routes import Route
from services.worker.llm.port import EngineStats, TokenOutput
from services.worker.text.generation import Generation
from services.worker.text.model import TextModel
from services.worker.text.observation import TextObserver

log = logging.getLogger("headrace.latency")

_BROKE = "the model's engine broke and is loaded anew; try again in a moment"


@dataclass(slots=True, eq=False)
class _Caller:
    """One generation and who waits for it; `ended` gets its last reply, or the error."""

    generation: Generation
    stream: TextStream
    ended: asyncio.Future[Reply]


class LocalText:
    """Implements Backend. `run` passes on what the engine brings.

    Args:
        open_model: loads the model; again, if its engine breaks.
        observe: makes the observer of an engine's figures.
    """

    def __init__(
        self,
        version: ModelVersion,
        open_model: Callable[[], Awaitable[TextModel]],
        observe: Callable[[Callable[[], EngineStats | None]], TextObserver],
    ) -> None:
        self._version = version
        self._open_model = open_model
        self._model: TextModel | None = None
        self._observer = observe(lambda: None if self._model is None else self._model.engine.stats())
        self._callers: dict[str, _Caller] = {}
        self._under_way = 0
        self._quotas = Quotas()
        # Draws without a seed must not be the same after each start.
        self._id = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    async def load(self) -> None:
        """Before `run`. Raises HeadraceErrors where the model does not load."""
        self._model = await self._open_model()

    async def run(self) -> None:
        """Until cancelled; an engine that breaks is loaded anew."""
        while (model := self._model) is not None:
            try:
                async for outputs in model.engine.outputs():
                    companions = len(self._callers)
                    for output in outputs:
                        self._pass_on(output, companions)
                    self._observer.step()
            except Exception:  # whatever happens to an engine
                logging.getLogger(__name__).exception("the engine of '%s' broke", self._version.name)
            self._model = None
            for caller in list(self._callers.values()):
                _fail(caller, Unavailable(_BROKE))
            await model.close()
            with suppress(HeadraceError):  # told by `ready` from now on: who watches this process starts it again
                await self.load()

    async def close(self) -> None:
        """Frees the model's memory."""
        if self._model is not None:
            await self._model.close()

    async def infer(self, work: Work) -> Answer:
        """Never asked for: requests for tensors become generations. Raises Unimplemented."""
        raise Unimplemented(f"'{work.route.name}' is a language model; ask it for text")

    async def generate(self, work: Work) -> Events:
        """Pieces as the engine brings them.

        Raises:
            QueueFull, DeadlineExceeded, Unavailable, ModelFailed, InvalidArgument
        """
        if self._under_way >= work.route.max_requests:
            raise QueueFull(f"model '{work.route.name}' has {self._under_way} requests under way, all that it takes")
        if work.tenant is not None:
            self._quotas.begin(work.tenant, asyncio.get_running_loop().time())
        self._under_way += 1
        began, outcome = time.monotonic(), "error"
        caller: _Caller | None = None
        try:
            caller = await self._begin(work)
            async for chunk in caller.stream.chunks(caller.ended):
                yield chunk
            outcome = "ok"
            yield TextEnd(caller.stream.usage, caller.ended.result().receipt)
        finally:
            self._under_way -= 1
            if work.tenant is not None:
                self._quotas.end(work.tenant)
            self._let_go(caller, began, outcome)

    def ready(self) -> bool:
        """The model is in memory."""
        return self._model is not None

    async def model_ready(self, route: Route) -> bool:
        """There is one model."""
        return self.ready()

    async def _begin(self, work: Work) -> _Caller:
        """Brings a request to the engine."""
        if (model := self._model) is None:
            raise Unavailable(_BROKE)
        loop, now_us = asyncio.get_running_loop(), time.time_ns() // 1000
        asked = WorkRequest(
            id=next(self._numbers),
            accepted_unix_us=now_us,
            deadline_unix_us=now_us + int(work.timeout * 1e6),
            traceparent=work.trace.traceparent if work.trace is not None else "",
            tenant=work.tenant.name if work.tenant is not None else "",
            weight=work.tenant.weight if work.tenant is not None else 1.0,
        )
        request = GenerateRequest.FromString(work.body)
        prompt = await model.prompt(request)
        if model is not self._model:
            raise Unavailable(_BROKE)
        generation = Generation(asked, self._id, now_us, self._version.version, model.prompts.piece)
        caller = _Caller(generation, TextStream(work.rows), loop.create_future())
        too_late = DeadlineExceeded(f"no answer within {work.timeout:.3g} s")
        timer = loop.call_later(work.timeout, _fail, caller, too_late)
        caller.ended.add_done_callback(lambda _: timer.cancel())
        try:
            for each in generation.requests(prompt, sampling_params(request.sampling), request.priority, ()):
                self._callers[each.id] = caller
                model.engine.submit(each)
        except BaseException:
            self._abort(caller)
            raise
        return caller

    def _pass_on(self, output: TokenOutput, companions: int) -> None:
        caller = self._callers.get(output.id)
        if caller is None or caller.ended.done():
            return
        if output.finish_reason is not None:
            del self._callers[output.id]
        if output.error is not None:
            _fail(caller, output.error)
            return
        reply = caller.generation.reply(output, companions)
        if reply is None:
            return
        try:
            caller.stream.take(reply)
        except HeadraceError as error:  # its caller reads too slowly
            _fail(caller, error)
            return
        if not reply.more:
            self._observer.finished(caller.generation, companions)
            caller.ended.set_result(reply)

    def _let_go(self, caller: _Caller | None, began: float, outcome: str) -> None:
        """A caller has his answer, an error, or left: the engine forgets what is unfinished."""
        first_ms = tokens = 0
        if caller is not None:
            self._abort(caller)
            tokens = caller.stream.usage.completion_tokens
            if begun_ns := caller.generation.begun_ns:
                first_ms = (begun_ns - caller.generation.submitted_ns) // 1_000_000
        log.info(
            "model=%s version=%d outcome=%s tokens=%d first_ms=%d total_ms=%.3f",
            self._version.name,
            self._version.version,
            outcome,
            tokens,
            first_ms,
            (time.monotonic() - began) * 1000,
        )

    def _abort(self, caller: _Caller) -> None:
        if not caller.ended.done():
            caller.ended.cancel()
        elif not caller.ended.cancelled():
            caller.ended.exception()  # a caller that left first does not ask for it
        for sequence in caller.generation.unfinished:
            self._callers.pop(sequence, None)
            if self._model is not None:
                self._model.engine.abort(sequence)


def _fail(caller: _Caller, error: HeadraceError) -> None:
    if not caller.ended.done():
        caller.ended.set_exception(error)
