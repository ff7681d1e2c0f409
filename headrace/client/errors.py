"""What a call can fail with, on the client's side."""

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status


class HeadraceError(Exception):
    """The root; `code` is gRPC's name of the status, such as "NOT_FOUND"."""

    code = "UNKNOWN"


class InvalidArgumentError(HeadraceError):
    """The request does not fit the model."""

    code = "INVALID_ARGUMENT"


class NotFoundError(HeadraceError):
    """No such model or version."""

    code = "NOT_FOUND"


class QueueFullError(HeadraceError):
    """The model's queue is full, the tenant is at a limit, or the request is over a size limit.

    Attributes:
        retry_after: seconds after which to try again; None where the server does not say (a smaller request may do).
    """

    retry_after: float | None = None

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceededError(HeadraceError):
    """No answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class UnavailableError(HeadraceError):
    """The server cannot be reached, or a part of it."""

    code = "UNAVAILABLE"


class FailedPreconditionError(HeadraceError):
    """The server is not in the state that this call needs."""

    code = "FAILED_PRECONDITION"


class AlreadyExistsError(HeadraceError):
    """The thing to be made exists."""

    code = "ALREADY_EXISTS"


class ConflictError(HeadraceError):
    """Somebody else wrote first; read again and retry."""

    code = "ABORTED"


class UnauthenticatedError(HeadraceError):
    """The call brought no API key, or none that counts."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(HeadraceError):
    """The caller, or the server at its store, may not do this."""

    code = "PERMISSION_DENIED"


class InternalError(HeadraceError):
    """The model, or the server, failed on this request."""

    code = "INTERNAL"


_KINDS: dict[str, type[HeadraceError]] = {kind.code: kind for kind in HeadraceError.__subclasses__()}


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """The typed form of a failed call."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not callable(code) or not callable(details):
        return HeadraceError(str(error))
    kind = _KINDS.get(code().name, HeadraceError)
    typed = kind(details() or code().name)
    typed.code = code().name
    if isinstance(typed, QueueFullError):
        typed.retry_after = _retry_after(error)
    return typed


def _retry_after(error: grpc.RpcError) -> float | None:
    """google.rpc.RetryInfo out of the trailing metadata."""
    trailing = getattr(error, "trailing_metadata", None)
    packed = dict(trailing() or ()).get("grpc-status-details-bin") if callable(trailing) else None
    if not isinstance(packed, bytes):
        return None
    info = RetryInfo()
    for detail in Status.FromString(packed).details:
        if detail.Unpack(info):
            return float(info.retry_delay.ToMicroseconds() / 1e6)
    return None
