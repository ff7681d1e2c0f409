"""Tenants through the whole stack, on both fronts: who is let in where, by which key, and what he may."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from headrace import AsyncClient, Client
from headrace.client.errors import (
    HeadraceError,
    NotFoundError,
    PermissionDeniedError,
    QueueFullError,
    UnauthenticatedError,
)
from headrace.client.jobs import JobsClient
from headrace.client.registry import RegistryClient
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.v1.jobs_pb2 import (
    CreateFileRequest,
    DeleteFileRequest,
    GetFileRequest,
    ListFilesRequest,
    ReadFileRequest,
    SubmitJobRequest,
)
from headrace.v1.jobs_pb2_grpc import FileServiceStub, JobServiceStub
from tests.e2e.conftest import FRONTS, ready
from tests.e2e.test_clients import PYTHON, ROOT
from tests.e2e.test_text import push
from tests.support import models
from tests.support.browser import chromium, opened
from tests.support.openai_server import openai_server, text_of
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.tenants import Issuer, TenantsFile

ROW = {"x": np.zeros((1, 16), np.float32)}


@dataclass(frozen=True, slots=True)
class House:
    """A stack with a door.

    Tenants: `operator` may everything, `search` add_one and words, `guest` add_one, `ads` nothing that there is.
    """

    stack: RunningStack
    file: TenantsFile
    issuer: Issuer

    def client(self, tenant: str) -> Client:
        return Client(self.stack.address("gateway"), api_key=self.file.keys.get(tenant, tenant))

    def registry(self, tenant: str) -> RegistryClient:
        return RegistryClient(self.stack.address("registry"), api_key=self.file.keys.get(tenant, tenant))

    def requests_of(self, tenant: str) -> int:
        """How many the gateway has counted for him."""
        page = urllib.request.urlopen(f"http://{self.stack.metrics('gateway')}/metrics", timeout=30)
        with page as answer:
            lines = answer.read().decode().splitlines()
        wanted = [line for line in lines if "tenant_requests_total{" in line and f'headrace_tenant="{tenant}"' in line]
        return round(sum(float(line.rpartition(" ")[2]) for line in wanted))

    def get(self, path: str, tenant: str = "", body: object = None) -> tuple[int, str]:
        """Status and text of an HTTP request."""
        headers = {"content-type": "application/json"}
        if tenant:
            headers["x-api-key"] = self.file.keys[tenant]
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://{self.stack.http()}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with openai_server(0.001) as url:
        yield url


@pytest.fixture(scope="module", params=FRONTS)
def house(request: pytest.FixtureRequest, server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp(f"tenants-{request.param}")
    file, issuer = TenantsFile(folder / "tenants.yaml"), Issuer(folder / "jwks.json")
    file.add("operator", write=True)
    file.add("search", models=["add_*", "words"])
    file.add("ads", models=["ads-*"], write=True)
    file.add("guest", models=["add_*"])
    file.add("jobs", models=[], on_behalf=True)
    file.believe("jwks.json")
    # The key is the job service's.
    environment = {"HEADRACE_TENANTS": str(file.path), "HEADRACE_API_KEY": file.keys["jobs"]}
    with running_stack(folder / "data", front=request.param, environment=environment) as running:
        house = House(running, file, issuer)
        with house.registry("operator") as registry, house.client("operator") as client:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            push(running.address("registry"), "words", server, folder / "words", api_key=file.keys["operator"])
            wait_until(lambda: ready(client, "add_one") and ready(client, "words"), "the models")
        yield house


def test_a_key_lets_its_tenant_in_and_nothing_else_does(house: House) -> None:
    with house.client("search") as client:
        result = client.infer("add_one", ROW, timeout=30)
        assert result.outputs["y"][0, 0] == 1
        assert client.generate("words", "two words", temperature=0, max_tokens=4).text == text_of("two words", length=4)
        with pytest.raises(PermissionDeniedError, match="'search' may not use model 'secret'"):
            client.infer("secret", ROW, timeout=30)
    with house.client("ads") as client, pytest.raises(PermissionDeniedError, match="may not use model 'words'"):
        next(client.stream("words", "two words"))
    for wrong in ("", "hr_1_2", "sk-not-ours", house.file.keys["search"][:-1]):
        with house.client(wrong) as client:
            with pytest.raises(UnauthenticatedError):
                client.infer("add_one", ROW, timeout=30)
            with pytest.raises(UnauthenticatedError):
                client.generate("words", "x")
            with pytest.raises(UnauthenticatedError):
                client.metadata("add_one")


def test_a_tenant_has_jobs_of_its_own_which_run_in_its_name(house: House) -> None:
    def jobs(tenant: str) -> JobsClient:
        return JobsClient(house.stack.address("jobs"), api_key=house.file.keys.get(tenant, ""))

    with jobs("") as client, pytest.raises(UnauthenticatedError):
        client.list()
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}).encode()
    with jobs("search") as client:
        before = house.requests_of("search")
        job = client.submit([body + b"\n"] * 5, endpoint="/v2/models/add_one/infer").id
        assert [each.completed for each in client.watch(job)][-1] == 5
        assert house.requests_of("search") == before + 5
        # What is not his, he does not get by way of a job either.
        *_, refused = client.watch(client.submit([body], endpoint="/v2/models/ads-rank/infer").id)
        assert (refused.completed, refused.failed) == (0, 1)
        assert "may not use model" in b"".join(client.results(refused.id)).decode()
        assert [each.id for each in client.list()] == [refused.id, job]
    with jobs("guest") as client:
        assert client.list() == []
        for look in (client.get, client.cancel, client.delete, lambda name: b"".join(client.results(name))):
            with pytest.raises(NotFoundError, match="no job"):
                look(job)
    with jobs("operator") as client:
        assert client.get(job).completed == 5
    told = {tenant: house.get("/v1/batches", tenant) for tenant in ("", "guest", "search", "operator")}
    assert {tenant: status for tenant, (status, _) in told.items()} == {
        "": 401,
        "guest": 200,
        "search": 200,
        "operator": 200,
    }
    assert {tenant: job in text for tenant, (_, text) in told.items()} == {
        "": False,
        "guest": False,
        "search": True,
        "operator": True,
    }


def test_a_tenant_has_files_of_its_own(house: House) -> None:
    def metadata(tenant: str) -> tuple[tuple[str, str]]:
        return (("x-api-key", house.file.keys[tenant]),)

    with grpc.insecure_channel(house.stack.address("jobs")) as channel:
        files = FileServiceStub(channel)
        header = CreateFileRequest.Header(filename="a.jsonl", purpose="batch")
        parts = [CreateFileRequest(header=header), CreateFileRequest(content=b"{}"), CreateFileRequest(complete=True)]
        name = files.CreateFile(iter(parts), metadata=metadata("search")).file.id
        mine, others = (
            files.ListFiles(ListFilesRequest(), metadata=metadata(each)).files for each in ("search", "guest")
        )
        assert name in {file.id for file in mine}
        assert not others
        submitted = SubmitJobRequest(
            header=SubmitJobRequest.Header(endpoint="/v2/models/add_one/infer", input_file=name)
        )
        for call in (
            lambda: files.GetFile(GetFileRequest(id=name), metadata=metadata("guest")),
            lambda: files.DeleteFile(DeleteFileRequest(id=name), metadata=metadata("guest")),
            lambda: list(files.ReadFile(ReadFileRequest(id=name), metadata=metadata("guest"))),
            lambda: JobServiceStub(channel).SubmitJob(iter([submitted]), metadata=metadata("guest")),
        ):
            with pytest.raises(grpc.RpcError, match="no file"):
                call()
        assert files.GetFile(GetFileRequest(id=name), metadata=metadata("operator")).file.bytes == 2


@pytest.mark.parametrize(("key", "name"), [("search", "operator"), ("operator", "search"), ("jobs", "nobody")])
def test_only_who_may_acts_for_others_and_only_for_tenants(house: House, key: str, name: str) -> None:
    with grpc.insecure_channel(house.stack.address("gateway")) as channel:
        metadata = (("x-api-key", house.file.keys[key]), ("headrace-on-behalf", name))
        with pytest.raises(grpc.RpcError, match="may not call on behalf of") as refused:
            GRPCInferenceServiceStub(channel).ModelReady(pb.ModelReadyRequest(name="add_one"), metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_tokens_by_the_asyncio_client_and_the_tenant_comes_back(house: House) -> None:
    token = house.issuer.token(team="search")
    async with AsyncClient(house.stack.address("gateway"), api_key=token) as client:
        assert (await client.infer("add_one", ROW, timeout=30)).outputs["y"][0, 0] == 1
        pieces = [piece async for piece in client.stream("words", "two words", temperature=0, max_tokens=4)]
        assert "".join(piece.text for piece in pieces) == text_of("two words", length=4)
    async with AsyncClient(house.stack.address("gateway"), api_key=house.issuer.token(-100, team="search")) as client:
        with pytest.raises(UnauthenticatedError, match="expired"):
            await client.infer("add_one", ROW, timeout=30)
    with grpc.insecure_channel(house.stack.address("gateway")) as channel:
        stub, key = GRPCInferenceServiceStub(channel), house.file.keys["search"]
        _, call = stub.ModelReady.with_call(pb.ModelReadyRequest(name="add_one"), metadata=(("x-api-key", key),))
        assert dict(call.trailing_metadata())["headrace-tenant"] == "search"


def test_health_is_open_and_what_is_listed_is_what_one_may_use(house: House) -> None:
    with grpc.insecure_channel(house.stack.address("gateway")) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=10).ready
        assert stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=10).name == "headrace"
        check: grpc.UnaryUnaryMultiCallable[bytes, health_pb2.HealthCheckResponse] = channel.unary_unary(
            "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        health = check(b"", timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)

        def index(tenant: str) -> list[str]:
            metadata = (("authorization", f"Bearer {house.file.keys[tenant]}"),)
            answer = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10, metadata=metadata)
            return [model.name for model in answer.models]

        assert (index("operator"), index("search"), index("ads")) == (["add_one", "words"],) * 2 + ([],)
    with house.client("search") as client, pytest.raises(PermissionDeniedError, match="write: true"):
        client.status()
    with house.client("search") as client:
        assert {each.name for each in client.statistics()} == {"add_one", "words"}
    with house.client("ads") as client:
        assert client.statistics() == []


def test_http_takes_the_same_keys_and_answers_in_each_protocols_form(house: House) -> None:
    assert house.get("/v2/health/ready")[0] == 200
    assert house.get("/v2")[0] == 200
    assert house.get("/docs")[0] == 200
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0] * 16}]}
    status, text = house.get("/v2/models/add_one/infer", "search", body)
    assert (status, json.loads(text)["outputs"][0]["data"][0]) == (200, 1)
    assert house.get("/v2/models/add_one/infer", "ads", body)[0] == 403
    status, text = house.get("/v2/models/add_one/infer", body=body)
    assert (status, list(json.loads(text))) == (401, ["error"])
    assert house.get("/v2/models/add_one")[0] == 401
    status, text = house.get("/v1/models")
    assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
    assert json.loads(house.get("/v1/models", "ads")[1])["data"] == []
    assert house.get("/nothing/here")[0] == 401, "nor is told what there is not"


@pytest.mark.parametrize("script", ["tenants_openai.py", "tenants_triton.py"])
def test_clients_made_by_others_send_keys(house: House, script: str) -> None:
    url = house.stack.http() if "openai" in script else house.stack.address("gateway")
    command = [str(PYTHON), f"tests/clients/{script}", url, house.file.keys["search"]]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_registry_is_written_by_writers_only_and_within_their_models(house: House, tmp_path: Path) -> None:
    package = models.double(tmp_path / "double.onnx")
    with house.registry("") as nobody, house.registry("search") as reader, house.registry("ads") as writer:
        assert {model.name for model in nobody.models()} >= {"add_one", "words"}, "reading is open"
        with pytest.raises(UnauthenticatedError):
            nobody.push("ads-double", package)
        with pytest.raises(UnauthenticatedError):
            nobody.rollback("add_one")
        with pytest.raises(PermissionDeniedError, match="write: true"):
            reader.set_alias("add_one", "mine", 1)
        with pytest.raises(PermissionDeniedError, match="may not use model 'add_one'"):
            writer.delete_model("add_one")
        with pytest.raises(PermissionDeniedError, match="may not use model 'double'"):
            writer.push("double", package)
        steps = tmp_path / "steps"
        steps.mkdir()
        (steps / "model.yaml").write_text("runtime: ensemble\nsteps: [{model: add_one}]\n")
        with pytest.raises(PermissionDeniedError, match="may not use model 'add_one'"):
            writer.push("ads-steps", steps)
        assert writer.push("ads-double", package).version == 1
        writer.delete_model("ads-double")


def test_limits_and_keys_follow_the_file(house: House) -> None:
    house.file.add("new", requests_per_second=0.01, burst=1)
    with house.client("new") as client:

        def first() -> bool:
            try:
                client.infer("add_one", ROW, timeout=30)
            except UnauthenticatedError:
                return False
            return True

        wait_until(first, "the file to be read again")
        with pytest.raises(QueueFullError, match=r"'new' may send 0\.01 requests a second") as refused:
            client.infer("add_one", ROW, timeout=30)
        assert refused.value.retry_after and refused.value.retry_after > 10
    status, text = house.get("/v1/completions", "new", {"model": "words", "prompt": "x"})
    assert (status, json.loads(text)["error"]["type"]) == (429, "rate_limit_error")
    house.file.remove("new")
    with house.client("new") as client:
        wait_until(lambda: refusal(client) == "UNAUTHENTICATED", "the key to be withdrawn")


def refusal(client: Client) -> str:
    try:
        client.infer("add_one", ROW, timeout=30)
    except HeadraceError as error:
        return error.code
    return ""


def test_the_console_asks_for_a_key_and_shows_an_operator_what_all_do(house: House) -> None:
    with chromium() as browser, opened(browser, f"http://{house.stack.http()}/") as watched:
        page = watched.page
        page.set_default_timeout(30_000)
        notice = page.locator(".notice")
        for tenant, refusal in (("", "asks for an API key"), ("search", "'search' may not do this")):
            if tenant:
                notice.get_by_label("API key").fill(house.file.keys[tenant])
                notice.get_by_role("button", name="Use it").click()
            notice.get_by_text(refusal).wait_for()
        notice.get_by_label("API key").fill(house.file.keys["operator"])
        notice.get_by_role("button", name="Use it").click()
        page.locator("table.models").get_by_text("add_one:1").wait_for()
        page.get_by_label("Try add_one:1 in the playground").click()
        page.get_by_role("button", name="Send").click()
        page.locator(".values span").nth(15).wait_for()
        assert watched.elsewhere == []
