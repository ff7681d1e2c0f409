"""The port between the protocol and whatever runs requests: the queue, or a model in this very process."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from headrace.v1.reply_pb2 import Receipt
from headrace.v1.text_generation_pb2 import TextChunk, Usage
from services.common.telemetry.requests import RequestTrace
from services.common.tenants.tenant import Tenant
from services.gateway.routes import Route


@dataclass(slots=True)
class Work:
    """One checked request.

    Attributes:
        body: the client's serialised ModelInferRequest, untouched; a GenerateRequest for a language model.
        rows: how much of a batch it fills; the number of sequences for a language model.
        timeout: seconds until nobody waits for the answer any more.
        trace: None if the request is not sampled.
        tenant: whose it is; None where no keys are asked for.
        level: 1 is first; 0 where the model has no levels.
    """

    route: Route
    body: bytes
    rows: int
    timeout: float
    trace: RequestTrace | None = None
    tenant: Tenant | None = None
    level: int = 0


@dataclass(slots=True)
class Answer:
    """A serialised ModelInferResponse and where its time went."""

    body: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class TextEnd:
    """What comes after a generation's last piece."""

    usage: Usage
    receipt: Receipt


Events = AsyncGenerator[TextChunk | TextEnd, None]


class Backend(Protocol):
    """Runs requests. Cancelling `infer` abandons the request."""

    async def infer(self, work: Work) -> Answer:
        """Raises HeadraceErrors; the caller has been promised an answer or a clear error."""

    def generate(self, work: Work) -> Events:
        """Runs a language model: pieces as they come, and one TextEnd. Closing it abandons the request."""

    def ready(self) -> bool:
        """It could take a request now."""

    async def model_ready(self, route: Route) -> bool:
        """A request to this version would find somebody to run it."""
