"""How long the planned runs of Train may take, from measured times, said before they are started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.method_words import method_label
from concept_tuning.config import RunConfig

#: Seconds for a picture of 128 x 128 pixels in a vanilla step on two cores, from `benchmarks/results/step_cost_*.json`.
_STEP_SECONDS = {"tf_efficientnet_lite0": 0.85 / 32, "resnet50": 0.058}
_SIDE = 128
#: Time of a step over a vanilla step, from the same records: by fewer views, and patches out of the feature map.
_CONCEPT_TUNING = {(False, False): 3.7, (True, False): 2.9, (False, True): 3.2, (True, True): 1.9}
#: The same of rivals; others take as long as vanilla, and the linear probe needs a forward pass alone.
_RIVALS = {"delta": 1.2, "stoch-norm": 1.7, "bi-tuning": 1.2, "lwf": 1.2}
#: A forward pass over a vanilla step, and the seconds that loading and saving take besides.
_FORWARD, _SECONDS_BESIDE = 0.35, 10
#: How far the measured times may be off on other machines of the kind.
_LOW, _HIGH = 0.7, 1.6
_FEW_STEPS = 20


def training_steps(config: RunConfig, pictures: int) -> int:
    """Return the optimiser steps of a run on a number of training pictures."""
    optim = config.optim
    steps = optim.epochs * max(1, pictures // max(1, min(optim.batch_size, pictures)))
    return min(steps, optim.max_steps or steps)


def expected_seconds(config: RunConfig, counts: Mapping[str, int]) -> float:
    """Return how many seconds a run takes on two cores, roughly.

    Args:
        config: Its settings.
        counts: Pictures in ``train``, ``val`` and ``test``.
    """
    picture = _STEP_SECONDS.get(config.backbone.architecture, _STEP_SECONDS["tf_efficientnet_lite0"])
    picture *= (config.data.image_size / _SIDE) ** 2
    steps = training_steps(config, counts["train"])
    trained = steps * min(config.optim.batch_size, counts["train"])
    passes = max(1, trained // max(1, counts["train"]) // config.engine.evaluate_every)
    seen = counts["val"] * passes + sum(counts.values())
    return picture * (trained * _method_factor(config) + seen * _FORWARD) + _SECONDS_BESIDE


def said_time(runs: Iterable[RunConfig], counts: Mapping[str, int], preset: str) -> str:
    """Return in words how many steps the runs take and how long.

    Args:
        runs: The runs, at least one.
        counts: Pictures in ``train``, ``val`` and ``test``.
        preset: Which preset was chosen.
    """
    runs = list(runs)
    steps = training_steps(runs[0], counts["train"])
    words = [_said_steps(steps, counts["train"]), _said_span(runs, counts)]
    if runs[0].backbone.architecture not in _STEP_SECONDS:
        words.append("That was measured with `tf_efficientnet_lite0`; most other networks take longer.")
    if preset == "paper":
        words.append("`paper` is meant for an accelerator, which takes a fraction of that.")
    return " ".join(words)


def _said_steps(steps: int, pictures: int) -> str:
    one_step, one_picture = "step" if steps == 1 else "steps", "picture" if pictures == 1 else "pictures"
    text = f"{steps} {one_step} on {pictures} training {one_picture} for each run."
    few = ' So few steps only show that all works; for a network that learns, take a longer one of "How long".'
    return text + few if steps < _FEW_STEPS else text


def _said_span(runs: list[RunConfig], counts: Mapping[str, int]) -> str:
    seconds: dict[str, float] = {}
    for run in runs:
        seconds[run.method] = seconds.get(run.method, 0.0) + expected_seconds(run, counts)
    parts = [f"{method_label(method)} {_span(spent)}" for method, spent in seconds.items()]
    detail = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"Expect {_span(sum(seconds.values()))}{detail} on two processor cores without an accelerator."


def _span(seconds: float) -> str:
    low, high = seconds * _LOW, seconds * _HIGH
    for size, name in ((3600, "h"), (60, "min")):
        if high >= 1.5 * size:
            least = low / size
            first = f"{least:.1f}".rstrip("0").rstrip(".") if least < 1 else f"{least:.0f}"
            return f"{first} to {high / size:.0f} {name}"
    return f"{low:.0f} to {high:.0f} s"


def _method_factor(config: RunConfig) -> float:
    if config.method == "linear-probe":
        return _FORWARD
    if config.method != "concept-tuning":
        return _RIVALS.get(config.method, 1.0)
    parts = config.concept_tuning
    return _CONCEPT_TUNING[parts.views == 2, parts.patches == "feature-map"]
