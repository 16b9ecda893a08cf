"""Accuracies that others have published for the same data, network and sample rate, and what was otherwise there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from concept_tuning.bench.spec import Setting
from concept_tuning.config import ConceptTuningConfig, OptimConfig, RunConfig
from concept_tuning.settings import build_config

#: timm's name for torchvision's first ImageNet weights of ResNet-50, which the published runs began with.
ARCHITECTURE = "resnet50.tv_in1k"
IMAGE_SIZE = 224
#: Number of steps and shares of them after which the learning rate falls to a tenth: 20 and 40 epochs of 500 batches,
#: however many pictures there are. From the library's scripts, and the command in the authors' repository.
STEPPED: dict[str, tuple[int, tuple[float, ...]]] = {"library": (10_000, (0.6,)), "authors": (20_000, (0.3, 0.6))}
#: Epochs that are more than these steps take at the smallest sample rate.
ENOUGH_EPOCHS = 1000

_TRAINED = {
    "preset": "100 passes over the training pictures, the learning rate by a cosine",
    "library": "10,000 steps at every sample rate, the learning rate a tenth after 6,000",
    "authors": "20,000 steps, the learning rate a tenth after 6,000 and a hundredth after 12,000",
}
#: What of Concept-Tuning is otherwise in the authors' command and code, in words.
_AUTHORS_PARTS: dict[str, tuple[Any, str]] = {
    "latent_dim": (512, "a latent of 512 numbers"),
    "confusing_for_negatives": (199, "negatives of all 199 other classes"),
    "kl_deviation": ("exp-sigma", "the exponential of sigma in the KL term"),
}
_LIBRARY = (
    "Transfer-Learning-Library, docs/talib/benchmarks/image_classification.rst, ResNet-50 (supervised pre-trained), "
    "seed 0 by its scripts; the best epoch by test accuracy"
)
_AUTHORS = "the authors' repository, seed 0; chosen on test: the best epoch and the better of two heads"
_RATES = (15.0, 30.0, 50.0, 100.0)

#: Top-1 test accuracy in percent by data and method, at the sample rates :data:`_RATES`.
_TABLE: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "cub200": {
        "vanilla": (51.2, 64.6, 74.6, 81.8),
        "lwf": (56.7, 66.8, 73.4, 81.5),
        "bss": (53.4, 66.7, 76.0, 82.0),
        "delta": (54.8, 67.3, 76.3, 82.3),
        "stoch-norm": (54.8, 66.8, 75.8, 82.2),
        "co-tuning": (57.6, 70.1, 77.3, 82.5),
        "bi-tuning": (55.8, 69.3, 77.2, 83.1),
    },
    "stanford-cars": {
        "vanilla": (41.1, 65.9, 78.4, 87.8),
        "lwf": (44.9, 67.0, 77.6, 87.5),
        "bss": (43.3, 67.6, 79.6, 88.0),
        "delta": (45.0, 68.4, 79.6, 88.4),
        "stoch-norm": (44.4, 68.1, 79.3, 87.9),
        "co-tuning": (49.0, 70.6, 81.9, 89.1),
        "bi-tuning": (48.3, 72.8, 83.3, 90.2),
    },
    "aircraft": {
        "vanilla": (41.6, 57.8, 68.7, 80.2),
        "lwf": (44.1, 60.6, 68.7, 82.4),
        "bss": (43.6, 59.5, 69.6, 81.2),
        "delta": (44.4, 61.9, 71.4, 82.7),
        "stoch-norm": (44.3, 60.6, 70.1, 81.5),
        "co-tuning": (45.9, 61.2, 71.3, 82.2),
        "bi-tuning": (47.2, 64.3, 73.7, 84.3),
    },
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure.

    Attributes:
        accuracy: Top-1 test accuracy, 0..1.
        source: Where it stands, and how its epoch was chosen.
        otherwise: What was otherwise there than in the setting it stands beside.
    """

    accuracy: float
    source: str
    otherwise: str


def published(setting: Setting, config: RunConfig) -> Published | None:
    """Return the figure that was published for a setting's data, network and sample rate; None if there is none.

    Data, test pictures, sample rate, picture size, network, pre-trained weights, batch and optimiser are those of the
    figure, and the method is whole: a variant has none, but for Concept-Tuning in its published mode, under whatever
    name. Length and schedule of training are the preset ``paper``'s or one of :data:`STEPPED`; how they differ from the
    figure's, and what else does, :attr:`Published.otherwise` says.

    Args:
        setting: What is run.
        config: Its settings, of any seed.
    """
    data, training = config.data, _training(config)
    if training is None or data.image_size != IMAGE_SIZE or data.per_class is not None:
        return None
    if config.backbone.architecture != ARCHITECTURE or config.backbone.weights not in {"auto", "timm"}:
        return None
    if config.method == "concept-tuning":
        if data.source != "cub200" or data.sample_rate != 100 or not _whole(config.concept_tuning):
            return None
        return Published(accuracy=0.8514, source=_AUTHORS, otherwise=_otherwise(config, training, "authors"))
    figures = _TABLE.get(data.source, {}).get(config.method)
    if figures is None or setting.method != config.method or data.sample_rate not in _RATES:
        return None
    accuracy = figures[_RATES.index(data.sample_rate)] / 100
    return Published(accuracy=accuracy, source=_LIBRARY, otherwise=_otherwise(config, training, "library"))


def _training(config: RunConfig) -> str | None:
    """Return which of :data:`_TRAINED` a run's training is, whatever its learning rate, which is tuned; else None."""
    paper, own = _paper_optim(), replace(config.optim, lr=_paper_optim().lr)
    if config.engine.precision != "no":
        return None
    if own == paper:
        return "preset"
    for name, (steps, points) in STEPPED.items():
        stepped = replace(paper, epochs=own.epochs, max_steps=steps, schedule="step", step_points=points)
        if own == stepped and own.epochs >= ENOUGH_EPOCHS:
            return name
    return None


def _otherwise(config: RunConfig, here: str, there: str) -> str:
    """Say what was otherwise where a figure is from, for a run of these settings."""
    found = [] if here == there else [f"{_TRAINED[there]} (here {_TRAINED[here]})"]
    if config.data.source == "aircraft":
        found.append("trained on the official training and validation pictures together, twice as many as here")
    else:
        share = 100 * config.data.validation_fraction
        found.append(f"no pictures set aside for validation (here {share:g} % of training's)")
    if config.data.sample_rate < 100:
        found.append("another sample of the training pictures")
    if there == "authors":
        parts = config.concept_tuning
        found += [words for name, (value, words) in _AUTHORS_PARTS.items() if getattr(parts, name) != value]
        found.append("the latent's noise in evaluation too")
    return "; ".join(found)


@cache
def _paper_optim() -> OptimConfig:
    return build_config(preset="paper").optim


def _whole(parts: ConceptTuningConfig) -> bool:
    """Whether nothing of Concept-Tuning is left out or other than published, but for the weights of its contrasts."""
    whole = ConceptTuningConfig(image_weight=parts.image_weight, concept_weight=parts.concept_weight)
    as_theirs: dict[str, Any] = {
        name: value for name, (value, _) in _AUTHORS_PARTS.items() if getattr(parts, name) == value
    }
    return parts == replace(whole, **as_theirs) and min(parts.image_weight, parts.concept_weight) > 0
