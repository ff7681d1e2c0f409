"""A batch on the device: joined, run, split; whoever is at fault fails alone."""

import numpy as np
import pytest

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.model_pb2 import BatchingSpec, ModelSpec, ModelVersion, TensorSpec
from headrace.v1.reply_pb2 import Reply
from services.common.tensors import Array
from services.worker.execution import Job, run_batch
from services.worker.runtime.port import LoadedModel

POISON = 666.0


class Doubler:
    """y = 2x; a batch with poison in it fails. Counts its runs."""

    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        x = inputs["x"].astype(np.float32)
        self.batches.append(len(x))
        if (x == POISON).any():
            raise RuntimeError("poison in the batch\nand a stack trace")
        return {"y": x * 2}


class Summer:
    """One sum for the whole batch: not a row for each row."""

    device = "cpu"

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"].astype(np.float32).sum(keepdims=True)}


def version(*, rows: int = 8, padding: bool = False, width: int = 2) -> ModelVersion:
    spec = ModelSpec(
        inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, width])],
        outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, width])],
        batching=BatchingSpec(max_batch_size=rows, padding=padding, padding_value=-1),
    )
    return ModelVersion(name="m", version=3, spec=spec)


def job(number: int, *values: float, width: int = 2) -> Job:
    """One row of `width` equal numbers for each value."""
    request = ModelInferRequest(model_name="m", id=f"client-{number}")
    request.inputs.add(name="x", datatype="FP32", shape=[len(values), width])
    request.raw_input_contents.append(np.repeat(np.array(values, np.float32), width).tobytes())
    return Job(number, request, len(values), 1_000, 3_000)


def replies_of(model: LoadedModel, version: ModelVersion, jobs: list[Job]) -> list[Reply]:
    return run_batch(model, version, jobs)[0]


def values(reply: Reply) -> list[float]:
    response = ModelInferResponse.FromString(reply.body)
    return [float(value) for value in np.frombuffer(response.raw_output_contents[0], np.float32)]


def test_each_request_gets_its_own_rows_and_a_receipt() -> None:
    model = Doubler()
    replies = replies_of(model, version(), [job(1, 1.0), job(2, 2.0, 3.0)])
    assert [values(reply) for reply in replies] == [[2, 2], [4, 4, 6, 6]]
    assert model.batches == [3]
    receipt = replies[1].receipt
    assert (receipt.batch_rows, receipt.batch_requests, receipt.model_version, receipt.queue_us) == (3, 2, 3, 2_000)
    assert ModelInferResponse.FromString(replies[0].body).id == "client-1"


def test_gateways_number_alike_and_their_answers_are_never_swapped() -> None:
    replies = replies_of(Doubler(), version(), [job(1, 1.0), job(1, 5.0)])
    assert [values(reply) for reply in replies] == [[2, 2], [10, 10]]


@pytest.mark.parametrize("at", range(5))
def test_a_poisoned_request_fails_alone(at: int) -> None:
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0]
    numbers[at] = POISON
    replies = replies_of(Doubler(), version(), [job(index, number) for index, number in enumerate(numbers)])
    for index, reply in enumerate(replies):
        assert reply.id == index
        if index == at:
            assert reply.error.code == 13
            assert reply.error.message == "model 'm' version 3 failed on this request: poison in the batch"
        else:
            assert values(reply) == [2 * numbers[index]] * 2


def test_a_request_whose_bytes_do_not_fit_fails_before_the_batch() -> None:
    bad = job(2, 2.0)
    bad.request.raw_input_contents[0] = b"123"
    model = Doubler()
    replies = replies_of(model, version(), [job(1, 1.0), bad, job(3, 3.0)])
    assert replies[1].error.code == 3
    assert [values(replies[0]), values(replies[2])] == [[2, 2], [6, 6]]
    assert model.batches == [2]


def test_rows_that_disagree_never_shift_a_neighbours() -> None:
    """A second input with another number of rows would move the rows of whoever comes after."""
    crooked = job(1, 1.0)
    crooked.request.inputs.add(name="z", datatype="FP32", shape=[2, 1])
    crooked.request.raw_input_contents.append(bytes(8))
    replies = replies_of(Doubler(), version(), [crooked, job(2, 2.0)])
    assert replies[0].error.code == 3
    assert "2 rows" in replies[0].error.message
    assert values(replies[1]) == [4, 4]


def test_types_are_never_mixed_silently() -> None:
    other = job(2, 2.0)
    other.request.inputs[0].datatype = "FP64"
    other.request.raw_input_contents[0] = np.full(2, 2.5).tobytes()
    model = Doubler()
    replies = replies_of(model, version(), [job(1, 1.0), other])
    assert [values(reply) for reply in replies] == [[2, 2], [5, 5]]
    assert model.batches == [1, 1]


def test_padding_evens_lengths_out() -> None:
    replies = replies_of(Doubler(), version(padding=True, width=-1), [job(1, 1.0), job(2, 2.0, width=4)])
    assert [values(reply) for reply in replies] == [[2, 2, -2, -2], [4, 4, 4, 4]]


def test_a_model_that_does_not_work_row_by_row_still_answers() -> None:
    replies = replies_of(Summer(), version(), [job(1, 1.0), job(2, 2.0)])
    assert [values(reply) for reply in replies] == [[2.0], [4.0]]


def test_only_the_outputs_asked_for_are_sent() -> None:
    asking = job(1, 1.0)
    asking.request.outputs.add(name="nope")
    reply = replies_of(Doubler(), version(), [asking])[0]
    assert reply.error.code == 3
    assert "no output 'nope'" in reply.error.message
