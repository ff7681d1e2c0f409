"""The Python client against a server in this process that answers as the test says."""

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from headrace import AsyncClient, Client, HeadraceError
from headrace.client.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    QueueFullError,
    UnavailableError,
)
from headrace.client.tensors import Array, make_request, read_response
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

Behaviour = Callable[[grpc.ServicerContext], None]


class Echo(GRPCInferenceServiceServicer):
    """Gives inputs back as outputs, after `behaviour` had its say; models with a comma in the name have two inputs."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = lambda context: None
        self.infers = self.metadata_calls = 0

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:  # noqa: N802
        self.infers += 1
        self.behaviour(context)
        context.set_trailing_metadata((("headrace-receipt", '{"batch_rows": 3}'),))
        response = pb.ModelInferResponse(model_version="7", id=request.id)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(raw)
        return response

    def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        self.metadata_calls += 1
        response = pb.ModelMetadataResponse(name=request.name)
        for name in request.name.split(","):
            response.inputs.add(name=name)
        return response


@pytest.fixture
def echo() -> Echo:
    return Echo()  # type: ignore[abstract]  # the methods that are not overridden answer UNIMPLEMENTED


@pytest.fixture
def address(echo: Echo) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        add_GRPCInferenceServiceServicer_to_server(echo, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as connected:
        yield connected


@pytest.fixture
async def async_client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address) as connected:
        yield connected


def refuse(code: grpc.StatusCode, times: int = 10**6) -> Behaviour:
    """A behaviour that fails the first `times` calls."""
    left = iter(range(times))

    def behaviour(context: grpc.ServicerContext) -> None:
        if next(left, None) is not None:
            context.abort(code, "because")

    return behaviour


ARRAYS: dict[str, Array] = {
    "floats": np.array([[1.5, -2.0]], np.float32),
    "halves": np.array([1.0, 0.5], np.float16),
    "big-endian": np.array([1, 2, 3], ">i4"),
    "strided": np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    "scalar": np.array(5, np.uint8),
    "empty": np.zeros((0, 4), np.float64),
    "truth": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_they_went(client: Client, name: str) -> None:
    result = client.infer("m", {name: ARRAYS[name]})
    np.testing.assert_array_equal(result.outputs[name], ARRAYS[name])
    assert result.outputs[name].dtype == ARRAYS[name].dtype.newbyteorder("=")
    assert (result.model_version, result.receipt) == ("7", {"batch_rows": 3})


def test_strings_and_bytes_travel_as_bytes(client: Client) -> None:
    values = np.array([["größe", b"\x00\xff"], ["", b"x" * 300]], object)
    back = client.infer("m", {"x": values}).outputs["x"]
    assert back.shape == (2, 2)
    assert back.ravel().tolist() == ["größe".encode(), b"\x00\xff", b"", b"x" * 300]
    assert client.infer("m", {"x": np.array(["ab", "c"])}).outputs["x"].tolist() == [b"ab", b"c"]


def test_a_type_that_the_protocol_lacks_is_refused_before_it_is_sent(client: Client, echo: Echo) -> None:
    with pytest.raises(InvalidArgumentError, match="input 'x' is complex128; expected one of bool"):
        client.infer("m", {"x": np.array([1j])})
    assert echo.infers == 0


def test_one_array_goes_to_the_only_input_whose_name_is_asked_for_once(client: Client, echo: Echo) -> None:
    for _ in range(3):
        assert list(client.infer("image", np.zeros((1, 2), np.float32)).outputs) == ["image"]
    assert echo.metadata_calls == 1
    with pytest.raises(InvalidArgumentError, match=r"'a,b' has the inputs .*pass a dictionary"):
        client.infer("a,b", np.zeros((1, 2), np.float32))


async def test_the_async_client_does_the_same(async_client: AsyncClient, echo: Echo) -> None:
    result = await async_client.infer("image", np.array([[1, 2]]), request_id="r")
    assert result.outputs["image"].tolist() == [[1, 2]]
    assert result.receipt == {"batch_rows": 3}
    echo.behaviour = refuse(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(NotFoundError, match="because"):
        await async_client.infer("m", {"x": np.zeros(1)})


KINDS: dict[grpc.StatusCode, type[HeadraceError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFullError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.DATA_LOSS: HeadraceError,
}


@pytest.mark.parametrize("code", KINDS, ids=lambda code: str(code.name))
def test_statuses_become_typed_errors_and_are_not_retried(client: Client, echo: Echo, code: grpc.StatusCode) -> None:
    echo.behaviour = refuse(code)
    with pytest.raises(HeadraceError, match="because") as failed:
        client.infer("m", {"x": np.zeros(1)})
    assert type(failed.value) is KINDS[code]
    assert (failed.value.code, echo.infers) == (code.name, 1)


def test_unavailable_is_retried_and_then_told(client: Client, echo: Echo) -> None:
    echo.behaviour = refuse(grpc.StatusCode.UNAVAILABLE, times=2)
    assert client.infer("m", {"x": np.zeros(1)}).model_version == "7"
    assert echo.infers == 3
    echo.behaviour = refuse(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UnavailableError, match="because"):
        client.infer("m", {"x": np.zeros(1)})


def test_a_response_of_bf16_keeps_its_bits() -> None:
    response = pb.ModelInferResponse(raw_output_contents=[b"\x80\x3f"])
    response.outputs.add(name="y", datatype="BF16", shape=[1])
    assert read_response(response)["y"].tolist() == [0x3F80]
    assert make_request("m", {}, "2", "id").model_version == "2"
