"""What a gRPC client sees of both hosts: the same."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.hosts_process import MAX_BYTES, HostProcess, path, running, until

FRONTS = ("envoy", "grpc")


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    """One process for all tests of a front: whatever they do to it, it must stay alive and say nothing odd."""
    with running(front, tmp_path_factory.mktemp(front)) as started:
        yield started
        assert started.unary("Unary", b"still here") == b"still here"
        assert started.process.poll() is None
        said = started.said.read_text()
        for odd in ("Exception in", "never retrieved", "InvalidStateError", "panicked"):
            assert odd not in said, said


def refused(host: HostProcess, name: str, body: bytes = b"", **options: Any) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        host.unary(name, body, **options)
    return caught.value


def settled(host: HostProcess, before: dict[str, int], cancelled: int) -> bool:
    now = host.state()
    return now["waiting"] == 0 and now["cancelled"] == before["cancelled"] + cancelled


def test_unary_messages_of_all_sizes(host: HostProcess) -> None:
    for size in (0, 1, 5, 16_384, 1_000_000, 40_000_000):
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert host.unary("Unary", body, timeout=60) == body


def test_many_large_messages_at_once(host: HostProcess) -> None:
    """More than the host's buffers hold, while its one thread copies: no message may be refused for that."""
    body = bytes(20_000_000)
    with ThreadPoolExecutor(6) as pool:
        assert all(answer == body for answer in pool.map(lambda _: host.unary("Unary", body, timeout=60), range(12)))


def test_a_message_over_the_limit_is_refused(host: HostProcess) -> None:
    error = refused(host, "Unary", bytes(MAX_BYTES + 1), timeout=60)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert host.unary("Unary", bytes(MAX_BYTES), timeout=60) == bytes(MAX_BYTES)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(host: HostProcess, compression: grpc.Compression) -> None:
    body = b"water " * 100_000
    assert host.unary("Unary", body, compression=compression) == body
    assert list(host.stream("Chat")(iter([body, body]), timeout=20, compression=compression)) == [body, body]


def test_a_decompression_bomb_is_refused(host: HostProcess) -> None:
    error = refused(host, "Unary", bytes(4 * MAX_BYTES), timeout=60, compression=grpc.Compression.Gzip)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_bidirectional_streams_take_turns(host: HostProcess) -> None:
    async with aio.insecure_channel(host.address) as channel:

        async def chat(number: int) -> None:
            call: Any = channel.stream_stream(path("Chat"))(timeout=30)
            for turn in range(20):
                await call.write(f"{number} {turn}".encode())
                assert await call.read() == f"{number} {turn}".encode()
            await call.done_writing()
            assert await call.read() is aio.EOF
            assert dict(await call.trailing_metadata())["count"] == "20"

        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(chat(number))


def test_a_stream_fails_with_its_status_after_messages(host: HostProcess) -> None:
    call = host.stream("Half")(iter([]), timeout=20)
    assert next(call) == b"one"
    with pytest.raises(grpc.RpcError):
        next(call)
    assert (call.code(), call.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "broke off")


def stands(count: Callable[[], int]) -> Callable[[], bool]:
    """Whether a count has been the same for twenty looks."""
    seen: list[int] = []

    def looked() -> bool:
        seen.append(count())
        return len(seen) > 20 and seen[-1] == seen[-20]

    return looked


def test_a_handler_that_reads_late_holds_its_client_back(host: HostProcess) -> None:
    """The client may offer far more than the host buffers; nothing is lost and nothing refused."""
    sent: list[int] = []

    def offers() -> Iterator[bytes]:
        for number in range(60):
            sent.append(number)
            yield bytes(1_000_000)

    call = host.stream("Deaf")(offers(), timeout=60)
    assert next(call) == b"listening"
    until(stands(lambda: len(sent)), "the client to be held back")
    assert len(sent) < 60
    host.unary("Release")
    assert [int(answer) for answer in call] == [1_000_000] * 60


def test_a_client_that_reads_slowly_holds_the_handler_back(host: HostProcess) -> None:
    call = host.stream("Flood")(iter([]), timeout=60)
    next(call)
    until(stands(lambda: host.state()["flooded"]), "the flood to stand")
    before = host.state()
    call.cancel()
    until(lambda: host.state()["cancelled"] > before["cancelled"], "the flood to end")


@pytest.mark.parametrize("name", ["Wait", "Deaf", "Idle"])
def test_a_deadline_ends_the_handler(host: HostProcess, name: str) -> None:
    before = host.state()
    call = host.stream(name)(iter([b"x"]), timeout=0.3)
    with pytest.raises(grpc.RpcError):
        list(call)
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: settled(host, before, 1), "the handler to end")


# A unary call's body is over before its handler begins.
@pytest.mark.parametrize(
    ("name", "open_body"), [("Wait", False), ("Deaf", False), ("Deaf", True), ("Idle", False), ("Idle", True)]
)
def test_a_caller_that_leaves_cancels_the_handler(host: HostProcess, name: str, open_body: bool) -> None:
    before, done = host.state(), threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"x"
        if open_body:
            done.wait(60)

    call = host.stream(name)(messages(), timeout=60)
    until(lambda: host.state()["waiting"] == before["waiting"] + 1, "the handler to wait")
    call.cancel()
    until(lambda: settled(host, before, 1), "the handler to be cancelled", 5)
    done.set()


def test_errors_carry_code_text_and_trailing_metadata(host: HostProcess) -> None:
    error = refused(host, "Fail")
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert error.details() == "größe 漢字 100%\nsecond line"
    assert dict(error.trailing_metadata())["why"] == "asked"


def test_a_bug_in_a_handler_is_not_shown_to_the_caller(host: HostProcess) -> None:
    error = refused(host, "Fail", b"bug")
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "ZeroDivisionError: secret" in host.said.read_text()


@pytest.mark.parametrize("kind", [b"long", b"broken text"])
def test_odd_error_texts_still_arrive(host: HostProcess, kind: bytes) -> None:
    assert refused(host, "Fail", kind).code() == grpc.StatusCode.NOT_FOUND


def test_metadata_goes_both_ways(host: HostProcess) -> None:
    answer, call = host.method("Metadata").with_call(
        b"", timeout=20, metadata=(("text", "plain"), ("raw-bin", b"\x00\x01\xfe"))
    )
    assert answer == b"\x00\x01\xfe"
    trailing = dict(call.trailing_metadata())
    assert (trailing["text"], trailing["raw-bin"]) == ("plain", b"\x00\xff")
    assert trailing["odd"] == "zw?lf??x: y"


def test_an_unknown_method(host: HostProcess) -> None:
    assert refused(host, "/no.Such/Method").code() == grpc.StatusCode.UNIMPLEMENTED


def test_health(host: HostProcess) -> None:
    stub: Any = health_pb2_grpc.HealthStub(host.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status == serving
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=20)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == serving
    watch.cancel()


def test_reflection_describes_what_is_served(host: HostProcess) -> None:
    database = ProtoReflectionDescriptorDatabase(host.channel)
    names = list(database.get_services())
    assert "grpc.health.v1.Health" in names
    pool = DescriptorPool(database)
    assert "Check" in pool.FindServiceByName("grpc.health.v1.Health").methods_by_name
    described = [name for name in names if name != "grpc.health.v1.Echo"]
    for name in described:
        assert pool.FindServiceByName(name).full_name == name


def test_reflection_v1_answers_too(host: HostProcess) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    requests = [ask(list_services=""), ask(file_containing_symbol="no.such.Thing")]
    call = host.stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    bodies = list(call(iter([request.SerializeToString() for request in requests]), timeout=20))
    answers = [reflection_pb2.ServerReflectionResponse.FromString(body) for body in bodies]
    assert "grpc.health.v1.Health" in [service.name for service in answers[0].list_services_response.service]
    assert answers[1].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_http_beside_grpc(host: HostProcess, front: str) -> None:
    answer = host.get("/")
    assert (answer["front"], answer["advertise"]) == (front, host.address)
    assert (host.http == host.address) == (front == "envoy")


def prefix(size: int, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, size)


def post(method: str, body: bytes, claimed: int) -> bytes:
    """A gRPC call over HTTP/1.1 that claims a body of another length than it may have."""
    lines = [f"POST /grpc.health.v1.Echo/{method} HTTP/1.1", "Host: x", "Content-Type: application/grpc"]
    return "\r\n".join([*lines, f"Content-Length: {claimed}", "", ""]).encode() + body


GARBAGE = [
    b"",
    b"\x00",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    b"\xff" * 4096,
    post("Unary", prefix(2**31) + b"xx", 7),
    post("Unary", prefix(0, flag=7), 5),
    post("Chat", b"x", 9),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_harms_nobody(host: HostProcess, garbage: bytes) -> None:
    name, _, port = host.address.rpartition(":")
    with socket.create_connection((name, int(port)), timeout=20) as raw:
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        try:
            while raw.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert host.unary("Unary", b"x") == b"x"
