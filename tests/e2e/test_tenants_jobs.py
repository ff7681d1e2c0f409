"""Jobs and files where there are tenants, on both fronts: each has his own, and they run in his name."""

import json

import grpc
import pytest

from headrace.client.errors import NotFoundError, UnauthenticatedError
from headrace.client.jobs import JobsClient
from headrace.v1.jobs_pb2 import (
    CreateFileRequest,
    DeleteFileRequest,
    GetFileRequest,
    ListFilesRequest,
    ReadFileRequest,
    SubmitJobRequest,
)
from headrace.v1.jobs_pb2_grpc import FileServiceStub, JobServiceStub
from tests.support.house import House


def test_a_tenant_has_jobs_of_its_own_which_run_in_its_name(house: House) -> None:
    def jobs(tenant: str) -> JobsClient:
        return JobsClient(house.stack.address("jobs"), api_key=house.file.keys.get(tenant, ""))

    with jobs("") as client, pytest.raises(UnauthenticatedError):
        client.list()
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}).encode()
    with jobs("search") as client:
        # Other tests have jobs on this stack, too.
        known = {each.id for each in client.list()}
        before = house.requests_of("search")
        job = client.submit([body + b"\n"] * 5, endpoint="/v2/models/add_one/infer").id
        assert [each.completed for each in client.watch(job)][-1] == 5
        assert house.requests_of("search") == before + 5
        # What is not his, he does not get by way of a job either.
        *_, refused = client.watch(client.submit([body], endpoint="/v2/models/ads-rank/infer").id)
        assert (refused.completed, refused.failed) == (0, 1)
        assert "may not use model" in b"".join(client.results(refused.id)).decode()
        assert [each.id for each in client.list() if each.id not in known] == [refused.id, job]
    with jobs("guest") as client:
        assert not {job, refused.id} & {each.id for each in client.list()}
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
