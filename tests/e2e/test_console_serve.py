"""The console of a single replica, in a headless Chromium: the gateway's page without what only a cluster has."""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from headrace import Client
from tests.e2e.conftest import FRONTS
from tests.support import models
from tests.support.browser import PHONE, chromium, opened
from tests.support.openai_server import openai_package, openai_server, text_of
from tests.support.single import Replica, replica

PATIENCE_MS = 30_000
ONES = np.ones((1, 16), np.float32)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module", params=FRONTS)
def plus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A model of tensors that is asked all the time, on each front."""
    folder = tmp_path_factory.mktemp("plus")
    model = str(models.add_one(folder / "plus.onnx"))
    over = threading.Event()
    with replica(model, folder, "--front", request.param) as one, Client(one.grpc) as client:

        def ask() -> None:
            while not over.wait(0.01):
                client.infer("plus", ONES, timeout=60)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield one
        finally:
            over.set()
            asking.join()


@contextmanager
def watched(browser: Browser, one: Replica, view: str, size: tuple[int, int] = (1280, 900)) -> Iterator[Page]:
    """The page; what it does wrong fails the test."""
    with opened(browser, f"http://{one.http}/console#/{view}", size=size) as page:
        page.page.set_default_timeout(PATIENCE_MS)
        yield page.page
        assert (page.errors, page.elsewhere) == ([], [])


@pytest.fixture
def page(browser: Browser, plus: Replica) -> Iterator[Page]:
    with watched(browser, plus, "overview") as opened_page:
        yield opened_page


def test_it_shows_the_model_and_what_it_does(page: Page) -> None:
    expect(page.locator(".headline")).to_contain_text("This process holds plus:1 and runs one request at a time.")
    expect(page.locator(".where")).to_contain_text(re.compile("single replica.*model up"))
    expect(page.locator('[data-plot="Throughput"]')).to_contain_text(re.compile(r"answered [1-9]"))
    expect(page.locator('[data-plot="Latency"]')).to_contain_text(re.compile(r"p99 [\d.]*[1-9].*p50 [\d.]*[1-9]"))
    expect(page.locator('[data-plot="Batch size"]')).to_contain_text("mean 1.0")
    expect(page.locator(".bars")).to_contain_text(re.compile(r"1\D*[\d,]+\D*100 %"))
    expect(page.locator("table.models tr", has_text="plus:1")).to_contain_text("onnx")


def test_what_only_a_cluster_has_is_not_there(page: Page, plus: Replica) -> None:
    expect(page.locator(".headline")).to_contain_text("has no queue, workers, autoscaler, rollouts or jobs")
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(["Overview", "Playground"])
    expect(page.locator("main h2").filter(has_text="Rollouts")).to_have_count(0)
    for word in ("registry", "broker", "consumers", "Devices busy"):
        expect(page.get_by_text(word)).to_have_count(0)
    assert page.locator("[data-plot]").evaluate_all("each => each.map(plot => plot.dataset.plot)") == [
        "Throughput",
        "Unanswered",
        "Latency",
        "Batch size",
    ]
    page.goto(f"http://{plus.http}/console#/workers")
    expect(page.locator(".headline")).to_contain_text("This process holds plus:1")
    with closing(http.client.HTTPConnection(plus.http, timeout=30)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().getheader("location") == "console"


def test_tensors_are_sent_and_answered(page: Page) -> None:
    page.get_by_role("link", name="Try plus:1 in the playground").click()
    page.get_by_text("values", exact=True).click()
    page.get_by_label("x: values").fill(" ".join(map(str, range(16))))
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".values span")).to_have_text([str(value + 1) for value in range(16)])
    expect(page.locator(".answer")).to_contain_text(re.compile(r"batch\s*1 row of 1 request"))
    expect(page.get_by_text("No language model is here")).to_have_count(0)


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, plus: Replica) -> None:
    with watched(browser, plus, "overview", PHONE) as page:
        expect(page.locator(".headline")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_a_language_model_streams_text(browser: Browser, tmp_path: Path) -> None:
    with openai_server(0.01) as url:
        folder = openai_package(tmp_path / "words", url)
        with replica(str(folder), tmp_path / "replica") as one, watched(browser, one, "overview") as page:
            expect(page.locator(".headline")).to_contain_text("holds words:1 and runs many requests at a time")
            page.get_by_role("link", name="Playground", exact=True).click()
            page.get_by_label("Prompt").fill("the mill")
            page.get_by_label("temperature").fill("0")
            page.get_by_label("most tokens").fill("40")
            page.get_by_role("button", name="Generate").click()
            expect(page.locator("pre.text")).to_have_text(text_of("the mill", length=40).strip())
            page.get_by_role("link", name="Overview", exact=True).click()
            expect(page.locator("table.models tr", has_text="words:1")).to_contain_text("openai")
            expect(page.locator(".fact", has_text=re.compile("^Answered"))).to_contain_text("1 since start")
