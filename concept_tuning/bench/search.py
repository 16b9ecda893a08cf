"""The search: the same number of draws for every method, known before any of them runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from concept_tuning.bench.spec import ALL, BenchSpec, Range, Setting, chosen_before, kind_of

_WORST = "worst_group_accuracy"


def draw_trials(spec: BenchSpec, setting: Setting) -> list[dict[str, Any]]:
    """Return the settings of each trial by name; the first changes nothing, the others are drawn at random.

    Drawn all at once by optuna's random sampler (random search: Bergstra and Bengio, JMLR 2012), so that a bench that
    goes on, or runs trials side by side, has the very same ones. What every method has (:data:`ALL`) is drawn once for
    all methods on the same data, so that none has the luckier learning rates; what is a method's own is drawn apart. A
    method without a search space has one trial, and so has a setting of which it was chosen before. Of a whole number
    only whole numbers are drawn.
    """
    before = chosen_before(spec, setting)
    if before is not None:
        return [before]
    space = spec.space(setting.method)
    if spec.trials < 2 or not space:
        return [{}]
    method = spec.variant(setting.method).method
    # A range of a method's own for what all search is drawn beside theirs, so that the others' draws stay the same.
    all_search = spec.search.get(ALL, {})
    ours = {name: span for name, span in space.items() if spec.space_of(setting.method, name) != ALL}
    place = f"{setting.data}/{setting.backbone}/{setting.sample_rate:g}"
    common, own = (
        _drawn({name: _distribution(span, kind_of(name, method)) for name, span in found.items()}, spec, where)
        for found, where in ((all_search, place), (ours, setting.place))
    )
    return [{}, *({**first, **second} for first, second in zip(common, own, strict=True))]


def _drawn(distributions: dict[str, Any], spec: BenchSpec, place: str) -> list[dict[str, Any]]:
    """Return the draws of all trials but the first, by the seed of the search and a place."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(hashlib.sha256(f"{spec.search_seed} {place}".encode()).hexdigest()[:8], 16)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [dict(study.ask(distributions).params) for _ in range(spec.trials - 1)]


def best_trial(reached: Mapping[int, Mapping[str, float]]) -> int | None:
    """Return the trial with the greatest validation accuracy, of equal ones that with the least loss, then the first.

    Where every trial chose its epoch by the worst group (``select_by=worst-group``), that group's accuracy comes first.

    Args:
        reached: What each trial reached at its best epoch, by number; trials that failed are left out.
    """
    worst = all(_WORST in best for best in reached.values())

    def rank(trial: int) -> tuple[float, float, float, int]:
        best = reached[trial]
        return -float(best[_WORST]) if worst else 0.0, -float(best["accuracy"]), float(best["loss"]), trial

    return min(reached, key=rank, default=None)


def _distribution(span: Range, kind: str) -> Any:
    """Return what a setting is drawn from; ``kind`` is its type in words."""
    import optuna

    if span.choices:
        return optuna.distributions.CategoricalDistribution(span.choices)
    assert span.low is not None
    assert span.high is not None
    if kind.split()[0] == "integer":
        return optuna.distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
    return optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)
