"""The console's jobs, in a headless Chromium: who asks sees what `headrace job list` would show him."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from headrace.client.jobs import ENDED, JobsClient
from tests.support.browser import PHONE, chromium, opened
from tests.support.house import House
from tests.support.stack import wait_until

PATIENCE_MS = 30_000
ADD_ONE = "/v2/models/add_one/infer"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}
# So many that some are still to be sent, each of which would take minutes.
MANY, ENDLESS = 1000, {"model": "words", "prompt": "on and on", "max_tokens": 100_000}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as running:
        yield running


def jobs_of(house: House, tenant: str) -> JobsClient:
    return JobsClient(house.stack.address("jobs"), api_key=house.file.keys[tenant])


def ended_job(house: House, tenant: str) -> str:
    """Two requests are answered, and one is refused by its model."""
    with jobs_of(house, tenant) as client:
        bodies: list[object] = [ROW, ROW, {"inputs": []}]
        lines = [json.dumps(body).encode() + b"\n" for body in bodies]
        job = client.submit(lines, endpoint=ADD_ONE).id
        wait_until(lambda: client.get(job).state in ENDED, "the job to end", 60)
    return job


@contextmanager
def running_job(house: House, tenant: str) -> Iterator[str]:
    """It would never end; it is cancelled with the block."""
    with jobs_of(house, tenant) as client:
        job = client.submit([json.dumps(ENDLESS).encode() + b"\n"] * MANY, endpoint="/v1/completions").id
        try:
            yield job
        finally:
            client.cancel(job)
            wait_until(lambda: client.get(job).state in ENDED, "the job to end", 60)


@contextmanager
def console(browser: Browser, http: str, key: str) -> Iterator[Page]:
    """The page, with a key; what it does wrong fails the test."""
    with opened(browser, f"http://{http}/console#/jobs") as watched:
        page = watched.page
        page.set_default_timeout(PATIENCE_MS)
        if key:
            page.locator(".notice").get_by_label("API key").fill(key)
            page.locator(".notice").get_by_role("button", name="Use it").click()
        yield page
        assert watched.elsewhere == []


@contextmanager
def gateway_of_its_own(house: House, jobs: str) -> Iterator[str]:
    """A gateway beside the house's, without its door, that knows the job service at `jobs`; gives its HTTP address."""
    listen = {f"HEADRACE_{name}": "127.0.0.1:0" for name in ("LISTEN", "HTTP_LISTEN")}
    more = {"REGISTRY": house.stack.address("registry"), "BROKER_TOKEN": "of-its-own", "FRONT": "grpc", "JOBS": jobs}
    environment = {**os.environ, **listen, **{f"HEADRACE_{name}": value for name, value in more.items()}}
    command = [sys.executable, "-m", "services.gateway"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert words[:2] == ["ready", "gateway"]
            yield words[3]
        finally:
            process.terminate()


def listed(house: House, tenant: str) -> set[str]:
    status, text = house.get("/console/jobs", tenant)
    assert status == 200, text
    return {job["id"] for job in json.loads(text)["jobs"]}


@pytest.mark.parametrize("house", ["envoy"], indirect=True)
def test_an_operator_sees_everybodys_jobs_and_what_is_still_to_be_sent(browser: Browser, house: House) -> None:
    ended = ended_job(house, "search")
    with (
        running_job(house, "operator") as running,
        console(browser, house.stack.http(), house.file.keys["operator"]) as page,
    ):
        row = page.locator("table.jobs tr", has_text=ended)
        cells: list[str | re.Pattern[str]] = ["add_one", "search", "completed", "3 of 3, 100 %", "–", "1"]
        cells.append(re.compile(r"^\d+ (s|min)$"))  # its age
        expect(row.locator("td")).to_have_text(cells)
        row = page.locator("table.jobs tr", has_text=running)
        expect(row.locator("td").nth(0)).to_have_text("words")
        expect(row).to_contain_text(re.compile(r"operator.*running.*0 of 1,000, 0 %"))
        expect(row.locator("td").nth(4)).to_have_text("0")  # a second, once it was looked at twice
        expect(page.locator(".headline")).to_contain_text(
            re.compile(r"[1-9]\d* requests of jobs are still to be sent: \d+ to words")
        )
        page.set_viewport_size({"width": 320, "height": PHONE[1]})
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.set_viewport_size({"width": 1280, "height": 900})
        with jobs_of(house, "operator") as client:
            client.cancel(running)
        expect(row).to_contain_text(re.compile("cancelled.*1,000 of 1,000, 100 %"))
        expect(page.locator(".headline")).to_contain_text("0 requests of jobs")


def test_a_tenant_is_told_of_his_own_jobs_only(house: House) -> None:
    job = ended_job(house, "search")
    assert {tenant: job in listed(house, tenant) for tenant in ("guest", "search", "operator")} == {
        "guest": False,
        "search": True,
        "operator": True,
    }
    assert house.get("/console/jobs")[0] == 401


@pytest.mark.parametrize("house", ["envoy"], indirect=True)
@pytest.mark.parametrize("jobs", ["", "127.0.0.1:9"], ids=["none", "one that never answered"])
def test_without_a_job_service_there_is_no_such_view(browser: Browser, house: House, jobs: str) -> None:
    with gateway_of_its_own(house, jobs) as http, console(browser, http, "") as page:
        expect(page.locator("table.models")).to_be_visible()
        views = page.get_by_role("navigation").get_by_role("link")
        expect(views).to_have_text(["Overview", "Workers", "Scaling", "Playground"])
