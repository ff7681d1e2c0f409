"""The console in a headless Chromium, on a real stack under load."""

import http.client
import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from headrace import Client
from headrace.client.errors import UnavailableError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.e2e.test_text import push
from tests.support import models
from tests.support.browser import PHONE, Watched, chromium, opened
from tests.support.openai_server import openai_server, text_of
from tests.support.stack import RunningStack, running_stack, wait_until

VIEWS = (
    "overview",
    "overview/add_one%3A1",
    "overview/words%3A1",
    "workers",
    "scaling",
    "jobs",
    "playground/add_one%3A1",
    "playground/words",
)
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with a tensor model that is asked all the time, and a language model."""
    folder = tmp_path_factory.mktemp("console")
    # Longer than anything here waits for: an open console must not hold up a gateway that is told to stop.
    environment = {"HEADRACE_DRAIN_SECONDS": "100"}
    with ExitStack() as parts:
        words = parts.enter_context(openai_server(0.02))
        up = parts.enter_context(running_stack(folder / "data", environment=environment))
        client = parts.enter_context(Client(up.address("gateway")))
        with RegistryClient(up.address("registry")) as registry:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
        push(up.address("registry"), "words", words, folder / "words")
        for name in ("add_one", "words"):
            wait_until(lambda name=name: ready(client, name), name)  # type: ignore[misc]
        over = threading.Event()
        asking = threading.Thread(target=ask, args=(client, over))
        asking.start()
        parts.callback(asking.join)
        parts.callback(over.set)
        yield up


def ask(client: Client, over: threading.Event) -> None:
    """One caller who never tires; a gateway that is restarted is asked again."""
    while not over.wait(0.01):
        with suppress(UnavailableError):
            client.infer("add_one", {"x": np.ones((1, 16), np.float32)}, timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Browser, busy: RunningStack) -> Iterator[Watched]:
    with opened(browser, url(busy)) as page:
        page.page.set_default_timeout(PATIENCE_MS)
        yield page


@pytest.fixture
def page(watched: Watched) -> Iterator[Page]:
    """The console's page; what it does wrong fails the test."""
    yield watched.page
    assert (watched.errors, watched.elsewhere) == ([], [])


def url(stack: RunningStack, view: str = "overview") -> str:
    return f"http://{stack.http()}/console#/{view}"


@contextmanager
def get(stack: RunningStack, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """An answer as it is, redirects not followed."""
    with closing(http.client.HTTPConnection(stack.http(), timeout=30)) as connection:
        connection.request("GET", path, headers=headers)
        yield connection.getresponse()


def first_event(stack: RunningStack) -> dict[str, Any]:
    """What /console/live says first."""
    with get(stack, "/console/live") as response, response:
        line = response.readline()
    event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return event


def test_every_front_serves_the_page_from_nowhere_else(stack: RunningStack) -> None:
    with get(stack, "/") as root:
        assert (root.status, root.getheader("location")) == (307, "console")
    with get(stack, "/console") as page:
        assert page.status == 200
        assert "default-src 'none'" in (page.getheader("content-security-policy") or "")
        body, tag = page.read().decode(), page.getheader("etag") or ""
    assert "://" not in body, "everything comes from the gateway"
    for name in re.findall(r'(?:src|href)="([^"]+)"', body):
        with get(stack, f"/{name}") as file:
            assert file.status == 200, name
    with get(stack, "/console", **{"If-None-Match": tag}) as unchanged:
        assert unchanged.status == 304
    with get(stack, "/console/none.js") as missing:
        assert missing.status == 404
        assert "none.js" in json.load(missing)["error"]


def test_every_front_tells_what_goes_on(stack: RunningStack) -> None:
    event = first_event(stack)
    assert event["autoscaler"] is None
    named = {model["name"]: model for model in event["status"]["models"]}
    assert (named["double"]["runtime"], named["double"]["language_model"]) == ("onnx", False)
    assert [worker["id"] for worker in event["status"]["workers"]] == ["worker-1"]
    wait_until(lambda: len(first_event(stack)["status"]["gateways"]) == 1, "the gateway to be listed")


def test_the_page_shows_models_workers_and_plots_that_move(page: Page) -> None:
    row = page.locator("table.models tr", has_text="add_one:1")
    expect(row).to_contain_text("onnx")
    throughput = page.locator('[data-plot="Throughput"]')
    expect(throughput).to_contain_text(re.compile(r"answered [1-9]"))
    expect(page.locator('[data-plot="Latency, p99"]')).to_contain_text(re.compile(r"add_one:1 [\d.]*[1-9]"))
    canvas = throughput.locator("canvas")
    before = canvas.evaluate("each => each.toDataURL()")
    page.wait_for_function(
        "before => document.querySelector('[data-plot=Throughput] canvas').toDataURL() !== before", arg=before
    )
    page.get_by_role("link", name="Workers").click()
    worker = page.locator("article.worker")
    expect(worker).to_contain_text("worker-1")
    expect(worker).to_contain_text(re.compile(r"add_one:1\s*ready"))
    page.get_by_role("link", name="Scaling").click()
    expect(page.get_by_text("This gateway was told of none")).to_be_visible()


def test_a_model_of_its_own(page: Page) -> None:
    page.get_by_role("link", name="add_one:1", exact=True).click()
    expect(page.locator('[data-plot="Latency"]')).to_contain_text(re.compile(r"p99 [\d.]*[1-9].*p50 [\d.]*[1-9]"))
    expect(page.locator(".bars")).to_contain_text(re.compile(r"1\D*[\d,]+\D*\d+ %"))


def test_tensors_are_sent_and_answered(page: Page) -> None:
    page.get_by_role("link", name="Try add_one:1 in the playground").click()
    page.get_by_text("values", exact=True).click()
    page.get_by_label("x: values").fill(" ".join(map(str, range(16))))
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".values span")).to_have_text([str(value + 1) for value in range(16)])
    expect(page.locator(".answer")).to_contain_text(re.compile(r"batch\s*\d+ rows? of \d+ requests?"))


def test_what_does_not_fit_is_told_in_the_gateways_words(watched: Watched, busy: RunningStack) -> None:
    page = watched.page
    page.goto(url(busy, "playground/add_one%3A1"))
    page.get_by_text("values", exact=True).click()
    page.get_by_label("x: values").fill("1 2 three")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".answer .notice")).to_have_text("input x: “three” is no FP32")
    page.get_by_label("x: values").fill("1 2 3")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".answer .notice")).to_contain_text("'x'")
    assert ["400" in error for error in watched.errors] == [True]


def test_text_streams(page: Page) -> None:
    page.get_by_role("link", name="Playground", exact=True).click()
    page.get_by_label("Ask").select_option("words")
    page.get_by_label("Prompt").fill("the mill")
    page.get_by_label("temperature").fill("0")
    page.get_by_label("most tokens").fill("100")
    page.get_by_role("button", name="Generate").click()
    whole = text_of("the mill", length=100)
    text = page.locator("pre.text")
    page.wait_for_function(
        "whole => { const t = document.querySelector('pre.text')?.textContent ?? '';"
        " return t.length > 0 && t.length < whole; }",
        arg=len(whole.strip()),
    )
    expect(text).to_have_text(whole.strip())
    expect(page.locator(".answer")).to_contain_text(re.compile(r"tokens\s*100"))
    expect(page.locator(".answer")).to_contain_text(re.compile(r"ended by\s*length"))


def test_a_generation_is_stopped(page: Page, busy: RunningStack) -> None:
    page.goto(url(busy, "playground/words"))
    page.get_by_label("Prompt").fill("on and on")
    page.get_by_label("most tokens").fill("5000")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("pre.text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer")).to_contain_text(re.compile(r"ended by\s*you"))
    with Client(busy.address("gateway")) as client:
        wait_until(
            lambda: all(each.in_flight == 0 for each in client.status().models if each.language_model), "its end"
        )


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, busy: RunningStack) -> None:
    with opened(browser, url(busy), size=PHONE, colours="dark") as watched:
        for width in (PHONE[0], 320):
            watched.page.set_viewport_size({"width": width, "height": PHONE[1]})
            for view in VIEWS:
                watched.page.goto(url(busy, view))
                expect(watched.page.locator("main > *").nth(1)).to_be_visible()
                inner = watched.page.evaluate("document.documentElement.scrollWidth")
                assert inner <= width, f"{view} at {width}"
        assert (watched.errors, watched.elsewhere) == ([], [])


def test_a_keyboard_is_enough_and_colours_are_chosen(page: Page) -> None:
    expect(page.locator("table.models")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    for _ in range(3):  # the name, Overview, Workers
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("article.worker")).to_be_visible()
    colours = page.get_by_role("button", name="Colours")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colours.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(colours).to_have_text("Colours: dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    expect(colours).to_have_text("Colours: dark")


def test_an_api_key_goes_with_every_request(page: Page) -> None:
    expect(page.locator("table.models")).to_be_visible()
    page.get_by_text("API key", exact=True).first.click()
    page.get_by_role("textbox", name="API key").fill("sesame")
    with page.expect_request("**/console/live") as asked:
        page.get_by_role("button", name="Use it").click()
    assert asked.value.headers["authorization"] == "Bearer sesame"
    with page.expect_request("**/v1/models") as listed:
        page.get_by_role("link", name="Playground", exact=True).click()
    assert listed.value.headers["authorization"] == "Bearer sesame"
    assert "sesame" not in page.evaluate("JSON.stringify(localStorage) + location.href")


def test_a_gateway_that_restarts_is_noticed_and_found_again(watched: Watched, busy: RunningStack) -> None:
    page = watched.page
    gateway = page.locator(".where code")
    expect(gateway).to_be_visible()
    before = gateway.inner_text()
    page.evaluate(
        "window.notices = []; new MutationObserver(() => notices.push(document.querySelector('.notices').textContent))"
        ".observe(document.querySelector('.notices'), {childList: true, subtree: true, characterData: true})"
    )
    busy.signal("gateway", signal.SIGTERM)
    expect(gateway).not_to_have_text(before)
    expect(page.locator(".phase")).to_have_text("live")
    expect(page.locator('[data-plot="Throughput"]')).to_contain_text(re.compile(r"answered [1-9]"))
    assert any("Connection lost" in notice and "This page shows" in notice for notice in page.evaluate("notices"))
    assert "gateway/console/live.py" not in busy.log("gateway"), "the feed broke off in silence"
