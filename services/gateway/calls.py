"""What a host (Envoy or grpc.aio) gives a handler, and what the table of handlers is made of.

Handlers see bytes in and bytes out: the hot path passes the client's message on without rebuilding it. They raise
`HeadraceError`s; the host turns those into gRPC statuses with the table in services/common/errors.py.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from services.common.tenants.tenant import Tenant

# The name of a request's parameter, and of its metadata: requests with the same key get the same version.
KEY = "headrace-key"

Metadata = Mapping[str, str | bytes]


@dataclass(slots=True)
class Call:
    """One gRPC call, seen from a handler.

    Attributes:
        method: the full path, "/package.Service/Method".
        metadata: request metadata, keys in lower case; values of "-bin" keys are bytes.
        deadline: on the event loop's clock (`loop.time()`), None if the caller set none.
        peer: the caller's address, for logs.
        tenant: whose call it is; None where no keys are asked for: then everybody may do everything.
        trailing: what the handler wants in the trailing metadata; may be filled until it returns or raises.
    """

    method: str
    metadata: Metadata
    deadline: float | None = None
    peer: str = ""
    tenant: Tenant | None = None
    trailing: dict[str, str | bytes] = field(default_factory=dict)


def credentials(metadata: Metadata) -> list[tuple[str, str]]:
    """What of a call's metadata, or of a request's headers, says who calls: other processes are asked in that name."""
    return [(key, str(metadata[key])) for key in ("authorization", "x-api-key") if key in metadata]


def check_use(call: Call, model: str) -> None:
    """Raises PermissionDenied where the caller may not use the model."""
    if call.tenant is not None:
        call.tenant.check_use(model)


def may_use(call: Call, model: str) -> bool:
    """Whether the caller may know of the model."""
    return call.tenant is None or call.tenant.may_use(model)


def request_key(call: Call) -> str:
    """What a rollout's choice for this call sticks to: its metadata `headrace-key`; empty: nothing."""
    key = call.metadata.get(KEY, "")
    return key if isinstance(key, str) else key.hex()


UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
# Called once a stream; the caller's cancellation cancels the task that iterates it.
StreamHandler = Callable[[Call, AsyncIterator[bytes]], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Unary:
    """One request, one response. Cancellation of the call cancels the handler's task."""

    handler: UnaryHandler


@dataclass(frozen=True, slots=True)
class Stream:
    """Any number of messages each way; unary-request methods read one message from the iterator."""

    handler: StreamHandler


# Full method path → handler.
MethodTable = Mapping[str, Unary | Stream]
