"""The pictures and runs that an analysis looks at: several runs, side by side on the same pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import DataBundle, Split
from concept_tuning.data.transforms import eval_view
from concept_tuning.engine.loading import LoadedRun
from concept_tuning.errors import RunError
from concept_tuning.methods.base import Method
from concept_tuning.models.folding import fold_batch_norms


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A run under analysis.

    Attributes:
        name: Name of the run in results and figures; unique among the subjects.
        run: The loaded run; analyses leave its model as they found it.
    """

    name: str
    run: LoadedRun

    @property
    def method(self) -> Method:
        """The run's model, in evaluation mode."""
        return self.run.method

    @cached_property
    def inference_method(self) -> Method:
        """The same model with batch norms folded, for whatever asks of the network its outputs alone."""
        return folded_method(self.method)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square pictures the model takes."""
        return self.run.config.data.image_size


def folded_method(method: Method) -> Method:
    """Return a model with a copy of the network for inference, and the same other layers as ``method``."""
    found = copy.copy(method)
    found._modules = {**method._modules, "backbone": fold_batch_norms(method.backbone)}
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """Pictures of one split, chosen by a seed.

    Attributes:
        split: The whole split.
        chosen: (n,) int64 places in the split, ascending.
        bundle: The data they are of.
    """

    split: Split
    chosen: np.ndarray
    bundle: DataBundle

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64 class indices."""
        return self.split.labels[self.chosen]

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) int64 group indices, or None where the data has no groups."""
        return None if self.split.groups is None else self.split.groups[self.chosen]

    @property
    def units(self) -> np.ndarray | None:
        """(n,) int64, what each picture shows (a plant, a patient), or None where each is by itself."""
        return None if self.split.units is None else self.split.units[self.chosen]

    @property
    def keys(self) -> tuple[str, ...]:
        """Unique names of the pictures."""
        return tuple(self.split.keys[i] for i in self.chosen)

    @property
    def has_masks(self) -> bool:
        """Whether the data comes with masks."""
        return self.bundle.table.masks is not None

    def at(self, places: Sequence[int]) -> Pictures:
        """Return some of the pictures, by their places 0..n-1."""
        return Pictures(split=self.split, chosen=self.chosen[list(places)], bundle=self.bundle)

    def image(self, i: int, size: int) -> Tensor:
        """Return picture ``i`` as a model of that input size sees it, (3, size, size) uint8."""
        return eval_view(self.split.image(int(self.chosen[i])), size=size)

    def images(self, places: Sequence[int], size: int) -> Tensor:
        """Return several pictures, (n, 3, size, size) uint8."""
        return torch.stack([self.image(i, size) for i in places])

    def masks(self, i: int, size: int) -> dict[str, Tensor]:
        """Return the masks of picture ``i``, resized and cropped like the picture: name to (size, size) bool.

        ``object`` is the object, ``part:<name>`` a part of it, which may be empty.

        Raises:
            RunError: if the data has no masks; see :attr:`has_masks`.
        """
        read = self.bundle.table.masks
        if read is None:
            raise RunError("These pictures have no masks.")
        found = read(int(self.split.rows[self.chosen[i]]))
        full = {name: torch.from_numpy(mask.astype(np.uint8) * 255).expand(3, -1, -1) for name, mask in found.items()}
        return {name: eval_view(mask, size=size)[0] >= 128 for name, mask in full.items()}


def choose_pictures(bundle: DataBundle, *, split: str = "test", count: int | None = 500, seed: int = 0) -> Pictures:
    """Choose at most ``count`` pictures of a split at random, the same for the same seed; None: all of them."""
    source = bundle.splits[split]
    total = len(source)
    if count is None or count >= total:
        return Pictures(split=source, chosen=np.arange(total), bundle=bundle)
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False))
    return Pictures(split=source, chosen=chosen, bundle=bundle)


def check_comparable(subjects: Sequence[Subject], *, split: str = "test") -> None:
    """Refuse runs that cannot be laid side by side on a split.

    They need the same classes, names of their own, and the same pictures in that split, none of which one of
    them was trained on. Training sets may differ: by sample rate or number per class, and of planted birds by
    whatever leaves the split as it is (for the test, ``rho``, ``rarity`` and the other splits' sizes).

    Args:
        subjects: The runs, at least one.
        split: The split looked at; that a run was trained on it is refused for all but ``train``.

    Raises:
        RunError: naming the runs and what differs.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise RunError(f"Two runs have the same name ({', '.join(names)}); rename one folder.")
    first = subjects[0]
    for other in subjects[1:]:
        if other.run.class_names != first.run.class_names:
            raise RunError(f"{first.name} and {other.name} have different classes; compare runs of the same data.")
        difference = _difference(first, other, split)
        if difference:
            pair = f"{first.name} and {other.name}"
            raise RunError(f"{pair} have different {split} pictures: {difference}. Compare runs of one split.")
    if split != "train":
        _check_unseen(subjects, split)


def _check_unseen(subjects: Sequence[Subject], split: str) -> None:
    looked_at = _keys(subjects[0], split)
    for subject in subjects:
        seen = looked_at & _keys(subject, "train")
        if seen:
            raise RunError(
                f"{subject.name} was trained on {len(seen)} of the {split} pictures ({min(seen)} is one), so what it "
                "makes of them says nothing. Compare runs of one split."
            )


def _difference(first: Subject, other: Subject, split: str) -> str:
    """Say how the pictures of a split differ between two runs; empty if they are the same."""
    apart = _keys(first, split) ^ _keys(other, split)
    if apart:
        return f"{len(apart)} are in one of the runs alone ({min(apart)} is one)"
    if _units(first, split) != _units(other, split):
        return "which of them show one plant or patient is not told alike"
    files = [subject.run.folder.read_json("data.json", "fingerprint")["fingerprint"] for subject in (first, other)]
    if files[0] == files[1]:
        return ""
    configs = [subject.run.config for subject in (first, other)]
    if any(config.data.source != "planted" for config in configs):
        return "their files are not the same"
    one, two = (_recipe(config, split) for config in configs)
    if one == two:
        return "they were drawn by different versions" if configs[0].planted == configs[1].planted else ""
    name = next(name for name in one if one[name] != two[name])
    return f"{name} is {one[name]} for one run and {two[name]} for the other"


def _keys(subject: Subject, split: str) -> set[str]:
    return set(subject.run.folder.read_json("split.json", split)[split])


def _units(subject: Subject, split: str) -> object:
    """Return what tells which pictures of a split show one plant; None where none do, or a run is too old to tell."""
    noted = subject.run.folder.read_json("data.json").get("units")
    return noted.get(split) if isinstance(noted, dict) else None


def _recipe(config: RunConfig, split: str) -> dict[str, object]:
    """Return the settings that, with its keys, decide a split's planted pictures; the same names for every run."""
    planted = config.planted
    like_training = split == "train" or (split == "val" and planted.validation == "like-training")
    return {
        "data_seed": config.data.data_seed,
        "species": planted.species,
        "draw_size": planted.draw_size,
        "validation": planted.validation if split == "val" else None,
        "rho": planted.rho if like_training else None,
        "rarity": planted.rarity if like_training else None,
    }
