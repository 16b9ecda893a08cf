"""The outlines of a planted bird in a pose, from a few measures of its build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np

from concept_tuning.data.planted_drawing import SAMPLES, closed_curve
from concept_tuning.data.planted_species import PairDesign, PartName, PartVariant

_MARGIN = 0.035
_SCALES = (0.42, 0.57)
_TILTS = (-0.12, 0.24)
_NODS = ((-0.03, 0.03), (-0.03, 0.025))
_WAGS = (-8.0, 10.0)
_STRIDES = (0.15, 0.21)

_Rows = tuple[tuple[float, float], ...]

# Beaks from the upper root round the point to the lower root, in shares of length and depth; the second
# row of numbers is the upper half alone.
_BEAKS: dict[str, tuple[_Rows, _Rows]] = {
    "dagger": (
        ((0, -0.5), (0.35, -0.3), (0.7, -0.1), (1, 0), (0.6, 0.26), (0.25, 0.43), (0, 0.5)),
        ((0, -0.5), (0.35, -0.3), (0.7, -0.1), (1, 0), (0.5, 0.06), (0, 0.08)),
    ),
    "hook": (
        ((0, -0.5), (0.4, -0.5), (0.75, -0.28), (0.95, 0.15), (0.93, 0.68), (0.72, 0.34), (0.5, 0.46), (0, 0.46)),
        ((0, -0.5), (0.4, -0.5), (0.75, -0.28), (0.95, 0.15), (0.93, 0.68), (0.68, 0.24), (0.3, 0.12), (0, 0.14)),
    ),
    "blunt": (
        ((0, -0.5), (0.4, -0.48), (0.74, -0.24), (0.84, 0.08), (0.66, 0.34), (0.34, 0.46), (0, 0.46)),
        ((0, -0.5), (0.4, -0.48), (0.74, -0.24), (0.84, 0.08), (0.5, 0.12), (0, 0.12)),
    ),
}
# Far ends of a tail: share of its length relative to the end, and share of its half width.
_TAIL_ENDS: dict[str, _Rows] = {
    "round": ((-0.05, 0.92), (0.0, 0.4), (0.0, -0.4), (-0.05, -0.92)),
    "square": ((0.0, 1.0), (-0.01, 0.3), (-0.01, -0.3), (0.0, -1.0)),
    "fork": ((0.04, 1.15), (-0.02, 0.7), (-0.13, 0.0), (-0.02, -0.7), (0.04, -1.15)),
}
# Crest feathers in degrees above the head's axis and head radii.
_CRESTS: dict[str, tuple[_Rows, ...]] = {
    "spikes": (
        ((62, 0.9), (96, 1.85), (90, 0.85)),
        ((82, 0.9), (122, 2.28), (120, 0.85)),
        ((112, 0.9), (148, 2.12), (152, 0.85)),
    ),
    "fan": tuple(
        ((c - 9, 0.85), (c - 11, 1.7), (c, 1.95), (c + 11, 1.7), (c + 9, 0.85)) for c in (66.0, 88.0, 110.0, 132.0)
    ),
    "plume": (((70, 0.85), (88, 1.45), (118, 1.82), (150, 2.25), (163, 2.1), (143, 1.45), (135, 0.85)),),
}
_CURVED_CRESTS = ("fan", "plume")
_WING: _Rows = (
    (0.0, 0.05), (0.12, -0.36), (0.4, -0.5), (0.75, -0.28), (1.0, 0.12), (0.72, 0.34), (0.4, 0.55), (0.12, 0.42)
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How a bird stands in the picture; the same whatever its species within a pair and its habitat.

    Attributes:
        facing: 1 facing right, -1 facing left.
        tilt: Body angle in radians, positive beak up.
        nod: Shift of the head in body units.
        wag: Change of the tail's angle, in degrees.
        stride: Distance of the two feet, in body units.
        scale: Canvas pixels for one body unit.
        centre: The body's centre, in canvas pixels.
        tint: Factors on the red, green and blue of every colour of the bird.
        light: Unit vector towards the light, in the picture.
    """

    facing: int
    tilt: float
    nod: tuple[float, float]
    wag: float
    stride: float
    scale: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: tuple[float, float] = (0.0, -1.0)

    @cached_property
    def _turn(self) -> np.ndarray:
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return np.array([[cos * self.facing, -sin], [sin * self.facing, cos]]) * self.scale

    def place(self, points: np.ndarray) -> np.ndarray:
        """Bring (P, 2) points from the body's frame into the picture."""
        return points @ self._turn + self.centre

    def place_upright(self, points: np.ndarray) -> np.ndarray:
        """Bring (P, 2) points measured from the body's centre, but not turned with it, into the picture."""
        return points * (self.scale * self.facing, self.scale) + self.centre


def draw_pose(design: PairDesign, rng: np.random.Generator, side: int) -> Pose:
    """Draw a pose that keeps the whole bird, with either species' part, inside the picture.

    Args:
        design: The pair, whose measures say how much room the bird takes.
        rng: The bird's own stream.
        side: Side of the canvas, in canvas pixels.
    """
    angle = rng.uniform(-0.6, 0.6)
    red, green, blue = (rng.uniform(0.93, 1.05) * rng.uniform(0.98, 1.02, 3)).tolist()
    pose = Pose(
        facing=1 if rng.random() < 0.5 else -1,
        tilt=rng.uniform(*_TILTS),
        nod=(rng.uniform(*_NODS[0]), rng.uniform(*_NODS[1])),
        wag=rng.uniform(*_WAGS),
        stride=rng.uniform(*_STRIDES),
        tint=(red, green, blue),
        light=(float(np.sin(angle)), float(-np.cos(angle))),
    )
    turned, upright = _room(design)
    corners = np.concatenate([pose.place(turned), pose.place_upright(upright)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = side * (1 - 2 * _MARGIN)
    scale = min(rng.uniform(*_SCALES) * design.build.size * side, room / float((high - low).max()))
    shift = np.array([rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.75)])
    x, y = (side * _MARGIN - low * scale + (room - (high - low) * scale) * shift).tolist()
    return replace(pose, scale=scale, centre=(x, y))


@lru_cache(maxsize=64)
def _room(design: PairDesign) -> tuple[np.ndarray, np.ndarray]:
    """Points that a bird of the pair can reach in any pose: in the body's frame, and upright."""
    turned, upright = [], []
    for variant, nod_x, nod_y, wag, stride in product(design.variants, *_NODS, _WAGS, _STRIDES):
        pose = Pose(facing=1, tilt=0.0, nod=(nod_x, nod_y), wag=wag, stride=stride)
        figure = Figure(design, variant, pose)
        turned += [figure.silhouette, figure.tail(), figure.tail_tip(), *figure.crest(), *figure.beak(), figure.wing()]
        upright += [foot for _, foot in figure.legs()]
    return np.unique(np.concatenate(turned).round(4), axis=0), np.unique(np.concatenate(upright).round(4), axis=0)


class Figure:
    """The outlines of one bird in one pose, in the body's frame: its centre at (0, 0), facing right, y down.

    Args:
        design: The pair it belongs to.
        variant: Which of the two species it is.
        pose: How it stands.
        hidden: The part that is not shown; its outline is then of no use. A hidden beak is tucked in with
            the head drawn back, and the end of a tail is drawn under the rest, which ends round.
    """

    def __init__(self, design: PairDesign, variant: PartVariant, pose: Pose, *, hidden: PartName | None = None) -> None:
        self.design = design
        self.variant = variant
        self.pose = pose
        self.hidden = hidden
        self.head = np.array(design.build.head) + pose.nod
        if hidden == "beak":
            self.head += (-0.09, 0.06)

    def shape(self, part: PartName, usual: str) -> str:
        """Shape of a part: the species' own where it differs there, else the usual one."""
        return self.variant.shape if self.design.part == part else usual

    def around_head(self, rows: np.ndarray) -> np.ndarray:
        """Points given by (P, 2) degrees above the head's axis and distances in head radii."""
        turn = np.radians(rows[:, 0])
        reach = rows[:, 1] * self.design.build.head_radius
        return self.head + np.stack([np.cos(turn) * reach, -np.sin(turn) * reach], axis=1)

    @cached_property
    def silhouette(self) -> np.ndarray:
        """Body, neck and head: 16 control points, from the tail's upper root over back, head and belly."""
        build = self.design.build
        front = np.array([0.55, -0.35]) * build.body
        along = (self.head - front) / np.linalg.norm(self.head - front)
        across = np.array([along[1], -along[0]]) * build.neck / 2
        neck = (self.head + front) / 2
        back = np.array([(-0.98, -0.22), (-0.5, -0.78), (0.08, -0.98)]) * build.body
        belly = np.array([(0.93, 0.08), (0.66, 0.72), (0.05, 1.0), (-0.6, 0.66), (-0.99, 0.16)]) * build.body
        head = self.around_head(np.array([(168, 1), (125, 1), (82, 1), (40, 1), (0, 1), (-45, 1)]))
        return closed_curve(np.concatenate([back, [neck + across], head, [neck - 0.9 * across], belly]))

    def arc(self, first: float, last: float) -> np.ndarray:
        """Part of the silhouette between two control points."""
        return self.silhouette[round(first * SAMPLES) : round(last * SAMPLES) + 1]

    def on_tail(self, rows: np.ndarray) -> np.ndarray:
        """Points given by (P, 2) shares of the tail's length and of its half width there."""
        build = self.design.build
        length, narrow, wide = build.tail
        drop = np.radians(build.tail_drop + self.pose.wag)
        along, across = np.array([[-np.cos(drop), np.sin(drop)], [np.sin(drop), np.cos(drop)]])
        half = (narrow + (wide - narrow) * rows[:, :1]) / 2
        root = np.array([-0.8 * build.body[0], 0.0])
        return root + along * rows[:, :1] * (length + 0.2 * build.body[0]) + across * rows[:, 1:] * half

    def _tail_piece(self, start: float, end: float, shape: str) -> np.ndarray:
        rows = [(start, -1.0), (start, 1.0), *((end + step, side) for step, side in _TAIL_ENDS[shape])]
        return self.on_tail(np.array(rows))

    def tail(self) -> np.ndarray:
        """The tail as far as it is plain."""
        start = 1 - self.design.build.tip
        if self.hidden == "tail tip":
            return self._tail_piece(0.0, start, "round")
        return self._tail_piece(0.0, start + 0.02, "square")

    def tail_tip(self) -> np.ndarray:
        """The end of the tail."""
        return self._tail_piece(1 - self.design.build.tip, 1.0, self.shape("tail tip", "round"))

    def crest(self) -> list[np.ndarray]:
        """The crest's feathers; none for a bird without a crest."""
        if self.design.part != "crest":
            return []
        feathers = [self.around_head(np.array(rows)) for rows in _CRESTS[self.variant.shape]]
        return [closed_curve(rows) for rows in feathers] if self.variant.shape in _CURVED_CRESTS else feathers

    def beak(self) -> tuple[np.ndarray, np.ndarray]:
        """Outline of the closed beak, and of its upper half."""
        build = self.design.build
        root = self.head + build.head_radius * np.array([0.86, 0.08])

        def half(rows: _Rows) -> np.ndarray:
            points = np.array(rows) * build.beak
            points[:, 1] += build.beak_droop * np.clip(points[:, 0] / build.beak[0], 0, None) ** 2
            return root + points

        whole, upper = _BEAKS[self.shape("beak", "dagger")]
        return half(whole), half(upper)

    def legs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Upper leg and foot of both legs, far one first, upright: measured from the body's centre."""
        upper, lower, thick = self.design.build.legs
        hip = 0.9 * self.design.build.body[1]
        knee = hip + 0.02 + upper
        pairs = []
        for x in (0.02 + self.pose.stride / 2, 0.02 - self.pose.stride / 2):
            wide, narrow = 0.6 * thick, 0.45 * thick
            thigh = [
                (x - wide, hip - 0.06),
                (x + wide, hip - 0.06),
                (x + narrow, knee + 0.01),
                (x - narrow, knee + 0.01),
            ]
            pairs.append((np.array(thigh), _foot(x, knee, knee + lower, thick / 2, self.shape("feet", "toes"))))
        return pairs

    def on_wing(self, rows: np.ndarray) -> np.ndarray:
        """Points given by (P, 2) shares of the wing's length, backwards from its front, and of its depth."""
        length, depth = self.design.build.wing
        return np.array([0.5, -0.3]) * self.design.build.body + rows * (-length, depth) + (0.0, 0.06 * depth)

    def wing(self) -> np.ndarray:
        """Outline of the folded wing, upper edge first."""
        return closed_curve(self.on_wing(np.array(_WING)))


def _foot(x: float, knee: float, sole: float, half: float, shape: str) -> np.ndarray:
    """Shank and toes, the toes pointing forwards from a shank at ``x`` of half width ``half``."""
    if shape == "webbed":
        toes = [(half, -0.075), (0.2, -0.018), (0.205, 0.0), (-0.055, 0.0), (-half, -0.05)]
    else:
        toes = [(half, -0.06), (0.12, -0.035), (0.165, 0.0), (0.1, -0.008), (0.03, 0.0), (-0.1, 0.0), (-half, -0.05)]
    return np.array([(x - half, knee), (x + half, knee), *((x + step, sole + rise) for step, rise in toes)])
