"""What an error says beside its code and its text, where gRPC clients look for it."""

from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from services.common.errors import HeadraceError, QueueFull, status_of
from services.gateway.calls import Call

DETAILS_KEY = "grpc-status-details-bin"


def add_details(call: Call, error: HeadraceError) -> None:
    """Puts google.rpc.RetryInfo into the trailing metadata of a call that is to come again later."""
    if isinstance(error, QueueFull):
        status = Status(code=status_of(error).grpc, message=str(error))
        info = RetryInfo()
        info.retry_delay.FromMicroseconds(int(error.retry_after * 1e6))
        status.details.add().Pack(info)
        call.trailing[DETAILS_KEY] = status.SerializeToString()
