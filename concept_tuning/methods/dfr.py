"""Deep feature reweighting: the last layer anew on balanced groups (Kirichenko et al., ICLR 2023, arXiv 2204.02937).

What differs from the authors' code (github.com/PolinaKirichenko/deep_feature_reweighting):

- The pictures are standardised by the mean and deviation of the whole split that the layer is fitted to. Theirs takes
  those of training in the end, and those of the balanced half while it chooses the strength on validation.
- 10 balanced samples by default (``dfr.subsets``), as theirs has of training; of validation it has 20.
- The halves that fit and choose have the same share of every class within a group; theirs halves validation as it
  comes. Where a class within a group has fewer than 4 pictures, nothing is halved, and the weakest penalty is taken.
- Where several pictures show one plant or patient (a unit), the halves part none, and their shares are as close as
  whole units allow; where a class within a group has fewer than 4 units, nothing is halved.
- With ``dfr.data=training`` the strength is chosen on a half of training, to which the network was fitted; theirs
  chooses it on validation, which here chooses epoch and trial alone.
- More than two classes are fitted each against the rest; theirs has two. Theirs stops after 20 iterations while it
  chooses on training and after 100 otherwise, here after 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from concept_tuning.data.registry import DataBundle, Split
from concept_tuning.errors import TrainingError
from concept_tuning.methods.base import Keep, LossTerms, Method, PictureSource, StepContext, pool

#: Inverse strengths of the l1 penalty that are tried, as in the authors' code.
_STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
#: Fewest pictures of the rarest class within a group for half of them to choose the strength.
_ENOUGH = 4
#: With fewer pictures in the rarest class within a group the user is warned.
FEW_PICTURES = 10


class Dfr(Method):
    """Plain fine-tuning; then a logistic regression on pooled features, fitted to groups of equal size.

    Section 5 of the paper: the pictures are standardised, a sample with as many pictures of every class within a
    group is drawn several times, and the fitted classifiers are averaged. The strength of the l1 penalty is chosen by
    the worst group of the half that was not fitted to. Cells without pictures are passed over, as is said in the
    paper of groups that do not exist. By default it is fitted to validation, whose groups it then needs to know;
    validation accuracy afterwards is of pictures that it has seen.
    """

    name = "dfr"
    summary = "Plain fine-tuning, then the last layer anew on groups of equal size; needs group labels."
    reference = "Kirichenko et al., ICLR 2023, arXiv 2204.02937, section 5"
    needs_groups = True

    def forward(self, views: Tensor, labels: Tensor, context: StepContext) -> tuple[LossTerms, Keep]:
        """See :meth:`Method.forward`; the same as plain fine-tuning."""
        logits = self.classifier(pool(self.backbone(views[:, 0])))
        return {"cross_entropy": self.cross_entropy(logits, labels)}, {}

    def caution(self, data: DataBundle) -> str:
        """Warn of a class within a group that has so few pictures that chance decides the last layer."""
        names = {"val": "validation", "train": "training"}
        own, other = ("val", "train") if self.config.dfr.data == "validation" else ("train", "val")
        cells, elsewhere = _cell_counts(data.splits[own]), _cell_counts(data.splits[other])
        (label, group), least = min(cells.items(), key=lambda cell: cell[1])
        if least >= FEW_PICTURES:
            return ""
        advice = f"Take more {names[own]} pictures"
        if (more := min(elsewhere.values())) > least:
            advice += f", or dfr.data={names[other]}, where the smallest has {more}"
        return (
            "dfr draws as many pictures of every class within a group as the smallest of them has. Of the "
            f"{names[own]} pictures that is {data.class_names[label]} | {data.group_names[group]} with {least}, so "
            f"that {least * len(cells)} at a time decide the last layer, and chance has a great part in it. {advice}."
        )

    @torch.no_grad()
    def finish(self, pictures: PictureSource) -> bool:
        """Fit the last layer anew."""
        split = "val" if self.config.dfr.data == "validation" else "train"
        features, labels, groups, units = self._features(pictures, split)
        weights, bias = retrained_classifier(
            features,
            labels,
            groups,
            units,
            classes=self.classifier.out_features,
            subsets=self.config.dfr.subsets,
            seed=self.config.engine.seed,
        )
        self.classifier.weight.copy_(torch.from_numpy(weights))
        self.classifier.bias.copy_(torch.from_numpy(bias))
        return True

    def _features(
        self, pictures: PictureSource, split: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        training = self.training
        self.eval()
        try:
            batches = [(pool(self.backbone(batch.images)).float(), batch) for batch in pictures.batches(split)]
        finally:
            self.train(training)
        groups = _joined([batch.groups for _, batch in batches])
        if groups is None:
            raise TrainingError("dfr needs group labels, and these pictures have none.")
        return (
            torch.cat([features for features, _ in batches]).cpu().numpy(),
            torch.cat([batch.labels for _, batch in batches]).cpu().numpy(),
            groups,
            _joined([batch.units for _, batch in batches]),
        )


def _joined(parts: Sequence[Tensor | None]) -> np.ndarray | None:
    """Return the batches' values as one array; None where they have none."""
    found = [part for part in parts if part is not None]
    return torch.cat(found).cpu().numpy() if found else None


def _cell_counts(split: Split) -> dict[tuple[int, int], int]:
    """Return how many pictures there are of each class within each group that has any."""
    assert split.groups is not None  # data without groups were refused
    cells, counts = np.unique(np.stack([split.labels, split.groups]), axis=1, return_counts=True)
    return {(int(label), int(group)): int(count) for (label, group), count in zip(cells.T, counts, strict=True)}


def retrained_classifier(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray | None = None,
    *,
    classes: int,
    subsets: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a last layer to samples in which every class within a group has as many pictures.

    Args:
        features: (n, D) float32.
        labels: (n,) int64, 0..C-1; every class has pictures.
        groups: (n,) int64.
        units: (n,) int64, what each picture shows; None where each is by itself.
        classes: Number C of classes.
        subsets: Balanced samples whose classifiers are averaged.
        seed: Of the samples.

    Returns:
        (C, D) float32 weights and (C,) float32 bias for features as they are, not standardised.

    Raises:
        TrainingError: if a class has no pictures.
    """
    missing = set(range(classes)) - set(labels.tolist())
    if missing:
        raise TrainingError(f"dfr needs pictures of every class, and class {min(missing)} has none in that split.")
    mean, deviation = features.mean(0), features.std(0) + 1e-8
    scaled = (features - mean) / deviation
    cells = labels * (int(groups.max()) + 1) + groups
    random = np.random.default_rng(seed)
    strength = _chosen_strength(scaled, labels, cells, units, random)
    found = []
    for _ in range(subsets):
        rows = _balanced(cells, random)
        found.append(_fitted(scaled[rows], labels[rows], strength, classes))
    weights = np.mean([weight for weight, _ in found], axis=0) / deviation
    bias = np.mean([shift for _, shift in found], axis=0) - weights @ mean
    return weights.astype(np.float32), bias.astype(np.float32)


def _chosen_strength(
    scaled: np.ndarray, labels: np.ndarray, cells: np.ndarray, units: np.ndarray | None, random: np.random.Generator
) -> float:
    """Return the strength whose classifier of one half is best in the worst cell of the other."""
    half = _half(cells, units, random)
    if half is None:
        return _STRENGTHS[0]
    classes = int(labels.max()) + 1
    rows = np.flatnonzero(half)[_balanced(cells[half], random)]
    worst = []
    for strength in _STRENGTHS:
        weights, bias = _fitted(scaled[rows], labels[rows], strength, classes)
        right = (scaled[~half] @ weights.T + bias).argmax(1) == labels[~half]
        worst.append(min(right[cells[~half] == cell].mean() for cell in np.unique(cells)))
    return _STRENGTHS[int(np.argmax(worst))]


def _half(cells: np.ndarray, units: np.ndarray | None, random: np.random.Generator) -> np.ndarray | None:
    """Return (n,) bool, half of every cell's pictures, parting no unit; None where a cell has too few."""
    apart = np.arange(len(cells)) if units is None else units
    if min(len(np.unique(apart[cells == cell])) for cell in np.unique(cells)) < _ENOUGH:
        return None
    half = np.zeros(len(cells), dtype=bool)
    if units is None:
        for cell in np.unique(cells):
            rows = random.permutation(np.flatnonzero(cells == cell))
            half[rows[: len(rows) // 2]] = True
        return half
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second, and few runs need it

    cut = StratifiedGroupKFold(2, shuffle=True, random_state=int(random.integers(2**32)))
    half[next(cut.split(cells, cells, units))[0]] = True
    kinds = len(np.unique(cells))
    whole = all(len(np.unique(cells[side])) == kinds for side in (half, ~half))
    return half if whole else None  # a unit of several cells may leave a half without one


def _balanced(cells: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return rows in which every cell that has any is as frequent as the rarest."""
    kinds, counts = np.unique(cells, return_counts=True)
    # Which rows are drawn is no secret.
    chosen = [random.choice(np.flatnonzero(cells == kind), counts.min(), replace=False) for kind in kinds]  # nosec B311
    return np.sort(np.concatenate(chosen))


def _fitted(scaled: np.ndarray, labels: np.ndarray, strength: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (C, D) weights and (C,) bias of an l1-penalised logistic regression, one class against the rest."""
    from sklearn.linear_model import LogisticRegression  # takes a second, and few runs need it

    weights, bias = np.zeros((classes, scaled.shape[1])), np.zeros(classes)
    for label in range(classes):
        fit = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", max_iter=1000, random_state=0)
        fit.fit(scaled, labels == label)
        weights[label], bias[label] = fit.coef_[0], fit.intercept_[0]
    if classes == 2:  # two against each other, not each against the rest
        weights, bias = weights / 2, bias / 2
    return weights, bias
