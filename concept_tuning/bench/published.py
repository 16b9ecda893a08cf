"""Accuracies that others have published, for the rows of a bench that have the very setting they were measured in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from concept_tuning.bench.spec import Setting
from concept_tuning.config import ConceptTuningConfig, OptimConfig, RunConfig
from concept_tuning.settings import build_config

#: timm's name for torchvision's first ImageNet weights of ResNet-50, which the published runs began with.
ARCHITECTURE = "resnet50.tv_in1k"
IMAGE_SIZE = 224

_LIBRARY = (
    "Transfer-Learning-Library, docs/talib/benchmarks/image_classification.rst, ResNet-50 (supervised pre-trained); "
    "the best epoch by test accuracy, and no pictures set aside for validation"
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
    """

    accuracy: float
    source: str


def published(setting: Setting, config: RunConfig) -> Published | None:
    """Return the figure that was published for a setting; None unless it is that very setting.

    It is if data, sample rate, picture size, network and pre-trained weights are those of the figure, training is that
    of the preset ``paper`` and the method is whole: a variant has none, but for Concept-Tuning in its published mode,
    under whatever name.

    Args:
        setting: What is run.
        config: Its settings, of any seed.
    """
    data = config.data
    known = data.image_size == IMAGE_SIZE and data.per_class is None and _papers_training(config)
    if not known or config.backbone.architecture != ARCHITECTURE or config.backbone.weights not in {"auto", "timm"}:
        return None
    if config.method == "concept-tuning":
        right = data.source == "cub200" and data.sample_rate == 100 and _whole(config.concept_tuning)
        return Published(accuracy=0.8514, source=_AUTHORS) if right else None
    figures = _TABLE.get(data.source, {}).get(config.method)
    if figures is None or setting.method != config.method or data.sample_rate not in _RATES:
        return None
    return Published(accuracy=figures[_RATES.index(data.sample_rate)] / 100, source=_LIBRARY)


def _papers_training(config: RunConfig) -> bool:
    """Whether length, batch, optimiser and precision are the preset's; the learning rate, tuned, may differ."""
    return replace(config.optim, lr=_paper_optim().lr) == _paper_optim() and config.engine.precision == "no"


@cache
def _paper_optim() -> OptimConfig:
    return build_config(preset="paper").optim


def _whole(parts: ConceptTuningConfig) -> bool:
    """Whether nothing of Concept-Tuning is left out or other than published, but for the weights of its contrasts."""
    whole = ConceptTuningConfig(image_weight=parts.image_weight, concept_weight=parts.concept_weight)
    return parts == whole and min(parts.image_weight, parts.concept_weight) > 0
