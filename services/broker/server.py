"""BrokerService by grpc.aio."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from headrace.v1.broker_pb2 import BrokerServiceAttachRequest, BrokerServiceAttachResponse
from headrace.v1.broker_pb2_grpc import BrokerServiceServicer
from services.common.broker.embedded.host import BrokerHost, serve

if TYPE_CHECKING:
    from grpc import aio


class BrokerServer(BrokerServiceServicer):
    """Implements BrokerService.Attach."""

    def __init__(self) -> None:
        self._host = BrokerHost()

    async def Attach(
        self,
        request_iterator: AsyncIterator[BrokerServiceAttachRequest],
        context: "aio.ServicerContext[BrokerServiceAttachRequest, BrokerServiceAttachResponse]",
    ) -> AsyncIterator[BrokerServiceAttachResponse]:
        """One client's stream; it ends when the client has no more to say."""
        session = self._host.session()

        def gone(context: object) -> None:
            """A client that vanishes leaves this generator suspended until it is collected; messages must not wait."""
            session.close()

        context.add_done_callback(gone)  # type: ignore[arg-type] # the stub names a class, grpc takes any callable
        async for frame in serve(session, request_iterator):
            yield frame
