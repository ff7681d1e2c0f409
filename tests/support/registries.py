"""Registries as real processes, and a client that says what it sends."""

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grpc import aio

from headrace.v1 import registry_pb2 as pb
from headrace.v1.model_pb2 import BatchingSpec, Model, ModelFile, ModelSpec, TensorSpec
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub
from tests.support.stores import RunningStore

X, Y = TensorSpec(name="x", datatype="FP32", shape=[-1, 4]), TensorSpec(name="y", datatype="FP32", shape=[-1, 4])
SPEC = ModelSpec(runtime="onnx", entry="model.onnx", inputs=[X], outputs=[Y], batching=BatchingSpec(max_batch_size=8))


@contextmanager
def registry(store: RunningStore, log: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """A registry process; yields its address.

    Args:
        settings: more HEADRACE_* variables.
    """
    environment = {**os.environ, **store.environment, "HEADRACE_STORE": store.url, "HEADRACE_LISTEN": "127.0.0.1:0"}
    environment |= settings or {}
    command = [sys.executable, "-m", "services.registry"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=output) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().decode().split()
            assert ready, log.read_text()
            yield ready[2]
        finally:
            process.kill()


class Registry:
    """A client that says what it sends."""

    def __init__(self, channel: aio.Channel) -> None:
        self.stub = RegistryServiceStub(channel)
        self.rollouts = RolloutServiceStub(channel)

    async def upload(self, content: bytes, digest: str = "") -> ModelFile:
        """One blob, in pieces."""
        digest = digest or hashlib.sha256(content).hexdigest()

        async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
            yield pb.UploadBlobRequest(header=pb.UploadBlobRequest.Header(sha256=digest, size=len(content)))
            for start in range(0, len(content), 1000):
                yield pb.UploadBlobRequest(chunk=content[start : start + 1000])

        await self.stub.UploadBlob(parts())
        return ModelFile(path="model.onnx", sha256=digest, size=len(content))

    async def publish(self, name: str, file: ModelFile, version: int = 0, spec: ModelSpec = SPEC) -> int:
        """The version's number."""
        request = pb.PublishVersionRequest(name=name, spec=spec, files=[file], version=version)
        return (await self.stub.PublishVersion(request)).version.version

    async def model(self, name: str) -> Model:
        """As listed now."""
        return (await self.stub.GetModel(pb.GetModelRequest(name=name))).model
