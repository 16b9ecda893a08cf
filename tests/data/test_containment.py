"""Files that a list names must lie in its folder, whichever way they are named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from concept_tuning.data import containment
from concept_tuning.data.containment import LEADS_OUT, Containment, file_fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a file, and a secret one beside it whose name begins like the folder's."""
    place = tmp_path / "set"
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "a.png").write_bytes(b"x")
    (tmp_path / "set-private").mkdir()
    (tmp_path / "set-private" / "secret.png").write_bytes(b"x")
    return place


def test_what_lies_in_the_folder_has_no_fault(folder: Path) -> None:
    place = Containment(folder)
    (folder / "near.png").symlink_to("sub/a.png")
    (folder / "away").symlink_to(folder / "sub")
    for name in ("sub/a.png", "sub/../sub/a.png", "near.png", "away/a.png", f"../{folder.name}/sub/a.png"):
        assert place.fault(os.path.join(folder, name)) is None


@pytest.mark.parametrize(
    "name",
    ["../set-private/secret.png", "sub/../../set-private/secret.png", "../set-private/none.png", "/etc/passwd",
     "../set-private"],
)  # fmt: skip
def test_what_lies_elsewhere_leads_out_whether_it_is_there_or_not(folder: Path, name: str) -> None:
    assert Containment(folder).fault(os.path.join(folder, name)) == LEADS_OUT


def test_links_that_lead_out_are_told_from_others(folder: Path) -> None:
    place = Containment(folder)
    (folder / "file.png").symlink_to("../set-private/secret.png")
    (folder / "chain.png").symlink_to("file.png")
    (folder / "deep").symlink_to("../set-private")
    (folder / "up").symlink_to("sub/..")
    for name in ("file.png", "chain.png", "deep/secret.png", "deep/none.png", "deep/../set-private/secret.png",
                 "up/../set-private/secret.png"):  # fmt: skip
        assert place.fault(os.path.join(folder, name)) == LEADS_OUT
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "round.png").symlink_to("round.png")
    assert place.fault(str(folder / "gone.png")) == "there is no such file"
    assert str(place.fault(str(folder / "round.png"))).startswith("cannot be read")


def test_other_faults_are_those_of_any_file(folder: Path) -> None:
    place = Containment(folder)
    os.mkfifo(folder / "pipe.png")
    for name in ("sub", "pipe.png", "none.png", "none/a.png", "sub/a.png/b.png", "a\0.png"):
        fault = place.fault(os.path.join(folder, name))
        assert fault is not None
        assert fault == file_fault(os.path.join(folder, name))
    assert file_fault(str(folder / "pipe.png")) == "not a regular file"


def test_the_folder_may_be_a_link_and_there_may_be_several(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    place = Containment(tmp_path / "link", tmp_path / "none", tmp_path / "set-private")
    assert place.fault(str(tmp_path / "link" / "sub" / "a.png")) is None
    assert place.fault(str(folder / "sub" / "a.png")) is None
    assert place.fault(str(tmp_path / "set-private" / "secret.png")) is None
    assert Containment("/").fault(str(folder / "sub" / "a.png")) is None
    again = pickle.loads(pickle.dumps(place))
    assert again.fault(str(folder / "sub" / "a.png")) is None
    assert again.fault("/etc/passwd") == LEADS_OUT


def test_each_folder_is_resolved_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []
    realpath = os.path.realpath

    def counted(path: str) -> str:
        resolved.append(str(path))
        return realpath(path)

    place = Containment(folder)
    monkeypatch.setattr(containment.os.path, "realpath", counted)
    for number in range(100):
        place.fault(str(folder / "sub" / f"{number}.png"))
    assert resolved == [str(folder / "sub")]
