"""Tenants through the whole stack, on both fronts: who is let in where, by which key, and what he may."""

import json
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from headrace import AsyncClient, Client
from headrace.client.errors import (
    HeadraceError,
    PermissionDeniedError,
    QueueFullError,
    UnauthenticatedError,
)
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.test_clients import PYTHON, ROOT
from tests.support import models
from tests.support.browser import chromium, opened
from tests.support.house import House
from tests.support.openai_server import text_of
from tests.support.stack import wait_until

ROW = {"x": np.zeros((1, 16), np.float32)}


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
