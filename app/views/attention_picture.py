"""The pictures that the page can show, and what the runs make of one: from the diagnosis, else asked of the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app import state
from app.views.compare_runs import run_places
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    import numpy as np

    from concept_tuning.data.registry import DataBundle, Split
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.one_picture import OnePicture
    from concept_tuning.diagnostics.predictions import Predictions
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.diagnostics.thumbnails import Thumbnails

T = TypeVar("T")
#: Signs, which tell by their shape.
RIGHT, WRONG = ":material/check:", ":material/close:"
#: Of probabilities: models that differ by more from the diagnosis are others.
_SAME = 0.02


@dataclass(frozen=True, eq=False)
class PictureList:
    """The pictures of a diagnosis, and those of the whole split where a run's folder is still there.

    Attributes:
        diagnosis: The diagnosis.
        folder: Where it lies.
    """

    diagnosis: Diagnosis
    folder: Path

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return [card.name for card in self.diagnosis.overview.runs]

    @property
    def split(self) -> str:
        """Name of the split that was looked at."""
        return self.diagnosis.overview.split

    def each(self, analysis: str) -> dict[str, Any]:
        """Return the result of each run that has one."""
        found = self.diagnosis.results
        return {run: found[analysis, run] for run in self.runs if (analysis, run) in found}

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """What each run says of the diagnosed pictures."""
        return self.each("predictions")

    @cached_property
    def with_maps(self) -> list[str]:
        """Names of the pictures whose maps are in the diagnosis."""
        return list(next((result.keys for result in self.each("picture-maps").values()), ()))

    @cached_property
    def diagnosed(self) -> list[str]:
        """Names of the diagnosed pictures, those with maps first."""
        known = next((found.keys for found in self.predictions.values()), self.diagnosis.thumbnails.keys)
        return list(dict.fromkeys([*self.with_maps, *known]))

    @cached_property
    def places(self) -> dict[str, Path]:
        """The folder of each run that is still there."""
        cards = self.diagnosis.overview.runs
        return {card.name: found[0] for card in cards if (found := run_places(self.folder, card))}

    @cached_property
    def classes(self) -> dict[str, str]:
        """Class of each diagnosed picture by its name."""
        names = self.diagnosis.overview.class_names
        known = (dict(zip(found.keys, found.labels, strict=True)) for found in self.predictions.values())
        return {key: names[int(label)] for found in known for key, label in found.items()}

    @property
    def data(self) -> DataBundle | None:
        """The data that the pictures are of, or None where no run can open it."""
        for path in self.places.values():
            try:
                return state.run_data(path)
            except StudioError:
                continue
        return None

    @property
    def whole_split(self) -> Split | None:
        """The split itself, or None where no run can open it."""
        data = self.data
        return None if data is None else data.splits.get(self.split)

    def thumbnails(self, keys: list[str]) -> Thumbnails:
        """Return small copies of pictures: those of the diagnosis if they are all among them, else made anew."""
        from concept_tuning.diagnostics.one_picture import small_pictures

        kept = self.diagnosis.thumbnails
        if set(keys) <= set(kept.keys):
            return kept
        for run, path in self.places.items():
            try:
                return state.ask_run(path, run, keys, self.split, small_pictures)
            except StudioError:
                continue
        return kept


@dataclass(frozen=True, eq=False)
class ChosenPicture:
    """One picture and what the runs make of it.

    Attributes:
        pictures: The pictures it is of.
        key: Its name.
    """

    pictures: PictureList
    key: str

    @cached_property
    def image(self) -> np.ndarray | None:
        """The picture, (s, s, 3) uint8; None where it was not kept and cannot be read."""
        found = self.pictures.thumbnails([self.key])
        return found.image(self.key) if self.key in found else None

    @cached_property
    def label(self) -> int | None:
        """Its class, if known."""
        for found in self.pictures.predictions.values():
            if self.key in found.keys:
                return int(found.labels[found.keys.index(self.key)])
        kept = self.pictures.thumbnails([self.key])
        return int(kept.labels[kept.keys.index(self.key)]) if self.key in kept else None

    @cached_property
    def group(self) -> str | None:
        """Name of its group, if it has one."""
        for found in self.pictures.predictions.values():
            if self.key in found.keys and found.groups is not None:
                return found.group_names[int(found.groups[found.keys.index(self.key)])]
        data = None if self.key in self.pictures.diagnosed else self.pictures.data
        split = None if data is None else data.splits.get(self.pictures.split)
        if data is None or split is None or split.groups is None:
            return None
        return data.group_names[int(split.groups[split.keys.index(self.key)])]

    def result(self, analysis: str, run: str) -> Any:
        """Return a run's result that has this picture, or an :class:`Unavailable` that says why there is none."""
        from concept_tuning.diagnostics.results import Unavailable

        stored = self.pictures.diagnosis.results.get((analysis, run))
        keys = getattr(stored.maps, "keys", ()) if analysis == "switches" and stored else getattr(stored, "keys", ())
        if self.key in keys:
            return stored
        for entry in self.pictures.diagnosis.overview.entries:
            if (entry.analysis, entry.run) == (analysis, run) and entry.reason is not None:
                return Unavailable(analysis=analysis, reason=entry.reason)
        live = self.live(run)
        return live if isinstance(live, Unavailable) else live.results[analysis]

    def each(self, analysis: str) -> tuple[dict[str, Any], list[str]]:
        """Return the result of each run that has one, and why the others have none."""
        from concept_tuning.diagnostics.results import Unavailable

        found = {run: self.result(analysis, run) for run in self.pictures.runs}
        reasons = dict.fromkeys(one.reason for one in found.values() if isinstance(one, Unavailable))
        return {run: one for run, one in found.items() if not isinstance(one, Unavailable)}, list(reasons)

    def map(self, run: str, kind: str) -> np.ndarray | Unavailable:
        """Return a run's map of a kind, (s, s) float32 in 0..1."""
        from concept_tuning.diagnostics.one_picture import one_map
        from concept_tuning.diagnostics.results import Unavailable

        found = self.result("picture-maps", run)
        if not isinstance(found, Unavailable) and kind not in found.names:
            found = self.ask(run, one_map, kind)
        if isinstance(found, Unavailable):
            return found
        values: np.ndarray = found.values[found.names.index(kind), found.keys.index(self.key)]
        return values

    def answer(self, run: str) -> tuple[np.ndarray, int] | Unavailable:
        """Return a run's (C,) probabilities and the class it says."""
        from concept_tuning.diagnostics.results import Unavailable

        known = self.pictures.predictions.get(run)
        found = known if known is not None and self.key in known.keys else self.result("picture-maps", run)
        if isinstance(found, Unavailable):
            return found
        place = found.keys.index(self.key)
        return found.probabilities[place], int(found.predicted[place])

    def live(self, run: str) -> OnePicture | Unavailable:
        """Return what a run's model makes of the picture now."""
        from concept_tuning.diagnostics.one_picture import look_at

        return self.ask(run, look_at)

    def ask(self, run: str, question: Callable[..., T], *more: str, others: tuple[str, ...] = ()) -> T | Unavailable:
        """Ask a run's model about this picture, and ``others`` after it."""
        from concept_tuning.diagnostics.results import Unavailable

        path = self.pictures.places.get(run)
        name = question.__name__
        if path is None:
            reason = (
                f"The maps of this picture are not in the diagnosis, and the folder of {run} is not below "
                f"{state.ROOT} any more, so its model cannot be asked. Choose a picture with stored maps, or put the "
                "folder back."
            )
            return Unavailable(analysis=name, reason=reason)
        try:
            return state.ask_run(path, run, (self.key, *others), self.pictures.split, question, *more)
        except StudioError as error:
            return Unavailable(analysis=name, reason=f"{run} cannot be asked: {error}")

    def other_models(self) -> list[str]:
        """Return the runs whose model, found by its name, does not say what the diagnosis says; of those asked."""
        from concept_tuning.diagnostics.results import Unavailable

        odd = []
        for run, known in self.pictures.predictions.items():
            if self.key not in known.keys or self.key in self.pictures.with_maps:
                continue
            live = self.live(run)
            if isinstance(live, Unavailable):
                continue
            now, before = live.results["picture-maps"].probabilities[0], known.probabilities[known.keys.index(self.key)]
            if abs(now - before).max() > _SAME:
                odd.append(run)
        return odd


def marks(predictions: Mapping[str, Predictions], key: str) -> str:
    """Return a sign for right or wrong of each run as Markdown; empty for a picture that was not diagnosed."""
    return " ".join(RIGHT if right else WRONG for right in _rights(predictions, key))


def said(predictions: Mapping[str, Predictions], key: str) -> str:
    """Return the same in words."""
    return ", ".join("right" if right else "wrong" for right in _rights(predictions, key))


def _rights(predictions: Mapping[str, Predictions], key: str) -> list[bool]:
    return [bool(one.right[one.keys.index(key)]) for one in predictions.values() if key in one.keys]
