"""The Gradio demo as a visitor uses it: a picture in, both answers, the slider, a switch, a batch; on a phone too."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from console_watch import ConsoleWatch
from demo_server import DemoServer
from journey_browser import PHONE
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SAYS = re.compile(r"Both say|They disagree")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path_factory.mktemp("demo"))
    yield server
    server.end()


def _picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _open(page: Page, demo: DemoServer) -> None:
    page.goto(demo.url)
    page.locator("#examples button.thumbnail-item").first.wait_for()


def _choose_example(page: Page, place: int) -> None:
    page.locator("#examples button.thumbnail-item").nth(place).click()
    expect(page.locator("#sentence")).to_contain_text(_SAYS)


def test_a_picture_both_answers_the_slider_a_switch_and_a_batch(
    demo: DemoServer, new_page: Callable[..., Page], tmp_path: Path
) -> None:
    watch = ConsoleWatch(demo.url)
    page = new_page(watch)
    _open(page, demo)

    _choose_example(page, 0)
    for side in "ab":
        expect(page.locator(f"#says-{side}")).to_contain_text("%")
        expect(page.locator(f"#patches-{side}")).to_contain_text("concept")
    sentence = page.locator("#sentence").inner_text()

    file = tmp_path / "mine.png"
    file.write_bytes(_picture(0))
    page.locator("#picture").get_by_role("button", name=re.compile("Remove|Clear")).click()
    expect(page.locator("#sentence")).to_contain_text("Choose a picture")
    page.locator("#picture input[type=file]").first.set_input_files(file)
    expect(page.locator("#sentence")).to_contain_text(_SAYS)
    assert page.locator("#sentence").inner_text() != sentence

    _move_slider(page)
    page.get_by_label("eigen-cam", exact=True).check()
    expect(page.locator("#sentence")).to_contain_text("eigen-cam")

    page.get_by_label("Attention over patches").uncheck()
    expect(page.locator("#switched-b")).to_contain_text("attention over patches off")
    expect(page.locator("#switched-b")).to_contain_text("of the probability moves")

    _batch(page, tmp_path)
    page.get_by_role("tab", name="Method").click()
    expect(page.get_by_text("negative transfer").first).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("The place acts on the picture"))).to_be_visible()
    assert watch.complaints == []


def test_what_is_no_picture_is_said_on_the_page_as_text(
    demo: DemoServer, new_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = new_page(ConsoleWatch(demo.url))
    _open(page, demo)
    page.get_by_role("tab", name="Several").click()
    file = tmp_path / "<img src=x onerror=document.title='taken'>.png"
    file.write_bytes(b"no picture")
    page.locator("#batch-files input[type=file]").set_input_files(file)
    page.locator("#batch-go").click()
    expect(page.get_by_text("There is no picture among these files").first).to_be_visible()
    page.wait_for_timeout(300)
    assert page.title() != "taken"
    page.get_by_role("tab", name="One picture").click()
    _choose_example(page, 1)  # it goes on


def test_it_fits_a_phone(demo: DemoServer, new_page: Callable[..., Page]) -> None:
    watch = ConsoleWatch(demo.url)
    page = new_page(watch, viewport=PHONE)
    _open(page, demo)
    _choose_example(page, 0)
    expect(page.locator("#switched-b")).to_contain_text("everything on")
    width, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= inner
    assert watch.complaints == []


def _move_slider(page: Page) -> None:
    """Drag the handle of the maps' slider to the left and see that the boundary went with it."""
    maps = page.locator("#maps")
    maps.scroll_into_view_if_needed()
    handle = maps.locator(".outer").first
    before = handle.bounding_box()
    assert before is not None
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 120, y, steps=8)
    page.mouse.up()
    after = handle.bounding_box()
    assert after is not None
    assert after["x"] == pytest.approx(before["x"] - 120, abs=15)


def _batch(page: Page, folder: Path) -> None:
    archive = folder / "mine.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for seed in range(4):
            out.writestr(f"cats/{seed}.png", _picture(seed))
        out.writestr("notes.txt", "text")
    page.get_by_role("tab", name="Several").click()
    page.locator("#batch-files input[type=file]").set_input_files(archive)
    expect(page.locator("#batch-files")).to_contain_text("mine.zip")
    page.locator("#batch-go").click()
    expect(page.locator("#batch-summary")).to_contain_text("of 4 pictures")
    expect(page.locator("#batch-table")).to_contain_text("cats/2.png")
    with page.expect_download() as download:
        page.locator("#batch-csv").click()
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert len(rows) == 6
    assert {row[0] for row in rows[1:]} == {f"cats/{seed}.png" for seed in range(4)} | {"notes.txt"}
    agree = [row[1] for row in rows[1:5]]
    assert agree == sorted(agree)  # "no" before "yes"
