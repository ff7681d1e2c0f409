"""A stack with a door: tenants, each with a key and what he may."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.support.stack import RunningStack, running_stack
from tests.support.tenants import Issuer, TenantsFile


@dataclass(frozen=True, slots=True)
class House:
    """Who is in it, and how to call as one of them.

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


@contextmanager
def a_house(folder: Path, front: str) -> Iterator[House]:
    """It stands until the block ends; its models are to be pushed."""
    file, issuer = TenantsFile(folder / "tenants.yaml"), Issuer(folder / "jwks.json")
    file.add("operator", write=True)
    file.add("search", models=["add_*", "words"])
    file.add("ads", models=["ads-*"], write=True)
    file.add("guest", models=["add_*"])
    file.add("jobs", models=[], on_behalf=True)
    file.believe("jwks.json")
    # The key is the job service's.
    environment = {"HEADRACE_TENANTS": str(file.path), "HEADRACE_API_KEY": file.keys["jobs"]}
    with running_stack(folder / "data", front=front, environment=environment) as running:
        yield House(running, file, issuer)
