from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from concept_tuning.diagnostics.diagnose import Diagnosis, diagnose
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.report.blocks import Source
from concept_tuning.report.predictions_csv import predictions_csv, safe_cell


@pytest.fixture(scope="module")
def made(subjects, tmp_path_factory) -> Diagnosis:
    bench = Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None)
    return diagnose(bench, tmp_path_factory.mktemp("csv") / "out", only=["predictions"])


def test_every_picture_has_a_row_with_what_each_run_says(made) -> None:
    rows = list(csv.DictReader(io.StringIO(predictions_csv(Source(made)))))
    for run in ("vanilla", "concept-tuning"):
        found = made.results["predictions", run]
        assert [row["picture"] for row in rows] == list(found.keys)
        for place, row in enumerate(rows):
            said, label = int(found.predicted[place]), int(found.labels[place])
            assert row["class"] == found.class_names[label]
            assert row["group"] == found.group_names[int(found.groups[place])]
            assert row[f"{run} predicts"] == found.class_names[said]
            assert row[f"{run} is right"] == ("yes" if said == label else "no")
            for what, which in (("its answer", said), ("the class", label)):
                told = float(row[f"{run} probability of {what}"])
                assert told == pytest.approx(float(found.probabilities[place, which]), abs=1e-6)


def test_without_groups_there_is_no_column_of_them(made) -> None:
    results = {place: dataclasses.replace(found, groups=None, group_names=()) for place, found in made.results.items()}
    whole, less = (
        list(csv.DictReader(io.StringIO(predictions_csv(Source(dataclasses.replace(made, results=found))))))
        for found in (made.results, results)
    )
    assert less == [{name: cell for name, cell in row.items() if name != "group"} for row in whole]


def test_no_cell_begins_a_formula(made) -> None:
    evil = ("=1+1", "@SUM(A1)", "-2", " \t=cmd", "\uff1dA1", 'a,"b"\n=c', "owl/a;=cmd|' C calc'!A0.png")
    results = {
        place: dataclasses.replace(
            found,
            class_names=tuple(evil[: len(found.class_names)]),
            group_names=evil[: len(found.group_names)],
            keys=(*evil[4:], *found.keys[3:]),
        )
        for place, found in made.results.items()
    }
    text = predictions_csv(Source(dataclasses.replace(made, results=results)))
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not any(cell.strip()[:1] in tuple("=+-@\uff1d") and cell for cell in cells)
    assert "'=1+1" in cells
    assert "'\uff1dA1" in cells
    assert 'a,"b"\n\'=c' in cells
    assert "owl/a;'=cmd|' C calc'!A0.png" in cells


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_begins_a_formula_whatever_a_spreadsheet_separates_by(made, separator) -> None:
    evil = ("a;=1", "b\t+1", "c; \u00a0@SUM(A1)", 'd;"=1', "e\r\n-1", "f\n\uff1d1", ";\t=1", '";=1')
    results = {
        place: dataclasses.replace(found, keys=(*evil, *found.keys[len(evil) :]))
        for place, found in made.results.items()
    }
    text = predictions_csv(Source(dataclasses.replace(made, results=results)))
    cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row]
    assert not [cell for cell in cells if cell.strip(' \t\r\n"\u00a0')[:1] in tuple("=+-@\uff1d") and cell.strip(' "')]
    naive = [cell for line in text.splitlines() for cell in line.split(separator)]  # one that knows no quotes
    assert not [cell for cell in naive if cell.strip(' \t"\u00a0')[:1] in tuple("=+-@\uff1d") and cell.strip(' "')]


def test_every_cell_is_in_quotes(made) -> None:
    text = predictions_csv(Source(made))
    for line in text.splitlines():
        assert line.startswith('"')
        assert line.endswith('"')
        assert line.count('"') == 2 * (line.count('","') + 1)


def test_without_predictions_there_is_a_heading_alone(made) -> None:
    text = predictions_csv(Source(dataclasses.replace(made, results={})))
    assert text == '"picture","class"\r\n'


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", " =1", "\ufeff=1", "\uff0b1", "\tx"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\t=1", "'\t'=1"),
        ("a;=1", "a;'=1"),
        ("a; \t+1;b;-2", "a; \t'+1;b;'-2"),
        ("a\t\u00a0@x", "a\t\u00a0'@x"),
        ("a\r\n=1", "a\r\n'=1"),
        ('a;""=1', 'a;""\'=1'),
        ("=1;=2", "'=1;'=2"),
        ("a;\uff0d1", "a;'\uff0d1"),
    ],
)
def test_formulas_within_a_text_get_an_apostrophe_where_a_cell_may_begin(text: str, safe: str) -> None:
    assert safe_cell(text) == safe


@pytest.mark.parametrize(
    "text", ["", "a", "a=b", "test/0001", "1-2", " a", "é-", "'=x", "a;b", "a;b=c", "a, =b", "a\tb"]
)
def test_other_texts_stay(text: str) -> None:
    assert safe_cell(text) == text
