"""A bench's record holds what was run and no more, and its tables say which intervals leave zero out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bench_record
import numpy as np
import pytest
import yaml
from made_runs import write_final

from concept_tuning.bench.cells import final_path, note_failure
from concept_tuning.bench.spec import check_spec, settings_of

SPEC = {
    "name": "made",
    "methods": ["vanilla", "l2-sp", "delta", "linear-probe"],
    "seeds": [1, 2],
    "backbones": ["test_resnet"],
    "data": [{"name": "birds", "source": "planted"}, {"name": "later", "source": "planted", "set": {"rho": 0.5}}],
}
SHARES = {"vanilla": 0.6, "l2-sp": 0.9, "delta": 0.6, "linear-probe": 0.3}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments that keep a bench of which the first data is finished."""
    monkeypatch.setattr(bench_record, "RESULTS", tmp_path / "results")
    file, folder, spec = tmp_path / "made.yaml", tmp_path / "bench", check_spec(SPEC)
    file.write_text(yaml.safe_dump(SPEC))
    for setting in settings_of(spec):
        for seed in spec.seeds if setting.data == "birds" else ():
            chance = np.random.default_rng(seed).random(400) < 0.02
            right = (np.arange(400) < SHARES[setting.method] * 400) ^ chance
            write_final(folder, setting, seed, right)
    return ["keep", str(file), str(folder), "--commit", "abc1234", "--ran", "run it", "--caveat", "busy machine"]


def test_the_record_holds_what_is_finished_and_says_how_much_is_not(made: list[str], tmp_path: Path) -> None:
    assert bench_record.main(made) == 0
    record = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    (part,) = record["parts"]
    assert (part["command"], part["commits"], part["caveats"]) == ("run it", ["abc1234"], ["busy machine"])
    assert part["settings"] == [f"birds/test_resnet/100/{method}" for method in SPEC["methods"]]
    assert record["settings"] == {"finished": 4, "all": 8}
    assert {row["data"] for row in record["summary"]} == {"birds"}
    assert len(record["cells"]) == 8
    write_final(tmp_path / "bench", settings_of(check_spec(SPEC))[4], 1, np.ones(400, bool))
    assert bench_record.main(made) == 0
    record = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    assert record["settings"] == {"finished": 4, "all": 8}  # one of two seeds is not the whole setting
    assert {row["data"] for row in record["summary"]} == {"birds", "later"}


def test_a_part_of_another_machine_is_added_and_replaces_what_it_has_anew(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    before = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    other, settings = tmp_path / "other", settings_of(check_spec(SPEC))
    for setting in (settings[0], settings[1], settings[4]):
        for seed in (1, 2):
            chance = np.random.default_rng(seed).random(400) < 0.02
            share = 0.8 if setting.method == "l2-sp" else 0.6
            write_final(other, setting, seed, (np.arange(400) < share * 400) ^ chance)
    note_failure(final_path(other, settings[2], 1), "It diverged.")  # begun anew, and its setting not finished
    words = ["keep", made[1], str(other), "--commit", "def5678", "--ran", "run more", "--add"]
    assert bench_record.main(words) == 0
    record = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    assert record["settings"] == {"finished": 5, "all": 8}
    assert [len(part["settings"]) for part in record["parts"]] == [2, 3]
    assert [part["commits"] for part in record["parts"]] == [["abc1234"], ["def5678"]]
    assert len(record["cells"]) == 10
    means = {(row["data"], row["method"]): row["accuracy"]["mean"] for row in record["summary"]}
    assert means["birds", "l2-sp"] < 0.85
    assert means["birds", "delta"] == before["summary"][2]["accuracy"]["mean"]
    write_final(other, settings[0], 2, np.ones(400, bool))  # other runs than those that delta was compared with
    assert bench_record.main(words) == 2
    assert "birds/test_resnet/100/vanilla reached other accuracies" in capsys.readouterr().err
    assert json.loads((tmp_path / "results" / "bench_made.json").read_text()) == record


def test_fewer_seeds_of_another_machine_do_not_take_the_place_of_more(made: list[str], tmp_path: Path) -> None:
    bench_record.main(made)
    file, other, settings = tmp_path / "results" / "bench_made.json", tmp_path / "other", settings_of(check_spec(SPEC))
    before = json.loads(file.read_text())
    for setting in (settings[1], settings[4]):  # one of two seeds: of a setting that the record has, and of a new one
        write_final(other, setting, 1, np.ones(400, bool))
    assert bench_record.main(["keep", made[1], str(other), "--commit", "def5678", "--ran", "more", "--add"]) == 0
    record = json.loads(file.read_text())
    kept = {row["method"]: row for row in record["summary"] if row["data"] == "birds"}
    assert kept == {row["method"]: row for row in before["summary"]}
    assert [row for row in record["cells"] if row["data"] == "birds"] == before["cells"]
    assert [part["settings"] for part in record["parts"][1:]] == [["later/test_resnet/100/vanilla"]]


def test_a_comparison_with_fewer_seeds_than_the_record_has_is_refused(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in settings_of(check_spec(SPEC))[2:4]:
        shutil.rmtree(final_path(tmp_path / "bench", setting, 1).parent)
    bench_record.main(made)
    other, settings = tmp_path / "other", settings_of(check_spec(SPEC))
    for setting in (settings[0], settings[2]):
        write_final(other, setting, 1, np.ones(400, bool))
    assert bench_record.main(["keep", made[1], str(other), "--commit", "def5678", "--ran", "more", "--add"]) == 2
    assert "delta was compared with fewer seeds of vanilla than the record has" in capsys.readouterr().err


def test_data_that_are_other_ones_now_take_the_place_of_what_the_record_had(made: list[str], tmp_path: Path) -> None:
    bench_record.main(made)
    changed = SPEC | {"data": [{"name": "birds", "source": "planted", "set": {"rho": 0.5}}]}
    Path(made[1]).write_text(yaml.safe_dump(changed))
    other, (setting, *_) = tmp_path / "other", settings_of(check_spec(changed))
    for seed in (1, 2):
        write_final(other, setting, seed, np.ones(400, bool))
    words = ["keep", made[1], str(other), "--commit", "def5678", "--ran", "more", "--add"]
    assert bench_record.main([*words, "--drop", "birds"]) == 0
    record = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    assert [row["method"] for row in record["summary"]] == ["vanilla"]
    assert record["data"]["birds"]["set"] == {"rho": 0.5}
    assert [part["command"] for part in record["parts"]] == ["more"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"methods": ["l2-sp", "vanilla", "delta", "linear-probe"]},
            "compares with vanilla, and this bench with l2-sp",
        ),
        ({"data": [{"name": "birds", "source": "planted", "set": {"rho": 0.5}}]}, "birds is not what it is in the rec"),
        ({"seeds": [1, 2, 3]}, "of the seeds [1, 2], and this bench of [1, 2, 3]"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    change: dict[str, Any], message: str, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    before = (tmp_path / "results" / "bench_made.json").read_text()
    Path(made[1]).write_text(yaml.safe_dump(SPEC | change))
    assert bench_record.main([*made, "--add"]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "results" / "bench_made.json").read_text() == before


def test_a_variant_that_is_another_one_now_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_record, "RESULTS", tmp_path / "results")
    for data, decay, code in (("birds", 0.1, 0), ("later", 0.1, 0), ("birds", 0.2, 1)):
        values = SPEC | {
            "methods": ["vanilla", "strong"],
            "variants": {"strong": {"method": "vanilla", "set": {"weight_decay": decay}}},
        }
        spec, file, folder = check_spec(values), tmp_path / "made.yaml", tmp_path / f"{data}-{decay}"
        file.write_text(yaml.safe_dump(values))
        for setting in settings_of(spec):
            for seed in spec.seeds if setting.data == data else ():
                write_final(folder, setting, seed, np.arange(400) < 240)
        assert bool(
            bench_record.main(["keep", str(file), str(folder), "--commit", "a", "--ran", "b", "--add"])
        ) is bool(code)
    assert "The variant strong is not what it is in the record" in capsys.readouterr().err


def test_a_difference_that_the_verdict_does_not_take_to_be_shown_is_not_bold(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    path = tmp_path / "results" / "bench_made.json"
    assert "**" in bench_record.table(json.loads(path.read_text()), "birds", only=["l2-sp"])
    record = json.loads(path.read_text())
    for row in record["summary"]:
        row["outcome"] = row["worst_group_outcome"] = "no difference shown"
    assert "**" not in bench_record.table(record, "birds", only=["l2-sp"])


def test_tables_say_what_is_to_be_known_of_their_figures(made: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bench_record.main(made)
    capsys.readouterr()
    assert bench_record.main(["table", "made", "--data", "birds"]) == 0
    assert capsys.readouterr().out.endswith("\n\nOn birds: busy machine\n")


def test_a_table_begins_with_the_method_compared_with_and_marks_what_leaves_zero(
    made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    capsys.readouterr()
    assert bench_record.main(["table", "made", "--data", "birds"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == ["vanilla", "l2-sp", "delta", "linear-probe"]
    assert "**+" in lines[1]
    assert "**" not in lines[2]
    assert "**−" in lines[3]
    assert bench_record.main(["table", "made", "--only", "delta"]) == 0
    assert "l2-sp" not in capsys.readouterr().out


def test_the_mean_over_several_data_is_of_those_named(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    file = tmp_path / "results" / "bench_made.json"
    record = json.loads(file.read_text())
    more = [row | {"data": name} for name in ("more", "others", "last") for row in record["summary"]]
    file.write_text(json.dumps(record | {"summary": record["summary"] + more}))
    capsys.readouterr()
    assert bench_record.main(["over", "made", "--data", "birds", "more", "last", "--only", "l2-sp"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert line.startswith("| `l2-sp` | 3 | +")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "other"], "There is no record bench_other.json"),
        (["table", "made", "--data", "fish"], "no data 'fish'; it has birds"),
        (["table", "made", "--only", "bss"], "no 'bss' on birds"),
        (["over", "made", "--data", "fish"], "no data 'fish'; it has birds"),
        (["over", "made"], "no such method that is finished with every seed on 3 or more"),
    ],
)
def test_what_is_not_there_gets_a_sentence(
    made: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_record.main(made)
    assert bench_record.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_rows_of_several_rates_are_named_apart(made: list[str], tmp_path: Path) -> None:
    bench_record.main(made)
    record = json.loads((tmp_path / "results" / "bench_made.json").read_text())
    again = [row | {"sample_rate": 30.0} for row in record["summary"]]
    text = bench_record.table(record | {"summary": record["summary"] + again}, "birds")
    assert "`l2-sp`, test_resnet, 100 %" in text
    assert "`l2-sp`, test_resnet, 30 %" in text


def test_damaged_and_older_records_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_record, "RESULTS", tmp_path)
    for text, message in (("{", "is damaged"), ('{"summary": []}', "is an older record")):
        (tmp_path / "bench_old.json").write_text(text)
        assert bench_record.main(["table", "old"]) == 2
        assert message in capsys.readouterr().err


def test_a_bench_without_a_finished_run_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    for folder, message in ((tmp_path, "No final run"), (tmp_path / "nothing", "is no folder of a bench")):
        assert bench_record.main(["keep", str(file), str(folder), "--commit", "abc1234", "--ran", "it"]) == 2
        assert message in capsys.readouterr().err
