"""A headless Chromium, and pages that remember what went wrong in them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

DESKTOP = (1280, 900)
PHONE = (390, 844)


@dataclass(slots=True)
class Watched:
    """A page, and what it should not have done.

    Attributes:
        errors: what it wrote to the console as an error or warning, and exceptions that nobody caught.
        elsewhere: URLs outside its origin that it asked for.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser; tools/test_services.sh installs it."""
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing; `make test` installs it, or tools/test_services.sh"
    with sync_playwright() as playwright:
        # Containers run as root and give little shared memory.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    colours: Literal["light", "dark"] = "light",
    scale: float = 1,
) -> Iterator[Watched]:
    """The page at `url`, in a browser profile of its own."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=colours, device_scale_factor=scale
    )
    page = context.new_page()
    watched = Watched(page)
    origin = urlsplit(url).netloc
    page.on("console", lambda message: watched.errors.append(message.text) if message.type in _BAD else None)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on(
        "request", lambda asked: watched.elsewhere.append(asked.url) if urlsplit(asked.url).netloc != origin else None
    )
    try:
        page.goto(url)
        yield watched
    finally:
        context.close()


_BAD = {"error", "warning"}
