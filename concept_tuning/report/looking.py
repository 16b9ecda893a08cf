"""Chapters on where networks look: attribution maps with their controls, concepts, attentions and matches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from concept_tuning.diagnostics.attention_maps import ChannelLinks, PositionMaps
from concept_tuning.diagnostics.concept_maps import ConceptMaps
from concept_tuning.diagnostics.controls import ControlledMaps
from concept_tuning.diagnostics.picture_maps import PictureMaps
from concept_tuning.diagnostics.sanity import SanityCheck
from concept_tuning.figures.attention_maps import channel_figure, position_figure
from concept_tuning.figures.concept_maps import concept_figure
from concept_tuning.figures.controls import badge_figure, measure_figure
from concept_tuning.figures.labels import number, percent
from concept_tuning.figures.picture_maps import maps_strip
from concept_tuning.figures.sanity import sanity_figure
from concept_tuning.figures.transport_links import links_figure, plan_figure
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table

#: Pictures that are shown at once; the others are folded away.
_OPEN = 3
#: Most probable classes written above a picture.
_TOP = 3


def picture_maps(source: Source) -> list[Block]:
    """Return every picture with each run's prediction and maps."""
    found: dict[str, PictureMaps] = source.each("picture-maps")
    if not found:
        return []
    first = next(iter(found.values()))
    sheets = [_maps_of_picture(source, found, key, place) for place, key in enumerate(first.keys)]
    return _some_folded(sheets, "more pictures")


def _maps_of_picture(source: Source, found: dict[str, PictureMaps], key: str, place: int) -> list[Block]:
    blocks: list[Block] = []
    for run, result in found.items():
        order = np.argsort(-result.probabilities[place], kind="stable")[:_TOP]
        said = ", ".join(
            f"{result.class_names[label]} {percent(float(result.probabilities[place, label]), 0)}" for label in order
        )
        right = result.predicted[place] == result.labels[place]
        label = result.class_names[int(result.labels[place])]
        maps = {name: result.values[number, place] for number, name in enumerate(result.names)}
        blocks.append(
            Chart(
                figure=maps_strip(key, source.thumbnails.image(key), maps, title="picture"),
                heading=f"{label} · {run}: {'right' if right else 'wrong'}",
                caption=f"{key}. {run} says {said}. Maps explain its first answer; bright is where it comes from.",
            )
        )
    return blocks


def controls(source: Source) -> list[Block]:
    """Return the measures of each run's maps beside those of the controls, and who beats whom."""
    blocks: list[Block] = []
    for run, result in source.each("controls").items():
        blocks += [
            Chart(
                figure=measure_figure(result),
                heading=run,
                caption=f"{_averaged(result)} Where a control lies at or beyond the map, the map shows nothing that a "
                "map which knows nothing would not show. Outside mass: less is better; all else: more.",
            ),
            _badges(run, result),
            Fold(
                title=f"Which control each map of {run} beats",
                blocks=[
                    Chart(
                        figure=badge_figure(result),
                        caption="A map earns a badge where the 95 % paired interval of its advantage is above zero.",
                    )
                ],
            ),
            *(Note(text=f"{run}, {one.analysis}: {one.reason}") for one in result.unavailable),
        ]
    return blocks


def _averaged(result: ControlledMaps) -> str:
    """Return in words over which pictures each measure's means are."""
    counts: dict[str, set[int]] = {}
    for one in result.values:
        counts.setdefault(one.measure, set()).add(one.n)
    same = ", ".join(f"{measure} over {max(of)}" for measure, of in counts.items() if len(of) == 1)
    own = ", ".join(f"{measure} ({min(of)} to {max(of)})" for measure, of in counts.items() if len(of) > 1)
    text = f"Means over the pictures for which neither the map nor any control is blank: {same}." if same else ""
    return f"{text} Means over each one's own pictures, which differ: {own}.".strip() if own else text


def badge_counts(result: ControlledMaps) -> dict[str, dict[str, tuple[int, int]]]:
    """Return by map and measure how many controls the map beats, of how many it was compared with."""
    counts: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in result.maps}
    for badge in result.badges:
        won, of = counts[badge.map].get(badge.measure, (0, 0))
        counts[badge.map][badge.measure] = (won + badge.beats, of + 1)
    return counts


def _badges(run: str, result: ControlledMaps) -> Table:
    counts = badge_counts(result)
    measures = list(dict.fromkeys(badge.measure for badge in result.badges))
    rows = [
        [name, *(f"{won} of {of}" if (won, of) != (0, 0) else "–" for won, of in (by.get(m, (0, 0)) for m in measures))]
        for name, by in counts.items()
    ]
    return Table(
        columns=["map", *measures],
        rows=rows,
        caption=f"{run}: how many of its controls (randomised weights, random, centre, edges) each map beats.",
    )


def sanity(source: Source) -> list[Block]:
    """Return how the maps of each run change while its network is randomised."""
    return [
        Chart(
            figure=sanity_figure(result),
            heading=run,
            caption=f"Rank correlation with the trained network's maps while weights are randomised from the head "
            f"down, over {len(result.keys)} pictures. It should fall to chance; a map that does not, shows the "
            "picture rather than the network.",
        )
        for run, result in _sanity(source).items()
    ]


def _sanity(source: Source) -> dict[str, SanityCheck]:
    return source.each("sanity")


def concept_maps(source: Source) -> list[Block]:
    """Return every picture's concepts, the runs below each other."""
    found: dict[str, ConceptMaps] = source.each("concept-maps")
    if not found:
        return []
    results = list(found.values())
    sheets: list[list[Block]] = [
        [
            Chart(
                figure=concept_figure(results, key, source.thumbnails.image(key)),
                heading=_class_of(source, key),
                caption=f"{key}. The {_concept_counts(results)} concepts of each run's own prediction, from the most "
                "to the least class-discriminative channels: where each fires, and its patch on the picture.",
            )
        ]
        for key in results[0].keys
    ]
    return _some_folded(sheets, "more pictures")


def _concept_counts(results: Sequence[ConceptMaps]) -> str:
    """Return how many concepts each run has, several numbers where runs differ."""
    return " or ".join(str(count) for count in sorted({result.boxes.shape[1] for result in results}))


def position_attention(source: Source) -> list[Block]:
    """Return where the centre and the most attended cell of each picture attend."""
    blocks: list[Block] = []
    for run, result in _positions(source).items():
        sheets = [_positions_of(source, run, result, place) for place in range(len(result.keys))]
        blocks += [Note(text=_gamma(run, result.gamma)), *_some_folded(sheets, f"more pictures of {run}", shown=2)]
    return blocks


def _positions(source: Source) -> dict[str, PositionMaps]:
    return source.each("position-attention")


def _positions_of(source: Source, run: str, result: PositionMaps, place: int) -> list[Block]:
    key, mean = result.keys[place], result.mean[place]
    rows, columns = mean.shape
    top = divmod(int(mean.argmax()), columns)
    cells = list(dict.fromkeys([(rows // 2, columns // 2), (int(top[0]), int(top[1])), (0, 0)]))
    return [
        Chart(
            figure=position_figure(result, key, source.thumbnails.image(key), cells=cells),
            heading=f"{_class_of(source, key)} · {run}",
            caption=f"{key}. Marked cells and where each attends: the middle, the most attended cell and a corner; "
            "the last map is the mean over all cells.",
        )
    ]


def _gamma(run: str, gamma: float) -> str:
    return (
        f"{run} adds the attended features with the learnt scale {number(gamma, 2)}; at 0, where training starts, the "
        "attention changes nothing."
    )


def channel_attention(source: Source) -> list[Block]:
    """Return how much the channels of one concept read from those of another."""
    found: dict[str, ChannelLinks] = source.each("channel-attention")
    if not found:
        return []
    return [
        Chart(
            figure=channel_figure(list(found.values())),
            caption="Mean over the pictures shown, as multiples of even attention; concepts by number, 1 the most "
            "class-discriminative. A channel reads from channels unlike it.",
        ),
        *(Note(text=_gamma(run, result.gamma)) for run, result in found.items()),
    ]


def transport(source: Source) -> list[Block]:
    """Return the matched patches of pairs of pictures."""
    blocks: list[Block] = []
    for run, found in source.each("transport").items():
        for pair in found.pairs:
            images = source.thumbnails.image(pair.keys[0]), source.thumbnails.image(pair.keys[1])
            same = "the same class" if _label(source, pair.keys[0]) == _label(source, pair.keys[1]) else "two classes"
            blocks += [
                Chart(
                    figure=links_figure(pair, images, class_names=source.class_names),
                    heading=f"Pictures of {same} · {run}",
                    caption=f"{pair.keys[0]} and {pair.keys[1]}. Lines join the patches that the method would pull "
                    f"together; wider is heavier. Transport distance {number(pair.distance)} (0 to 2).",
                ),
                Fold(
                    title="The whole plan",
                    blocks=[
                        Chart(
                            figure=plan_figure(pair), caption="Share of each left concept that goes to each right one."
                        )
                    ],
                ),
            ]
    return blocks


def _label(source: Source, key: str) -> int:
    return int(source.thumbnails.labels[source.thumbnails.keys.index(key)])


def _class_of(source: Source, key: str) -> str:
    return source.class_names[_label(source, key)]


def _some_folded(sheets: Sequence[Sequence[Block]], title: str, *, shown: int = _OPEN) -> list[Block]:
    """Return the blocks of the first sheets, and the others folded away."""
    blocks = [block for sheet in sheets[:shown] for block in sheet]
    rest = [block for sheet in sheets[shown:] for block in sheet]
    return [*blocks, Fold(title=f"{len(sheets) - shown} {title}", blocks=rest)] if rest else blocks
