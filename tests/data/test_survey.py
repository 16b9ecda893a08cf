from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_tuning.data.registry import load_data
from concept_tuning.data.survey import survey
from concept_tuning.errors import DataError
from concept_tuning.settings import build_config


def folder(path: Path, counts: dict[str, int], size: tuple[int, int] = (40, 20)) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number:02d}.png")
    return path


def test_planted_birds_are_counted_as_they_are_trained_on(tiny) -> None:
    config = tiny(rho=1.0)
    found = survey(config, samples=6)
    bundle = load_data(config)
    train = bundle.splits["train"]
    expected = Counter(zip(train.labels.tolist(), train.groups.tolist(), strict=True))
    assert {(c, g): n for (c, g), n in np.ndenumerate(found.cells) if n} == expected
    assert {name: part.sum() for name, part in found.counts.items()} == {"train": 32, "val": 16, "test": 16}
    assert [sample.label for sample in found.samples] == [*found.class_names, *found.class_names[:2]]
    assert found.samples[0].group in found.group_names
    assert (found.checked, found.copies, found.conflicts, found.problems) == (False, None, None, ())


def test_a_check_finds_every_problem_file_and_copy(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    (path / "train" / "a" / "03.png").write_bytes(b"no picture")
    (path / "test" / "b" / "00.png").write_bytes((path / "train" / "b" / "00.png").read_bytes())
    config = build_config(data=str(path))
    seen: list[tuple[int, int]] = []
    quick = survey(config, samples=2, side=10)
    assert quick.problems == ()
    assert quick.samples[0].image.shape == (5, 10, 3)
    checked = survey(config, check=True, progress=lambda done, total: seen.append((done, total)))
    assert [problem.key for problem in checked.problems] == ["train/a/03.png"]
    assert checked.copies == (("test/b/00.png", "train/b/00.png"),)
    assert checked.conflicts == ()
    assert seen[-1] == (12, 12)
    assert checked.counts["train"].sum() + checked.counts["val"].sum() == 7


def test_an_unreadable_sample_is_told_once(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", {"a": 6, "b": 6})
    for file in (path / "a").iterdir():
        file.write_bytes(b"")
    found = survey(build_config(data=str(path)))
    assert {sample.label for sample in found.samples} == {"b"}
    assert all("empty" in problem.reason for problem in found.problems)
    with pytest.raises(DataError, match=r"'?a'?"):
        survey(build_config(data=str(path)), check=True)


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two"):
        survey(build_config(data=str(folder(tmp_path / "data", {"a": 6}))))
