"""What the front-door head's attentions do for the predictions: switch one or both off and predict again.

The two attentions approximate the expectations of the front-door formula, over patches and over channels
(Concept-Tuning, arXiv 2311.06868). Switched off, an attention passes the feature map through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.attention_maps import front_door_head
from concept_tuning.diagnostics.features import BATCH, Features
from concept_tuning.diagnostics.pictures import Pictures, Subject
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable
from concept_tuning.diagnostics.statistics import mcnemar_exact, share

#: Under which name the run's fixed prediction rule stands beside the heads.
PREDICTION = "prediction"
FRONT_DOOR = "front_door"


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SwitchShare:
    """Shares of some of the pictures.

    Attributes:
        name: The class or the group, or ``class | group``.
        accuracy: Share predicted right with the switch set.
        accuracy_before: Share predicted right with everything on.
        flips: Share whose predicted class changes.
    """

    name: str
    accuracy: Interval
    accuracy_before: Interval
    flips: Interval


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SwitchOutcome:
    """Predictions with attentions switched off.

    Attributes:
        name: ``everything on``, ``position off``, ``channel off`` or ``both off``.
        reads: ``prediction``, the run's fixed rule, or ``front_door``, that head alone. The rule may also read
            the plain classifier, which no switch reaches.
        use_position: Whether position attention is on.
        use_channel: Whether channel attention is on.
        predicted: (n,) int64.
        accuracy: Share predicted right, with its Wilson interval.
        agreement: Share predicted as with everything on; the flip rate is what is left.
        flips: Share predicted otherwise than with everything on.
        lost: Pictures right with everything on and wrong now.
        won: Pictures wrong with everything on and right now.
        p_value: Exact McNemar test of ``lost`` against ``won``.
        probability_shift: Mean total variation distance between the probabilities and those with everything
            on, 0..1; shows effects too small to change a prediction.
        classes: By true class.
        groups: By group; empty where the pictures have none.
        cells: By class within group, for the cells that have pictures.
    """

    name: str
    reads: str
    use_position: bool
    use_channel: bool
    predicted: Array
    accuracy: Interval
    agreement: Interval
    flips: Interval
    lost: int
    won: int
    p_value: float
    probability_shift: float
    classes: tuple[SwitchShare, ...]
    groups: tuple[SwitchShare, ...]
    cells: tuple[SwitchShare, ...]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class SwitchMaps:
    """Where the front-door head looks under each setting, for m pictures.

    Attributes:
        keys: Names of the pictures.
        names: Names of the s settings, as of the outcomes.
        explained: (m,) int64, the class that the head predicts with everything on; the same under every setting.
        predicted: (s, m) int64, the class that the head predicts under each.
        values: (s, m, h, w) float32 >= 0, Grad-CAM (arXiv 1610.02391) of that class's logit of the head alone on
            the feature map before its attentions, in logits, not scaled, so that settings can be compared.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    explained: Array
    predicted: Array
    values: Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class FrontDoorSwitches:
    """Predictions of a run under every setting of the switches it has.

    Caveat: the head was trained with its attentions on, so a switch also shows what the layers behind them
    make of features they never saw; answers that stay do not say that an attention does nothing (see
    ``probability_shift``), and answers that change do not say that it removes a shortcut.

    Attributes:
        run: Name of the run.
        keys: Unique names of the n pictures.
        labels: (n,) int64.
        rule: The heads whose mean probability is the prediction.
        position_gamma: Learnt scale of position attention, 0 at the start of training and in effect
            switched off there; None where the head has none.
        channel_gamma: The same of channel attention.
        outcomes: Everything on first, for the rule and for the front-door head.
        maps: Maps of the head under each setting; None where no pictures were named for it.
    """

    run: str
    keys: tuple[str, ...]
    labels: Array
    rule: tuple[str, ...]
    position_gamma: float | None
    channel_gamma: float | None
    outcomes: tuple[SwitchOutcome, ...]
    maps: SwitchMaps | None = None


def front_door_switches(
    subject: Subject,
    pictures: Pictures,
    features: Features,
    *,
    places: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FrontDoorSwitches | Unavailable:
    """Predict pictures with position attention, channel attention and both switched off.

    Args:
        subject: The run.
        pictures: The pictures, with labels and perhaps groups.
        features: What its network makes of them.
        places: Pictures whose maps are made.
        progress: Given the number of settings done and of all.
    """
    head = front_door_head(subject)
    if head is None:
        reason = f"{subject.name} has no front-door head; train with Concept-Tuning to have one."
        return Unavailable(analysis="front-door switches", reason=reason)
    settings = _settings(position=head.position is not None, channel=head.channel is not None)
    found = []
    for number, (_, use_position, use_channel) in enumerate(settings):
        found.append(_probabilities(subject.method, features.maps, use_position=use_position, use_channel=use_channel))
        progress(number + 1, len(settings))
    outcomes = tuple(
        switch_outcome(
            values[reads],
            found[0][reads],
            pictures.labels,
            groups=pictures.groups,
            class_names=subject.run.class_names,
            group_names=pictures.bundle.group_names,
            name=name,
            reads=reads,
            use_position=use_position,
            use_channel=use_channel,
        )
        for reads in (PREDICTION, FRONT_DOOR)
        for (name, use_position, use_channel), values in zip(settings, found, strict=True)
    )
    return FrontDoorSwitches(
        run=subject.name,
        keys=pictures.keys,
        labels=pictures.labels,
        rule=subject.method.prediction_heads,
        position_gamma=None if head.position is None else head.position.gamma.item(),
        channel_gamma=None if head.channel is None else head.channel.gamma.item(),
        outcomes=outcomes,
        maps=_maps(subject.method, pictures, features, settings, places) if len(places) else None,
    )


def switched_probabilities(subject: Subject, features: Features) -> dict[str, dict[str, np.ndarray]]:
    """Return (n, C) probabilities under every setting by its name, everything on first; empty without the head.

    Those of the run's fixed rule are under :data:`PREDICTION`, those of the head under :data:`FRONT_DOOR`.
    """
    head = front_door_head(subject)
    if head is None:
        return {}
    return {
        name: _probabilities(subject.method, features.maps, use_position=use_position, use_channel=use_channel)
        for name, use_position, use_channel in _settings(
            position=head.position is not None, channel=head.channel is not None
        )
    }


def switch_outcome(
    probabilities: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None,
    class_names: tuple[str, ...],
    group_names: tuple[str, ...],
    name: str,
    reads: str,
    use_position: bool,
    use_channel: bool,
) -> SwitchOutcome:
    """Compare probabilities (n, C) with those with everything on, (n, C); see :class:`SwitchOutcome`."""
    predicted, base = probabilities.argmax(1), before.argmax(1)
    right, was_right, flipped = predicted == labels, base == labels, predicted != base
    lost, won = int((was_right & ~right).sum()), int((~was_right & right).sum())

    def shares(members: list[tuple[str, np.ndarray]]) -> tuple[SwitchShare, ...]:
        return tuple(
            SwitchShare(
                name=title,
                accuracy=share(right[member]),
                accuracy_before=share(was_right[member]),
                flips=share(flipped[member]),
            )
            for title, member in members
            if member.any()
        )

    classes = [(title, labels == number) for number, title in enumerate(class_names)]
    in_groups = [] if groups is None else [(title, groups == number) for number, title in enumerate(group_names)]
    cells = [(f"{a} | {b}", first & second) for a, first in classes for b, second in in_groups]
    return SwitchOutcome(
        name=name,
        reads=reads,
        use_position=use_position,
        use_channel=use_channel,
        predicted=predicted,
        accuracy=share(right),
        agreement=share(~flipped),
        flips=share(flipped),
        lost=lost,
        won=won,
        p_value=mcnemar_exact(lost, won),
        probability_shift=float(np.abs(probabilities - before).sum(1).mean() / 2),
        classes=shares(classes),
        groups=shares(in_groups),
        cells=shares(cells),
    )


def _settings(*, position: bool, channel: bool) -> list[tuple[str, bool, bool]]:
    """Return name, use_position and use_channel of every setting that differs, everything on first."""
    found = [("everything on", True, True)]
    if position:
        found.append(("position off", False, True))
    if channel:
        found.append(("channel off", True, False))
    if position and channel:
        found.append(("both off", False, False))
    return found


@torch.inference_mode()
def _probabilities(method: Any, maps: np.ndarray, *, use_position: bool, use_channel: bool) -> dict[str, np.ndarray]:
    """Return (n, C) probabilities of the rule and of the front-door head for feature maps (n, D, h, w)."""
    parts: dict[str, list[np.ndarray]] = {PREDICTION: [], FRONT_DOOR: []}
    for part in torch.from_numpy(maps).split(BATCH):
        logits = method.classify(part, use_position=use_position, use_channel=use_channel)
        heads = {name: values.float().softmax(1) for name, values in logits.items()}
        parts[PREDICTION].append(method.combine(heads).numpy())
        parts[FRONT_DOOR].append(heads[FRONT_DOOR].numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _maps(
    method: Any,
    pictures: Pictures,
    features: Features,
    settings: Sequence[tuple[str, bool, bool]],
    places: Sequence[int],
) -> SwitchMaps:
    chosen = torch.from_numpy(features.maps[list(places)])
    explained = torch.from_numpy(features.heads[FRONT_DOOR][list(places)]).argmax(1)
    predicted, values = [], []
    for _, use_position, use_channel in settings:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = chosen.clone().requires_grad_()
            logits = method.classify(leaf, use_position=use_position, use_channel=use_channel)[FRONT_DOOR].float()
            (gradient,) = torch.autograd.grad(logits.gather(1, explained[:, None]).sum(), leaf)
        predicted.append(logits.detach().argmax(1).numpy())
        values.append((gradient.mean((2, 3), keepdim=True) * chosen).sum(1).clamp(min=0).float().numpy())
    return SwitchMaps(
        keys=tuple(pictures.keys[place] for place in places),
        names=tuple(name for name, _, _ in settings),
        explained=explained.numpy(),
        predicted=np.stack(predicted),
        values=np.stack(values),
    )
