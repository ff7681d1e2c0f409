"""The console's pictures in the docs, taken of a real stack under load; about three minutes.

python -m tests.support.console_pictures [FOLDER]
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import sin
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from headrace import AsyncClient, Client
from headrace.client.jobs import ENDED, JobsClient
from headrace.client.registry import RegistryClient
from services.common.tensors import Array
from tests.support.browser import DESKTOP, PHONE, Watched, chromium, opened
from tests.support.identity import ROW, identity
from tests.support.stack import RunningStack, running_stack, wait_until

ROOT = Path(__file__).resolve().parents[2]
LOAD_SECONDS = 110.0
JOB_SECONDS = 12.0
SHORT = {
    "HEADRACE_SCALE_DOWN_SECONDS": "15",
    "HEADRACE_SCALE_STABLE_SECONDS": "8",
    "HEADRACE_SCALE_PANIC_SECONDS": "3",
    "HEADRACE_SCALE_BURST_HALF_LIFE": "5",
}
PROMPT = 'The "while" statement is used for'


def push_all(stack: RunningStack, folder: Path) -> Array:
    """Digits in two versions, the second on trial; a slow model; a language model. The images to ask about."""
    sys.path.append(str(ROOT / "examples"))
    from digits import train

    path = folder / "digits.onnx"
    images: Array = train(path)[0]
    with RegistryClient(stack.address("registry")) as registry, Client(stack.address("gateway")) as client:
        for _ in range(2):
            registry.push("digits", path)
        registry.push("reranker", identity(folder / "reranker", batch_ms=20, request_ms=25))
        registry.push("writer", ROOT / "examples" / "writer")
        registry.promote("digits", 1)
        registry.promote("digits", 2, weight=20)
        wait_until(lambda: len(list(client.status().models)) == 4, "the gateway to know the models")
        client.generate("writer", PROMPT, max_tokens=4, timeout=120)
    return images


@contextmanager
def load(address: str, images: Array) -> Iterator[None]:
    """Traffic that comes and goes, until the block ends; a request that fails ends it with its error."""
    over = threading.Event()

    async def run() -> None:
        async with AsyncClient(address) as client, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(digits(client, number))
            for number in range(5):
                group.create_task(rerank(client, number))
            group.create_task(write(client))

    async def digits(client: AsyncClient, number: int) -> None:
        while not over.is_set():
            await client.infer("digits", {"X": images[number : number + 1]}, timeout=60)
            await asyncio.sleep(0.05 * (1.1 + sin(time.monotonic() / 7)))

    async def rerank(client: AsyncClient, number: int) -> None:
        while not over.is_set():
            await client.infer("reranker", ROW, timeout=60)
            await asyncio.sleep(0.02 if sin(time.monotonic() / 14 + number / 9) > 0 else 0.9)

    async def write(client: AsyncClient) -> None:
        while not over.is_set():
            await client.generate("writer", PROMPT, max_tokens=24, timeout=120)
            await asyncio.sleep(1)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def text(page: Page) -> None:
    """Lets the language model write and waits for it to end."""
    page.get_by_label("Ask").select_option("writer")
    page.get_by_label("Prompt").fill(PROMPT)
    page.get_by_label("temperature").fill("0.4")
    page.get_by_label("most tokens").fill("160")
    page.get_by_label("seed").fill("7")
    page.get_by_role("button", name="Generate").click()
    page.locator('[data-answer="there"]').wait_for(timeout=120_000)


def tensors(page: Page) -> None:
    """Asks for one random image's digit."""
    page.get_by_label("Ask").select_option("digits:1")
    page.get_by_role("button", name="Send").click()
    page.locator('[data-answer="there"]').wait_for(timeout=60_000)


def submit(jobs: JobsClient, images: Array) -> None:
    """A job that is done but for a request that its model refuses, one that goes on for minutes, and one that waits."""
    row = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": images[0].tolist()}]}
    prompt = {"model": "writer", "prompt": PROMPT, "max_tokens": 64}

    def lines(body: dict[str, Any], count: int) -> list[bytes]:
        return [json.dumps(body).encode() + b"\n"] * count

    short = jobs.submit([*lines(row, 119), *lines({"inputs": []}, 1)], endpoint="/v2/models/digits/infer").id
    wait_until(lambda: jobs.get(short).state in ENDED, "the short job to end", 60)
    jobs.submit(lines(row, 60_000), endpoint="/v2/models/digits/versions/1/infer")
    jobs.submit(lines(prompt, 2_000), endpoint="/v1/completions")


def take(light: Watched, dark: Watched, phone: Watched, folder: Path) -> None:
    """One picture after the other."""
    for watched, name, view, size in (
        (light, "overview-light", "overview", DESKTOP),
        (dark, "overview-dark", "overview", DESKTOP),
        (dark, "model-dark", "overview/digits%3A1", DESKTOP),
        (light, "scaling-light", "scaling", (1280, 720)),
        (light, "workers-light", "workers", (1280, 720)),
        (phone, "overview-phone", "overview", PHONE),
        (light, "text-light", "playground", (1280, 560)),
        (phone, "tensors-phone", "playground", PHONE),
    ):
        page = watched.page
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.evaluate("view => { location.hash = '#/' + view; }", view)
        if name.startswith("text"):
            text(page)
        elif name.startswith("tensors"):
            tensors(page)
        else:
            page.locator("main section").first.wait_for()
            page.wait_for_timeout(1200)  # a second's picture in the new size
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
    for watched in (light, dark, phone):
        if watched.errors or watched.elsewhere:
            sys.exit(f"the page did what it should not: {watched}")


def take_jobs(light: Watched, jobs: JobsClient, images: Array, folder: Path) -> None:
    """Last: jobs take all the room that there is."""
    submit(jobs, images)
    light.page.evaluate("location.hash = '#/jobs'")
    light.page.set_viewport_size({"width": 1280, "height": 400})
    light.page.locator("table.jobs").get_by_text("running").nth(1).wait_for()
    light.page.wait_for_timeout(JOB_SECONDS * 1000)
    light.page.screenshot(path=folder / "jobs-light.png", animations="disabled")


def look(browser: Browser, url: str, jobs: JobsClient, images: Array, folder: Path) -> None:
    """Opens the pages first, so that they have a past to show."""
    with ExitStack() as pages:
        light = pages.enter_context(opened(browser, url))
        dark = pages.enter_context(opened(browser, url, colours="dark"))
        phone = pages.enter_context(opened(browser, url, size=PHONE, colours="dark"))
        light.page.wait_for_timeout(LOAD_SECONDS * 1000)
        take(light, dark, phone, folder)
        take_jobs(light, jobs, images, folder)


def main(folder: Path) -> None:
    """Writes the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        with running_stack(data / "data", workers="1..3", environment=SHORT) as stack:
            images = push_all(stack, data)
            with (
                load(stack.address("gateway"), images),
                JobsClient(stack.address("jobs")) as jobs,
                chromium() as browser,
            ):
                look(browser, f"http://{stack.http()}/console", jobs, images, folder)
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        small.save(path, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "console")
