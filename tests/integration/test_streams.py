"""Our own client of streams, against grpc's server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio

from services.common import streams
from services.common.errors import Internal, InvalidArgument, NotFound, Unavailable
from services.common.streams import open_stream

METHOD = "/test.Service/Stream"
Behaviour = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[str]:
    """A server with one method; yields its address."""
    server = aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    handler: Any = grpc.stream_stream_rpc_method_handler(behaviour)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Stream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def wire(content: bytes) -> bytes:
    return BytesValue(value=content).SerializeToString()


async def said(*messages: bytes) -> AsyncIterator[BytesValue]:
    for message in messages:
        yield BytesValue(value=message)


async def for_ever() -> AsyncIterator[BytesValue]:
    yield BytesValue(value=b"hello")
    await asyncio.Event().wait()


def stream_to(address: str, outgoing: AsyncIterator[Message], **how: Any) -> AsyncGenerator[BytesValue]:
    """A stream of BytesValue both ways."""
    return open_stream(address, METHOD, outgoing, BytesValue, **how)


async def test_messages_of_all_sizes_come_back_in_order() -> None:
    # More than any window, and what fills frames to the byte.
    sent = [b"", b"x", bytes(16_379), bytes(16_384), b"y" * 20_000_000, b"end"]
    async with asyncio.timeout(30), serving(echo) as address:
        assert [message.value async for message in stream_to(address, said(*sent))] == sent


async def test_metadata_reaches_the_server() -> None:
    async def tell(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield wire(dict(context.invocation_metadata())["who"].encode())

    async with asyncio.timeout(30), serving(tell) as address:
        stream = stream_to(address, said(), metadata=[("who", "me")])
        assert [message.value async for message in stream] == [b"me"]


@pytest.mark.parametrize("late", [False, True])
async def test_a_status_becomes_its_error(late: bool) -> None:
    async def refuse(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if late:
            yield wire(b"first")
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 %, naïve")

    found = []
    async with asyncio.timeout(30), serving(refuse) as address:
        with pytest.raises(NotFound, match="no such thing: 100 %, naïve"):
            async for message in stream_to(address, for_ever()):
                found.append(message.value)  # noqa: PERF401  # what came before the error counts
    assert found == [b"first"] * late


async def test_a_method_that_is_not_there_is_told_of() -> None:
    async with asyncio.timeout(30), serving(echo) as address:
        with pytest.raises(Exception, match=r"(?i)method not found"):
            await anext(open_stream(address, "/test.Service/Other", for_ever(), BytesValue))


async def test_nobody_at_the_address() -> None:
    with pytest.raises(Unavailable, match=r"cannot reach 127\.0\.0\.1:9"):
        await anext(stream_to("127.0.0.1:9", for_ever()))


async def test_a_server_that_speaks_something_else() -> None:
    async def http_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(http_1, "127.0.0.1", 0)
    async with asyncio.timeout(30), server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable, match=address):
            await anext(stream_to(address, for_ever()))


async def test_a_server_that_goes_away_breaks_the_stream() -> None:
    async with asyncio.timeout(30), serving(echo) as address:
        stream = stream_to(address, for_ever())
        assert (await anext(stream)).value == b"hello"
    with pytest.raises((Unavailable, Internal)):
        await anext(stream)


async def test_the_preface_goes_out_before_anything_of_a_quick_server_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def late(*args: Any, **named: Any) -> Any:
        """What the server sends comes before whoever connects goes on."""
        made = await connect(*args, **named)
        await asyncio.sleep(0.1)
        return made

    monkeypatch.setattr(loop, "create_connection", late)
    async with asyncio.timeout(30), serving(echo) as address:
        assert [message.value async for message in stream_to(address, said(b"x"))] == [b"x"]


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 0.2)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with asyncio.timeout(30), server:
        with pytest.raises(Unavailable, match="has said nothing"):
            await anext(stream_to(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", for_ever()))


async def test_a_quiet_stream_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 5.0)
    later = asyncio.Event()

    async def wait(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await later.wait()
        yield wire(b"at last")

    async with asyncio.timeout(30), serving(wait) as address, aclosing(stream_to(address, for_ever())) as one:
        # Several pings long: each is answered, so nothing is given up.
        asyncio.get_running_loop().call_later(0.5, later.set)
        assert (await anext(one)).value == b"at last"


async def test_what_cannot_be_sent_ends_the_stream() -> None:
    async def broken() -> AsyncIterator[BytesValue]:
        yield BytesValue(value=b"good")
        raise InvalidArgument("bad")

    async with asyncio.timeout(30), serving(echo) as address:
        stream = stream_to(address, broken())
        with pytest.raises(InvalidArgument, match="bad"):
            while True:
                await anext(stream)


async def test_a_fault_of_the_sender_ends_the_stream_too() -> None:
    async def faulty() -> AsyncIterator[BytesValue]:
        yield BytesValue(value=b"good")
        raise KeyError("mistaken")

    async with asyncio.timeout(30), serving(echo) as address:
        stream = stream_to(address, faulty())
        with pytest.raises(Internal, match="mistaken"):
            while True:
                await anext(stream)


async def test_what_is_no_message_is_told_of() -> None:
    async def garbage(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"\xff"

    async with asyncio.timeout(30), serving(garbage) as address:
        with pytest.raises(Internal, match=r"no google\.protobuf\.BytesValue"):
            await anext(stream_to(address, for_ever()))


async def test_the_server_hears_that_we_left() -> None:
    left = asyncio.Event()

    async def wait(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.add_done_callback(lambda _: left.set())
        async for request in requests:
            yield request

    async with asyncio.timeout(30), serving(wait) as address:
        async with aclosing(stream_to(address, for_ever())) as stream:
            assert (await anext(stream)).value == b"hello"
        await left.wait()


async def test_a_slow_reader_holds_up_nobody_else_and_loses_nothing() -> None:
    async def much(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        for number in range(64):
            yield wire(number.to_bytes(1) * 500_000)

    async with asyncio.timeout(60), serving(much) as address:
        slow = stream_to(address, said())
        assert (await anext(slow)).value[:1] == b"\0"
        quick = [message.value[0] async for message in stream_to(address, said())]
        assert quick == list(range(64))
        assert [message.value[0] async for message in slow] == list(range(1, 64))
