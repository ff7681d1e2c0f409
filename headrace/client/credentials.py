"""The API key or token of a client, put into each of its calls."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from grpc import aio

VARIABLE = "HEADRACE_API_KEY"
Metadata = tuple[tuple[str, str], ...]


def credentials(api_key: str | None) -> Metadata:
    """The metadata that says who calls: by the key, where it is None by HEADRACE_API_KEY; empty where there is none."""
    key = os.environ.get(VARIABLE, "") if api_key is None else api_key
    return (("authorization", f"Bearer {key}"),) if key else ()


def with_credentials(channel: grpc.Channel, said: Metadata) -> grpc.Channel:
    """The same channel, its calls with the metadata."""
    return grpc.intercept_channel(channel, _Signing(said)) if said else channel


def signing_interceptors(said: Metadata) -> list[aio.ClientInterceptor]:
    """What makes an asyncio channel put the metadata into its calls."""
    return [_SigningUnary(said), _SigningStream(said)] if said else []


class _Details(NamedTuple):
    """A call's particulars, as gRPC's interceptors pass them on."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any = None


class _Signing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, said: Metadata) -> None:
        self._said = said

    def _signed(self, details: Any) -> _Details:
        metadata = (*(details.metadata or ()), *self._said)
        said = (details.credentials, details.wait_for_ready, details.compression)
        return _Details(details.method, details.timeout, metadata, *said)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._signed(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._signed(details), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._signed(details), requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._signed(details), requests)


class _SigningUnary(aio.UnaryUnaryClientInterceptor):
    def __init__(self, said: Metadata) -> None:
        self._said = said

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return await continuation(_signed(details, self._said), request)


class _SigningStream(aio.UnaryStreamClientInterceptor):
    def __init__(self, said: Metadata) -> None:
        self._said = said

    async def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return await continuation(_signed(details, self._said), request)


def _signed(details: aio.ClientCallDetails, said: Metadata) -> aio.ClientCallDetails:
    metadata = aio.Metadata(*(details.metadata or ()), *said)
    return aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)
