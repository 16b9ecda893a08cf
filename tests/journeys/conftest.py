"""A browser, a dashboard and a page to journey with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console_watch import ConsoleWatch
from journey_browser import DESKTOP, launch_chromium, missing_browser
from journey_server import Server
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

_WAIT_MS = 30_000
expect.set_options(timeout=_WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Chromium, Debian's or else Playwright's; without one skip, or fail where one is required (in CI)."""
    with sync_playwright() as playwright:
        try:
            found = launch_chromium(playwright)
        except Error as error:
            missing_browser(error)
        yield found
        found.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running dashboard without runs but the demo."""
    yield from _served(tmp_path)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running dashboard for the tests of a module that only look."""
    yield from _served(tmp_path_factory.mktemp("dashboard"))


def _served(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page in a session of its own; closed at the end."""
    contexts = []

    def make(watch: ConsoleWatch, *, offline: bool = False, **options: object) -> Page:
        contexts.append(browser.new_context(offline=offline, viewport=options.pop("viewport", DESKTOP), **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(_WAIT_MS)
        return watch.watch(page)

    yield make
    for context in contexts:
        context.close()
