"""Requests that no honest client sends: good ones in which one thing is wrong."""

import struct
from collections.abc import Callable
from random import Random

from headrace.inference.grpc_service_pb2 import ModelInferRequest


def good_request(random: Random) -> ModelInferRequest:
    """A request that the stack's models take."""
    name, datatype, width, model = random.choice(
        [("x", "FP32", 16, "add_one"), ("x", "INT64", 1, "double"), ("text", "BYTES", 1, "echo_text")]
    )
    rows = random.randint(1, 4)
    request = ModelInferRequest(model_name=model, id=text(random, 8))
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[rows, width])
    if random.random() < 0.5:
        request.raw_input_contents.append(_raw(random, datatype, rows * width))
    elif datatype == "FP32":
        tensor.contents.fp32_contents.extend([random.gauss(0, 1e3) for _ in range(rows * width)])
    elif datatype == "INT64":
        tensor.contents.int64_contents.extend([random.randint(-9, 9) for _ in range(rows * width)])
    else:
        tensor.contents.bytes_contents.extend([random.randbytes(3).hex().encode() for _ in range(rows * width)])
    return request


def _raw(random: Random, datatype: str, count: int) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", 6) + random.randbytes(3).hex().encode() for _ in range(count))
    return struct.pack(f"<{count}{'f' if datatype == 'FP32' else 'q'}", *range(count))


def text(random: Random, most: int) -> str:
    """Something that is a string, at most."""
    alphabet = random.choice(["abc", "äß漢🙂", "a\0/\\\n\r\t", "%s{}'\"<>", "../"])
    return "".join(random.choices(alphabet, k=random.randint(0, most)))


# What is wrong with an otherwise good request; each makes it one that no server may run.


def _model_name(random: Random, request: ModelInferRequest) -> None:
    honest = request.model_name
    request.model_name = random.choice(
        ["", honest + "\0", f"../{honest}", f"{honest}/1", honest.upper(), "漢字", "x" * random.randint(1, 20_000)]
    )


def _version(random: Random, request: ModelInferRequest) -> None:
    request.model_version = random.choice(
        ["0", "-1", "7", "1.0", "١", "1e3", " 1", "9" * random.choice([19, 400, 10_000]), "nope", "\0", "1\n"]
    )


def _input_name(random: Random, request: ModelInferRequest) -> None:
    request.inputs[0].name = random.choice(["", "X", "x ", "\0", "y", "x" * 5000, "漢字"])


def _datatype(random: Random, request: ModelInferRequest) -> None:
    names = ["", "FLOAT", "fp32", "FP16", "BF16", "UINT8", "FP64", "BOOL", "\0", "BYTES\0", "F" * 5000]
    request.inputs[0].datatype = random.choice(names)


def _shape(random: Random, request: ModelInferRequest) -> None:
    honest = list(request.inputs[0].shape)
    huge = random.choice([2**31, 2**32, 2**62, 2**63 - 1])
    wrong = [
        [],
        [0, *honest[1:]],
        [-1, *honest[1:]],
        [-huge, *honest[1:]],
        [huge, *honest[1:]],
        [huge, huge],
        [65, *honest[1:]],
        [honest[0], honest[1] + 1],
        [honest[0], -1],
        [*honest, 1],
        honest[:1],
        [1] * random.randint(3, 5000),
    ]
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend(random.choice(wrong))


def _contents(random: Random, request: ModelInferRequest) -> None:
    """Too few, too many, of another field, or as well as raw contents."""
    tensor = request.inputs[0]
    if request.raw_input_contents:
        raw = request.raw_input_contents[0]
        wrong = random.choice([raw[:-1], raw + b"\0", b"", raw * 2, raw[: len(raw) // 2]])
        match random.randrange(3):
            case 0:
                request.raw_input_contents[0] = wrong
            case 1:
                request.raw_input_contents.append(wrong)
            case _:
                tensor.contents.bool_contents.append(True)
        return
    fields = ["bool_contents", "int_contents", "uint_contents", "uint64_contents", "fp64_contents"]
    getattr(tensor.contents, random.choice(fields)).append(1)


def _inputs(random: Random, request: ModelInferRequest) -> None:
    """Missing, twice, or too many."""
    match random.randrange(3):
        case 0:
            del request.inputs[:]
        case 1:
            request.inputs.append(request.inputs[0])
        case _:
            request.inputs.add(name="further", datatype="FP32", shape=[1])


def _outputs(random: Random, request: ModelInferRequest) -> None:
    output = request.outputs.add(name=random.choice(["nope", "", "\0", "y" * 5000]))
    if random.random() < 0.5:
        output.parameters["classification"].int64_param = random.choice([-1, 3, 2**40])


def _parameters(random: Random, request: ModelInferRequest) -> None:
    """Shared memory, or a timeout that is none."""
    match random.randrange(3):
        case 0:
            request.inputs[0].parameters["shared_memory_region"].string_param = "../../etc/passwd"
        case 1:
            request.parameters["timeout"].int64_param = -random.choice([1, 2**40, 2**63])
        case _:
            kind = random.choice(["string_param", "bool_param", "double_param"])
            value: object = {"string_param": "soon", "bool_param": True, "double_param": float("nan")}[kind]
            setattr(request.parameters["timeout"], kind, value)


def _byte_lengths(random: Random, request: ModelInferRequest) -> None:
    """BYTES whose length prefixes lie, or that are no text."""
    del request.inputs[:], request.raw_input_contents[:]
    request.model_name = "echo_text"
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    lies = [
        struct.pack("<I", random.choice([5, 2**31, 2**32 - 1])) + b"four",
        struct.pack("<I", 3) + b"four",
        b"\x01\x00\x00",
        struct.pack("<I", 2) + b"\xff\xfe",
    ]
    request.raw_input_contents.append(random.choice(lies))


MISFITS: list[Callable[[Random, ModelInferRequest], None]] = [
    _model_name,
    _version,
    _input_name,
    _datatype,
    _shape,
    _contents,
    _inputs,
    _outputs,
    _parameters,
    _byte_lengths,
]


def misfit_request(random: Random) -> tuple[str, ModelInferRequest]:
    """What is wrong, and a well-formed request that no model takes for it."""
    request = good_request(random)
    wrong = random.choice(MISFITS)
    wrong(random, request)
    return wrong.__name__.strip("_"), request
