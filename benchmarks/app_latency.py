"""What a person waits for at the dashboard: first paint, turning to a page, and a click until the new map is there.

    python benchmarks/app_latency.py
    python benchmarks/app_latency.py --rounds 3 --no-record

Headless Chromium opens the demo on a server of its own. Times are taken inside the browser, from the press of the
button (or the start of the navigation) to the first frame that shows all of the answer, so that they hold the
network, the server and the drawing, but not the tool that clicks. `first` visits load what a page needs for the first
time since the server started; the others do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, sync_playwright

sys.path.append(str(Path(__file__).parents[1]))
sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "journeys")]

from journey_browser import DESKTOP, launch_chromium
from journey_server import Server
from journey_steps import NAMES, choose, keyed, nav_link, press, settle, visit
from records import RESULTS, command_line, commit

from concept_tuning.diagnostics.diagnose import load_diagnosis

DEMO = Path(__file__).parents[1] / "assets" / "demo" / "diagnosis"
_ANSWER_MS, _GALLERY_PAGES = 60_000, 5

#: Looks at every frame whether a condition is met, from the start of the navigation or from the next press.
_LOOK = """const look = () => {
    if (window.latencyBegun !== undefined && met()) window.latencyDone = performance.now();
    else requestAnimationFrame(look);
};
requestAnimationFrame(look);"""
_FROM_START = "window.latencyBegun = 0; const met = () => {condition};" + _LOOK
_FROM_PRESS = (
    """() => {
    delete window.latencyBegun; delete window.latencyDone;
    addEventListener('pointerdown', () => { window.latencyBegun = performance.now(); }, {capture: true, once: true});
    const before = {before};
    const met = () => {condition};"""
    + _LOOK
    + "}"
)
#: The pictures whose description holds some words, as far as they are loaded.
_IMAGES = (
    "[...document.querySelectorAll('[data-testid=stMain] img')]"
    ".filter(image => image.alt.includes('{words}') && image.complete && image.naturalWidth > 0)"
)
_HEADING = "document.querySelector('h1')?.textContent"
_OTHER_HEADING = f"![undefined, before].includes({_HEADING})"
_AT_REST = "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"


def first_paint(browser: Browser, server: Server) -> float:
    """Return the seconds until both maps of the first page are there, in a browser that knows nothing of it yet."""
    with opened(browser) as page:
        page.add_init_script(_fill(_FROM_START, condition=f"{_images('Attention map of')}.length === 2"))
        page.goto(server.url)
        return _seconds(page)


def page_switch(page: Page, name: str) -> float:
    """Return the seconds until another page shows its heading and its script rests."""
    return _timed(page, nav_link(page, name), before=_HEADING, condition=f"{_OTHER_HEADING} && {_AT_REST}")


def map_click(page: Page, target: Locator, words: str, count: int, **click: Any) -> float:
    """Return the seconds until all of some pictures, by words of their description, have been replaced."""
    found = _images(words)
    fresh = f"{found}.filter(image => !before.includes(image.src)).length >= {count}"
    return _timed(page, target, before=f"{found}.map(image => image.src)", condition=fresh, **click)


def cold_and_warm(browser: Browser, rounds: int) -> dict[str, list[float]]:
    """Open the first page on fresh servers, each time again on the same one."""
    times: dict[str, list[float]] = {"first_paint_cold_server": [], "first_paint_warm_server": []}
    for _ in range(rounds):
        with serving() as server:
            for found in times.values():
                found.append(first_paint(browser, server))
    return times


def switches(browser: Browser, server: Server, rounds: int) -> dict[str, list[float]]:
    """Turn to every page in turn; the first time apart."""
    times: dict[str, list[float]] = {"page_switch_first": []}
    with opened(browser) as page:
        visit(page, server.url)
        for number in range(rounds + 1):
            for name in [*NAMES[1:], NAMES[0]]:
                label = f"page_switch_{name}" if number else "page_switch_first"
                times.setdefault(label, []).append(page_switch(page, name))
                settle(page)
                page.wait_for_timeout(500)  # so that the charts of this page are no part of the next one's time
    every = [seconds for label, found in times.items() if label != "page_switch_first" for seconds in found]
    return {"page_switch": every} | times


def maps(browser: Browser, server: Server, rounds: int) -> dict[str, list[float]]:
    """Click cells of a picture, pictures with stored maps, and pictures that the networks are asked about anew."""
    diagnosis = load_diagnosis(DEMO)
    runs = [card.name for card in diagnosis.overview.runs]
    stored = set(next(found.keys for (name, _), found in diagnosis.results.items() if name == "picture-maps"))
    times: dict[str, list[float]] = {"click_to_map_cell": [], "click_to_map_stored": [], "click_to_map_new": []}
    with opened(browser) as page:
        visit(page, server.url, "attention")
        choose(page, "attention-part", "Where a patch attends")
        chart = keyed(page, "attention-cells").locator(".nsewdrag")
        box = chart.bounding_box()
        assert box is not None, "the attention page has no chart of cells"
        for number in range(rounds):
            share = 0.2 if number % 2 else 0.8  # of the side: cells that differ from the one before
            spot = {"x": share * box["width"], "y": share * box["height"]}
            times["click_to_map_cell"].append(map_click(page, chart, "where this cell attends", 1, position=spot))
            settle(page)
        _click_pictures(page, rounds, stored, len(runs), times)
    return times


def _click_pictures(page: Page, rounds: int, stored: set[str], runs: int, times: dict[str, list[float]]) -> None:
    """Click pictures of the gallery, page after page, until there are enough of both kinds."""
    labels = {True: "click_to_map_stored", False: "click_to_map_new"}
    for _ in range(_GALLERY_PAGES):
        # The first picture is the chosen one.
        for place in range(1, _tiles(page).count()):
            alt = _tiles(page).nth(place).locator("img").get_attribute("alt") or ""
            found = times[labels[alt.split(": ")[0] in stored]]
            if len(found) < rounds:
                button = _tiles(page).nth(place).get_by_role("button").last
                found.append(map_click(page, button, "bright places counted most", runs))
                settle(page)
        if all(len(times[label]) >= rounds for label in labels.values()):
            return
        press(page, "attention-on")


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median, worst and number of the times of each measure, in seconds."""
    return {
        name: {"median": round(statistics.median(found), 3), "worst": round(max(found), 3), "n": len(found)}
        for name, found in times.items()
        if found
    }


@contextmanager
def serving() -> Iterator[Server]:
    """Run a dashboard that has nothing but the demo."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.end()


@contextmanager
def opened(browser: Browser) -> Iterator[Page]:
    """Open a page in a session of its own."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(_ANSWER_MS)
    try:
        yield page
    finally:
        context.close()


def _tiles(page: Page) -> Locator:
    return page.locator("[class*=st-key-attention-tile-gallery-]")


def _images(words: str) -> str:
    return _IMAGES.replace("{words}", words)


def _fill(script: str, **parts: str) -> str:
    for name, part in parts.items():
        script = script.replace("{" + name + "}", part)
    return script


def _timed(page: Page, target: Locator, *, before: str, condition: str, **click: Any) -> float:
    target.scroll_into_view_if_needed()
    page.evaluate(_fill(_FROM_PRESS, before=before, condition=condition))
    target.click(**click)
    return _seconds(page)


def _seconds(page: Page) -> float:
    page.wait_for_function("window.latencyDone !== undefined")
    return float(page.evaluate("window.latencyDone - window.latencyBegun")) / 1000


def main() -> None:
    """Take the times and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    load = [os.getloadavg()[0]]
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        chromium = browser.version
        times = cold_and_warm(browser, options.rounds)
        with serving() as server:
            times |= switches(browser, server, options.rounds) | maps(browser, server, options.rounds)
        browser.close()
    load.append(os.getloadavg()[0])
    record = {
        "command": command_line("app_latency.py"),
        "commit": commit(("app", "concept_tuning", "benchmarks/*.py", "tests/journeys")),
        "machine": f"{os.cpu_count()} cores, shared with other work; no accelerator used",
        "threads_of_torch": os.environ.get("OMP_NUM_THREADS", "default"),
        "load_before_and_after": [round(value, 2) for value in load],
        "streamlit": version("streamlit"),
        "chromium": chromium,
        "viewport": DESKTOP,
        "rounds": options.rounds,
        "seconds": summary(times),
    }
    text = json.dumps(record, indent=1) + "\n"
    if not options.no_record:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "app_latency.json").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
