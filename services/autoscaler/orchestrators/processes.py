"""Workers as processes of this machine, which `headrace up` supervises."""

from collections.abc import Collection

import grpc

from headrace.v1.supervisor_pb2 import ListProcessesRequest, StartWorkersRequest, StopWorkersRequest
from headrace.v1.supervisor_pb2_grpc import SupervisorServiceStub
from services.autoscaler.orchestrators.port import Instance
from services.common.rpc import channel, from_rpc_error

CALL_SECONDS = 5.0


class Processes:
    """Implements Orchestrator. The supervisor itself starts again what crashes.

    Args:
        path: of the socket of SupervisorService.
    """

    kind = "processes"

    def __init__(self, path: str) -> None:
        self._channel = channel(f"unix:{path}")
        self._stub = SupervisorServiceStub(self._channel)

    async def instances(self) -> list[Instance]:
        """The supervisor's workers."""
        try:
            listed = await self._stub.ListProcesses(ListProcessesRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return [
            Instance(worker.name, frozenset({worker.name}), worker.age_ms / 1000, worker.leaving)
            for worker in listed.workers
        ]

    async def add(self, count: int) -> None:
        """Starts so many."""
        try:
            await self._stub.StartWorkers(StartWorkersRequest(count=count), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def remove(self, ids: Collection[str]) -> None:
        """SIGTERM."""
        try:
            await self._stub.StopWorkers(StopWorkersRequest(names=ids), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
