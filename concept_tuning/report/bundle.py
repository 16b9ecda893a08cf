"""A diagnosis as one zip that can be checked: results, settings, seeds, data fingerprints, and a sum of every file."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from concept_tuning import __version__
from concept_tuning.errors import RunError

#: Names of the manifest, and of its sums as ``sha256sum --check`` reads them.
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
_OVERVIEW, _RESULTS = "diagnosis.json", "results"
#: What is taken of a run: settings, versions, data fingerprint, split, curves and results, no weights.
_OF_RUN = ("config.json", "versions.json", "data.json", "split.json", "metrics.jsonl", "results.json")
#: The same content gives the same bytes, whenever it is packed.
_TIME = (1980, 1, 1, 0, 0, 0)
_MOST = 1 << 30


def make_bundle(folder: Path, runs: Mapping[str, Path] | None = None) -> bytes:
    """Return a zip of the JSON of a diagnosis, with a manifest of the sha256 sums of its files.

    The same files give the same bytes. Links are left out: where they lead is not part of a run. Settings of a run
    name folders of the machine that it was trained on.

    Args:
        folder: Of the diagnosis.
        runs: Folders of its runs by name, as far as they are known; weights are not taken.

    Raises:
        RunError: if the folder holds no diagnosis, or a file cannot be read.
    """
    content = dict(_content(Path(folder), runs or {}))
    told = _told(content, runs or {})
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())}
    manifest = {"made_by": f"Concept-Tuning Studio {__version__}", "runs": told, "files": sums}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    content |= {MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode(), SUMS: lines.encode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
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
                if hashlib.sha256(archive.read(name)).hexdigest() != told[name]:
                    wrong.append(f"{name} was changed.")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is no bundle: its {MANIFEST} is missing or damaged.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # A RuntimeError is a zip that is encrypted, or packed in a way that is not read here.
        raise RunError(f"{path} is no whole zip; it was cut short or changed.") from error
    return wrong


def _content(folder: Path, runs: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    if not _own(folder, _OVERVIEW):
        raise RunError(f"{folder} holds no diagnosis; run `concept-tuning diagnose` again.")
    yield _OVERVIEW, _read(folder / _OVERVIEW)
    for path in sorted((folder / _RESULTS).glob("*.json")):
        if _own(folder, f"{_RESULTS}/{path.name}"):
            yield f"{_RESULTS}/{path.name}", _read(path)
    for place, (name, run) in enumerate(runs.items()):
        for file in _OF_RUN:
            if _own(run, file):
                yield f"{_folder(place, name)}/{file}", _read(run / file)


def _own(folder: Path, file: str) -> bool:
    """Whether a file lies in a folder itself, with no link on the way from there."""
    path = folder / file
    return path.is_file() and path.resolve() == folder.resolve() / file


def _folder(place: int, name: str) -> str:
    """Return where a run lies in the zip; names with slashes or worse make no path of their own."""
    return f"runs/{place + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error


def _told(content: Mapping[str, bytes], runs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return name, method, backbone, source, seed and data fingerprint of each run; the last is None where unknown."""
    kept = ("name", "method", "backbone", "source", "seed")
    records = {name: content.get(f"{_folder(place, name)}/data.json", b"{}") for place, name in enumerate(runs)}
    try:
        return [
            {key: card[key] for key in kept}
            | {"data_fingerprint": json.loads(records.get(card["name"], b"{}")).get("fingerprint")}
            for card in json.loads(content[_OVERVIEW])["runs"]
        ]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError("The diagnosis or the data record of a run is damaged; run the diagnosis again.") from error
