"""What the known data sets share: finding or fetching their files, and a table of picture files with labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from concept_tuning.config import DataConfig
from concept_tuning.data.containment import Containment
from concept_tuning.data.folders import (
    check_given_splits,
    class_list,
    key_text,
    picture_readers,
    said_problems,
    validation_note,
)
from concept_tuning.data.known.catalogue import Known
from concept_tuning.data.printable import printable_lines
from concept_tuning.data.table import ImageTable, ProblemFile
from concept_tuning.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A picture as a data set's lists name it.

    Attributes:
        path: Below the data set's folder, with ``/``.
        class_name: Its class.
        split: Code into :data:`~concept_tuning.data.table.SPLITS`; None where the data gives no splits.
    """

    path: str
    class_name: str
    split: int | None = None


def default_root() -> Path:
    """Folder of the files where ``data.root`` is not set."""
    return user_cache_path("concept-tuning") / "datasets"


def data_root(known: Known, config: DataConfig) -> Path:
    """Return the folder that ``known.needs`` are below.

    It is ``config.root``, or its parent where ``root`` is the data set's own folder; without ``root`` it is in the
    user's cache folder.
    """
    if config.root is None:
        return default_root() if known.folder else default_root() / known.name
    root = Path(os.path.abspath(Path(config.root).expanduser()))
    inside = root.name == known.folder and not (root / (known.needs or (known.folder,))[0]).exists()
    return root.parent if inside else root


def ready_root(
    known: Known,
    config: DataConfig,
    fetch: Callable[[Path], object] | None = None,
    *,
    lacking: Callable[[Path], str | None] | None = None,
) -> Path:
    """Return the data set's root once its files are there; download them if that is allowed.

    Args:
        known: The data set.
        config: ``root`` and ``download`` are used.
        fetch: Downloads into a folder, which then has ``known.folder``; None: it cannot be downloaded.
        lacking: Says what is missing below a root, None if nothing is; by default from ``known.needs``.

    Raises:
        DataError: Files are missing, with the expected layout and the ways on; or the download failed.
    """
    lacking = lacking or (lambda root: next((name for name in known.needs if not (root / name).exists()), None))
    root = data_root(known, config)
    if lacking(root) and config.download and known.downloads and fetch is not None:
        _download(known, root, fetch, lacking)
    missing = lacking(root)
    if missing:
        raise DataError(
            f"The files of `{known.name}` are not there: {root} has no {missing}. {expected(known)}\n{_ways_on(known)}"
        )
    return root


@contextmanager
def explained(known: Known, root: Path) -> Iterator[None]:
    """Turn whatever reading a data set's lists trips over into a :class:`DataError` that shows the layout."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the lists are of many formats, whose readers raise many things
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DataError(
            f"The files of `{known.name}` below {root} are damaged or laid out in another way "
            f"({printable_lines(told)}). "
            f"{expected(known)}\nReplace them by those of {known.address}."
        ) from error


def picture_table(
    known: Known,
    folder: Path,
    listed: Sequence[Listed],
    names: Sequence[str],
    config: DataConfig,
    *,
    problems: Sequence[ProblemFile] = (),
    inner: Sequence[str] = (),
) -> ImageTable:
    """Make the table of listed picture files; those that are not there are left out and become problems.

    So are those that lie outside the folder, be it by a path that is absolute or climbs or by a link, as in a folder of
    the user's own (:func:`~concept_tuning.data.folders.folder_table`). The folder itself may be a link.

    Args:
        known: The data set.
        folder: What the listed paths, which become the keys, are below.
        listed: The pictures.
        names: The classes in order.
        config: ``max_pixels`` is used.
        problems: What was left out before.
        inner: Folders in ``folder`` that may be links to elsewhere, as those that were walked to list the pictures.

    Raises:
        DataError: A picture is listed twice, no picture of a class is there, fewer than two classes, or a class of
            validation or test that training lacks.
    """
    place = Containment(folder, *(folder / name for name in inner))
    found, problems = _present(known, folder, listed, list(problems), place)
    try:
        labels = _labels(found, names, problems)
        splits = None
        if any(one.split is not None for one in found):
            splits = np.array([one.split for one in found], dtype=np.int8)
            check_given_splits(set(splits.tolist()), lambda code: {names[n] for n in labels[splits == code]})
    except DataError as error:
        raise DataError(f"`{known.name}` in {folder}: {error}\n{expected(known)}") from error
    keys = tuple(key_text(one.path) for one in found)
    read, stamp = picture_readers([os.path.join(folder, one.path) for one in found], keys, config.max_pixels)
    return ImageTable(
        source=known.name,
        class_names=tuple(names),
        group_names=(),
        keys=keys,
        labels=labels,
        groups=None,
        splits=splits,
        read=read,
        stamp=stamp,
        problems=tuple(problems),
        validation_note=validation_note(splits),
    )


def torchvision_class(name: str) -> Any:
    """Return a class of torchvision's data sets, which are slow to import."""
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


def _present(
    known: Known, folder: Path, listed: Sequence[Listed], problems: list[ProblemFile], place: Containment
) -> tuple[list[Listed], list[ProblemFile]]:
    found: dict[str, Listed] = {}
    for one in listed:
        if one.path in found:
            raise DataError(f"The lists of `{known.name}` in {folder} name the picture {one.path!r} twice.")
        fault = place.fault(os.path.join(folder, one.path))
        if fault is None:
            found[one.path] = one
        else:
            problems.append(ProblemFile(key_text(one.path), f"listed, but {fault}"))
    return list(found.values()), problems


def _labels(found: Sequence[Listed], names: Sequence[str], problems: Sequence[ProblemFile]) -> np.ndarray:
    if len(names) < 2:
        raise DataError(f"there {'is one class' if names else 'are no classes'}; at least two are needed.")
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[one.class_name] for one in found], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        raise DataError(f"no picture of {class_list(empty)} is there.{said_problems(problems)}")
    return labels


def _download(known: Known, root: Path, fetch: Callable[[Path], object], lacking: Callable[[Path], str | None]) -> None:
    """Fetch into a folder beside its place and move it there whole, one process at a time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{known.name}.lock"):
            if not lacking(root):  # another process has fetched it meanwhile
                return
            if (root / known.folder).exists():
                raise DataError(
                    f"{root / known.folder} is there, but without {lacking(root)}. Move it away to download "
                    f"`{known.name}` anew. {expected(known)}"
                )
            part = root / f".{known.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                fetch(part)
                (part / known.folder).rename(root / known.folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except (OSError, RuntimeError, EOFError) as error:  # of the net, the disk, a wrong checksum, a cut-off archive
        raise DataError(
            f"`{known.name}` could not be downloaded into {root}: {printable_lines(str(error))}. Try again, or get the "
            f"files from {known.address} and set `root` to their folder. {expected(known)}"
        ) from error


def expected(known: Known) -> str:
    """Return the layout of a data set's files in words."""
    return "Expected below data.root:" + "".join(f"\n  {line}" for line in known.layout)


def _ways_on(known: Known) -> str:
    if known.downloads:
        return f"Set `root` to the folder that has them, or `download=true` to have them downloaded ({known.address})."
    return f"Set `root` to the folder that has them. `download=true` cannot fetch these: get them from {known.address}."
