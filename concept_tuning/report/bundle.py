"""A diagnosis as one zip that can be checked: results, settings, seeds, data fingerprints, and a sum of every file."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from concept_tuning import __version__
from concept_tuning.engine.runs import check_size, read_whole
from concept_tuning.errors import RunError

#: Names of the manifest, and of its sums as ``sha256sum --check`` reads them.
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
_OVERVIEW, _RESULTS = "diagnosis.json", "results"
_DATA = "data.json"
#: Names of results; others are no lines of a list of sums, or no text.
_RESULT = re.compile(r"[A-Za-z0-9._-]+")
#: What is taken of a run: settings, versions, data fingerprint, split, curves and results, no weights.
_OF_RUN = ("config.json", "versions.json", _DATA, "split.json", "metrics.jsonl", "results.json")
#: The same content gives the same bytes, whenever it is packed.
_TIME = (1980, 1, 1, 0, 0, 0)
#: Most bytes of a bundle as it is unpacked, of a file that is parsed, and of a file that are read at once.
_MOST, _PARSED, _PIECE = 1 << 30, 1 << 24, 1 << 20


def make_bundle(folder: Path, runs: Mapping[str, Path] | None = None) -> bytes:
    """Return a zip of the JSON of a diagnosis, with a manifest of the sha256 sums of its files.

    The same files give the same bytes. Links are left out: where they lead is not part of a run. So are files that are
    larger than any that is written here, and what would make the whole larger than a GiB, which the manifest names as
    ``left_out``. Settings of a run name folders of the machine that it was trained on.

    Args:
        folder: Of the diagnosis.
        runs: Folders of its runs by name, as far as they are known; weights are not taken.

    Raises:
        RunError: if the folder holds no diagnosis, or a file cannot be read.
    """
    folder, runs = Path(folder), runs or {}
    told = _told(folder, runs)
    sums: dict[str, str] = {}
    left_out: list[str] = []
    room = _MOST - _PARSED  # of the manifest and the sums
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(_files(folder, runs)):
            size = _size(path, name)
            if size is None or size > room:
                left_out.append(name)
                continue
            with _explained(path), path.open("rb") as file:
                sums[name] = _pack(archive, name, file, size)
            room -= size
        manifest = {
            "made_by": f"Concept-Tuning Studio {__version__}",
            "runs": told,
            "files": sums,
            "left_out": left_out,
        }
        lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        for name, text in ((MANIFEST, json.dumps(manifest, indent=1) + "\n"), (SUMS, lines)):
            _pack(archive, name, io.BytesIO(text.encode()), len(text.encode()))
    return out.getvalue()


def check_bundle(path: Path) -> list[str]:
    """Compare a bundle with its manifest and return what is wrong, a sentence each; empty if nothing is.

    Raises:
        RunError: if it is no bundle at all.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if sum(sizes.values()) > _MOST:
                raise RunError(f"{path} would unpack to more than {_MOST >> 20} MB; it is no bundle of ours.")
            told: dict[str, str] = dict(json.loads(archive.read(MANIFEST))["files"])
            wrong = [f"{name} is missing." for name in sorted(told.keys() - sizes.keys())]
            wrong += [
                f"{name} is not in the manifest." for name in sorted(sizes.keys() - told.keys() - {MANIFEST, SUMS})
            ]
            for name in sorted(told.keys() & sizes.keys()):
                with archive.open(name) as file:
                    if _sum(file) != told[name]:
                        wrong.append(f"{name} was changed.")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is no bundle: its {MANIFEST} is missing or damaged.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # A RuntimeError is a zip that is encrypted, or packed in a way that is not read here.
        raise RunError(f"{path} is no whole zip; it was cut short or changed.") from error
    return wrong


def _files(folder: Path, runs: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Yield the files to pack with their names in the zip."""
    yield _OVERVIEW, folder / _OVERVIEW
    for path in (folder / _RESULTS).glob("*.json"):
        if _RESULT.fullmatch(path.name) and _own(folder, f"{_RESULTS}/{path.name}"):
            yield f"{_RESULTS}/{path.name}", path
    for place, (name, run) in enumerate(runs.items()):
        for file in _OF_RUN:
            if _own(run, file):
                yield f"{_folder(place, name)}/{file}", run / file


def _own(folder: Path, file: str) -> bool:
    """Whether a file lies in a folder itself, with no link on the way from there."""
    path = folder / file
    return path.is_file() and path.resolve() == folder.resolve() / file


def _folder(place: int, name: str) -> str:
    """Return where a run lies in the zip; names with slashes or worse make no path of their own."""
    return f"runs/{place + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"


def _size(path: Path, name: str) -> int | None:
    """Return how many bytes a file has; None if that is more than is written in a file of its name in the zip."""
    with _explained(path):
        try:
            return check_size(path, _MOST if name.startswith(f"{_RESULTS}/") else None)
        except RunError:
            return None


def _pack(archive: zipfile.ZipFile, name: str, file: IO[bytes], size: int) -> str:
    """Write so many bytes of a file into a zip, piece by piece, and return their sha256 sum."""
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.file_size = size
    digest = hashlib.sha256()
    with archive.open(entry, "w") as packed:
        while size > 0 and (piece := file.read(min(_PIECE, size))):
            digest.update(piece)
            packed.write(piece)
            size -= len(piece)
    return digest.hexdigest()


def _sum(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in words that a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error


def _told(folder: Path, runs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return name, method, backbone, source, seed and data fingerprint of each run; the last is None where unknown."""
    kept = ("name", "method", "backbone", "source", "seed")
    if not _own(folder, _OVERVIEW):
        raise RunError(f"{folder} holds no diagnosis; run `concept-tuning diagnose` again.")
    with _explained(folder / _OVERVIEW):
        overview = read_whole(folder / _OVERVIEW, _PARSED)
    try:
        return [
            {key: card[key] for key in kept} | {"data_fingerprint": _fingerprint(runs.get(card["name"]))}
            for card in json.loads(overview)["runs"]
        ]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError("The diagnosis or the data record of a run is damaged; run the diagnosis again.") from error


def _fingerprint(run: Path | None) -> Any:
    """Return the data fingerprint in a run's folder; None if there is none, or its record is too large to be one."""
    if run is None or not _own(run, _DATA):
        return None
    with _explained(run / _DATA):
        try:
            record = read_whole(run / _DATA, _PARSED)
        except RunError:
            return None
    return json.loads(record).get("fingerprint")
