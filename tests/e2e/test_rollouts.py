"""A version takes over from another while callers call: nobody fails, and each answer is from the version it says."""

import hashlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import FailedPreconditionError, QueueFullError
from headrace.client.registry import RegistryClient
from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.v1.model_pb2 import ModelFile
from headrace.v1.registry_pb2 import PublishVersionRequest, UploadBlobRequest
from headrace.v1.rollout_pb2 import PromoteRequest, RolloutBounds
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

CALLERS = 16


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of its own with two workers."""
    with running_stack(tmp_path_factory.mktemp("rollouts"), workers=2) as up:
        yield up


@pytest.fixture
def registry(stack: RunningStack) -> Iterator[RegistryClient]:
    """A client of the registry."""
    with RegistryClient(stack.address("registry")) as connected:
        yield connected


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """A client of the gateway."""
    with Client(stack.address("gateway")) as connected:
        yield connected


def push(registry: RegistryClient, client: Client, folder: Path, name: str, *makes: Callable[[Path], Path]) -> None:
    """Versions 1, 2, …; the first is there before the others are."""
    for number, make in enumerate(makes, 1):
        assert registry.push(name, make(folder / f"{name}-{number}.onnx")).version == number
        wait_until(lambda: ready(client, name), f"{name} to be ready")
    wait_until(lambda: len(makes) in versions(client, name), "the gateway to know the last")


def versions(client: Client, name: str) -> set[int]:
    """Those that the gateway knows."""
    return {model.version for model in client.status().models if model.name == name}


def adds(amount: int) -> Callable[[Path], Path]:
    """Version n adds n."""
    return lambda path: models.add(path, amount)


class Callers:
    """Calls until told to stop; each answer is checked against the version that it says it is from."""

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        self._name = name
        self._stop = threading.Event()
        self.versions: list[str] = []
        self.wrong: list[str] = []

    def run(self, number: int) -> None:
        """One caller's life."""
        with grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                try:
                    version, value = call(stub, self._name, f"caller-{number}")
                except grpc.RpcError as error:
                    self.wrong.append(str(error))
                    return
                if value != float(version):
                    self.wrong.append(f"version {version} answered {value}")
                self.versions.append(version)

    @contextmanager
    def calling(self, callers: int = CALLERS) -> Iterator[None]:
        """While the block runs, they call; then nothing may have gone wrong."""
        with ThreadPoolExecutor(callers) as pool:
            futures = [pool.submit(self.run, number) for number in range(callers)]
            try:
                self.more()
                yield
            finally:
                self._stop.set()
            for future in futures:
                future.result()
        assert self.wrong == []

    def more(self, count: int = 200) -> Counter[str]:
        """The versions of answers to so many calls that began from now on, but for the first few under way."""
        begin = len(self.versions) + CALLERS
        wait_until(lambda: len(self.versions) >= begin + count or bool(self.wrong), "more answers")
        assert self.wrong == []
        return Counter(self.versions[begin:])


def call(stub: GRPCInferenceServiceStub, name: str, key: str = "", version: str = "") -> tuple[str, float]:
    """The version that answered zeros, and what it answered."""
    request = ModelInferRequest(
        model_name=name, model_version=version, raw_input_contents=[np.zeros(16, np.float32).tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    metadata = (("headrace-key", key),) if key else ()
    response: ModelInferResponse = stub.ModelInfer(request, timeout=30, metadata=metadata)
    return response.model_version, float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])


def stub_of(client: Client) -> GRPCInferenceServiceStub:
    """The client's own stub: the tests want versions and numbers, without signatures."""
    return client._stub


def routed(client: Client, name: str, key: str = "") -> set[str]:
    """Versions that answer requests which name none."""
    return {call(stub_of(client), name, key)[0] for _ in range(20)}


def test_a_swap_a_canary_and_a_rollback_under_load_fail_nobody(
    stack: RunningStack, registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    push(registry, client, tmp_path, "swapped", adds(1))
    registry.promote("swapped", 1)
    callers = Callers(stack.address("gateway"), "swapped")
    with callers.calling():
        registry.push("swapped", models.add(tmp_path / "two.onnx", 2))
        assert set(callers.more()) == {"1"}, "a push alone moves nobody"
        registry.promote("swapped", 2, weight=50)
        both = callers.more(400)
        assert set(both) == {"1", "2"}
        registry.promote("swapped", 2)
        wait_until(lambda: set(callers.more()) == {"2"}, "all to get version 2")
        registry.rollback("swapped")
        wait_until(lambda: set(callers.more()) == {"1"}, "all to get version 1")
    by_caller = {key: routed(client, "swapped", key) for key in ("a", "b", "c")}
    assert all(len(versions) == 1 for versions in by_caller.values())


def test_a_key_sticks_to_its_version(
    stack: RunningStack, registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    push(registry, client, tmp_path, "sticky", adds(1), adds(2))
    registry.promote("sticky", 2, weight=30)
    with grpc.insecure_channel(stack.address("gateway")) as channel:
        stub = GRPCInferenceServiceStub(channel)
        wait_until(lambda: {call(stub, "sticky")[0] for _ in range(20)} == {"1", "2"}, "the rollout to arrive")
        first = {key: call(stub, "sticky", key)[0] for key in map(str, range(60))}
        assert first == {key: call(stub, "sticky", key)[0] for key in first}
        assert 5 <= list(first.values()).count("2") <= 31
        unkeyed = Counter(call(stub, "sticky")[0] for _ in range(100))
        assert 26 <= unkeyed["2"] <= 34
        assert {call(stub, "sticky", version="1")[0] for _ in range(20)} == {"1"}


def test_shadow_copies_are_compared_and_never_returned(
    stack: RunningStack, registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    push(registry, client, tmp_path, "shadowed", adds(1), adds(1), adds(3), models.always_fails)
    expected = {2: "matched", 3: "differed", 4: "failed"}
    for version, outcome in expected.items():
        registry.promote("shadowed", 1)
        registry.promote("shadowed", version, shadow=True, bounds=RolloutBounds(min_requests=1000))

        def shadow(version: int = version) -> tuple[int, int, int]:
            [item] = [item for item in client.status().rollouts if item.name == "shadowed"]
            assert item.rollout.candidate in {0, version}
            return item.shadow.matched, item.shadow.differed, item.shadow.failed

        wait_until(lambda: routed(client, "shadowed") == {"1"} and sum(shadow()) >= 10, "copies to be compared")
        counted = dict(zip(("matched", "differed", "failed"), shadow(), strict=True))
        assert {name for name, count in counted.items() if count} == {outcome}


def test_a_version_that_fails_is_taken_back_by_itself(registry: RegistryClient, client: Client, tmp_path: Path) -> None:
    push(registry, client, tmp_path, "doomed", adds(1))
    registry.promote("doomed", 1)
    registry.push("doomed", models.always_fails(tmp_path / "bad.onnx"))
    registry.promote("doomed", 2, weight=50, bounds=RolloutBounds(min_requests=10))

    def taken_back() -> bool:
        try:
            call(stub_of(client), "doomed")
        except grpc.RpcError as error:
            assert "version 2 failed on this request" in str(error)
        return registry.model("doomed").rollout.candidate == 0

    wait_until(taken_back, "the registry to take version 2 back")
    rollout = registry.model("doomed").rollout
    assert rollout.stable == 1
    assert "version 2 was taken back" in rollout.reason
    wait_until(lambda: routed_or_error(client, "doomed") == {"1"}, "all to get version 1 again")


def routed_or_error(client: Client, name: str) -> set[str]:
    """As `routed`, with "error" for what failed."""
    try:
        return routed(client, name)
    except grpc.RpcError:
        return {"error"}


def test_what_does_not_load_never_gets_a_caller(registry: RegistryClient, client: Client, tmp_path: Path) -> None:
    push(registry, client, tmp_path, "broken", adds(1))
    registry.promote("broken", 1)
    publish_unloadable(registry, "broken")
    with pytest.raises(FailedPreconditionError, match=r"version 2 of 'broken' does not load: ONNX Runtime cannot load"):
        registry.promote("broken", 2)
    assert routed(client, "broken") == {"1"}
    assert registry.rollback("broken").stable == 1


def publish_unloadable(registry: RegistryClient, name: str) -> None:
    """A version whose file is no model: push would refuse it, so it goes in by the back door."""
    content = b"not a model"
    digest = hashlib.sha256(content).hexdigest()
    header = UploadBlobRequest(header=UploadBlobRequest.Header(sha256=digest, size=len(content)))
    registry._stub.UploadBlob(iter([header, UploadBlobRequest(chunk=content)]))
    spec = registry.model(name).versions[0].spec
    file = ModelFile(path=spec.entry, sha256=digest, size=len(content))
    registry._stub.PublishVersion(PublishVersionRequest(name=name, spec=spec, files=[file]))


def test_two_who_change_a_rollout_at_once_do_not_both_win(
    stack: RunningStack, registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    push(registry, client, tmp_path, "contended", adds(1), adds(2))
    revision = registry.promote("contended", 1).revision
    with grpc.insecure_channel(stack.address("registry")) as channel, ThreadPoolExecutor(8) as pool:
        stub = RolloutServiceStub(channel)

        def change(weight: int) -> bool:
            request = PromoteRequest(name="contended", version=2, weight=weight, expected_revision=revision)
            try:
                stub.Promote(request, timeout=30)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED
                return False
            return True

        assert sum(pool.map(change, range(10, 18))) == 1
    with pytest.raises(FailedPreconditionError, match="moved by its rollout"):
        registry.set_alias("contended", "production", 2)


def test_gateways_serve_by_their_last_routes_while_the_registry_is_away(
    stack: RunningStack, registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    push(registry, client, tmp_path, "kept", adds(1), adds(2))
    registry.promote("kept", 1)
    wait_until(lambda: routed(client, "kept") == {"1"}, "the rollout to arrive")
    os.kill(stack.pid("registry"), signal.SIGSTOP)
    try:
        assert routed(client, "kept") == {"1"}
        assert call(stub_of(client), "kept", version="2") == ("2", 2.0)
    finally:
        os.kill(stack.pid("registry"), signal.SIGCONT)


def test_a_model_takes_so_many_requests_a_second_as_its_package_says(
    registry: RegistryClient, client: Client, tmp_path: Path
) -> None:
    package = tmp_path / "limited"
    package.mkdir()
    models.add(package / "model.onnx", 1)
    (package / "model.yaml").write_text("queue: {requests_per_second: 0.01, burst: 3}\n")
    registry.push("limited", package)
    wait_until(lambda: ready(client, "limited"), "it to be ready")
    zeros = np.zeros((1, 16), np.float32)
    for _ in range(3):
        client.infer("limited", zeros, timeout=30)
    with pytest.raises(QueueFullError, match=r"takes 0\.01 requests a second at this gateway; try again in"):
        client.infer("limited", zeros, timeout=30)
