"""Calls that no honest client makes. Each kind is a function of a random generator, so that a seed tells them all."""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from headrace.inference import grpc_service_pb2
from headrace.v1 import gateway_pb2, reply_pb2
from tests.support.hostile_messages import request_of
from tests.support.hostile_requests import good_request, misfit_request
from tests.support.http2 import Headers

INFERENCE = "/inference.GRPCInferenceService/"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, ABORTED = 0, 3, 4, 5, 6, 7, 10
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = 8, 9, 11, 12, 13, 16
# gRPC's codes that blame the request: what HTTP calls 4xx.
CALLERS_FAULT = frozenset(
    {
        INVALID_ARGUMENT,
        NOT_FOUND,
        PERMISSION_DENIED,
        RESOURCE_EXHAUSTED,
        FAILED_PRECONDITION,
        OUT_OF_RANGE,
        UNIMPLEMENTED,
        UNAUTHENTICATED,
    }
)
# What grpc's own server makes of broken transport before any handler is asked: INTERNAL for frames and headers that it
# cannot read (so the gRPC specification has it), silence until the deadline for a call without a message, and of two
# messages it takes the first. On Envoy the framing is ours, and there it is the caller's fault.
GRPC_CORES_OWN = frozenset({INTERNAL, DEADLINE_EXCEEDED, OK})
GATEWAY_SERVICES: list[Any] = [
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"],
    reply_pb2.DESCRIPTOR.services_by_name["ReplyService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
# Longer than any honest call of these tests takes; a hang would show as a DEADLINE_EXCEEDED that is not allowed.
PATIENCE = b"30S"


@dataclass(frozen=True, slots=True)
class HostileCall:
    """One call.

    Attributes:
        body: with its framing.
        allowed: status codes that it may be answered with.
        transport: what is wrong lies below the handlers, where grpc's own server answers by rules of its own.
    """

    kind: str
    path: str
    body: bytes
    metadata: Headers = field(default_factory=list)
    allowed: frozenset[int] = CALLERS_FAULT
    transport: bool = False

    @property
    def may_run(self) -> bool:
        """An OK means that a worker ran it."""
        return self.path == f"{INFERENCE}ModelInfer"

    def allowed_on(self, front: str) -> frozenset[int]:
        """The codes that this front may answer it with."""
        return self.allowed | (GRPC_CORES_OWN if self.transport and front == "grpc" else frozenset())

    def headers(self) -> Headers:
        """What goes into the HEADERS frame."""
        given = {key for key, _ in self.metadata}
        usual = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", self.path.encode()),
            (b":authority", b"headrace"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", b"200m" if self.transport else PATIENCE),
        ]
        return [(key, value) for key, value in usual if key not in given] + self.metadata


def hostile_call(random: Random) -> HostileCall:
    """Any of them; those that look most like honest requests come most often."""
    return random.choices(list(KINDS), weights=list(KINDS.values()))[0](random)


def framed(message: bytes, flag: int = 0, size: int | None = None) -> bytes:
    """Behind gRPC's prefix, true or not."""
    return struct.pack(">BI", flag, len(message) if size is None else size) + message


def misfit(random: Random) -> HostileCall:
    """Well-formed, but not what the model takes."""
    wrong, request = misfit_request(random)
    return HostileCall(f"misfit {wrong}", f"{INFERENCE}ModelInfer", framed(request.SerializeToString()))


def scrambled(random: Random) -> HostileCall:
    """A good request with bytes changed, repeated or taken out: it may still be one."""
    body = bytearray(good_request(random).SerializeToString())
    for _ in range(random.randint(1, 4)):
        at, size = random.randrange(len(body) + 1), random.randint(1, 8)
        match random.randrange(3):
            case 0:
                body[at : at + size] = random.randbytes(size)
            case 1:
                body[at:at] = body[at : at + size]
            case _:
                del body[at : at + size]
    return HostileCall("scrambled", f"{INFERENCE}ModelInfer", framed(bytes(body)), allowed=CALLERS_FAULT | {OK})


def truncated(random: Random) -> HostileCall:
    """A good request that breaks off, in a frame that says so."""
    body = good_request(random).SerializeToString()
    return HostileCall("truncated", f"{INFERENCE}ModelInfer", framed(body[: random.randrange(len(body))]))


def noise(random: Random) -> HostileCall:
    """Nothing that means anything."""
    return HostileCall("noise", f"{INFERENCE}ModelInfer", framed(random.randbytes(random.randint(0, 300))))


def misframed(random: Random) -> HostileCall:
    """A good message in a frame that lies."""
    body = good_request(random).SerializeToString()
    packed = gzip.compress(body)
    gzipped = [(b"grpc-encoding", b"gzip")]
    wrong, metadata = random.choice(
        [
            (framed(body, flag=random.randint(2, 255)), []),
            (framed(body, flag=1), []),
            (framed(body, flag=1), gzipped),
            (framed(packed[: len(packed) // 2], flag=1), gzipped),
            (framed(body, size=len(body) + random.randint(1, 100)), []),
            (framed(body, size=random.randrange(len(body))), []),
            (framed(body, size=random.choice([2**27, 2**31, 2**32 - 1])), []),
            (framed(body) * 2, []),
            (framed(body)[: random.randint(1, 4)], []),
            (b"", []),
        ]
    )
    return HostileCall("misframed", f"{INFERENCE}ModelInfer", wrong, metadata, transport=True)


def odd_metadata(random: Random) -> HostileCall:
    """A good request with headers that are none: refused, or run as if they were not there."""
    metadata = random.choice(
        [
            (b"grpc-timeout", random.choice([b"", b"S", b"-1S", b"1", b"1x", b"123456789S", b"1.5S", b"\xff"])),
            (b"grpc-timeout", random.choice([b"0n", b"1n", b"99999999H", b"99999999M"])),
            (b"grpc-encoding", random.choice([b"", b"br", b"gzip,deflate", b"\xff\xfe", b"x" * 2000])),
            (b"traceparent", random.choice([b"", b"00-0-0-0", b"00-" + b"f" * 500, b"ff" * 30, b"\xc3\x28"])),
            (b"something-bin", random.choice([b"!!!", b"=", b"a", b"\xff" * 9, b"YQ==,YQ"])),
            (b"content-type", random.choice([b"application/grpc+json", b"application/grpc;q=\xff"])),
            (b"grpc-accept-encoding", b"\xff"),
            (b"x-" + b"a" * random.randint(1, 3000), b"b" * random.randint(0, 3000)),
        ]
    )
    body = framed(good_request(random).SerializeToString())
    allowed = CALLERS_FAULT | {OK, DEADLINE_EXCEEDED}
    return HostileCall(f"metadata {metadata!r:.80}", f"{INFERENCE}ModelInfer", body, [metadata], allowed, True)


def method_call(random: Random, service: Any) -> HostileCall:
    """A method of a service (its descriptor), with messages of its kind that make no sense; some may be asked."""
    method = random.choice(service.methods)
    path = f"/{service.full_name}/{method.name}"
    if method.client_streaming:
        body = b"".join(framed(request_of(random, method)) for _ in range(random.randint(0, 5)))
    else:
        body = framed(request_of(random, method))
    allowed = (
        CALLERS_FAULT | {OK, ALREADY_EXISTS, ABORTED} | ({DEADLINE_EXCEEDED} if method.server_streaming else set())
    )
    # Some streams end only when their caller leaves.
    patience = b"100m" if method.server_streaming else PATIENCE
    return HostileCall(f"method {path}", path, body, [(b"grpc-timeout", patience)], allowed)


def other_method(random: Random) -> HostileCall:
    """What a gateway serves beside ModelInfer."""
    return method_call(random, random.choice(GATEWAY_SERVICES))


def unknown_method(random: Random) -> HostileCall:
    """Nobody answers to this."""
    paths = [f"{INFERENCE}Nope", f"{INFERENCE}modelinfer", f"{INFERENCE}ModelInfer/", "/x.Y/Z", "/a/b/c/d", "/", "//"]
    path = random.choice([*paths, "/%00/%ff", f"/{'x' * 3000}/y"])
    return HostileCall("unknown method", path, framed(b""), allowed=frozenset({UNIMPLEMENTED, PERMISSION_DENIED}))


def stream_of_garbage(random: Random) -> HostileCall:
    """Many bad messages on one stream, which answers each and lives on."""
    messages = [framed(random.choice([misfit, truncated, noise])(random).body[5:]) for _ in range(random.randint(1, 8))]
    path = f"{INFERENCE}ModelStreamInfer"
    return HostileCall("stream", path, b"".join(messages), allowed=CALLERS_FAULT | {OK})


KINDS: dict[Callable[[Random], HostileCall], int] = {
    misfit: 10,
    scrambled: 6,
    truncated: 2,
    noise: 2,
    misframed: 3,
    odd_metadata: 3,
    other_method: 4,
    unknown_method: 1,
    stream_of_garbage: 1,
}
