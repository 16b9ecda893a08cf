"""A folder of class folders, with or without train, val and test folders above them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from concept_tuning.config import DataConfig
from concept_tuning.data.decode import decode_image
from concept_tuning.data.printable import as_unicode, printable
from concept_tuning.data.table import LIKE_TRAINING, SPLITS, ImageTable, ProblemFile
from concept_tuning.data.units import units_by_rule
from concept_tuning.errors import DataError

_PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", *_PORTABLE)
)
SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "test": 2,
    "testing": 2,
}
_UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".dng", ".cr2", ".cr3", ".nef", ".arw")
)
#: Folders that operating systems and storage boxes make of their own, in lower case.
_HOUSEKEEPING = frozenset(("__macosx", "@eadir", "#recycle", "lost+found", "$recycle.bin", "system volume information"))
#: How the files of each format begin, and the suffix that they should have.
_BEGINNINGS = (
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), ".tif"),
    (re.compile(rb"BM....\0\0\0\0", re.DOTALL), ".bmp"),
)
_BEGINNING = 12
_NAMED = 5
#: Ways through links by which one folder is walked; without an end to them, links in each of n folders to the next make
#: 2^n ways.
_MOST_WAYS = 8


def folder_table(root: Path, config: DataConfig) -> ImageTable:
    """List the pictures of a folder; each is decoded only when it is read.

    Either every folder in ``root`` is a class, or ``root`` holds ``train`` and perhaps ``val`` (or ``valid``,
    ``validation``) and ``test`` folders with the class folders inside. A picture may lie any number of folders
    below its class folder. A split that is lacking is left out of ``splits`` and later cut from the training
    pictures. Classes are sorted naturally ("2" before "10"), upper case apart from lower case.

    Hidden files and files that are no pictures by their suffix are passed over. Left out and listed as problems
    are pictures outside any class folder or without a suffix, links that lead out of ``root``, links in a circle, more
    than eight ways through links to one folder, unreadable folders, and picture formats that are not decoded. Broken
    pictures show only when they are read.

    Args:
        root: The folder. Keys are paths below it, with ``/``, composed Unicode characters (NFC), and
            undecodable bytes as ``\\udcXX``.
        config: ``max_pixels`` and ``units`` are used.

    Raises:
        DataError: No such folder; no class folders, only one, or an empty one; two folders for one split;
            validation or test pictures without training pictures, or of a class that training lacks; no two pictures
            of one unit by the rule.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}; give the path of a folder that exists.")
    listing = scan(root)
    try:
        rows, splits_given = _rows(listing)
        names, labels = _classes(rows, listing, splits_given)
        units = units_by_rule(config.units, [row.key.split("/", 2 if splits_given else 1)[-1] for row in rows])
    except DataError as error:
        raise DataError(f"{root}: {error}{said_problems(listing.problems)}") from error
    splits = np.array([row.split for row in rows], dtype=np.int8) if splits_given else None
    keys = tuple(row.key for row in rows)
    read, stamp = picture_readers([os.path.join(root, row.path) for row in rows], keys, config.max_pixels)
    return ImageTable(
        source=str(root),
        class_names=names,
        group_names=(),
        keys=keys,
        labels=labels,
        groups=None,
        splits=splits,
        units=units,
        read=read,
        stamp=stamp,
        problems=tuple(sorted(listing.problems, key=lambda problem: problem.key)),
        validation_note=validation_note(splits),
    )


@dataclass
class Listing:
    """What is below a folder.

    Attributes:
        pictures: Paths of the picture files, with ``/``, as the file system spells them.
        folders: Paths of the folders.
        problems: What was left out.
    """

    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    problems: list[ProblemFile] = field(default_factory=list)


def scan(root: Path) -> Listing:
    """Walk a folder, following links only to places inside it; raises :class:`DataError` if it cannot be read.

    Each folder is walked in its own place, and by at most eight ways through links; those nearest to the root, and of
    them the first by name, count.
    """
    listing = Listing()
    ways: Counter[str] = Counter()
    waiting: deque[tuple[str, tuple[str, ...]]] = deque([("", (os.path.realpath(root),))])
    while waiting:
        inside, chain = waiting.popleft()
        below: list[tuple[str, tuple[str, ...]]] = []
        try:
            with os.scandir(os.path.join(root, inside)) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        relative = f"{inside}/{entry.name}" if inside else entry.name
                        below.extend(_visit(entry, relative, chain, listing))
        except OSError as error:
            if not inside:
                raise DataError(f"The folder {root} cannot be read ({error.strerror}).") from error
            listing.problems.append(ProblemFile(key_text(inside), f"the folder cannot be read: {error.strerror}"))
        waiting.extend(folder for folder in sorted(below) if _counts(*folder, ways, listing))
    return listing


def has_training_folder(root: Path) -> bool:
    """Whether a folder has one for the training split, by its name; False where it cannot be read."""
    try:
        names = [entry.name.lower() for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return False
    return any(SPLIT_NAMES.get(name) == SPLIT_NAMES["train"] for name in names)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's own or hidden."""
    return name.startswith(".") or name.lower() in _HOUSEKEEPING


def key_text(name: str) -> str:
    """A file name as text that can be stored: composed (NFC), and bytes that are no UTF-8 written out as ``\\udcXX``.

    Control characters stay; see :func:`~concept_tuning.data.printable.printable`.
    """
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", as_unicode(name))


def natural_key(name: str) -> tuple[object, ...]:
    """Sorting key by which "a2" comes before "a10"; upper case comes before lower case."""
    parts = re.split("([0-9]+)", name)
    return tuple((len(part.lstrip("0")), part.lstrip("0")) if n % 2 else part for n, part in enumerate(parts)), name


def picture_readers(
    paths: Sequence[str], keys: Sequence[str], max_pixels: int
) -> tuple[Callable[[int], np.ndarray], Callable[[int], str]]:
    """Return a table's ``read`` and ``stamp`` for picture files; the stamp is key, size, times and place of the file.

    The place (device and inode) tells two folders of the same names, sizes and times apart; the time of the last
    change of status also moves when a file is replaced by one with the old file's modification time. Both can be
    pickled.
    """

    files = _PictureFiles(tuple(paths), tuple(keys), max_pixels)
    return files.read, files.stamp


def validation_note(splits: np.ndarray | None) -> str:
    """How validation is drawn, in words: as the data gives it, or like training."""
    given = splits is not None and bool((splits == SPLITS.index("val")).any())
    return "given with the data" if given else LIKE_TRAINING


def check_given_splits(splits: Collection[int], class_names_of: Callable[[int], Collection[str]]) -> None:
    """Raise :class:`DataError` if validation or test are given without training, or a class that it lacks.

    Args:
        splits: Codes of the splits that are given.
        class_names_of: Gives the classes of a split by its code.
    """
    if 0 not in splits:
        given = " and ".join(SPLITS[code] for code in sorted(splits))
        raise DataError(f"there are {given} pictures but no training pictures; add a train split.")
    known = set(class_names_of(0))
    for code in sorted(splits):
        extra = sorted(set(class_names_of(code)) - known, key=natural_key)
        if extra:
            raise DataError(
                f"the {SPLITS[code]} split has {class_list(extra)}, which the train split lacks; "
                "classes must be spelt alike in all splits. Add training pictures or leave the class out."
            )


def class_list(names: Sequence[str]) -> str:
    """Some class names in words."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ("class " if len(names) == 1 else "classes ") + ", ".join(repr(name) for name in names[:_NAMED]) + rest


def said_problems(problems: Sequence[ProblemFile]) -> str:
    """The first problems as lines that can follow an error's message."""
    if not problems:
        return ""
    lines = [f"\n  {printable(problem.key)}: {printable(problem.reason)}" for problem in problems[:_NAMED]]
    rest = f"\n  and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "\nLeft out:" + "".join(lines) + rest


@dataclass(frozen=True, eq=False)
class _PictureFiles:
    """Picture files by row."""

    paths: tuple[str, ...]
    keys: tuple[str, ...]
    max_pixels: int

    def read(self, row: int) -> np.ndarray:
        return decode_image(Path(self.paths[row]), max_pixels=self.max_pixels)

    def stamp(self, row: int) -> str:
        status = os.stat(self.paths[row])
        times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
        return f"{self.keys[row]}|{status.st_size}|{times}|{status.st_dev}:{status.st_ino}"


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    path: str
    class_name: str
    split: int


def _visit(
    entry: os.DirEntry[str], relative: str, chain: tuple[str, ...], listing: Listing
) -> list[tuple[str, tuple[str, ...]]]:
    """Enter one file into the listing; return a folder that is to be walked, with the real places above it."""
    try:
        link, folder = entry.is_symlink(), entry.is_dir()
        suffix = "" if folder else os.path.splitext(entry.name)[1].lower()
        if not suffix and entry.is_file(follow_symlinks=False):
            reason = _lacking_suffix(entry.path)
            if reason is not None:
                listing.problems.append(ProblemFile(key_text(relative), reason))
            return []
        if not folder and suffix not in SUFFIXES and suffix not in _UNREAD_SUFFIXES:
            return []
        real = os.path.realpath(entry.path) if link else os.path.join(chain[-1], entry.name)
        reason = None
        if folder and real in chain:
            reason = "a link to a folder that it lies in"
        elif link and not real.startswith(os.path.join(chain[0], "")):
            reason = "a link that leads out of the data folder; put a copy in its place"
        elif suffix in _UNREAD_SUFFIXES:
            reason = f"{suffix} files are not decoded; store the picture as PNG or JPEG"
        elif not folder and not entry.is_file():
            reason = "a link to nothing" if link else "not a regular file"
    except OSError as error:
        folder, reason = False, f"cannot be read: {error.strerror}"
    if reason is not None:
        listing.problems.append(ProblemFile(key_text(relative), reason))
        return []
    if folder:
        return [(relative, (*chain, real))]
    listing.pictures.append(relative)
    return []


def _lacking_suffix(path: str) -> str | None:
    """What is wrong with a file without a suffix if it is a picture by its first bytes; None if it is none."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:  # most likely no picture
        return None
    suffix = next((suffix for start, suffix in _BEGINNINGS if start.match(beginning)), None)
    return None if suffix is None else f"a picture whose name has no suffix; name it {suffix}"


def _counts(relative: str, chain: tuple[str, ...], ways: Counter[str], listing: Listing) -> bool:
    """Enter one folder into the listing; return whether it is to be walked by this way, too."""
    top, *_, real = chain
    if real != os.path.join(top, relative):
        ways[real] += 1
        if ways[real] > _MOST_WAYS:
            reason = f"links lead to this folder by more than {_MOST_WAYS} ways; put copies in their place"
            listing.problems.append(ProblemFile(key_text(relative), reason))
            return False
    listing.folders.append(relative)
    return True


def _rows(listing: Listing) -> tuple[list[_Row], bool]:
    """Find each picture's class and split; the rows are sorted by key. Also whether splits are given."""
    splits_given = _has_split_folders(listing.pictures)
    depth = 2 if splits_given else 1
    rows: dict[str, _Row] = {}
    for path in sorted(listing.pictures):
        key = key_text(path)
        parts = key.split("/")
        if len(parts) <= depth:
            listing.problems.append(ProblemFile(key, "lies outside any class folder"))
        elif key in rows:
            reason = "another file has the same name but for the way its accents are stored; rename one"
            listing.problems.append(ProblemFile(key, reason))
        else:
            split = SPLIT_NAMES[parts[0].lower()] if splits_given else 0
            rows[key] = _Row(key, path, parts[depth - 1], split)
    return [rows[key] for key in sorted(rows)], splits_given


def _has_split_folders(pictures: Iterable[str]) -> bool:
    """Tell split folders from class folders; raises DataError where they are mixed or hold no classes."""
    direct: set[str] = set()
    deep: set[str] = set()
    loose = False
    for path in pictures:
        parts = path.split("/", 2)
        loose |= len(parts) == 1
        if len(parts) > 1:
            (direct if len(parts) == 2 else deep).add(parts[0])
    tops = direct | deep
    if not tops:
        advice = "put the pictures of each class into a folder that is named for it."
        raise DataError(
            f"there are pictures but no class folders; {advice}" if loose else f"no pictures here; {advice}"
        )
    named = {top for top in tops if top.lower() in SPLIT_NAMES}
    if named & deep and tops - named:
        raise DataError(
            f"the folders {_and(named & deep)} look like splits and {_and(tops - named)} like classes; "
            "keep either split folders or class folders here."
        )
    flat = named - deep
    if flat and named == tops:
        raise DataError(
            f"there are pictures but no class folders in {_and(flat)}; put the pictures of each class into a "
            "folder that is named for it, or take them away."
        )
    codes = [SPLIT_NAMES[top.lower()] for top in sorted(named & deep)]
    if len(codes) > len(set(codes)):
        raise DataError(f"two folders stand for the same split among {_and(named & deep)}; keep one of them.")
    return bool(codes)


def _classes(rows: Sequence[_Row], listing: Listing, splits_given: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names and the rows' labels (N,) int64, once nothing is amiss with them."""
    of_split: dict[int, set[str]] = {}
    for row in rows:
        of_split.setdefault(row.split, set()).add(row.class_name)
    _check_empty(listing.folders, of_split, splits_given)
    check_given_splits(of_split.keys(), lambda code: of_split[code])
    names = tuple(sorted(of_split[0], key=natural_key))
    if len(names) < 2:
        raise DataError(
            f"there is only the class {names[0]!r}; at least two classes are needed. If its own folders are the "
            "classes, give the path of that folder."
        )
    label_of = {name: label for label, name in enumerate(names)}
    return names, np.array([label_of[row.class_name] for row in rows], dtype=np.int64)


def _check_empty(folders: Sequence[str], of_split: dict[int, set[str]], splits_given: bool) -> None:
    """Raise DataError for a split folder, or a class folder of the training pictures, without pictures."""
    for folder in sorted(folders, key=natural_key):
        parts = key_text(folder).split("/")
        code = SPLIT_NAMES.get(parts[0].lower()) if splits_given else 0
        if splits_given and len(parts) == 1 and code is not None and code not in of_split:
            raise DataError(f"the split folder {parts[0]} holds no pictures; fill it or remove it.")
        is_class = len(parts) == (2 if splits_given else 1)
        if is_class and code == 0 and parts[-1] not in of_split.get(0, set()):
            shown = printable("/".join(parts))
            raise DataError(f"the class folder {shown} holds no pictures that can be used; fill it or remove it.")


def _and(names: Iterable[str]) -> str:
    return " and ".join(printable(key_text(name)) for name in sorted(names))
