"""Running a batch on the device's thread: decode, join, run, split, encode; a failed batch is halved until the request
at fault stands alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Receipt, Reply, ReplyError, StageReceipt
from services.common.errors import HeadraceError, InvalidArgument, ModelFailed, status_of
from services.common.telemetry.batches import StageRun
from services.common.tensors import Array, OutputEncoder, decode_inputs
from services.worker.runtime.ensemble import EnsembleModel
from services.worker.runtime.port import LoadedModel


@dataclass(slots=True, eq=False)
class Job:
    """One request in the worker's hands.

    Attributes:
        accepted_unix_us, received_unix_us: when the gateway and this worker got it.
        traceparent: W3C trace context; empty where the request is not sampled.
        background: callers went first: how long it waited is nobody's concern.
    """

    id: int
    request: ModelInferRequest
    rows: int
    accepted_unix_us: int
    received_unix_us: int
    traceparent: str = ""
    background: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the model that decided its requests' fate; times are Unix nanoseconds.

    Attributes:
        start_ns, end_ns: from decoding to the last encoding.
        compute_start_ns, compute_ns: the model's own run.
        error: why its only request failed; empty: all were answered.
        stages: an ensemble's steps.
    """

    jobs: list[Job]
    rows: int
    start_ns: int
    end_ns: int
    compute_start_ns: int
    compute_ns: int
    error: str = ""
    stages: Sequence[StageRun] = ()


# Place in the batch, the job, its inputs.
Decoded = tuple[int, Job, dict[str, Array]]


def run_batch(model: LoadedModel, version: ModelVersion, jobs: list[Job]) -> tuple[list[Reply], list[Run]]:
    """One reply for each job, in order, and the runs that they came from. Never raises: errors are replies."""
    start_ns = time.time_ns()
    runs: list[Run] = []
    decoded: list[Decoded] = []
    # By place, not by id: each gateway counts its own requests, so two of them may send the same number.
    replies: list[Reply] = [Reply(id=job.id) for job in jobs]
    batched = version.spec.batching.max_batch_size > 0
    for place, job in enumerate(jobs):
        try:
            inputs = decode_inputs(job.request)
            if batched:
                _check_rows(inputs, job.rows)
            decoded.append((place, job, inputs))
        except HeadraceError as error:
            replies[place] = failure(job.id, error)
    if decoded:
        _Halving(model, version, replies, runs).run(decoded, start_ns)
    return replies, runs


def _check_rows(inputs: dict[str, Array], rows: int) -> None:
    """An input with other rows than its request's would shift those of every batch-mate behind it."""
    for name, array in inputs.items():
        if array.shape[:1] != (rows,):
            raise InvalidArgument(f"input '{name}' has {array.shape[:1][0] if array.shape else 'no'} rows, not {rows}")


def failure(request_id: int, error: Exception) -> Reply:
    """The reply that carries an error."""
    return Reply(id=request_id, error=ReplyError(code=status_of(error).grpc, message=str(error)))


@dataclass(frozen=True, slots=True)
class _Halving:
    """Runs jobs as one batch, or as halves of it if that fails; fills their places in `replies` and adds to `runs`."""

    model: LoadedModel
    version: ModelVersion
    replies: list[Reply]
    runs: list[Run]

    def run(self, jobs: list[Decoded], start_ns: int) -> None:
        compute_start_ns, began = time.time_ns(), time.perf_counter_ns()
        compute_ns, error = 0, ""
        stages: Sequence[StageRun] = ()
        try:
            inputs = _join([inputs for _, _, inputs in jobs], self.version)
            if isinstance(self.model, EnsembleModel):
                outputs, stages = self.model.run_staged(inputs)
            else:
                outputs = self.model.run(inputs)
            compute_ns = time.perf_counter_ns() - began
            parts = _split(outputs, [job.rows for _, job, _ in jobs])
            encode = OutputEncoder(self.version).encode
            bodies = [encode(job.request, part) for (_, job, _), part in zip(jobs, parts, strict=True)]
        except Exception as failed:
            if len(jobs) > 1:
                middle = len(jobs) // 2
                self.run(jobs[:middle], time.time_ns())
                self.run(jobs[middle:], time.time_ns())
                return
            place, job, _ = jobs[0]
            self.replies[place] = failure(job.id, _fault(failed, self.version))
            error = self.replies[place].error.message
        else:
            self._answer(jobs, bodies, compute_start_ns // 1000, compute_ns // 1000, stages)
        rows, alone = sum(job.rows for _, job, _ in jobs), [job for _, job, _ in jobs]
        self.runs.append(Run(alone, rows, start_ns, time.time_ns(), compute_start_ns, compute_ns, error, stages))

    def _answer(
        self, jobs: list[Decoded], bodies: list[bytes], start_unix_us: int, compute_us: int, stages: Sequence[StageRun]
    ) -> None:
        ran = [
            StageReceipt(model=each.model, version=each.version, compute_us=each.compute_ns // 1000) for each in stages
        ]
        rows = sum(job.rows for _, job, _ in jobs)
        for (place, job, _), body in zip(jobs, bodies, strict=True):
            receipt = Receipt(
                queue_us=max(0, job.received_unix_us - job.accepted_unix_us),
                batch_us=max(0, start_unix_us - job.received_unix_us),
                compute_us=compute_us,
                batch_rows=rows,
                batch_requests=len(jobs),
                model_version=self.version.version,
                stages=ran,
            )
            self.replies[place] = Reply(id=job.id, body=body, receipt=receipt)


def _fault(error: Exception, version: ModelVersion) -> Exception:
    """What the caller of a request is told that failed alone."""
    if isinstance(error, InvalidArgument):
        return error
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelFailed(f"model '{version.name}' version {version.version} failed on this request: {reason}")


def _join(inputs: list[dict[str, Array]], version: ModelVersion) -> dict[str, Array]:
    """Along the batch axis; padded to the longest where the model allows it and shapes differ."""
    if len(inputs) == 1:
        return dict(inputs[0])
    batching = version.spec.batching
    joined: dict[str, Array] = {}
    for name in inputs[0]:
        arrays = [item[name] for item in inputs]
        if batching.padding and len({array.shape[1:] for array in arrays}) > 1:
            arrays = _pad(arrays, batching.padding_value)
        # Types that differ make the batch fail and be halved; numpy would convert them in silence.
        joined[name] = np.concatenate(arrays, dtype=arrays[0].dtype, casting="no")
    return joined


def _pad(arrays: list[Array], value: float) -> list[Array]:
    longest = np.max([array.shape[1:] for array in arrays], axis=0)
    padded = []
    for array in arrays:
        widths = [(0, 0), *((0, int(want) - have) for want, have in zip(longest, array.shape[1:], strict=True))]
        fill = b"" if array.dtype == object else array.dtype.type(value)
        padded.append(np.pad(array, widths, constant_values=fill))
    return padded


def _split(outputs: dict[str, Array], rows: list[int]) -> list[dict[str, Array]]:
    """Each job's rows of every output. Raises ModelFailed where an output has not one row for each row that went in."""
    if len(rows) == 1:
        return [outputs]
    total, ends = sum(rows), np.cumsum(rows).tolist()
    for name, array in outputs.items():
        if not array.shape or array.shape[0] != total:
            raise ModelFailed(
                f"output '{name}' has shape {list(array.shape)} for a batch of {total} rows; set"
                " batching.max_batch_size to 0 if the model does not work row by row"
            )
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(rows, ends, strict=True)
    ]
