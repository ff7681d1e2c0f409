"""`Client` and `AsyncClient`: inference, metadata, readiness and status."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from headrace.client.credentials import credentials, signing_interceptors, with_credentials
from headrace.client.errors import InvalidArgumentError, from_rpc_error
from headrace.client.tensors import Array, make_request, read_response
from headrace.client.text import AsyncTextCalls, TextCalls
from headrace.client.tls import Tls, open_async_channel, open_channel
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.v1.gateway_pb2 import GetStatusRequest, GetStatusResponse
from headrace.v1.gateway_pb2_grpc import GatewayServiceStub
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub

if TYPE_CHECKING:
    from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub
    from headrace.v1.gateway_pb2_grpc import GatewayServiceAsyncStub
    from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceAsyncStub

DEFAULT_ADDRESS = "127.0.0.1:8001"
# Calls that never reached a handler are tried again by gRPC itself; other clients may use the same configuration.
# Where an address stands for several gateways, calls go round, so that a retry meets another one.
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [
                    {"service": "inference.GRPCInferenceService"},
                    {"service": "headrace.v1.TextGenerationService"},
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    # CANCELLED is what grpc's own server says to calls that come while it shuts down.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
    }
)
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


@dataclass(frozen=True, slots=True)
class InferResult:
    """An answer.

    Attributes:
        outputs: by name.
        model_version: which version answered.
        receipt: where the time went (queue_us, batch_us, compute_us) and the batch it ran in; an ensemble's `stages`.
    """

    outputs: dict[str, Array]
    model_version: str
    receipt: dict[str, Any] = field(default_factory=dict)


def _result(response: pb.ModelInferResponse, trailing: Any) -> InferResult:
    receipt = dict(trailing or ()).get("headrace-receipt")
    return InferResult(read_response(response), response.model_version, json.loads(receipt) if receipt else {})


def _sole_input(metadata: pb.ModelMetadataResponse) -> str:
    """The name that an array without one is for."""
    names = [tensor.name for tensor in metadata.inputs]
    if len(names) != 1:
        raise InvalidArgumentError(
            f"model '{metadata.name}' has the inputs {names}; pass a dictionary of arrays by name, not one array"
        )
    return names[0]


def _metadata(traceparent: str, key: str) -> tuple[tuple[str, str], ...]:
    said = (("traceparent", traceparent), ("headrace-key", key))
    return tuple((name, value) for name, value in said if value)


class Client(TextCalls):
    """Blocking; safe to share between threads. All methods raise headrace.client.errors.HeadraceError.

    Args:
        address: "host:port", or any target of gRPC's that names several gateways: "ipv4:10.0.0.1:8001,10.0.0.2:8001",
            "dns:///gateways.example:8001".
        api_key: a tenant's key, or a token; None: what HEADRACE_API_KEY holds, if anything.
        tls: None: as HEADRACE_TLS_* say, without a HEADRACE_TLS_CA in plain text.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, tls: Tls | None = None) -> None:
        self._channel = with_credentials(open_channel(address, tls, _OPTIONS), credentials(api_key))
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._input_names: dict[tuple[str, str], str] = {}
        self._gateway = GatewayServiceStub(self._channel)
        self._text = TextGenerationServiceStub(self._channel)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        *,
        version: str = "",
        timeout: float | None = None,
        request_id: str = "",
        traceparent: str = "",
        key: str = "",
        priority: int = 0,
    ) -> InferResult:
        """Runs a model.

        Args:
            inputs: arrays by name; one array where the model has one input (its name is asked for once).
            version: a number, an alias, or "" for the latest.
            timeout: seconds.
            request_id: comes back in the answer and stands in logs.
            traceparent: W3C trace context of the caller's span.
            key: what a rollout's choice of the version sticks to, such as the user's id.
            priority: of a model with priority levels, the level, 1 is the highest; 0: the model's default.
        """
        if not isinstance(inputs, Mapping):
            inputs = {self._input_name(model, version): inputs}
        request = make_request(model, inputs, version, request_id, priority)
        try:
            response, call = self._stub.ModelInfer.with_call(
                request, timeout=timeout, metadata=_metadata(traceparent, key)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return _result(response, call.trailing_metadata())

    def metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        try:
            return self._stub.ModelMetadata(pb.ModelMetadataRequest(name=model, version=version), timeout=10)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether a request would find a worker."""
        try:
            return self._stub.ModelReady(pb.ModelReadyRequest(name=model, version=version), timeout=10).ready
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def statistics(self, model: str = "", version: str = "") -> list[pb.ModelStatistics]:
        """Counts and times of one model, or of all, since this gateway's start."""
        try:
            request = pb.ModelStatisticsRequest(name=model, version=version)
            return list(self._stub.ModelStatistics(request, timeout=10).model_stats)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def status(self) -> GetStatusResponse:
        """What the gateway sees."""
        try:
            return self._gateway.GetStatus(GetStatusRequest(), timeout=10)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()

    def _input_name(self, model: str, version: str) -> str:
        known = self._input_names.get((model, version))
        if known is None:
            known = self._input_names[model, version] = _sole_input(self.metadata(model, version))
        return known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncClient(AsyncTextCalls):
    """The same for asyncio; cancelling a call abandons the request on the server."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, tls: Tls | None = None) -> None:
        interceptors = signing_interceptors(credentials(api_key))
        self._channel = open_async_channel(address, tls, _OPTIONS, interceptors)
        self._stub: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(self._channel)
        self._input_names: dict[tuple[str, str], str] = {}
        self._gateway: GatewayServiceAsyncStub = GatewayServiceStub(self._channel)
        self._text: TextGenerationServiceAsyncStub = TextGenerationServiceStub(self._channel)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        *,
        version: str = "",
        timeout: float | None = None,
        request_id: str = "",
        traceparent: str = "",
        key: str = "",
        priority: int = 0,
    ) -> InferResult:
        """As Client.infer."""
        if not isinstance(inputs, Mapping):
            inputs = {await self._input_name(model, version): inputs}
        request = make_request(model, inputs, version, request_id, priority)
        call = self._stub.ModelInfer(request, timeout=timeout, metadata=_metadata(traceparent, key))
        try:
            response = await call
            return _result(response, await call.trailing_metadata())
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        try:
            return await self._stub.ModelMetadata(pb.ModelMetadataRequest(name=model, version=version), timeout=10)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def model_ready(self, model: str, version: str = "") -> bool:
        """Whether a request would find a worker."""
        try:
            response = await self._stub.ModelReady(pb.ModelReadyRequest(name=model, version=version), timeout=10)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return response.ready

    async def statistics(self, model: str = "", version: str = "") -> list[pb.ModelStatistics]:
        """Counts and times of one model, or of all, since this gateway's start."""
        request = pb.ModelStatisticsRequest(name=model, version=version)
        try:
            return list((await self._stub.ModelStatistics(request, timeout=10)).model_stats)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def status(self) -> GetStatusResponse:
        """What the gateway sees."""
        try:
            return await self._gateway.GetStatus(GetStatusRequest(), timeout=10)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def close(self) -> None:
        """Disconnects."""
        await self._channel.close()

    async def _input_name(self, model: str, version: str) -> str:
        known = self._input_names.get((model, version))
        if known is None:
            known = self._input_names[model, version] = _sole_input(await self.metadata(model, version))
        return known

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
