from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from concept_tuning.diagnostics.diagnose import diagnose
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.errors import RunError
from concept_tuning.report import bundle as module
from concept_tuning.report.bundle import MANIFEST, SUMS, check_bundle, make_bundle


@pytest.fixture(scope="module")
def folder(subjects, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "diagnosis"
    diagnose(Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None), out, only=["predictions"])
    return out


@pytest.fixture(scope="module")
def runs(subjects) -> dict[str, Path]:
    return {subject.name: subject.run.folder.path for subject in subjects}


@pytest.fixture
def bundle(folder, runs, tmp_path) -> Path:
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(folder, runs))
    return path


def rewritten(bundle: Path, change) -> Path:
    """Return a copy whose files, by name, went through ``change``."""
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    out = bundle.with_name("changed.zip")
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in change(files).items():
            archive.writestr(name, data)
    return out


def test_every_file_is_in_the_manifest_with_the_sum_of_its_source(bundle, folder, runs) -> None:
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read(MANIFEST))
        names = set(archive.namelist()) - {MANIFEST, SUMS}
    assert set(manifest["files"]) == names
    sources = {
        str(path.relative_to(folder)): path for path in [folder / "diagnosis.json", *folder.glob("results/*.json")]
    }
    sources |= {f"runs/{n}-{run.name}/config.json": run / "config.json" for n, run in enumerate(runs.values(), start=1)}
    assert sources.keys() <= names
    for name, path in sources.items():
        assert manifest["files"][name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not any(name.endswith(".safetensors") for name in names)


def test_the_manifest_tells_seed_and_data_of_each_run(bundle, runs) -> None:
    with zipfile.ZipFile(bundle) as archive:
        told = json.loads(archive.read(MANIFEST))["runs"]
    assert [one["name"] for one in told] == list(runs)
    for one in told:
        assert one["seed"] == 0
        assert one["data_fingerprint"] == json.loads((runs[one["name"]] / "data.json").read_text())["fingerprint"]


def test_without_known_runs_the_fingerprint_is_left_open(folder, tmp_path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(folder))
    with zipfile.ZipFile(path) as archive:
        assert {one["data_fingerprint"] for one in json.loads(archive.read(MANIFEST))["runs"]} == {None}
    assert check_bundle(path) == []


def test_the_same_files_give_the_same_bytes(folder, runs, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (10**9, 10**9))
    assert make_bundle(copy, runs) == make_bundle(folder, runs)


def test_changes_of_a_bundle_are_found(bundle) -> None:
    assert check_bundle(bundle) == []
    added = rewritten(bundle, lambda files: files | {"results/new.json": b"{}"})
    assert check_bundle(added) == ["results/new.json is not in the manifest."]
    gone = rewritten(bundle, lambda files: {name: data for name, data in files.items() if name != "diagnosis.json"})
    assert check_bundle(gone) == ["diagnosis.json is missing."]
    forged = rewritten(bundle, lambda files: files | {"diagnosis.json": files["diagnosis.json"] + b" "})
    assert check_bundle(forged) == ["diagnosis.json was changed."]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_usual_tool_can_check_it(bundle, tmp_path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "out")
    command = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    assert subprocess.run(command, cwd=tmp_path / "out", check=False).returncode == 0


def test_what_is_no_bundle_or_no_diagnosis_is_a_sentence(tmp_path, bundle) -> None:
    with pytest.raises(RunError, match="holds no diagnosis"):
        make_bundle(tmp_path)
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(RunError, match="no whole zip"):
        check_bundle(tmp_path / "text.zip")
    with pytest.raises(RunError, match="cannot be read"):
        check_bundle(tmp_path / "none.zip")
    for manifest in ({}, {MANIFEST: b"{}"}, {MANIFEST: b"[" * 100_000}):
        with pytest.raises(RunError, match="missing or damaged"):
            check_bundle(rewritten(bundle, lambda files, manifest=manifest: manifest))


def test_damage_within_any_file_is_found(bundle) -> None:
    whole = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename != SUMS]  # for other tools, not read here
    before = content_of(bundle)
    for entry in entries:
        start = entry.header_offset + 30 + len(entry.filename)
        last = start + entry.compress_size - 1  # is filled up with bits that say nothing
        for place in range(start, last, max(1, entry.compress_size // 20)):
            bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            # Other bits may say the same: a repeated text can be copied from either of two places before it.
            assert said_of(bundle) or content_of(bundle) == before, f"byte {place}, in {entry.filename}"


def content_of(bundle: Path) -> dict[str, bytes]:
    """Return the files of a bundle but the sums."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != SUMS}


def said_of(bundle: Path) -> list[str]:
    """Return what is wrong with a bundle, also if it is none any more."""
    try:
        return check_bundle(bundle)
    except RunError as error:
        return [str(error)]


def test_an_encrypted_zip_is_a_sentence(bundle) -> None:
    local, central = b"PK\x03\x04\x14\x00", b"PK\x01\x02\x14\x03\x14\x00"
    whole = bundle.read_bytes()
    for header in (local, central):
        assert header + b"\x00" in whole
        whole = whole.replace(header + b"\x00", header + b"\x01")
    bundle.write_bytes(whole)
    with pytest.raises(RunError, match="no whole zip"):
        check_bundle(bundle)


def test_a_zip_that_would_unpack_to_too_much_is_not_unpacked(bundle, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST", 1 << 20)
    large = rewritten(bundle, lambda files: files | {"results/new.json": bytes(1 << 20)})
    with pytest.raises(RunError, match="would unpack to more than 1 MB"):
        check_bundle(large)


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch) -> None:
    usual = Path.open

    def refuse(path: Path, *how: str, **more: object):
        if path.name == "thumbnails.json":
            raise PermissionError(13, "Permission denied")
        return usual(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RunError, match=r"thumbnails\.json cannot be read \(Permission denied\)"):
        make_bundle(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": [{}]}', "[" * 100_000])
def test_a_damaged_diagnosis_is_not_packed(content: str, folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "diagnosis.json").write_text(content)
    with pytest.raises(RunError, match="is damaged; run the diagnosis again"):
        make_bundle(tmp_path / "copy")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_run_whose_data_record_is_damaged_is_not_packed(content: str, folder, tmp_path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(RunError, match="the data record of a run is damaged"):
        make_bundle(folder, {"vanilla": tmp_path})


def test_a_folder_that_is_a_link_is_not_followed_either(folder, runs, tmp_path) -> None:
    copy, private = tmp_path / "copy", tmp_path / "private"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "results")
    private.mkdir()
    (private / "secret.json").write_text('"secret words"')
    (copy / "results").symlink_to(private)
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(copy))
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if b"secret words" in archive.read(name)]
    whole = tmp_path / "whole"  # whoever names a folder by a link means what it leads to
    whole.symlink_to(folder)
    assert make_bundle(whole, runs) == make_bundle(folder, runs)


def test_names_of_runs_make_no_paths(folder, runs, tmp_path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(folder, {"../../up": runs["vanilla"], "..\\..\\up": runs["vanilla"]}))
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("runs/")]
    assert len(names) == len(set(names)) > 6
    assert all(".." not in Path(name).parts and "\\" not in name for name in names)


def test_links_are_not_followed(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (tmp_path / "secret.json").write_text("{}")
    (copy / "results" / "99_link.json").symlink_to(tmp_path / "secret.json")
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(copy))
    with zipfile.ZipFile(path) as archive:
        assert "results/99_link.json" not in archive.namelist()


def read_manifest(packed: bytes, path: Path) -> dict:
    """Return the manifest of a bundle that was just made, and in which nothing is wrong."""
    path.write_bytes(packed)
    assert check_bundle(path) == []
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(MANIFEST))


def test_files_that_are_too_large_are_left_out_unread_and_named(folder, runs, tmp_path) -> None:
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.copytree(runs["vanilla"], run, ignore=shutil.ignore_patterns("checkpoints", "best", "predictions"))
    for file in (copy / "results" / "99_huge.json", run / "versions.json", run / "data.json"):
        with file.open("wb") as stream:
            stream.truncate(1 << 40)  # a file with a hole takes no room
    manifest = read_manifest(make_bundle(copy, {"vanilla": run}), tmp_path / "bundle.zip")
    assert manifest["left_out"] == ["results/99_huge.json", "runs/1-vanilla/data.json", "runs/1-vanilla/versions.json"]
    assert "runs/1-vanilla/config.json" in manifest["files"]
    assert manifest["runs"][0]["data_fingerprint"] is None
    with (copy / "diagnosis.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(RunError, match=r"diagnosis\.json cannot be read: it has more than 16 MiB"):
        make_bundle(copy)


def test_what_makes_the_whole_too_large_is_left_out_and_named(folder, tmp_path, monkeypatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("97_a.json", "98_b.json"):
        (copy / "results" / name).write_bytes(b" " * (6 << 20))
    monkeypatch.setattr(module, "_MOST", module._PARSED + (10 << 20))
    manifest = read_manifest(make_bundle(copy), tmp_path / "bundle.zip")
    assert manifest["left_out"] == ["results/98_b.json"]
    assert {"results/97_a.json", "results/thumbnails.json"} < set(manifest["files"])


def test_large_files_are_packed_piece_by_piece(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with (copy / "results" / "99_large.json").open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    try:
        packed = make_bundle(copy)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16 << 20
    assert "results/99_large.json" in read_manifest(packed, tmp_path / "bundle.zip")["files"]


def test_a_result_of_a_name_that_is_no_line_or_no_text_is_not_packed(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in (b"a\nb.json", b"\xff.json", b"a\\..\\b.json"):
        (copy / "results" / os.fsdecode(name)).write_text("{}")
    assert make_bundle(copy) == make_bundle(folder)
