"""The first page at once, every page sound, and all of them on a phone."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import pytest
from console_watch import ConsoleWatch
from journey_browser import PHONE
from journey_server import Server
from journey_steps import IS_LOADED, NAMES, TITLES, expect_sound, settle, turn_to, visit
from playwright.sync_api import Page, expect

from app.views.learn import LESSONS
from app.views.spurious import PARTS

pytestmark = pytest.mark.slow

#: For the first page of a server that has just started, and of one that has shown it before.
_COLD_SECONDS, _WARM_SECONDS, _TRIES = 5.0, 3.0, 3
_PHONE = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
#: Pages that show one of several parts, by the word for it in the address.
_PARTS = {"spurious": ("part", tuple(PARTS)), "learn": ("lesson", tuple(name for name, _, _ in LESSONS))}
#: How far a page, or what scrolls in it, is wider than it shows, in pixels, and what sticks out.
_TOO_WIDE = """() => {
    const main = document.querySelector('[data-testid=stMain]');
    const wide = Math.max(...[document.documentElement, main].map(part => part.scrollWidth - part.clientWidth));
    const out = [...main.querySelectorAll('*')].filter(part => part.getBoundingClientRect().right > innerWidth + 1);
    return [wide, out.slice(0, 5).map(part => part.dataset.testid || part.className || part.tagName)];
}"""


@pytest.fixture
def watch(shared_server: Server) -> ConsoleWatch:
    return ConsoleWatch(shared_server.url)


def seconds_of_first_page(page: Page, url: str) -> float:
    """Return how long a page takes to show both answers and both maps."""
    started = time.perf_counter()
    page.goto(url)
    for method in ("Vanilla fine-tuning", "Concept-Tuning"):
        expect(page.get_by_role("heading", name=method, exact=True)).to_be_visible()
    maps = page.get_by_alt_text("Attention map of")
    expect(maps).to_have_count(2)
    for place in range(2):
        page.wait_for_function(IS_LOADED, arg=maps.nth(place).element_handle())
    expect(page.get_by_text(re.compile(r"^says "))).to_have_count(2)
    expect(page.get_by_text("What to notice.")).to_be_visible()
    seconds = time.perf_counter() - started
    settle(page)
    page.close()  # or else it complains of a server that is started anew
    return seconds


def test_first_page_shows_predictions_and_maps_within_5_seconds_of_a_start_and_3_later(
    server: Server, new_page: Callable[..., Page]
) -> None:
    watch = ConsoleWatch(server.url)
    cold: list[float] = []
    warm: list[float] = []
    # Other work on the machine makes a page slower, never faster: the best of some counts.
    while len(cold) < _TRIES and min(cold, default=_COLD_SECONDS) >= _COLD_SECONDS:
        if cold:
            server.kill()
            server.start()
        cold.append(seconds_of_first_page(new_page(watch), server.url))
    # On two cores it took 1.0 s with a load of 1.7, and 2.6 to 9 s with one of 8, which says nothing of the page.
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    limit = _COLD_SECONDS if busy else _WARM_SECONDS
    while len(warm) < _TRIES and min(warm, default=limit) >= limit:
        warm.append(seconds_of_first_page(new_page(watch), server.url))
    assert min(cold) < _COLD_SECONDS, cold
    assert min(warm) < limit, warm
    assert watch.complaints == []


def test_every_page_opens_by_its_address(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    page = new_page(watch)
    for name in NAMES:
        visit(page, shared_server.url, name)
        if name != NAMES[0]:
            expect(page.get_by_role("heading", level=1)).to_have_text(TITLES[name])
        page.wait_for_timeout(500)  # charts are drawn after the script rests
        expect_sound(page)
    assert watch.complaints == []


def test_no_table_offers_a_csv_without_apostrophes(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    page = new_page(watch)
    visit(page, shared_server.url, "compare")
    page.get_by_test_id("stDataFrame").first.hover()
    expect(page.get_by_role("button", name=re.compile("^Search"))).to_be_visible()  # of the same tools
    expect(page.get_by_label(re.compile("^Download as CSV"))).to_have_count(1)
    expect(page.get_by_label(re.compile("^Download as CSV"))).to_be_hidden()


def test_every_page_opens_by_the_navigation(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    page = new_page(watch)
    visit(page, shared_server.url)
    for name in [*NAMES[1:], NAMES[0]]:
        turn_to(page, name)
        page.wait_for_timeout(500)
        expect_sound(page)
    assert watch.complaints == []


@pytest.mark.parametrize("name", NAMES)
def test_no_page_is_wider_than_a_phone(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page], name: str
) -> None:
    page = new_page(watch, **_PHONE)
    for part in (f"?{_PARTS[name][0]}={value}" for value in _PARTS[name][1]) if name in _PARTS else ("",):
        visit(page, shared_server.url, name, part)
        page.wait_for_timeout(500)
        expect_sound(page)
        wide, out = page.evaluate(_TOO_WIDE)
        assert wide <= 1, (part, out)
    assert watch.complaints == []
