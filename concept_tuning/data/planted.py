"""Planted birds: drawn pictures whose rare feature and whose shortcut are known.

Bird species come in pairs that look alike but for one small part (feet, crest, beak or the tip of the tail),
the rare feature: at most 2 % of the pixels from 96 pixels a side up. In training, a species is mostly seen in
its own habitat, the shortcut: ``planted.rho`` sets how often, ``planted.rarity`` how often the part can be
seen at all. Every picture is drawn from (seed, split, number) alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import PIL

from concept_tuning.config import PlantedConfig
from concept_tuning.data.planted_bird import PART_LABELS, paint_bird
from concept_tuning.data.planted_drawing import BIRD, Canvas, closed_curve, developed
from concept_tuning.data.planted_figure import Figure, draw_pose
from concept_tuning.data.planted_habitats import Perch, paint_cover, paint_habitat
from concept_tuning.data.planted_species import HABITATS, PAIRS
from concept_tuning.data.table import SPLITS, ImageTable

DRAWING_VERSION = 1
"""To be raised with every change of what is drawn, so that no cache of older pictures is used."""

# Purposes of the random streams: of a scene, and of the columns of a split.
_POSE, _COVER, _LIGHT, _SCENERY = 0, 1, 2, 10
_SPECIES, _AT_HOME, _HABITAT, _BALANCED, _SHOWN = 100, 101, 102, 103, 104


class SceneKey(NamedTuple):
    """What a scene is drawn from: the data seed, the split's code in :data:`SPLITS`, and the picture's number."""

    seed: int
    split: int
    number: int


@dataclass(frozen=True)
class Scene:
    """A drawn picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: ``object`` (the bird) and ``part:feet``, ``part:crest``, ``part:beak``, ``part:tail tip``,
            each (H, W) bool; empty for a part that is hidden or that the bird has not.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SpeciesPair:
    """Two species that differ in one part.

    Attributes:
        species: Their class indices.
        names: Their class names.
        homes: Names of their own habitats, which differ.
        part: Name of the part in which they differ; its mask is ``part:<name>``.
    """

    species: tuple[int, int]
    names: tuple[str, str]
    homes: tuple[str, str]
    part: str


def species_pairs(config: PlantedConfig) -> tuple[SpeciesPair, ...]:
    """The pairs of look-alike species, in the order of the classes."""
    return tuple(
        SpeciesPair(
            species=(2 * number, 2 * number + 1),
            names=design.names(),
            homes=(HABITATS[design.homes[0]], HABITATS[design.homes[1]]),
            part=design.part,
        )
        for number, design in enumerate(PAIRS[: config.species // 2])
    )


def render(config: PlantedConfig, *, species: int, habitat: int, scene: SceneKey, part_visible: bool) -> Scene:
    """Draw one scene, also with another species or habitat than it has in the data set (a counterfactual).

    The bird's pose, the light and the noise have streams of their own. So another habitat leaves the
    bird's outline and colours as they are, and the other species of the pair changes only the part in
    which the two differ: nothing at all where it is hidden.

    Args:
        config: ``species`` and ``draw_size`` are used.
        species: Class index.
        habitat: Index into the group names: water, forest, sand, sky.
        scene: What pose, scenery, light and noise are drawn from.
        part_visible: Whether the part that tells the species is shown.

    Raises:
        ValueError: There is no such species or habitat.
    """
    canvas = _drawn(config, species, habitat, scene, part_visible)
    return Scene(developed(canvas.picture(), _stream(scene, _LIGHT)), _masks(canvas))


def planted_table(config: PlantedConfig, *, seed: int) -> ImageTable:
    """List the planted birds; they are drawn when read.

    Every split is balanced over the species. Training draws habitats and visibility with ``rho`` and
    ``rarity``, and so does validation if it is like training. The test, and validation if it is balanced,
    is balanced over species and habitats, and the telling part is always visible there. Picture i of a
    split stays the same when the number of pictures changes, and with another ``rho`` or ``rarity`` keeps
    its species, pose and light. No two splits share a scene.

    Args:
        config: Numbers of species and pictures, correlation, rarity, kind of validation and size.
        seed: From 0; other seeds give other pictures.

    Returns:
        The table, its groups the habitats and its splits given. ``read``, ``stamp``, ``identity`` and ``masks`` take a
        row and draw only that picture; they can be pickled and called from several threads.
    """
    counts = (config.images, config.validation_images, config.test_images)
    parts = [_assigned(config, seed, split, count) for split, count in enumerate(counts)]
    species, habitats, shown = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    splits = np.repeat(np.arange(len(SPLITS), dtype=np.int8), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    birds = _Birds(config, seed, species, habitats, shown, splits, numbers)
    like_training = config.validation == "like-training"
    return ImageTable(
        source="planted",
        class_names=tuple(name for pair in species_pairs(config) for name in pair.names),
        group_names=HABITATS,
        keys=tuple(
            f"{name}/{number:06d}" for name, count in zip(SPLITS, counts, strict=True) for number in range(count)
        ),
        labels=species,
        groups=habitats,
        splits=splits,
        read=birds.read,
        stamp=birds.stamp,
        identity=birds.identity,
        masks=birds.masks,
        validation_note="like training" if like_training else "balanced over habitats",
    )


@dataclass(frozen=True, eq=False)
class _Birds:
    """The columns of a table, and how one of its rows is drawn."""

    config: PlantedConfig
    seed: int
    species: np.ndarray
    habitats: np.ndarray
    shown: np.ndarray
    splits: np.ndarray
    numbers: np.ndarray
    recipe: str = field(init=False)

    def __post_init__(self) -> None:
        text = f"planted drawing={DRAWING_VERSION} size={self.config.draw_size} seed={self.seed}"
        object.__setattr__(self, "recipe", text)

    def read(self, row: int) -> np.ndarray:
        return developed(self._canvas(row).picture(), _stream(self._scene(row), _LIGHT))

    def masks(self, row: int) -> dict[str, np.ndarray]:
        return _masks(self._canvas(row))

    def stamp(self, row: int) -> str:
        return f"pillow={PIL.__version__} {self.identity(row)}"

    def identity(self, row: int) -> str:
        scene = self._scene(row)
        return (
            f"{self.recipe} scene={SPLITS[scene.split]}/{scene.number} species={self.species[row]} "
            f"habitat={HABITATS[self.habitats[row]]} shown={int(self.shown[row])}"
        )

    def _scene(self, row: int) -> SceneKey:
        return SceneKey(self.seed, int(self.splits[row]), int(self.numbers[row]))

    def _canvas(self, row: int) -> Canvas:
        species, habitat, shown = int(self.species[row]), int(self.habitats[row]), bool(self.shown[row])
        return _drawn(self.config, species, habitat, self._scene(row), shown)


def _assigned(config: PlantedConfig, seed: int, split: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Species, habitat and visibility of a split's pictures; a longer split only adds to a shorter one.

    Pictures come in rounds, each with every species once, in random order. Balanced habitats come in blocks
    of as many rounds as there are habitats: within a block each species is in each habitat once.
    """

    def uniform(purpose: int, *shape: int) -> np.ndarray:
        return _stream(SceneKey(seed, split, 0), purpose).random(shape)

    kinds, places = config.species, len(HABITATS)
    rounds = -(-count // kinds)
    species = uniform(_SPECIES, rounds, kinds).argsort(axis=1, kind="stable").ravel()[:count]
    if SPLITS[split] == "test" or (SPLITS[split] == "val" and config.validation == "balanced"):
        turn, block = np.arange(count) // kinds, np.arange(count) // (kinds * places)
        ranks = uniform(_BALANCED, -(-rounds // places), kinds + places)
        order = ranks[:, :places].argsort(axis=1, kind="stable")
        start = ranks[:, places:].argsort(axis=1, kind="stable")
        habitats = order[block, (start[block, species] + turn) % places]
        return species.astype(np.int64), habitats.astype(np.int64), np.ones(count, dtype=bool)
    homes = np.array([home for design in PAIRS for home in design.homes])
    anywhere = (uniform(_HABITAT, count) * places).astype(np.int64)
    habitats = np.where(uniform(_AT_HOME, count) < config.rho, homes[species], anywhere)
    return species.astype(np.int64), habitats.astype(np.int64), uniform(_SHOWN, count) < config.rarity


def _stream(scene: SceneKey, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*scene, purpose])))


def _drawn(config: PlantedConfig, species: int, habitat: int, scene: SceneKey, part_visible: bool) -> Canvas:
    if not 0 <= species < config.species:
        raise ValueError(f"species must be in 0..{config.species - 1}, got {species}")
    if not 0 <= habitat < len(HABITATS):
        raise ValueError(f"habitat must be in 0..{len(HABITATS) - 1}, got {habitat}")
    design = PAIRS[species // 2]
    canvas = Canvas(config.draw_size)
    pose = draw_pose(design, _stream(scene, _POSE), canvas.side)
    figure = Figure(design, design.variants[species % 2], pose, hidden=None if part_visible else design.part)
    perch = _perch(figure, _stream(scene, _COVER))
    scenery = _stream(scene, _SCENERY + habitat)
    paint_habitat(canvas, habitat, scenery, perch)
    paint_bird(canvas, figure)
    paint_cover(canvas, habitat, scenery, perch)
    return canvas


def _perch(figure: Figure, rng: np.random.Generator) -> Perch:
    """Where the bird stands; with its feet folded, it sits at the height where they would begin."""
    pose, legs = figure.pose, figure.legs()
    knees = pose.place_upright(np.concatenate([thigh for thigh, _ in legs]))
    x, y, half = float(knees[:, 0].mean()), float(knees[:, 1].max()), 0.26
    if figure.hidden != "feet":
        soles = pose.place_upright(np.concatenate([foot for _, foot in legs]))
        return Perch(x=x, y=float(soles[:, 1].max()), unit=pose.scale, cover=None)
    if figure.design.build.legs[0] == 0:
        outline = pose.place(figure.silhouette)
        x, y = outline[outline[:, 1].argmax()].tolist()
        half = 0.42
    y -= 0.04 * pose.scale
    across = np.linspace(-1, 1, 9)
    top = -0.05 * (1 - across**2) + rng.uniform(-0.012, 0.012, 9)
    bottom = 0.15 * np.sqrt(1 - 0.9 * across**2)
    heights = np.concatenate([top, bottom[-2:0:-1]])
    rim = np.stack([half * np.concatenate([across, across[-2:0:-1]]), heights], axis=1)
    return Perch(x=x, y=y + 0.03 * pose.scale, unit=pose.scale, cover=closed_curve(rim) * pose.scale + (x, y))


def _masks(canvas: Canvas) -> dict[str, np.ndarray]:
    masks = {"object": canvas.mask(BIRD, *PART_LABELS.values())}
    return masks | {f"part:{name}": canvas.mask(label) for name, label in PART_LABELS.items()}
