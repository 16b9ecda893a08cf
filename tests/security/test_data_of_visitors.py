"""Data that a visitor of the dashboard chooses: lists that lead elsewhere, and archives that exhaust their readers."""

from __future__ import annotations

import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import state
from app.views import train_data
from concept_tuning.config import DataConfig, RunConfig
from concept_tuning.data.archives import archive_table
from concept_tuning.engine import jobs
from concept_tuning.errors import DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of runs of a dashboard whose visitors may use the folder ``data`` beside it."""
    monkeypatch.setattr(state, "DEMO", Path(state.__file__).resolve().parents[1] / "assets" / "demo")
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    monkeypatch.setenv("CONCEPT_TUNING_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONCEPT_TUNING_PRIVATE_UPLOADS", "1")
    monkeypatch.setattr("concept_tuning.data.archives.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("concept_tuning.data.cache.user_cache_path", lambda name: tmp_path / "cache" / name)
    (tmp_path / "data").mkdir()
    return tmp_path / "runs"


def _render() -> None:
    from app.errors import shown_errors
    from app.views import train

    with shown_errors():
        train.render()


def opened(kind: str) -> AppTest:
    page = AppTest.from_function(_render, default_timeout=120).run()
    page.segmented_control(key="train_kind").set_value(kind).run()
    assert not page.exception
    return page


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for place in range(6):
        noise = np.random.default_rng([place, len(folder.name)]).integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{place}.png")


@pytest.mark.parametrize("way", ["inside", "absolute", "link", "mask"])
def test_a_list_on_the_server_leads_nowhere_outside_its_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(jobs, "_launch", lambda folder, root: started.append(folder.path))
    pictures(tmp_path / "data" / "owl")
    pictures(tmp_path / ("data/wren" if way in ("inside", "mask") else "secret"))
    if way == "mask":
        pictures(tmp_path / "secret")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    wren = {"absolute": str(tmp_path / "secret"), "link": "link"}.get(way, "wren")
    mask = "link/0.png" if way == "mask" else ""
    lines = [f"owl/{n}.png,owl,\n{wren}/{n}.png,wren,{mask}" for n in range(6)]
    (tmp_path / "data" / "list.csv").write_text("\n".join(["path,label,mask", *lines]))
    monkeypatch.setattr(train_data, "suggestions", lambda root: ["list.csv"])
    page = opened("server")
    page.selectbox(key="train_server").set_value("list.csv").run()
    assert not page.exception
    start = page.button(key="train_start")
    if way == "inside":
        assert not page.error
        start.click().run()
        assert started
        return
    assert "list.csv" in page.error[0].value
    assert ("is absolute" if way == "absolute" else "lies outside the folder") in page.error[0].value.replace("\\", "")
    assert not page.get("image")
    assert start.disabled
    start._value = True  # as a forged message would
    page.run()
    assert started == []


def test_neither_counting_nor_checking_the_pictures_follows_a_list_out(root: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "data" / "owl")
    pictures(tmp_path / "secret")
    lines = [f"owl/{n}.png,owl\n{tmp_path}/secret/{n}.png,wren" for n in range(6)]
    path = tmp_path / "data" / "list.csv"
    path.write_text("\n".join(["path,label", *lines]))
    config = RunConfig.from_dict({"method": "vanilla", "data": {"source": str(path)}})
    for look in (state.survey_data, lambda config: state.check_data(config, lambda done, total: None)):
        with pytest.raises(DataError, match="is absolute"):
            look(config)


def test_an_upload_whose_headers_describe_one_another_without_end_does_not_stay(root: Path, tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = b"L", 10
    link = header.tobuf(tarfile.GNU_FORMAT) + b"owl/1.png\0".ljust(tarfile.BLOCKSIZE, b"\0")
    page = opened("upload")
    page.get("file_uploader")[0].upload("chain.tar", link * 600 + bytes(2048), "application/x-tar").run()
    assert not page.exception
    assert "chain.tar" in page.error[0].value
    assert "cannot be unpacked" in page.error[0].value
    assert list((root / "uploads").rglob("*.tar")) == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_list_in_an_archive_costs_little_memory_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("list.csv", "w") as stream:
            stream.write(b"path,label\n")
            for part in range(40):
                stream.write(b"".join(b"%d-%d,owl\n" % (part, n) for n in range(20_000)))
        archive.writestr("wren/1.png", b"x")
    config = DataConfig(cache_dir=str(tmp_path / "cache"), max_archive_entries=2000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than 2000 pictures are listed"):
            archive_table(path, config)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
