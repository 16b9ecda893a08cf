from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data import cache as cache_module
from concept_tuning.data.cache import ImageCache, cache_key, cache_root, cache_side, open_cache, shrink
from concept_tuning.data.decode import UnreadableImage, decode_image
from concept_tuning.data.table import ImageTable
from concept_tuning.errors import DataError

SHAPES = [(40, 30), (10, 12), (25, 25), (30, 90), (8, 200)]


def draw(row: int) -> np.ndarray:
    shape = SHAPES[row % len(SHAPES)]
    return np.random.default_rng(row).integers(0, 256, (*shape, 3), dtype=np.uint8)


class Source:
    """Pictures in memory, with a count of the reads, rows that fail, and a stamp to change."""

    def __init__(self, count: int = 12, bad: set[int] | None = None):
        self.count, self.bad, self.reads, self.version = count, bad or set(), [], 0

    def read(self, row: int) -> np.ndarray:
        self.reads.append(row)
        if row in self.bad:
            raise UnreadableImage(f"broken file {row}")
        return draw(row)

    def table(self, **changes) -> ImageTable:
        columns = {
            "source": "memory",
            "class_names": ("a", "b"),
            "group_names": (),
            "keys": tuple(f"picture{row}" for row in range(self.count)),
            "labels": np.arange(self.count) % 2,
            "groups": None,
            "splits": None,
            "read": self.read,
            "stamp": lambda row: f"{row}:{self.version}",
        }
        return ImageTable(**(columns | changes))


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig(image_size=16, cache_dir=str(tmp_path))  # short side 20


def only_cache(config: DataConfig) -> Path:
    (folder,) = [path for path in cache_root(config).iterdir() if path.is_dir()]
    return folder


def test_side_is_a_quarter_more_than_the_input():
    assert [cache_side(DataConfig(image_size=size)) for size in (16, 128, 129, 224)] == [20, 160, 161, 280]


def test_pictures_come_back_small_and_in_order(config):
    cache = open_cache(Source().table(), config)
    assert len(cache) == 12
    for row in range(12):
        assert np.array_equal(cache.image(row).permute(1, 2, 0).numpy(), shrink(draw(row), 20))
    assert [tuple(cache.image(row).shape[1:]) for row in range(5)] == [(27, 20), (10, 12), (20, 20), (20, 60), (8, 32)]


def test_shrink_is_pillows_antialiased_resize_after_the_crop():
    tall = draw(4).transpose(1, 0, 2).repeat(5, axis=1)  # 200 x 40: within four times, after the crop 160 x 40
    expected = Image.fromarray(np.ascontiguousarray(tall[20:180])).resize((20, 80), Image.Resampling.BILINEAR)
    assert np.array_equal(shrink(tall, 20), np.asarray(expected))
    assert np.array_equal(shrink(tall, 64), tall[20:180])
    assert shrink(np.full((1, 1, 3), 7, np.uint8), 20).tolist() == [[[7, 7, 7]]]


def test_a_second_opening_reads_nothing(config):
    source = Source()
    first = open_cache(source.table(), config)
    assert sorted(source.reads) == list(range(12))
    second = open_cache(source.table(), config)
    assert len(source.reads) == 12
    assert second.path == first.path
    assert all(torch.equal(first.image(row), second.image(row)) for row in range(12))


@pytest.mark.parametrize("change", ["stamp", "key", "size", "limit"])
def test_what_changes_the_pictures_changes_the_cache(config, change):
    source = Source()
    before = cache_key(source.table(), config)
    assert cache_key(source.table(labels=np.zeros(12, np.int64)), config) == before
    table = source.table()
    if change == "stamp":
        source.version = 1
    elif change == "key":
        table = source.table(keys=("other", *table.keys[1:]))
    elif change == "size":
        config = DataConfig(image_size=24, cache_dir=config.cache_dir)
    else:
        config = DataConfig(image_size=16, cache_dir=config.cache_dir, max_pixels=10)
    assert cache_key(table, config) != before


def test_a_file_that_went_away_still_has_a_stamp(config):
    def gone(row):
        raise FileNotFoundError(errno.ENOENT, "gone")

    assert cache_key(Source().table(stamp=gone), config) != cache_key(Source().table(), config)


def test_unreadable_pictures_are_listed_and_the_others_kept(config):
    cache = open_cache(Source(bad={0, 7}).table(), config)
    assert [(problem.key, problem.reason) for problem in cache.problems] == [
        ("picture0", "broken file 0"),
        ("picture7", "broken file 7"),
    ]
    assert np.flatnonzero(~cache.readable).tolist() == [0, 7]
    assert np.array_equal(cache.image(8).permute(1, 2, 0).numpy(), shrink(draw(8), 20))
    with pytest.raises(DataError, match=r"Picture 7 of the image cache .* could not be decoded"):
        cache.image(7)


def test_a_picture_that_became_readable_is_taken_in(config):
    source = Source(bad={3})
    open_cache(source.table(), config)
    source.reads.clear()
    assert open_cache(source.table(), config).problems
    assert set(source.reads) == {3}  # the unreadable one alone is tried again
    source.bad.clear()
    cache = open_cache(source.table(), config)
    assert cache.problems == ()
    assert np.array_equal(cache.image(3).permute(1, 2, 0).numpy(), shrink(draw(3), 20))


def test_a_source_without_one_readable_picture_gives_an_empty_cache(config):
    cache = open_cache(Source(3, bad={0, 1, 2}).table(), config)
    assert not cache.readable.any()
    assert len(open_cache(Source(3, bad={0, 1, 2}).table(), config).problems) == 3


def test_rows_outside_are_refused(config):
    cache = open_cache(Source().table(), config)
    for row in (-1, 12):
        with pytest.raises(IndexError, match=rf"row {row} is outside 0\.\.11"):
            cache.image(row)


def test_pictures_are_copies_and_give_no_warning(config):
    cache = open_cache(Source().table(), config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = cache.image(1)
    original = image.clone()
    image += 1
    assert torch.equal(cache.image(1), original)


def test_pickled_cache_carries_its_path_and_reads_the_same(config):
    cache = open_cache(Source(60).table(), config)
    text = pickle.dumps(cache)
    assert len(text) < 400 + len(str(cache.path))
    again = pickle.loads(text)
    assert all(torch.equal(again.image(row), cache.image(row)) for row in range(60))
    assert again.fingerprint == cache.fingerprint


def test_content_is_told_apart_whatever_the_side(config):
    small = open_cache(Source().table(), config)
    large = open_cache(Source().table(), DataConfig(image_size=24, cache_dir=config.cache_dir))
    assert small.path != large.path
    assert small.fingerprint == large.fingerprint
    changed = open_cache(Source().table(read=lambda row: draw(row) ^ (row == 5), stamp=str), config)
    assert [row for row in range(12) if changed.content(row) != small.content(row)] == [5]
    turned = open_cache(Source().table(read=lambda row: draw(row).reshape(1, -1, 3), stamp=lambda row: "t"), config)
    assert turned.content(0) != small.content(0)  # same bytes, other shape
    bad = open_cache(Source(bad={2}).table(stamp=lambda row: "b"), config)
    assert bad.content(2) == bytes(32)


def damage_pixels(folder: Path) -> None:
    with (folder / "pixels.bin").open("r+b") as file:
        file.truncate((folder / "pixels.bin").stat().st_size - 1)


def damage_index(folder: Path) -> None:
    index = np.load(folder / "index.npy")
    index[3, 1:] = index[3, :0:-1]  # height and width exchanged: all sizes still add up
    np.save(folder / "index.npy", index)


def damage_content(folder: Path) -> None:
    np.save(folder / "content.npy", np.load(folder / "content.npy") ^ 1)


def damage_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 1')


def damage_meta_type(folder: Path) -> None:
    (folder / "meta.json").write_text("[]")


def age_format(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": 0}))


def empty_index(folder: Path) -> None:
    (folder / "index.npy").write_bytes(b"")


def lose_a_row(folder: Path) -> None:
    index, meta = np.load(folder / "index.npy")[:-1], json.loads((folder / "meta.json").read_text())
    np.save(folder / "index.npy", index)
    digest = hashlib.sha256(index.tobytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta | {"index_sha256": digest}))


def lose_index(folder: Path) -> None:
    (folder / "index.npy").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        damage_pixels,
        damage_index,
        damage_content,
        damage_meta,
        damage_meta_type,
        age_format,
        empty_index,
        lose_a_row,
        lose_index,
    ],
)
def test_a_damaged_cache_is_found_out_and_made_again(config, damage):
    source, lines = Source(), []
    good = open_cache(source.table(), config)
    images = [good.image(row) for row in range(12)]
    damage(good.path)
    with pytest.raises(DataError, match=r"image cache .* is damaged \(.+\); delete that folder"):
        ImageCache(good.path)
    source.reads.clear()
    again = open_cache(source.table(), config, report=lines.append)
    assert sorted(source.reads) == list(range(12))
    assert any("damaged" in line for line in lines)
    assert all(torch.equal(again.image(row), images[row]) for row in range(12))


@pytest.mark.parametrize("at_a_place", [True, False], ids=["read at a place", "sought and read"])
def test_a_cache_that_is_cut_off_while_it_is_open_is_told(config, monkeypatch, at_a_place):
    if not at_a_place:
        monkeypatch.delattr(os, "preadv", raising=False)
    cache = open_cache(Source().table(), config)
    damage_pixels(cache.path)
    for row in (0, 10):
        assert np.array_equal(cache.image(row).permute(1, 2, 0).numpy(), shrink(draw(row), 20))
    with pytest.raises(DataError, match="ends too early; delete its folder"):
        cache.image(11)


def test_an_interrupted_build_leaves_nothing_that_is_taken_for_a_cache(config):
    source = Source()

    def stop_at_five(row):
        if row == 5:
            raise KeyboardInterrupt
        return source.read(row)

    with pytest.raises(KeyboardInterrupt):
        open_cache(source.table(read=stop_at_five), config)
    assert [path for path in cache_root(config).iterdir() if path.is_dir()] == []
    assert len(open_cache(source.table(), config)) == 12


def test_the_file_used_tells_the_last_opening(config):
    cache = open_cache(Source().table(), config)
    os.utime(cache.path / "used", (1, 1))
    before = time.time() - 2
    open_cache(Source().table(), config)
    assert (cache.path / "used").stat().st_mtime > before


def test_a_cache_that_was_long_not_opened_goes_when_another_is_built(config):
    source = Source()
    old, kept = open_cache(source.table(), config).path, open_cache(Source(5).table(), config).path
    theirs = cache_root(config) / "notes"
    theirs.mkdir()
    (theirs / "used").touch()
    ago = time.time() - (cache_module.KEPT_DAYS + 1) * 86_400
    for path in (old, theirs):
        os.utime(path / "used", (ago, ago))
    open_cache(Source(5).table(), config)  # nothing is built, and nothing goes
    assert old.is_dir()
    lock = FileLock(old.with_name(f"{old.name}.lock"))
    with lock:  # somebody builds it
        open_cache(Source(7).table(), config)
    assert old.is_dir()
    open_cache(Source(8).table(), config)
    assert not old.exists()
    assert kept.is_dir()
    assert theirs.is_dir()
    again = open_cache(source.table(), config).image(3)
    assert np.array_equal(again.permute(1, 2, 0).numpy(), shrink(draw(3), 20))


def test_progress_counts_to_the_end_and_text_is_reported(config, monkeypatch):
    monkeypatch.setattr(cache_module, "_REPORT_SECONDS", -1.0)
    steps, lines = [], []
    open_cache(Source().table(), config, report=lines.append, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(row, 12) for row in range(1, 13)]
    assert lines[0] == "Decoding 12 pictures into the cache, once."
    assert lines[-1] == "Decoded 12 of 12 pictures."


def test_a_full_disk_is_explained_and_leaves_nothing(config, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    table = Source(600).table(read=lambda row: np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(DataError, match=r"needs about 1 MB in .*images.*set data\.cache_dir to a folder on a larger"):
        open_cache(table, config)
    assert [path for path in cache_root(config).iterdir() if path.is_dir()] == []


def test_the_space_needed_is_reckoned_from_what_was_written(config, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.written = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.written += data.nbytes
            if self.written > 40_000:
                raise OSError(errno.ENOSPC, "No space left on device")

    real_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r": Full(real_open(path, mode)) if mode == "wb" else real_open(path, mode)
    )
    table = Source(2500).table(read=lambda row: np.zeros((20, 50, 3), np.uint8))  # 3,000 bytes each
    with pytest.raises(DataError, match=r"needs about 7 MB|needs about 8 MB"):
        open_cache(table, config)


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written in .*file.images .*set data\.cache_dir to a folder that"):
        open_cache(Source().table(), DataConfig(cache_dir=str(tmp_path / "file")))


def test_a_read_only_cache_can_still_be_opened(config, monkeypatch):
    source = Source()
    open_cache(source.table(), config)

    def read_only(*_, **__):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert len(open_cache(source.table(), config)) == 12
    assert len(source.reads) == 12


def test_a_source_that_reads_something_else_is_a_fault_of_the_source(config):
    with pytest.raises(ValueError, match=r"'picture0' was read as \(4, 4\) float64"):
        open_cache(Source().table(read=lambda row: np.zeros((4, 4))), config)


def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(cache_module, "user_cache_path", lambda name: tmp_path / name)
    assert cache_root(DataConfig()) == tmp_path / "concept-tuning" / "images"
    assert cache_root(DataConfig(cache_dir="~/x")) == Path.home() / "x" / "images"


def test_only_a_few_pictures_are_held_while_building(tmp_path):
    config = DataConfig(image_size=205, cache_dir=str(tmp_path))  # short side 256: kept as they are

    def big(row):
        return np.full((256, 256, 3), row % 256, np.uint8)

    peaks = []
    for count in (50, 400):
        table = Source(count).table(read=big)
        tracemalloc.start()
        open_cache(table, config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 350 more rows: index and digests, not 350 pictures of 196,608 bytes
    assert peaks[1] - peaks[0] < 20 * 196_608


def test_large_pictures_are_made_small_one_after_another(config, monkeypatch, tmp_path):
    monkeypatch.setattr("concept_tuning.data.decode.LARGE_PIXELS", 10)
    monkeypatch.setattr("concept_tuning.data.cache.os.cpu_count", lambda: 4)
    files = [tmp_path / f"{row}.png" for row in range(12)]
    for row, file in enumerate(files):
        Image.fromarray(draw(row)).save(file)
    inside, most, lock = [0], [0], threading.Lock()

    def counted(pixels: np.ndarray, side: int) -> np.ndarray:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        with lock:
            inside[0] -= 1
        return shrink(pixels, side)

    monkeypatch.setattr("concept_tuning.data.cache.shrink", counted)
    table = Source().table(read=lambda row: decode_image(files[row], max_pixels=10**6))
    cache = open_cache(table, config)
    assert most == [1]
    assert np.array_equal(cache.image(2).permute(1, 2, 0).numpy(), shrink(draw(2), 20))
    most[0] = 0
    open_cache(Source().table(stamp=lambda row: f"{row} from memory"), config)
    assert most[0] > 1  # the others go on together


def test_bytes_do_not_depend_on_which_thread_is_faster(config):
    calm = open_cache(Source().table(), config)
    expected = (calm.path / "pixels.bin").read_bytes()
    shutil.rmtree(calm.path)

    def uneven(row):
        time.sleep(0.02 * (row % 3 == 0))
        return draw(row)

    assert (open_cache(Source().table(read=uneven), config).path / "pixels.bin").read_bytes() == expected


def build_in_process(config, log, die_at):
    def read(row):
        with log.open("a") as file:
            file.write(f"{row}\n")
        if row == die_at:
            os._exit(9)
        time.sleep(0.01)
        return draw(row)

    open_cache(Source().table(read=read), config)


needs_fork = pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="needs the fork start method")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_one_cache(config, tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=build_in_process, args=(config, log, None)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(12))
    source = Source()
    cache = open_cache(source.table(), config)
    assert source.reads == []
    assert all(np.array_equal(cache.image(row).permute(1, 2, 0).numpy(), shrink(draw(row), 20)) for row in range(12))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_build_is_cleared_away_and_made_again(config, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=build_in_process, args=(config, tmp_path / "log", 6))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert ".part-" in only_cache(config).name
    source = Source()
    cache = open_cache(source.table(), config)
    assert len(source.reads) == 12
    assert only_cache(config) == cache.path


def test_a_second_thread_waits_for_the_first(config):
    started, lines = threading.Event(), []
    source = Source()

    def slow(row):
        started.set()
        time.sleep(0.02)
        return source.read(row)

    first = threading.Thread(target=open_cache, args=(source.table(read=slow), config))
    first.start()
    started.wait(10)
    open_cache(source.table(), config, report=lines.append)
    first.join(10)
    assert lines == ["Another process is decoding the same pictures; waiting for it."]
    assert len(source.reads) == 12
