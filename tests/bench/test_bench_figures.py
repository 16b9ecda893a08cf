"""Every number of a bench's figures comes from its rows, and the page opens offline whatever names there are."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from made_rows import Found, made_rows
from made_runs import write_final
from plotly.offline import get_plotlyjs
from pydantic import TypeAdapter

from concept_tuning.bench.blocks import Table, read_blocks
from concept_tuning.bench.figures import PAGE, figure_parts, render_figures, write_figures
from concept_tuning.bench.rank_figure import rank_figure
from concept_tuning.bench.ranks import counted, rankings, weakness
from concept_tuning.bench.setting_figures import curve_figure, dot_figure, percent_range
from concept_tuning.bench.shortcut_map import map_figure, shortcut_maps
from concept_tuning.bench.spec import BenchSpec, check_spec, settings_of
from concept_tuning.errors import RunError

METHODS = ("vanilla", "l2-sp", "delta")
SPEC = {
    "name": "made",
    "methods": list(METHODS),
    "seeds": [1, 2, 3],
    "data": [
        {"name": "birds", "source": "planted", "set": {"rho": 0.9}},
        {"name": "more", "source": "planted", "set": {"rho": 0.9, "images": 1200}, "methods": ["vanilla", "l2-sp"]},
        {"name": "strong", "source": "planted", "set": {"rho": 0.97}},
        {"name": "rare", "source": "planted", "set": {"rho": 0.8, "rarity": 0.3}},
        {"name": "other", "source": "planted", "set": {"rho": 0.5}, "backbones": ["test_vit"]},
        {"name": "cells", "source": "elpv", "sample_rates": [100, 30]},
    ],
    "backbones": ["test_resnet"],
}


def value(setting, seed) -> tuple[float, float | None]:
    """A value that tells setting and seed apart."""
    base = 0.5 + 0.1 * METHODS.index(setting.method) + 0.001 * len(setting.data) + 0.0005 * setting.sample_rate
    return base + 0.01 * seed**2, None if setting.data == "cells" else base / 2 + 0.02 * seed


@pytest.fixture(scope="module")
def spec() -> BenchSpec:
    return check_spec(SPEC)


def table_of(spec: BenchSpec, found: Found = value) -> Table:
    return read_blocks(spec, made_rows(spec, found))


def texts(figure: go.Figure) -> str:
    return "\n".join(str(note.text) for note in figure.layout.annotations)


def test_dots_are_the_seeds_and_the_diamond_their_mean(spec: BenchSpec) -> None:
    figure = dot_figure(spec, table_of(spec), "accuracy")
    assert figure is not None
    means, dots = (
        next(trace for trace in figure.data if trace.name == name) for name in ("mean over seeds", "one seed")
    )
    birds = [setting for setting in settings_of(spec) if setting.data == "birds"]
    expected = [[100 * value(setting, seed)[0] for seed in spec.seeds] for setting in birds]
    assert dots.x == pytest.approx([one for line in expected for one in line])
    assert dots.y == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert means.x == pytest.approx([statistics.fmean(line) for line in expected])
    assert figure.layout.shapes[0].x0 == pytest.approx(statistics.fmean(expected[0]))
    assert "800 test pictures" in figure.layout.annotations[0].text
    assert len([note for note in figure.layout.annotations if "test pictures" in note.text]) == 7


def test_the_worst_group_has_panels_only_where_there_are_groups(spec: BenchSpec) -> None:
    figure = dot_figure(spec, table_of(spec), "worst_group")
    assert figure is not None
    assert "<b>birds</b>" in texts(figure)
    assert "cells" not in texts(figure)
    assert dot_figure(spec, table_of(spec, lambda setting, seed: (0.5, None)), "worst_group") is None


def test_a_method_with_seeds_to_come_says_so(spec: BenchSpec) -> None:
    figure = dot_figure(
        spec,
        table_of(spec, lambda setting, seed: None if seed == 3 and setting.method == "delta" else (0.5, None)),
        "accuracy",
    )
    assert figure is not None
    assert figure.layout.yaxis.ticktext == ("vanilla", "l2-sp", "delta (2 of 3)")


def test_where_the_first_method_is_to_come_the_others_are_drawn_without_it(spec: BenchSpec) -> None:
    table = table_of(spec, lambda setting, seed: None if setting.method == "vanilla" else value(setting, seed))
    dots, curves = dot_figure(spec, table, "accuracy"), curve_figure(spec, table)
    assert dots is not None
    assert curves is not None
    assert dots.layout.shapes == ()
    assert dots.layout.yaxis.ticktext == ("l2-sp", "delta")
    assert "1 method to come" in texts(dots)
    assert [trace.name for trace in curves.data] == ["l2-sp", "delta"]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([100.0], [97.5, 102]),  # all equal: neither a hair's breadth nor percents that there are not
        ([0.0, 0.0], [-2, 2.5]),
        ([50.0, 51.0], [48, 53]),
        ([0.0, 100.0], [-2, 102]),
        ([40.0, 60.0], [38.8, 61.2]),
    ],
)
def test_an_axis_of_percents_is_neither_too_narrow_nor_beyond_what_there_is(
    values: list[float], ends: list[float]
) -> None:
    assert percent_range(values) == pytest.approx(ends)


def test_axes_hold_all_that_is_drawn(spec: BenchSpec) -> None:
    dots, curves = dot_figure(spec, table_of(spec), "accuracy"), curve_figure(spec, table_of(spec))
    assert dots is not None
    assert curves is not None
    low, high = dots.layout.xaxis.range
    assert low < min(dots.data[1].x) < max(dots.data[1].x) < high
    low, high = curves.layout.yaxis.range
    for line in curves.data:
        assert all(low < y - bar and y + bar < high for y, bar in zip(line.y, line.error_y.array, strict=True))


def test_curves_are_drawn_where_there_are_two_rates(spec: BenchSpec) -> None:
    figure = curve_figure(spec, table_of(spec))
    assert figure is not None
    assert [note.text for note in figure.layout.annotations] == ["<b>cells</b><br>test_resnet"]
    assert [trace.name for trace in figure.data] == list(METHODS)
    low, high = (
        setting for setting in reversed(settings_of(spec)) if (setting.data, setting.method) == ("cells", "delta")
    )
    line = figure.data[2]
    values = [[100 * value(setting, seed)[0] for seed in spec.seeds] for setting in (low, high)]
    assert line.y == pytest.approx([statistics.fmean(one) for one in values])
    assert line.error_y.array == pytest.approx([statistics.stdev(one) for one in values])
    assert line.x == pytest.approx([30, 100], abs=6)
    assert (
        curve_figure(spec, table_of(spec, lambda setting, seed: None if setting.sample_rate < 100 else (1, None)))
        is None
    )


def test_the_map_has_planted_birds_that_differ_in_rho_and_number_alone(spec: BenchSpec) -> None:
    table = table_of(spec)
    (found,) = shortcut_maps(spec, table)
    assert {place: block.data for place, block in found.blocks.items()} == {
        (0.9, 600): "birds",
        (0.9, 1200): "more",
        (0.97, 600): "strong",
    }
    figure = map_figure(found, table)
    vanilla, _, delta = figure.data
    worst = {block.data: 100 * table[block]["vanilla"].mean("worst_group") for block in found.blocks.values()}
    assert np.array(vanilla.z, float) == pytest.approx(
        np.array([[worst["birds"], worst["more"]], [worst["strong"], np.nan]]), nan_ok=True
    )
    assert vanilla.text[0][0] == f"<b>{worst['birds']:.1f}</b><br>± 2.0"
    assert (vanilla.text[1][1], delta.text[0][1]) == ("not asked", "not asked")
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 100)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}


def test_a_map_leaves_out_other_settings_and_methods_of_one_place_and_shows_what_is_to_come() -> None:
    data = [
        {"name": "a", "source": "planted", "set": {"rho": 0.8}},
        {"name": "b", "source": "planted", "set": {"rho": 0.9}, "methods": ["vanilla", "l2-sp"]},
        {"name": "rare", "source": "planted", "set": {"rho": 0.8, "rarity": 0.3}},
        {"name": "rarer", "source": "planted", "set": {"rho": 0.9, "rarity": 0.3}},
        {"name": "longer", "source": "planted", "set": {"rho": 0.95, "optim.max_steps": 7}},
        {
            "name": "other-birds",
            "source": "planted",
            "set": {"rho": 0.95, "data_seed": 5},
            "methods": ["vanilla", "l2-sp"],
        },
        {"name": "tuned", "source": "planted", "tuned_on": "a", "set": {"rho": 0.97}},
    ]
    spec = check_spec(SPEC | {"data": data})
    table = table_of(spec, lambda setting, seed: None if setting.data == "b" else value(setting, seed))
    (found,) = shortcut_maps(spec, table)
    assert {block.data for block in found.blocks.values()} == {"a", "b", "other-birds"}
    assert found.methods == ["vanilla", "l2-sp"]
    assert map_figure(found, table).data[0].text[1][0] == "not finished"
    alone = table_of(spec, lambda setting, seed: value(setting, seed) if setting.method == "vanilla" else None)
    assert shortcut_maps(spec, alone)[0].methods == ["vanilla"]
    assert shortcut_maps(spec, table_of(spec, lambda *_: None)) == []


def test_a_map_says_which_data_of_a_cell_it_does_not_show() -> None:
    birds = [("a", 0.8, 1), ("again", 0.8, 2), ("b", 0.9, 1)]
    data = [
        {"name": name, "source": "planted", "set": {"rho": rho, "data_seed": seed}, "methods": ["vanilla", "l2-sp"]}
        for name, rho, seed in birds
    ]
    spec = check_spec(SPEC | {"data": data, "methods": ["vanilla", "l2-sp"]})
    table = table_of(spec)
    (found,) = shortcut_maps(spec, table)
    assert [block.data for block in found.left_out] == ["again"]
    (part,) = (part for part in figure_parts(spec, table) if part.name == "shortcut-map")
    assert any("the first data of its rho and number of pictures alone: again." in note for note in part.notes)


def test_a_single_seed_has_no_bar_that_looks_like_a_deviation_of_nothing(spec: BenchSpec) -> None:
    table = table_of(spec, lambda setting, seed: value(setting, seed) if seed == 1 else None)
    figure = curve_figure(spec, table)
    assert figure is not None
    assert list(figure.data[0].error_y.array) == [None, None]
    assert "over 1 seed" in figure.data[0].hovertext[0]


def test_the_page_claims_no_search_that_was_not_made() -> None:
    search = {"all": {"lr": {"low": 0.01, "high": 0.1}}}
    data = [{"name": "birds", "source": "planted", "choices": {"vanilla": {"lr": 0.05}, "l2-sp": {}}}]
    spec = check_spec(SPEC | {"data": data, "methods": ["vanilla", "l2-sp"], "trials": 2, "search": search})
    page = render_figures(spec, made_rows(spec, value))
    assert "What is searched was chosen before, and is not searched again, for birds." in page
    assert "2 trials" not in page


def test_a_map_has_data_of_one_choice_alone() -> None:
    fast, slow = ({"vanilla": {"lr": rate}, "l2-sp": {}, "delta": {}} for rate in (0.05, 0.02))
    data = [
        {"name": f"birds-{rho}", "source": "planted", "set": {"rho": rho}, "choices": choices}
        for rho, choices in ((0.8, fast), (0.9, fast), (0.95, slow))
    ]
    search = {"all": {"lr": {"low": 0.01, "high": 0.1}}}
    spec = check_spec(SPEC | {"data": data, "trials": 2, "search": search})
    (found,) = shortcut_maps(spec, table_of(spec))
    assert [block.data for block in found.blocks.values()] == ["birds-0.8", "birds-0.9"]


def test_the_diagram_says_what_was_counted_and_places_methods_by_rank(spec: BenchSpec) -> None:
    found = rankings(spec, table_of(spec))
    assert isinstance(found, list)
    figure = rank_figure(found[0])
    said = " ".join(note.text for note in figure.layout.annotations)
    assert counted(found[0]) in said
    assert "6 blocks" in said
    lines = {trace.name: trace.x[0] for trace in figure.data if trace.name in METHODS}
    assert lines == {"delta": 1, "l2-sp": 2, "vanilla": 3}
    assert sum(trace.name == "joined" for trace in figure.data) == len(found[0].joined)


def test_a_diagram_of_few_blocks_warns_on_the_figure_itself() -> None:
    spec = check_spec(SPEC | {"data": SPEC["data"][2:4]})
    found = rankings(spec, table_of(spec))
    assert isinstance(found, list)
    figure = rank_figure(found[0])
    assert weakness(found[0])
    assert weakness(found[0]) in " ".join(note.text for note in figure.layout.annotations)
    assert not any(trace.name == "critical difference" for trace in figure.data)  # longer than the line


def test_the_page_needs_nothing_else(spec: BenchSpec) -> None:
    page = render_figures(spec, made_rows(spec, value))
    assert page.count(get_plotlyjs()) == 1
    rest = page.replace(get_plotlyjs(), "")
    assert not re.search(r"(src|href)=[\"'](?!#)", rest)
    assert "://" not in rest.split('<script type="application/json"')[0]
    parts = figure_parts(spec, table_of(spec))
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', rest, re.S)[1])
    assert list(figures) == sorted(part.name for part in parts)
    for part in parts:
        assert f'<h2 id="{part.name}">' in rest
        assert len(part.lead) > 20
    assert "60 of 60 final runs" in rest


def test_names_are_escaped() -> None:
    odd = "<script>alert(1)</script>"
    data = [{"name": "cells", "source": "elpv"}, {"name": "twice", "source": "elpv", "sample_rates": [50, 100]}]
    spec = TypeAdapter(BenchSpec).validate_python(SPEC | {"data": data, "backbones": [odd, "b"]})
    page = render_figures(spec, made_rows(spec, value))
    assert odd not in page.replace(get_plotlyjs(), "")
    figure = dot_figure(spec, table_of(spec), "accuracy")
    assert figure is not None
    assert "<script" not in texts(figure)


def test_without_results_there_are_sentences_and_no_figures(spec: BenchSpec, tmp_path: Path) -> None:
    assert write_figures(spec, tmp_path) == [tmp_path / PAGE]
    page = (tmp_path / PAGE).read_text().replace(get_plotlyjs(), "")
    assert 'class="plot"' not in page
    assert page.count("Not made: ") == 5
    assert [file.name for file in tmp_path.iterdir()] == [PAGE]


def test_finished_runs_are_read_from_the_folder(tmp_path: Path) -> None:
    spec = check_spec(SPEC | {"data": SPEC["data"][:1], "seeds": [1, 2]})
    right = np.array([True, True, True, False, False, True, True, True])
    for seed in spec.seeds:
        write_final(tmp_path, settings_of(spec)[0], seed, right)
    write_figures(spec, tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "2 of 6 final runs are finished" in page
    assert (
        "75.0 ± 0.0 % over 2 seeds"
        in json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])["accuracy"]["data"][0]["hovertext"][0]
    )


def test_a_folder_that_cannot_be_written_is_told(spec: BenchSpec, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_figures(spec, tmp_path / "missing")
