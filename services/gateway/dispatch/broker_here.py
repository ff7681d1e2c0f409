"""The embedded broker in this gateway: with one gateway on one machine, a process and two hops less a request.

Workers attach to it on the gateway's own port. It ends with the gateway, and so do the calls that waited in it; the
job service asks again.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from hmac import compare_digest

from google.protobuf.message import DecodeError

from headrace.v1.broker_pb2 import BrokerServiceAttachRequest
from services.common.broker.embedded.host import TOKEN, BrokerHost
from services.common.errors import InvalidArgument, Unauthenticated
from services.gateway.calls import Call, MethodTable, Stream


class BrokerHere:
    """Handler of BrokerService.Attach.

    Args:
        token: what workers must show: who reads the queue reads what everybody sends.
    """

    def __init__(self, host: BrokerHost, token: str) -> None:
        self._host = host
        self._token = token

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {"/headrace.v1.BrokerService/Attach": Stream(self.attach)}

    async def attach(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One worker's stream. Raises Unauthenticated."""
        if not compare_digest(str(call.metadata.get(TOKEN, "")).encode(), self._token.encode()):
            raise Unauthenticated("the token is not this broker's; workers find it in HEADRACE_BROKER")
        async with aclosing(self._host.attach(_parsed(requests))) as frames:
            async for frame in frames:
                yield frame.SerializeToString()


async def _parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[BrokerServiceAttachRequest]:
    async for body in requests:
        try:
            yield BrokerServiceAttachRequest.FromString(body)
        except DecodeError as error:
            raise InvalidArgument("not a BrokerServiceAttachRequest") from error
