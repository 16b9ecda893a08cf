"""The shortcut map: accuracy of the worst group by strength of the shortcut and number of training pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.bench.blocks import Block, Runs, Table
from concept_tuning.bench.setting_figures import told
from concept_tuning.bench.spec import BenchSpec, Setting, config_of
from concept_tuning.config import PlantedConfig, RunConfig
from concept_tuning.figures.labels import escape, shorten
from concept_tuning.figures.style import RATE_SCALE, finish

#: Pixels of a cell's height, between rows of panels, and below them.
_CELL, _BETWEEN, _BELOW = 54, 96, 60
_COLUMNS = 3
_NOT_ASKED, _OPEN = "not asked", "not finished"


@dataclass(frozen=True, kw_only=True)
class ShortcutMap:
    """Blocks of planted birds that differ in nothing but rho and the number of training pictures.

    Attributes:
        backbone: Of all.
        methods: Those that are asked for in two of the blocks or more, and have finished runs in one.
        blocks: By rho and number of training pictures.
        left_out: Blocks of the same rho and number as one of these, which stands before them in the bench's file.
    """

    backbone: str
    methods: Sequence[str]
    blocks: Mapping[tuple[float, int], Block]
    left_out: Sequence[Block] = ()

    @property
    def rhos(self) -> list[float]:
        """Values of rho, ascending."""
        return sorted({rho for rho, _ in self.blocks})

    @property
    def images(self) -> list[int]:
        """Numbers of training pictures, ascending."""
        return sorted({images for _, images in self.blocks})


def shortcut_maps(spec: BenchSpec, table: Table) -> list[ShortcutMap]:
    """Return the maps of a bench: planted birds with the default rarity and all training pictures.

    Blocks on one map have all settings in common but rho, the number of pictures and the seed of the data, and are
    ``tuned_on`` the same data, if any, with the same ``choices``. A map has two blocks or more and a method that has
    finished runs in one.
    """
    groups: dict[tuple[str, str | None, str], dict[tuple[float, int], list[Block]]] = {}
    for block in table:
        data = spec.data_named(block.data)
        if data.source != "planted":
            continue
        config = _config(spec, block)
        if config.planted.rarity == PlantedConfig().rarity and config.data.sample_rate == 100:
            tuned = data.tuned_on, json.dumps(data.choices, sort_keys=True)
            found = groups.setdefault((_rest(config), *tuned), {})
            found.setdefault((config.planted.rho, config.planted.images), []).append(block)
    maps = []
    for found in groups.values():
        blocks = {place: own[0] for place, own in found.items()}
        asked = {
            name: [table[block][name] for block in blocks.values() if name in table[block]] for name in spec.methods
        }
        methods = [name for name, runs in asked.items() if len(runs) > 1 and any(one.rows for one in runs)]
        if len(blocks) > 1 and methods:
            backbone = next(iter(blocks.values())).backbone
            left_out = [block for own in found.values() for block in own[1:]]
            maps.append(ShortcutMap(backbone=backbone, methods=methods, blocks=blocks, left_out=left_out))
    return maps


def map_figure(found: ShortcutMap, table: Table) -> go.Figure:
    """Draw a panel for each method; a cell holds the mean over seeds in percent and its standard deviation."""
    rhos, images = found.rhos, found.images
    columns = 2 if len(found.methods) == 4 else min(_COLUMNS, len(found.methods))
    rows = -(-len(found.methods) // columns)
    panel = _CELL * len(rhos)
    drawn = rows * panel + (rows - 1) * _BETWEEN
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{shorten(method, 24)}</b>" for method in found.methods],
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=_BETWEEN / drawn if rows > 1 else 0,
    )
    for place, method in enumerate(found.methods):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        _add_panel(figure, found, table, method, **where)
        figure.update_xaxes(
            **where,
            range=[-0.5, len(images) - 0.5],
            title_text="training pictures",
            tickvals=list(range(len(images))),
            ticktext=[f"{count:,}" for count in images],
        )
        figure.update_yaxes(
            **where,
            range=[-0.5, len(rhos) - 0.5],
            tickvals=list(range(len(rhos))),
            ticktext=[f"{rho:g}" for rho in rhos],
        )
    figure.update_yaxes(col=1, title_text="correlation ρ of habitat and species")
    figure.update_xaxes(showgrid=False, zeroline=False, title_font_size=12)
    figure.update_yaxes(showgrid=False, zeroline=False, title_font_size=12)
    finish(figure, size=drawn + _BELOW + 44, legend=False)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        margin={"l": 70, "r": 8, "t": 44, "b": _BELOW},
        plot_bgcolor="#eef1f4",
        coloraxis={
            "colorscale": RATE_SCALE,
            "cmin": 0,
            "cmax": 100,
            "colorbar": {"thickness": 12, "len": 1.1, "ticksuffix": " %", "tickfont": {"size": 12}},
        },
    )
    return figure


def _add_panel(figure: go.Figure, found: ShortcutMap, table: Table, method: str, *, row: int, col: int) -> None:
    cells = [[_cell(found.blocks.get((rho, images)), table, method) for images in found.images] for rho in found.rhos]
    figure.add_heatmap(
        row=row,
        col=col,
        z=[[value for value, _, _ in line] for line in cells],
        text=[[text for _, text, _ in line] for line in cells],
        hovertext=[[hover for _, _, hover in line] for line in cells],
        texttemplate="%{text}",
        textfont_size=13,
        hoverinfo="text",
        hoverongaps=False,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        name=method,
    )


def _cell(block: Block | None, table: Table, method: str) -> tuple[float | None, str, str]:
    """Return a cell's mean in percent, what stands in it, and what is told on hover."""
    runs: Runs | None = None if block is None else table[block].get(method)
    if block is None or runs is None:
        return None, _NOT_ASKED, ""
    mean, deviation = runs.mean("worst_group"), runs.deviation("worst_group")
    if mean is None:
        return None, _OPEN, ""
    spread = "one seed" if deviation is None else f"± {100 * deviation:.1f}"
    hover = f"{escape(method)}, {escape(block.data)}<br>{told(runs, 'worst_group')}"
    return 100 * mean, f"<b>{100 * mean:.1f}</b><br>{spread}", hover


def _config(spec: BenchSpec, block: Block) -> RunConfig:
    setting = Setting(**dataclasses.asdict(block), method=spec.methods[0])
    return config_of(spec, setting, seed=spec.seeds[0], drawn={})


def _rest(config: RunConfig) -> str:
    """Return all settings but rho, the number of pictures and the seed of the data, as text that can be compared."""
    values: dict[str, Any] = config.to_dict()
    values["data"] = {name: value for name, value in values["data"].items() if name != "data_seed"}
    values["planted"] = {name: value for name, value in values["planted"].items() if name not in {"rho", "images"}}
    return json.dumps(values, sort_keys=True)
