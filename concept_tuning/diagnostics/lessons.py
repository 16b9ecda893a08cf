"""What lessons compute: small worlds whose numbers are exact, and what a sanity check of maps tells.

The worlds: a telling part, a shortcut, a front door, a transport plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from concept_tuning.config import PlantedConfig
from concept_tuning.data.planted import SceneKey, planted_table, render, species_pairs
from concept_tuning.data.table import SPLITS

#: How much of a picture is left where a part is shown alone.
_DIMMED = 0.25
#: Probability that the mediator follows its cause, and its effect on the answer.
_FOLLOWS, _EFFECT = 0.9, 0.5
#: Regularisation so small that each point has one partner, and the least share of a point that makes a partner.
_SHARP, _PARTNER = 0.002, 0.5
#: Rank correlation below which maps are not alike, and how much more or less than chance counts.
_ALIKE, _APART = 0.5, 0.2

#: Why a point of a plan goes where it does, see :func:`explain_partner`.
Reason = Literal["nearest", "needed", "soft"]
#: What is left of maps of random weights, see :func:`randomised_outcome`.
Outcome = Literal["changed", "unclear", "same", "blank"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LookAlikes:
    """Two look-alike species in one scene.

    Attributes:
        names: Of the two.
        images: (2, s, s, 3) uint8, alike but for the part.
        marked: (2, s, s, 3) uint8, dimmed but for the part.
        part: Its name.
        share: Of the pixels that belong to it, 0..1, mean of the two.
    """

    names: tuple[str, str]
    images: np.ndarray
    marked: np.ndarray
    part: str
    share: float


def look_alikes(pair: int, number: int, *, side: int = 224) -> LookAlikes:
    """Draw both species of a pair in the same scene.

    Args:
        pair: From 0.
        number: Of the scene; its habitat is the first species' own or the second's in turn.
        side: Of the pictures, in pixels.
    """
    config = PlantedConfig(species=16, draw_size=side)
    found = species_pairs(config)[pair]
    scene = SceneKey(seed=0, split=SPLITS.index("test"), number=number)
    habitats = planted_table(replace(config, images=8, validation_images=8, test_images=8), seed=0).group_names
    habitat = habitats.index(found.homes[number % 2])
    drawn = [
        render(config, species=species, habitat=habitat, scene=scene, part_visible=True) for species in found.species
    ]
    masks = [one.masks[f"part:{found.part}"] for one in drawn]
    marked = [
        np.where(mask[..., None], one.image, _DIMMED * one.image).astype(np.uint8)
        for one, mask in zip(drawn, masks, strict=True)
    ]
    return LookAlikes(
        names=found.names,
        images=np.stack([one.image for one in drawn]),
        marked=np.stack(marked),
        part=found.part,
        share=float(np.mean(masks)),
    )


@dataclass(frozen=True, kw_only=True)
class HabitatGuess:
    """Who looks at the habitat alone, and says the species most frequent there in training.

    Attributes:
        rho: Correlation of habitat and species in training.
        train: Share of the training pictures guessed right, 0..1.
        test: Share of the test pictures, where every species is in every habitat equally often.
    """

    rho: float
    train: float
    test: float


def guess_by_habitat(rho: float, *, images: int = 2000, seed: int = 0) -> HabitatGuess:
    """Guess the species of planted birds (4 species, 4 habitats) by the habitat alone."""
    table = planted_table(PlantedConfig(rho=rho, images=images, test_images=800), seed=seed)
    if table.groups is None or table.splits is None:
        raise ValueError("planted birds have groups and splits")
    train, test = (table.splits == SPLITS.index(name) for name in ("train", "test"))
    counts = np.zeros((len(table.group_names), len(table.class_names)), dtype=np.int64)
    np.add.at(counts, (table.groups[train], table.labels[train]), 1)
    right = counts.argmax(1)[table.groups] == table.labels
    return HabitatGuess(rho=rho, train=float(right[train].mean()), test=float(right[test].mean()))


@dataclass(frozen=True, kw_only=True)
class FrontDoorWorld:
    """Effect of a picture on the answer, in a world of four yes-or-no variables that is known exactly.

    U (unseen) acts on X and Y; X acts on Y through M alone.

    Attributes:
        observed: P(Y=1 | X=1) - P(Y=1 | X=0), what one sees.
        adjusted: The same by the front-door formula, from P(X, M, Y) alone.
        true: P(Y=1 | do(X=1)) - P(Y=1 | do(X=0)), what X does.
    """

    observed: float
    adjusted: float
    true: float


def front_door_world(confounding: float) -> FrontDoorWorld:
    """Compute the three contrasts (front-door criterion: Pearl, Causality, 2nd edition, section 3.3.2).

    Args:
        confounding: Strength of U on X and on Y, 0..1; 0: none.
    """
    sign = np.array([-1.0, 1.0])
    x_of_u = _bernoulli(0.5 + 0.45 * confounding * sign)  # (u, x)
    m_of_x = _bernoulli(0.5 + (_FOLLOWS - 0.5) * sign)  # (x, m)
    y_of_mu = _bernoulli(0.5 + 0.5 * _EFFECT * sign[:, None] + 0.25 * confounding * sign[None, :])  # (m, u, y)
    joint = 0.5 * np.einsum("ux,xm,muy->uxmy", x_of_u, m_of_x, y_of_mu)
    seen = joint.sum(0)  # (x, m, y)
    y_of_x = seen.sum(1)[:, 1] / seen.sum((1, 2))
    y_of_xm = seen[..., 1] / seen.sum(2)
    adjusted = np.einsum("am,bm,b->a", m_of_x, y_of_xm, seen.sum((1, 2)))
    true = 0.5 * np.einsum("xm,mu->x", m_of_x, y_of_mu[..., 1])
    observed, adjusted, true = (float(values[1] - values[0]) for values in (y_of_x, adjusted, true))
    return FrontDoorWorld(observed=observed, adjusted=adjusted, true=true)


def points_plan(first: np.ndarray, second: np.ndarray, *, epsilon: float = 0.05) -> np.ndarray:
    """Return the entropic transport plan between two sets of points under the squared distance.

    Args:
        first: (P, 2).
        second: (Q, 2).
        epsilon: Entropic regularisation, in units of the squared distance.

    Returns:
        (P, Q) float64; it sums to 1.
    """
    import torch

    from concept_tuning.losses.sinkhorn import transport_plan

    cost = ((first[:, None] - second[None]) ** 2).sum(2)
    plan = transport_plan(torch.from_numpy(cost)[None], epsilon=epsilon, max_iterations=5000, tolerance=1e-6)
    return plan[0].numpy()


@dataclass(frozen=True, kw_only=True)
class Partner:
    """Whom a point of the second set takes most from.

    Attributes:
        place: That point of the first set, from 0.
        share: Of what the point takes, 0..1.
        nearest: The nearest point of the first set.
        sharp: Whom it would take most from if each point had one partner.
        reason: ``soft`` where it has no partner, or another than in the sharp plan, because the plan spreads;
            ``nearest``; else ``needed``, since giving it the nearest would cost the others more.
    """

    place: int
    share: float
    nearest: int
    sharp: int
    reason: Reason


def explain_partner(
    first: np.ndarray, second: np.ndarray, place: int, *, epsilon: float, plan: np.ndarray | None = None
) -> Partner:
    """Tell why a point of the second set goes where it does, by comparing its plan with a sharp one.

    Args:
        first: (P, 2).
        second: (Q, 2).
        place: Of the point, 0..Q-1.
        epsilon: Entropic regularisation of its plan, see :func:`points_plan`.
        plan: That plan, where it is known.
    """
    plan = points_plan(first, second, epsilon=epsilon) if plan is None else plan
    taken = plan[:, place]
    exact = plan if epsilon == _SHARP else points_plan(first, second, epsilon=_SHARP)
    found, sharp = int(taken.argmax()), int(exact[:, place].argmax())
    share = float(taken[found] / taken.sum())
    distances = ((first - second[place]) ** 2).sum(1)
    nearest = found if distances[found] <= distances.min() + 1e-9 else int(distances.argmin())
    reason: Reason = "nearest" if nearest == found else "needed"
    if share < _PARTNER or (reason == "needed" and sharp != found):
        reason = "soft"
    return Partner(place=found, share=share, nearest=nearest, sharp=sharp, reason=reason)


def randomised_outcome(left: float, chance: float) -> Outcome:
    """Tell what a sanity check says of a kind of map.

    Args:
        left: Mean rank correlation of the trained network's maps with those of random weights, -1..1.
        chance: That of the trained network's maps of different pictures.

    Returns:
        ``changed`` where little is left, or clearly less than chance; ``same`` where clearly more than chance is
        left; ``unclear`` where much is left, but maps of different pictures are about as alike; ``blank`` where
        either number is not defined.
    """
    if not (math.isfinite(left) and math.isfinite(chance)):
        return "blank"
    if left < max(_ALIKE, chance - _APART):
        return "changed"
    return "same" if left > chance + min(_APART, (1 - chance) / 2) else "unclear"


def _bernoulli(ones: np.ndarray) -> np.ndarray:
    return np.stack([1 - ones, ones], axis=-1)
