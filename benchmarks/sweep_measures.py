"""The numbers that `benchmarks/detector_sweep.py` takes of a run: what each detector says, and where it points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from concept_tuning.config import RunConfig
from concept_tuning.data.planted import species_pairs
from concept_tuning.diagnostics.concept_effects import ConceptEffects, concept_effects
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.pictures import Pictures, Subject, choose_pictures
from concept_tuning.diagnostics.properties import PropertyTable
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.slices import SliceTable, find_slices
from concept_tuning.diagnostics.statistics import auc
from concept_tuning.engine.loading import load_run

#: Of the detectors themselves, as on the command line.
DETECTOR_SEED = 0


def score_properties(table: PropertyTable | Unavailable) -> dict[str, float]:
    """Return the numbers of the properties, see the head of `benchmarks/detector_sweep.py`."""
    strengths = {} if isinstance(table, Unavailable) else {one.name: one.strength for one in table.properties}
    border = strengths.get("border colour", 0.0) - strengths.get("centre colour", 0.0)
    return {"properties": max(strengths.values(), default=0.0), "properties.border": border}


def score_concepts(effects: ConceptEffects, split: str) -> dict[str, float]:
    """Return the numbers of the concepts; one whose pull could not be measured has no suspicion."""
    found = np.array([one.suspicion or 0.0 for one in effects.concepts])
    energy = np.array([one.energy for one in effects.concepts])
    return {f"concepts.{split}": float(found.max()), f"concepts.{split}.mean": float(found @ energy / energy.sum())}


def score_slices(table: SliceTable | Unavailable, split: str) -> dict[str, float]:
    """Return the numbers of the slices."""
    if isinstance(table, Unavailable):
        return {f"slices.{split}": 0.0, f"slices.{split}.p": 0.0}
    worst = max((one.excess for one in table.slices), default=0.0)
    certainty = 0.0 if table.p_value is None else 1 - table.p_value
    return {f"slices.{split}": worst / table.accuracy.n, f"slices.{split}.p": certainty}


def place_concepts(effects: ConceptEffects, split: str) -> dict[str, float | None]:
    """Return AUCs of suspicion for background concepts, by area and by half; None where there is only one kind."""
    keys = (f"place.concepts.{split}", f"place.concepts.{split}.half")
    ranked = [one for one in effects.concepts if one.suspicion is not None]
    if isinstance(effects.masks, Unavailable) or not ranked:
        return dict.fromkeys(keys)
    order = np.array([one.index for one in ranked])
    outside = effects.masks.outside[order] / effects.masks.even[order]
    suspicion = np.array([one.suspicion for one in ranked])
    return dict(zip(keys, (either_auc(suspicion, outside > bar) for bar in (1, np.median(outside))), strict=True))


def slice_errors(table: SliceTable | Unavailable, keys: Sequence[str]) -> np.ndarray:
    """Return (n,) the share of wrong pictures in each picture's slice; outside the listed ones, in all pictures."""
    if isinstance(table, Unavailable):
        return np.zeros(len(keys))
    errors = {key: 1 - one.accuracy.value for one in table.slices for key in one.keys}
    return np.array([errors.get(key, 1 - table.accuracy.value) for key in keys])


def either_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the AUC, or None where all or none are positive."""
    return auc(scores, positive) if positive.any() and not positive.all() else None


def away_from_home(pictures: Pictures, config: RunConfig) -> np.ndarray:
    """Return (n,) bool, birds in another than their species' own habitat."""
    homes = np.array([home for pair in species_pairs(config.planted) for home in pair.homes])
    return np.array(pictures.bundle.group_names)[pictures.groups] != homes[pictures.labels]


def measure_run(folder: Path) -> dict[str, Any]:
    """Return all numbers of a finished run: detectors, places, and how well the network does."""
    subject = Subject(name=folder.name, run=load_run(folder))
    bundle = subject.run.data()
    row: dict[str, Any] = {}
    for split in ("test", "val"):
        pictures = choose_pictures(bundle, split=split, count=None)
        features = compute_features(subject, pictures)
        effects = concept_effects(subject, pictures, features, seed=DETECTOR_SEED)
        slices = find_slices(
            embeddings=features.pooled,
            labels=pictures.labels,
            probabilities=features.probabilities,
            keys=pictures.keys,
            class_names=bundle.class_names,
            seed=DETECTOR_SEED,
        )
        row |= score_concepts(effects, split) | score_slices(slices, split) | place_concepts(effects, split)
        row[f"concepts.{split}.list"] = concept_list(effects)
        if split == "test":
            wrong = features.predicted != pictures.labels
            away = away_from_home(pictures, subject.run.config)
            row["place.slices"] = either_auc(slice_errors(slices, pictures.keys), away)
            row["place.error"] = either_auc(wrong, away)
            row["home_gap"] = float(wrong[away].mean() - wrong[~away].mean())
    found = subject.run.folder.read_json("results.json")["splits"]
    row |= {f"{split}_accuracy": found[split]["accuracy"] for split in ("val", "test")}
    return row | {"worst_group": found["test"]["worst_group_accuracy"]}


def concept_list(effects: ConceptEffects) -> list[dict[str, Any]]:
    """Return what each concept's suspicion is made of, and where it is."""
    shares = None if isinstance(effects.masks, Unavailable) else effects.masks
    return [
        {
            "suspicion": one.suspicion,
            "pull": None if one.pull is None else one.pull.value,
            "reliability": one.reliability,
            "energy": one.energy,
            "outside": None if shares is None else float(shares.outside[one.index]),
            "even": None if shares is None else float(shares.even[one.index]),
        }
        for one in effects.concepts
    ]
