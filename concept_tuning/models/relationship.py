"""How source and target classes hang together: p(source class | target class) of Co-Tuning.

K. You, Z. Kou, M. Long, J. Wang, "Co-Tuning for Transfer Learning", NeurIPS 2020, section 3.2, the reverse
approach: learn p(y_t | y_s) as a classifier that reads the probabilities f(x) of the source classes,
calibrate it, ask it about each source class by itself, and turn the answer around by Bayes' rule,
p(y_s | y_t) ~ p(y_t | y_s) p(y_s). As in the authors' code the rows are normalised by their sum, where the
paper divides by an estimate of p(y_t). Their temperature for the source probabilities, 0.884, belongs to one
network and is left out.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

Floats = NDArray[np.float64]

#: Inverse strengths of the penalty that are tried, those of the authors' code, strongest penalty first.
PENALTIES = (*(base * 10.0**power for power in range(-4, 4) for base in (1.0, 3.0)), 1e4)

#: Limits of the calibrating factor: a validation set that is told apart without a mistake has no best one.
SCALES = (0.01, 100.0)

_ITERATIONS = 100


def learn_relationship(
    train: Floats, train_labels: NDArray[np.int64], val: Floats, val_labels: NDArray[np.int64], num_classes: int
) -> Floats:
    """Learn p(y_s | y_t) from what the pre-trained classifier says of the target's pictures.

    Args:
        train: (N, S) source probabilities of the training pictures.
        train_labels: (N,) their target classes.
        val: (M, S) source probabilities of the validation pictures.
        val_labels: (M,) their target classes.
        num_classes: Number C of target classes.

    Returns:
        (C, S) rows that add up to 1. A class without training pictures gets p(y_s).

    Raises:
        ValueError: If the shapes do not fit together, or there is no picture.
    """
    _check(train, train_labels, val, val_labels)
    marginal = np.concatenate([train, val]).mean(0)
    relationship = np.tile(marginal / marginal.sum(), (num_classes, 1))
    present = np.unique(train_labels)
    if len(present) > 1:
        known = np.isin(val_labels, present)
        places = np.searchsorted(present, val_labels[known])
        weights = fit_target_given_source(train, train_labels, val[known], val_labels[known])
        scale = calibrating_scale(val[known] @ weights.T, places)
        relationship[present] = turn_around(log_softmax(scale * weights.T, axis=1), marginal)
    return relationship


def fit_target_given_source(
    train: Floats, train_labels: NDArray[np.int64], val: Floats, val_labels: NDArray[np.int64]
) -> Floats:
    """Fit multinomial logistic regressions without intercept; of those most accurate on validation the weakest held.

    Args:
        train: (N, S) source probabilities.
        train_labels: (N,) of two classes or more.
        val: (M, S), M may be 0.
        val_labels: (M,).

    Returns:
        (C', S) weights, a row for each class present, in order: logits are ``probabilities @ weights.T``.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second, and few runs need it
    from sklearn.linear_model import LogisticRegression

    # The one object goes on from the penalty before it, towards weaker ones.
    model = LogisticRegression(fit_intercept=False, warm_start=True, max_iter=_ITERATIONS)
    best, weights = -1.0, np.zeros((0, train.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the authors too stop after a hundred iterations
        for strength in PENALTIES:
            model.set_params(C=strength).fit(train, train_labels)
            accuracy = float((model.predict(val) == val_labels).mean()) if len(val) else 0.0
            if accuracy >= best:
                best, weights = accuracy, model.coef_.copy()
    # Of two classes scikit-learn keeps the difference.
    return np.concatenate([-weights / 2, weights / 2]) if len(weights) == 1 else weights


def calibrating_scale(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the factor on logits (M, C) that makes labels (M,) likeliest, within :data:`SCALES`; 1 for M = 0."""
    if len(labels) == 0:
        return 1.0

    def loss(log_scale: float) -> float:
        scaled = np.exp(log_scale) * logits
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())

    low, high = np.log(SCALES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def turn_around(log_target_given_source: Floats, source_marginal: Floats) -> Floats:
    """Return p(y_s | y_t) (C, S) of log p(y_t | y_s) (S, C) and p(y_s) (S,), by Bayes' rule in the log domain."""
    with np.errstate(divide="ignore"):
        joint = log_target_given_source.T + np.log(source_marginal)
    return softmax(joint, axis=1)


def _check(train: Floats, train_labels: NDArray[np.int64], val: Floats, val_labels: NDArray[np.int64]) -> None:
    shapes = [np.shape(item) for item in (train, train_labels, val, val_labels)]
    fits = train.ndim == val.ndim == 2 and train.shape[1] == val.shape[1] and len(train) > 0
    if not fits or shapes[1] != (len(train),) or shapes[3] != (len(val),):
        raise ValueError(
            f"train and val must be (N, S) and (M, S), N > 0, and their labels (N,) and (M,), got "
            f"{', '.join(map(str, shapes))}."
        )
