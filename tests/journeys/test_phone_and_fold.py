"""What must be seen without a search: the page behind the menu on a phone, the maps of a picture, a dark page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from console_watch import ConsoleWatch
from journey_browser import DESKTOP, PHONE
from journey_server import Server
from journey_steps import TITLES, nav_link, settle, visit
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

_PHONE = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
#: The right edge of the menu in pixels; not above 0: it is out of sight.
_MENU = "() => document.querySelector('[data-testid=stSidebar]').getBoundingClientRect().right"
_PAPER = "() => getComputedStyle(document.querySelector('.stApp')).backgroundColor"


@pytest.fixture
def watch(shared_server: Server) -> ConsoleWatch:
    return ConsoleWatch(shared_server.url)


def test_the_menu_closes_on_a_phone(shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]) -> None:
    page = new_page(watch, **_PHONE)
    visit(page, shared_server.url, "learn")
    page.get_by_test_id("stExpandSidebarButton").click()
    page.wait_for_function(f"({_MENU})() > 200")
    nav_link(page, "train").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(TITLES["train"])
    page.wait_for_function(f"({_MENU})() <= 0")
    page.get_by_test_id("stExpandSidebarButton").click()
    page.wait_for_function(f"({_MENU})() > 200")
    visit(page, shared_server.url, "learn")
    page.wait_for_function(f"({_MENU})() <= 0")
    assert watch.complaints == []


def test_the_maps_are_seen_without_scrolling(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    page = new_page(watch)
    visit(page, shared_server.url, "attention")
    expect(page).to_have_title("Concept attention · Concept-Tuning Studio")
    page.get_by_text("Look closer").wait_for()
    settle(page)
    maps = page.get_by_alt_text("bright places counted most")
    expect(maps).to_have_count(2)
    for place in range(2):
        box = maps.nth(place).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= DESKTOP["height"]
    assert watch.complaints == []


def test_a_dark_browser_gets_a_dark_page(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    papers = []
    for scheme in ("light", "dark"):
        page = new_page(watch, color_scheme=scheme)
        visit(page, shared_server.url, "learn")
        papers.append(sum(int(part) for part in page.evaluate(_PAPER)[4:-1].split(",")))
    assert papers[0] > 600
    assert papers[1] < 150


def test_a_chart_of_tiles_leaves_no_gap_on_a_phone(
    shared_server: Server, watch: ConsoleWatch, new_page: Callable[..., Page]
) -> None:
    page = new_page(watch, **_PHONE)
    visit(page, shared_server.url, "attention")
    chart = page.locator("[class*='st-key-fit-']").filter(has=page.get_by_test_id("stPlotlyChart")).first
    chart.locator(".js-plotly-plot").wait_for()
    page.wait_for_timeout(1000)
    box = chart.bounding_box()
    assert box is not None
    # Its plane is about three quarters as high as it is wide; on a wide page the chart has 560 pixels.
    assert 0.5 * box["width"] < box["height"] < box["width"]
