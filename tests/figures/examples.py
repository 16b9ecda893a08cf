"""Small results and pictures that the tests of figures draw."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from concept_tuning.diagnostics.information import PresenceInformation
from concept_tuning.diagnostics.rare_results import Gallery, RareFeatures, Rarity, RunConcepts, SweepPoint
from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import SourceFrequency

MISSING = Unavailable(analysis="source frequency", reason="There is no batch norm.")
FREQUENCY = np.array([0.0, 0.001, 0.01, 0.1, 0.2])
INFORMATION = np.array([0.5, 0.05, 0.4, 0.02, 0.3])
BAND = np.array([0.1, 0.1, 0.2, 0.1, 0.1])


def presence() -> PresenceInformation:
    return PresenceInformation(
        levels=np.arange(5.0),
        information=INFORMATION,
        null_mean=BAND / 2,
        band=BAND,
        p_value=np.full(5, 0.01),
        familywise=np.full(5, 0.2),
        useful=INFORMATION > BAND,
        band_level=0.95,
        permutations=100,
        n=40,
    )


def point(share: float, rare: int) -> SweepPoint:
    return SweepPoint(share=share, frequency=0.01, low=3, rare=rare, expected_by_chance=0.15)


def rare_features(**changes: object) -> RareFeatures:
    low = np.array([True, True, True, False, False])
    found = presence()
    auc = {PRETRAINED: np.array([0.6, 0.5, 0.7, 0.5, np.nan]), "vanilla": np.array([0.5, 0.5, 0.8, 0.4, np.nan])}
    fields: dict[str, object] = {
        "view": "channels",
        "backbone": "tiny",
        "concepts": tuple(f"channel {place}" for place in range(5)),
        "members": tuple((place,) for place in range(5)),
        "class_names": ("gull", "jay"),
        "units": "deviations",
        "reconstruction_error": None,
        "presence": found,
        "knn": np.zeros(5),
        "source": SourceFrequency(frequency=FREQUENCY, basis="last batch norm", note=""),
        "target_frequency": FREQUENCY[::-1].copy(),
        "class_frequency": np.zeros((2, 5)),
        "marked_class": np.array([0, 1, 0, 1, 0]),
        "networks": tuple(
            RunConcepts(name=name, auc=values, presence=found, contrast=()) for name, values in auc.items()
        ),
        "rarity": Rarity(
            low=low,
            rare=low & found.useful,
            threshold=point(0.6, 2),
            sweep=(point(0.2, 1), point(0.6, 2)),
            uses=(),
            changes=MISSING,
        ),
        "gallery": Gallery(
            keys=("a", "b", "c"),
            pictures=np.array([[0, 1, 2, 0, 1]] * 5),
            boxes=np.tile(np.array([0.25, 0.25, 0.75, 0.5]), (5, 5, 1)),
            activations=np.arange(25.0).reshape(5, 5),
        ),
    }
    return RareFeatures(**{**fields, **changes})


def picture(trace: object) -> np.ndarray:
    """Decode the picture of an image trace."""
    data = trace.source.removeprefix("data:image/png;base64,")  # type: ignore[attr-defined]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
