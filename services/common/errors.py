"""Every error that a caller of Headrace can meet, and what each is on the wire.

    HeadraceError
    ├── InvalidArgument          the request is malformed or does not fit the model
    │   └── TooLarge             … because of its size
    ├── Unauthenticated
    ├── PermissionDenied
    ├── NotFound                 no such model, version, alias, queue
    ├── AlreadyExists            this very version was published before
    ├── Conflict                 somebody else wrote first; read again and retry
    ├── FailedPrecondition       the thing is not in the state that this needs
    ├── QueueFull                try again after `retry_after` seconds
    ├── DeadlineExceeded
    ├── Cancelled
    ├── Unimplemented
    ├── Unavailable              a part of the system cannot be reached now; retrying may help
    └── Internal
        ├── ModelFailed          the model raised on this request
        └── PoisonedRequest      workers died while they ran it; it was given up

Messages say what was wrong, what was expected and what to do. The classes know nothing of transports: the one table
from them to gRPC codes and HTTP statuses stands below.
"""

from dataclasses import dataclass


class HeadraceError(Exception):
    """The root of the tree. `str(error)` is shown to the caller."""


class InvalidArgument(HeadraceError):
    """The request is malformed or does not fit the model's signature."""


class TooLarge(InvalidArgument):
    """The request is over a size limit."""


class Unauthenticated(HeadraceError):
    """No valid credentials came with the call."""


class PermissionDenied(HeadraceError):
    """The caller may not do this."""


class NotFound(HeadraceError):
    """The thing named does not exist."""


class AlreadyExists(HeadraceError):
    """The thing to be made exists."""


class Conflict(HeadraceError):
    """A concurrent writer was first; read again and retry."""


class FailedPrecondition(HeadraceError):
    """The system is not in the state that this call needs."""


class QueueFull(HeadraceError):
    """The queue is at its limit; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(HeadraceError):
    """The caller's deadline passed first."""


class Cancelled(HeadraceError):
    """The caller left."""


class Unimplemented(HeadraceError):
    """This server does not offer the method or feature."""


class Unavailable(HeadraceError):
    """A part of the system cannot be reached now."""


class Internal(HeadraceError):
    """A fault on the server's side."""


class ModelFailed(Internal):
    """The model raised while it ran this request."""


class PoisonedRequest(Internal):
    """Workers died while they ran this request; it was given up so as not to kill more."""


@dataclass(frozen=True, slots=True)
class WireStatus:
    """What an error is to gRPC (a google.rpc.Code) and to HTTP."""

    grpc: int
    http: int


STATUS: dict[type[HeadraceError], WireStatus] = {
    Cancelled: WireStatus(1, 499),
    InvalidArgument: WireStatus(3, 400),
    TooLarge: WireStatus(8, 413),
    DeadlineExceeded: WireStatus(4, 504),
    NotFound: WireStatus(5, 404),
    AlreadyExists: WireStatus(6, 409),
    PermissionDenied: WireStatus(7, 403),
    QueueFull: WireStatus(8, 429),
    FailedPrecondition: WireStatus(9, 412),
    Conflict: WireStatus(10, 409),
    Unimplemented: WireStatus(12, 501),
    Internal: WireStatus(13, 500),
    Unavailable: WireStatus(14, 503),
    Unauthenticated: WireStatus(16, 401),
}

_BY_CODE: dict[int, type[HeadraceError]] = {
    status.grpc: kind for kind, status in STATUS.items() if kind not in (TooLarge,)
}


def status_of(error: BaseException) -> WireStatus:
    """The wire status of the nearest class in the tree; 13/500 for anything that is not ours."""
    for kind in type(error).__mro__:
        if status := STATUS.get(kind):
            return status
    return STATUS[Internal]


def error_of(code: int, message: str) -> HeadraceError:
    """The error that a google.rpc.Code stands for: the way back from the wire."""
    return _BY_CODE.get(code, Internal)(message)
