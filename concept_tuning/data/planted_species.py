"""The species of planted birds: eight pairs, alike but for the colour or shape of one small part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from concept_tuning.data.planted_drawing import Colour

PartName = Literal["feet", "crest", "beak", "tail tip"]

PARTS: tuple[PartName, ...] = ("feet", "crest", "beak", "tail tip")
HABITATS: tuple[str, ...] = ("water", "forest", "sand", "sky")

_ENDINGS: dict[str, str] = {"feet": "footed", "crest": "crested", "beak": "billed", "tail tip": "tipped"}


@dataclass(frozen=True, kw_only=True)
class Build:
    """Body measures; lengths in units of roughly a body length, the body's centre at (0, 0), facing right, y down.

    Attributes:
        body: Half length and half depth of the body.
        head: Centre of the head.
        head_radius: Radius of the head.
        neck: Width of the neck halfway between body and head.
        tail: Length, width where it leaves the body, and width at its end.
        tail_drop: Angle of the tail below the body's axis, in degrees.
        beak: Length and depth.
        tip: Share of the tail's length that is its tip.
        beak_droop: How far the beak's point lies below the middle of its root.
        legs: Length of the upper leg, of the foot with its shank, and thickness.
        wing: Length and depth.
        size: Factor of the drawn size.
    """

    body: tuple[float, float]
    head: tuple[float, float]
    head_radius: float
    neck: float
    tail: tuple[float, float, float]
    tail_drop: float
    beak: tuple[float, float]
    beak_droop: float = 0.02
    tip: float = 0.22
    legs: tuple[float, float, float] = (0.02, 0.2, 0.05)
    wing: tuple[float, float] = (0.85, 0.3)
    size: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plumage:
    """Colours that both species of a pair share, and the pattern of the breast."""

    back: Colour
    belly: Colour
    head: Colour
    cap: Colour
    wing: Colour
    wing_tip: Colour
    bar: Colour | None = None
    tail: Colour
    beak: Colour
    feet: Colour
    stripe: Colour | None = None
    spots: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class PartVariant:
    """How one species of a pair wears the part in which the two differ."""

    word: str
    colour: Colour
    shape: str


@dataclass(frozen=True, kw_only=True)
class PairDesign:
    """A pair of look-alike species: what they share, and the one part in which they differ."""

    bird: str
    part: PartName
    variants: tuple[PartVariant, PartVariant]
    homes: tuple[int, int]
    build: Build
    plumage: Plumage

    def names(self) -> tuple[str, str]:
        """Return the two species' names, e.g. ``red-footed gull`` and ``blue-footed gull``."""
        first, second = (f"{variant.word}-{_ENDINGS[self.part]} {self.bird}" for variant in self.variants)
        return first, second


PAIRS: tuple[PairDesign, ...] = (
    PairDesign(
        bird="gull",
        part="feet",
        variants=(
            PartVariant(word="red", colour=(226, 52, 34), shape="webbed"),
            PartVariant(word="blue", colour=(36, 96, 236), shape="webbed"),
        ),
        homes=(0, 1),
        build=Build(
            body=(0.5, 0.25),
            head=(0.44, -0.33),
            head_radius=0.165,
            neck=0.27,
            tail=(0.26, 0.16, 0.2),
            tail_drop=6,
            beak=(0.21, 0.1),
            beak_droop=0.05,
            legs=(0.0, 0.235, 0.058),
            wing=(0.98, 0.28),
        ),
        plumage=Plumage(
            back=(226, 229, 233),
            belly=(242, 241, 236),
            head=(238, 239, 239),
            cap=(218, 222, 227),
            wing=(140, 152, 168),
            wing_tip=(38, 40, 48),
            tail=(238, 238, 238),
            beak=(238, 180, 48),
            feet=(226, 150, 60),
        ),
    ),
    PairDesign(
        bird="jay",
        part="crest",
        variants=(
            PartVariant(word="gold", colour=(250, 196, 24), shape="spikes"),
            PartVariant(word="violet", colour=(128, 44, 190), shape="spikes"),
        ),
        homes=(2, 3),
        build=Build(
            body=(0.44, 0.26),
            head=(0.36, -0.31),
            head_radius=0.19,
            neck=0.36,
            tail=(0.46, 0.13, 0.2),
            tail_drop=14,
            beak=(0.17, 0.1),
            legs=(0.0, 0.19, 0.042),
            wing=(0.7, 0.27),
        ),
        plumage=Plumage(
            back=(150, 92, 78),
            belly=(238, 206, 184),
            head=(168, 104, 88),
            cap=(134, 78, 68),
            wing=(66, 58, 68),
            wing_tip=(36, 34, 44),
            bar=(244, 240, 234),
            tail=(54, 46, 56),
            beak=(58, 52, 52),
            feet=(92, 76, 70),
            stripe=(40, 34, 38),
        ),
    ),
    PairDesign(
        bird="kingfisher",
        part="beak",
        variants=(
            PartVariant(word="coral", colour=(236, 70, 48), shape="dagger"),
            PartVariant(word="black", colour=(40, 36, 44), shape="dagger"),
        ),
        homes=(1, 2),
        build=Build(
            body=(0.4, 0.26),
            head=(0.3, -0.33),
            head_radius=0.225,
            neck=0.42,
            tail=(0.2, 0.14, 0.15),
            tail_drop=22,
            beak=(0.45, 0.14),
            beak_droop=0.05,
            legs=(0.0, 0.13, 0.045),
            wing=(0.66, 0.28),
        ),
        plumage=Plumage(
            back=(24, 128, 158),
            belly=(238, 148, 62),
            head=(28, 138, 168),
            cap=(16, 96, 140),
            wing=(18, 104, 142),
            wing_tip=(16, 58, 98),
            bar=(112, 206, 220),
            tail=(20, 84, 130),
            beak=(60, 52, 52),
            feet=(206, 92, 60),
            stripe=(250, 244, 232),
        ),
    ),
    PairDesign(
        bird="magpie",
        part="tail tip",
        variants=(
            PartVariant(word="amber", colour=(250, 158, 20), shape="round"),
            PartVariant(word="turquoise", colour=(26, 196, 190), shape="round"),
        ),
        homes=(3, 0),
        build=Build(
            body=(0.4, 0.22),
            head=(0.36, -0.28),
            head_radius=0.165,
            neck=0.32,
            tail=(0.66, 0.13, 0.2),
            tip=0.25,
            tail_drop=10,
            beak=(0.19, 0.1),
            legs=(0.0, 0.2, 0.042),
            wing=(0.62, 0.24),
            size=0.98,
        ),
        plumage=Plumage(
            back=(36, 36, 48),
            belly=(248, 248, 244),
            head=(30, 30, 40),
            cap=(44, 46, 66),
            wing=(44, 60, 106),
            wing_tip=(28, 30, 48),
            bar=(246, 246, 246),
            tail=(32, 42, 62),
            beak=(44, 42, 48),
            feet=(62, 56, 60),
        ),
    ),
    PairDesign(
        bird="heron",
        part="feet",
        variants=(
            PartVariant(word="yellow", colour=(246, 200, 30), shape="toes"),
            PartVariant(word="pink", colour=(236, 84, 148), shape="webbed"),
        ),
        homes=(0, 2),
        build=Build(
            body=(0.4, 0.2),
            head=(0.5, -0.56),
            head_radius=0.115,
            neck=0.14,
            tail=(0.2, 0.14, 0.16),
            tail_drop=18,
            beak=(0.3, 0.085),
            legs=(0.16, 0.22, 0.056),
            wing=(0.8, 0.26),
            size=1.01,
        ),
        plumage=Plumage(
            back=(132, 150, 172),
            belly=(226, 228, 230),
            head=(240, 240, 240),
            cap=(44, 50, 66),
            wing=(104, 122, 148),
            wing_tip=(52, 62, 84),
            tail=(94, 110, 134),
            beak=(226, 178, 70),
            feet=(70, 72, 70),
            stripe=(48, 54, 70),
        ),
    ),
    PairDesign(
        bird="hoopoe",
        part="crest",
        variants=(
            PartVariant(word="scarlet", colour=(224, 40, 40), shape="fan"),
            PartVariant(word="black", colour=(30, 26, 36), shape="plume"),
        ),
        homes=(1, 3),
        build=Build(
            body=(0.42, 0.21),
            head=(0.4, -0.3),
            head_radius=0.145,
            neck=0.24,
            tail=(0.34, 0.14, 0.2),
            tail_drop=6,
            beak=(0.32, 0.075),
            beak_droop=0.1,
            legs=(0.0, 0.15, 0.042),
            wing=(0.74, 0.26),
        ),
        plumage=Plumage(
            back=(226, 168, 112),
            belly=(246, 220, 184),
            head=(232, 176, 122),
            cap=(214, 152, 98),
            wing=(42, 38, 42),
            wing_tip=(28, 26, 30),
            bar=(250, 246, 238),
            tail=(40, 36, 40),
            beak=(66, 58, 58),
            feet=(96, 82, 78),
        ),
    ),
    PairDesign(
        bird="parakeet",
        part="beak",
        variants=(
            PartVariant(word="orange", colour=(250, 122, 22), shape="hook"),
            PartVariant(word="blue", colour=(56, 84, 196), shape="blunt"),
        ),
        homes=(2, 1),
        build=Build(
            body=(0.38, 0.24),
            head=(0.3, -0.34),
            head_radius=0.205,
            neck=0.4,
            tail=(0.52, 0.12, 0.08),
            tail_drop=26,
            beak=(0.2, 0.24),
            legs=(0.0, 0.13, 0.05),
            wing=(0.7, 0.27),
        ),
        plumage=Plumage(
            back=(88, 178, 60),
            belly=(206, 224, 92),
            head=(246, 222, 96),
            cap=(240, 190, 64),
            wing=(52, 144, 66),
            wing_tip=(30, 84, 110),
            bar=(232, 92, 76),
            tail=(40, 110, 124),
            beak=(110, 96, 90),
            feet=(128, 110, 104),
        ),
    ),
    PairDesign(
        bird="dove",
        part="tail tip",
        variants=(
            PartVariant(word="black", colour=(36, 34, 40), shape="square"),
            PartVariant(word="crimson", colour=(206, 26, 62), shape="fork"),
        ),
        homes=(0, 3),
        build=Build(
            body=(0.46, 0.27),
            head=(0.41, -0.31),
            head_radius=0.14,
            neck=0.25,
            tail=(0.46, 0.17, 0.26),
            tip=0.3,
            tail_drop=8,
            beak=(0.13, 0.06),
            legs=(0.0, 0.15, 0.045),
            wing=(0.8, 0.29),
        ),
        plumage=Plumage(
            back=(196, 164, 178),
            belly=(240, 214, 214),
            head=(208, 176, 190),
            cap=(178, 146, 170),
            wing=(178, 154, 172),
            wing_tip=(122, 104, 128),
            tail=(186, 164, 180),
            beak=(86, 74, 84),
            feet=(208, 96, 104),
            spots=(122, 96, 116),
        ),
    ),
)
