"""The bench's file: what is not known is refused with its name, and every run is configured before any begins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from concept_tuning.bench.cells import final_cells, trial_cells, trials_for
from concept_tuning.bench.markdown import markdown
from concept_tuning.bench.search import best_trial, draw_trials
from concept_tuning.bench.spec import check_spec, config_of, load_spec, settings_of, tuned_as
from concept_tuning.bench.tables import summary
from concept_tuning.errors import ConfigError

SPECS = sorted((Path(__file__).parents[2] / "benchmarks" / "specs").glob("*.yaml"))
SMALL = {
    "name": "small",
    "data": [{"name": "birds", "source": "planted", "set": {"rho": 0.8}}],
    "methods": ["vanilla", "l2-sp"],
    "seeds": [1, 2],
    "trials": 4,
    "search": {
        "all": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
        "l2-sp": {"l2_sp.backbone_decay": {"choices": [0.01, 0.1]}},
    },
}
SEARCHED = {"all": SMALL["search"]["all"]}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_benches_of_the_repository_can_be_run(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem
    assert settings_of(spec)


def test_every_setting_is_a_method_on_a_data_a_backbone_and_a_rate() -> None:
    spec = check_spec(SMALL | {"sample_rates": [30, 100], "backbones": ["test_resnet", "test_vit"]})
    assert len(settings_of(spec)) == 2 * 2 * 2
    assert len({setting.place for setting in settings_of(spec)}) == 8
    config = config_of(spec, settings_of(spec)[1], seed=7, drawn={"l2_sp.backbone_decay": 0.3})
    assert (config.method, config.data.sample_rate, config.engine.seed) == ("l2-sp", 30, 7)
    assert (config.planted.rho, config.l2_sp.backbone_decay, config.backbone.architecture) == (0.8, 0.3, "test_resnet")


def test_a_variant_is_its_method_with_settings_that_stand_over_the_search() -> None:
    variants = {"half": {"method": "l2-sp", "set": {"l2_sp.backbone_decay": 0.5}, "tuned_as": "l2-sp"}}
    spec = check_spec(SMALL | {"methods": ["vanilla", "l2-sp", "half"], "variants": variants})
    half = settings_of(spec)[2]
    config = config_of(spec, half, seed=1, drawn={"l2_sp.backbone_decay": 0.01, "lr": 0.02})
    assert (config.method, config.l2_sp.backbone_decay, config.optim.lr) == ("l2-sp", 0.5, 0.02)
    assert tuned_as(spec, half) == settings_of(spec)[1]
    assert {cell.setting.method for cell in trial_cells(spec, Path("out"))} == {"vanilla", "l2-sp"}
    free = check_spec(
        SMALL
        | {"methods": ["half"], "search": {"l2-sp": SMALL["search"]["l2-sp"]}}
        | {"variants": {"half": {"method": "l2-sp"}}}
    )
    assert set(free.space("half")) == {"l2_sp.backbone_decay"}


def test_a_layer_stands_over_those_before_by_whichever_name() -> None:
    """Run settings, data's, what the search drew, the variant's, in this order, by short or full name."""
    values = {
        "set": {"lr": 0.1, "image_size": 64},
        "data": [{"name": "birds", "source": "planted", "set": {"optim.lr": 0.02, "data.image_size": 96}}],
        "methods": ["vanilla", "own"],
        "variants": {"own": {"method": "vanilla", "set": {"lr": 0.07}}},
        "trials": 0,
        "search": {},
    }
    spec = check_spec(SMALL | values)
    plain, own = settings_of(spec)
    assert config_of(spec, plain, seed=1, drawn={}).optim.lr == 0.02
    assert config_of(spec, plain, seed=1, drawn={"lr": 0.09}).optim.lr == 0.09
    assert config_of(spec, own, seed=1, drawn={"optim.lr": 0.09}).optim.lr == 0.07
    assert config_of(spec, own, seed=1, drawn={}).data.image_size == 96


def test_what_every_method_has_is_drawn_once_for_all() -> None:
    spec = check_spec(SMALL)
    first, second = (draw_trials(spec, setting) for setting in settings_of(spec))
    assert [drawn.get("lr") for drawn in first] == [drawn.get("lr") for drawn in second]
    assert len({drawn.get("lr") for drawn in first}) == 4
    assert all("l2_sp.backbone_decay" in drawn for drawn in second[1:])
    other = check_spec(SMALL | {"data": [{"name": "others", "source": "planted"}]})
    assert draw_trials(other, settings_of(other)[0]) != first


def test_a_range_of_its_own_leaves_the_draws_of_what_all_search_alone() -> None:
    both = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "weight_decay": {"low": 0.0, "high": 0.1}}
    own = {"lr": {"choices": [0.01, 0.02, 0.03]}}
    spec = check_spec(SMALL | {"search": {"all": both, "l2-sp": own}})
    plain, other = (draw_trials(spec, setting)[1:] for setting in settings_of(spec))
    assert [drawn["weight_decay"] for drawn in plain] == [drawn["weight_decay"] for drawn in other]
    assert {drawn["lr"] for drawn in other} <= {0.01, 0.02, 0.03}


def test_a_setting_twice_in_one_block_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.weight_decay is given twice"):
        check_spec(SMALL | {"set": {"weight_decay": 0.1, "optim.weight_decay": 0.2}})


def test_a_shared_search_is_one_for_each_method_and_data() -> None:
    several = SMALL | {"sample_rates": [100, 30], "backbones": ["test_resnet", "test_vit"], "share_search": True}
    spec = check_spec(several)
    trials = trial_cells(spec, Path("out"))
    assert len(trials) == 2 * 4
    assert {(cell.setting.backbone, cell.setting.sample_rate) for cell in trials} == {("test_resnet", 100)}
    apart = check_spec(several | {"share_search": False})
    assert len(trial_cells(apart, Path("out"))) == 8 * 4
    said = "with the first backbone and sample rate of each data, for the others too"
    assert said in markdown(spec, [], [])
    assert said not in markdown(apart, [], [])


def with_more_birds(**more: object) -> dict[str, object]:
    birds = {"name": "more", "source": "planted", "set": {"rho": 0.5}, "tuned_on": "birds"}
    return SMALL | {"data": [*SMALL["data"], birds | more]}


def test_data_may_take_the_choice_made_on_earlier_data(tmp_path: Path) -> None:
    spec = check_spec(with_more_birds(backbones=["test_vit"], sample_rates=[30]))
    trials = trial_cells(spec, tmp_path)
    assert {cell.setting.data for cell in trials} == {"birds"}
    assert len(trials) == 2 * 4
    own, other = settings_of(spec)[0], settings_of(spec)[2]
    assert tuned_as(spec, other) == tuned_as(spec, own) == own
    assert (other.data, other.backbone, other.sample_rate) == ("more", "test_vit", 30)
    assert "`more` on `birds`" in markdown(spec, [], [])


@pytest.mark.parametrize(("shared", "places"), [(False, ["b/30", "b/100", "a/30", "a/100"]), (True, ["a/100"] * 4)])
def test_the_choice_taken_is_that_of_the_same_backbone_and_rate_where_there_is_one(
    shared: bool, places: list[str]
) -> None:
    birds = SMALL["data"][0] | {"backbones": ["a", "b"], "sample_rates": [100, 30]}
    more = {"backbones": ["b", "c"], "sample_rates": [30, 50]}
    data = [birds, with_more_birds(**more)["data"][1]]
    spec = check_spec(SMALL | {"data": data, "methods": ["vanilla"], "search": SEARCHED, "share_search": shared})
    found = [tuned_as(spec, setting) for setting in settings_of(spec) if setting.data == "more"]
    assert [f"{one.backbone}/{one.sample_rate:g}" for one in found] == places
    assert {one.data for one in found} == {"birds"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tuned_on": "nothing"}, "tuned on 'nothing', which is none of the data before it"),
        ({"tuned_on": "more"}, "tuned on 'more', which is none of the data before it"),
    ],
)
def test_a_choice_can_be_taken_from_earlier_data_alone(more: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_spec(with_more_birds(**more))


def test_a_choice_that_was_taken_cannot_be_taken_on() -> None:
    third = {"name": "third", "source": "planted", "tuned_on": "more"}
    with pytest.raises(ConfigError, match="tuned on 'more', which has no search of its own"):
        check_spec(with_more_birds() | {"data": [*with_more_birds()["data"], third]})


def test_a_choice_is_taken_for_methods_that_were_searched() -> None:
    only_vanilla = {**SMALL["data"][0], "methods": ["vanilla"]}
    values = with_more_birds()
    with pytest.raises(ConfigError, match="tuned on 'birds', which is not learnt by 'l2-sp'"):
        check_spec(values | {"data": [only_vanilla, values["data"][1]]})


CHOICES = {"vanilla": {}, "l2-sp": {"lr": 0.02, "l2_sp.backbone_decay": 0.1}}
HALF = {"half": {"method": "l2-sp", "set": {"l2_sp.backbone_decay": 0.5}, "tuned_as": "l2-sp"}}


def test_what_was_chosen_before_is_not_searched_again(tmp_path: Path) -> None:
    values = with_more_birds(choices=CHOICES) | {"methods": ["vanilla", "l2-sp", "half"], "variants": HALF}
    spec = check_spec(values)
    assert {cell.setting.data for cell in trial_cells(spec, tmp_path)} == {"birds"}
    assert trials_for(spec, tmp_path, ["more"]) == []
    runs = {
        cell.setting.method: cell.config for cell in final_cells(spec, tmp_path) if cell.setting.data == "more"
    }  # though the search on the other birds has not begun
    assert [runs[name].optim.lr for name in ("vanilla", "l2-sp", "half")] == [runs["vanilla"].optim.lr, 0.02, 0.02]
    assert [runs[name].l2_sp.backbone_decay for name in ("l2-sp", "half")] == [0.1, 0.5]
    assert "chosen before, and not searched again, for `more` on `birds`" in markdown(spec, [], [])
    row = next(row for row in summary(spec, tmp_path) if row["data"] == "more" and row["method"] == "half")
    assert (row["trials"], row["chosen"]) == (0, {"lr": 0.02, "l2_sp.backbone_decay": 0.5})
    assert "Not begun are 6 of 6 settings: birds; more." in markdown(spec, summary(spec, tmp_path), [])


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"vanilla": {}}, "'more' has `choices`, and none of 'l2-sp'; write what was chosen for it, `l2-sp: {}`"),
        (CHOICES | {"l2_sp": {}}, "of 'l2_sp', by which nothing is tuned; did you mean 'l2-sp'?"),
        (CHOICES | {"vanilla": {"epochs": 9}}, "of 'vanilla' with 'epochs' (optim.epochs), which is not searched"),
        (CHOICES | {"vanilla": {"lr": 0.2}}, "of 'vanilla' with lr = 0.2, which is not between 0.001 and 0.1"),
        (CHOICES | {"vanilla": {"lr": "fast"}}, "with lr = 'fast', which is not between"),
        (CHOICES | {"vanilla": {"lr": 0.02, "optim.lr": 0.03}}, "with optim.lr twice; leave out one of them."),
        (CHOICES | {"l2-sp": {"l2_sp.backbone_decay": 0.05}}, "which is not one of [0.01, 0.1], as the search has it"),
        (CHOICES | {"vanilla": {"larning": 1}}, "has `choices` of 'vanilla': "),
    ],
)
def test_a_choice_made_before_is_one_that_the_search_could_have_made(choices: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_spec(with_more_birds(choices=choices))


def test_without_a_search_nothing_was_chosen() -> None:
    with pytest.raises(ConfigError, match=r"has `choices`, and the bench searches nothing; write .* under `set`\."):
        check_spec(with_more_birds(choices=CHOICES) | {"trials": 0, "search": {}})


def test_data_may_have_methods_backbones_and_rates_of_its_own() -> None:
    own = {"name": "few", "source": "planted", "methods": ["vanilla"], "backbones": ["test_vit"], "sample_rates": [15]}
    spec = check_spec(SMALL | {"data": [*SMALL["data"], own]})
    assert [setting.place for setting in settings_of(spec)][2:] == ["few/test_vit/15/vanilla"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"methods": []}, "methods"),
        ({"methods": ["vanilla", "vanilla"]}, "twice"),
        ({"methods": ["vanilla", "magic"], "search": {}}, "magic"),
        ({"name": "../x"}, "name"),
        ({"seeds": ["a"]}, "seeds"),
        ({"set": {"rhoo": 1}}, "rho"),
        ({"preset": "huge"}, "huge"),
        ({"search": {"bss": {}}}, "bss"),
        ({"search": {"all": {"lr": {"low": 1, "high": 0.1}}}}, "low"),
        ({"search": {"all": {"lr": {"low": 0, "high": 0.1, "log": True}}}}, "low"),
        ({"search": {"all": {"lr": {"low": -1.0, "high": 0.1}}}}, "lr"),
        ({"search": {"all": {"bss.weight": {"low": 0.1, "high": 1}}}}, "would do nothing"),
        ({"data": [{"name": "birds", "source": "planted", "set": {"rho": 3}}]}, "rho"),
        ({"data": [{"name": "birds", "source": "planted", "methods": ["bss"]}]}, "none of its methods"),
        ({"data": [{"name": "birds", "source": "planted", "methods": ["l2-sp"]}]}, "leaves out 'vanilla'"),
        ({"variants": {"bss": {"method": "bss"}}}, "method's name"),
        ({"seeds": [1, 1]}, "seeds twice"),
        ({"seeds": [1, -5]}, "seed"),
        ({"sample_rates": [30, 30.0]}, "sample_rates twice"),
        ({"sample_rates": [33.333333, 33.33333]}, "would share the folder"),
        ({"data": [{"name": "a", "source": "planted"}, {"name": "A", "source": "elpv"}]}, "would share the folder"),
        ({"data": [{"name": "birds", "source": "planted", "backbones": ["a", "a"]}]}, "backbones of the data 'birds'"),
        ({"data": [{"name": "..", "source": "planted"}]}, "name"),
        (
            {"methods": ["vanilla", "l2-sp", "x"], "variants": {"x": {"method": "vanilla", "tuned_as": "l2-sp"}}},
            "nothing",
        ),
        (
            {
                "methods": ["vanilla", "l2-sp", "x", "y"],
                "variants": {"x": {"method": "l2-sp", "tuned_as": "l2-sp"}, "y": {"method": "l2-sp", "tuned_as": "x"}},
            },
            "no search of its own",
        ),
        (
            {"methods": ["vanilla", "l2-sp", "half"], "variants": {"half": {"method": "bss", "tuned_as": "lwf"}}},
            "'lwf'",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_spec(SMALL | change)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "name: \x00", "name: 2024-13-01", "[" * 9999])
def test_a_file_that_is_no_bench_is_a_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="bench"):
        load_spec(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_spec(tmp_path / "none.yaml")


def test_a_name_given_twice_is_refused_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(SMALL) + "methods: [lp-ft]\n")
    with pytest.raises(ConfigError, match=r"(?s)'methods' is given twice.*line \d+"):
        load_spec(file)
    file.write_text(yaml.safe_dump(SMALL) + "set: {lr: 0.1, lr: 0.2}\n")
    with pytest.raises(ConfigError, match="'lr' is given twice"):
        load_spec(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("set: &x {lr: *x}\n", "refers to itself"),
        (
            "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 9)}]\n" for n in range(9)),
            "stands for over",
        ),
    ],
)
def test_references_that_never_end_or_stand_for_very_much_are_refused_at_once(
    text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in SMALL.items() if name != "set"}) + text)
    with pytest.raises(ConfigError, match=words):
        load_spec(file)


def test_a_merged_value_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    both = "variants:\n  a: {method: vanilla, set: &a {lr: 0.1}}\n  b: {method: vanilla, set: &b {<<: *a, lr: 0.2}}\n"
    text = yaml.safe_dump({name: value for name, value in SMALL.items() if name not in ("methods", "search", "trials")})
    file.write_text(f"{text}{both}  c: {{method: vanilla, set: {{<<: *b, lr: 0.3}}}}\nmethods: [vanilla, a, b, c]\n")
    assert [one.set["lr"] for one in load_spec(file).variants.values()] == [0.1, 0.2, 0.3]


def test_every_method_has_the_same_number_of_trials_and_the_first_changes_nothing() -> None:
    spec = check_spec(SMALL)
    plain, l2 = (draw_trials(spec, setting) for setting in settings_of(spec))
    assert len(plain) == len(l2) == 4
    assert plain[0] == l2[0] == {}
    assert all(set(trial) == {"lr"} for trial in plain[1:])
    assert all(set(trial) == {"lr", "l2_sp.backbone_decay"} for trial in l2[1:])
    assert all(0.001 <= trial["lr"] <= 0.1 for trial in (*plain[1:], *l2[1:]))


def test_the_draws_are_the_same_again_and_others_for_another_seed() -> None:
    setting = settings_of(check_spec(SMALL))[0]
    assert draw_trials(check_spec(SMALL), setting) == draw_trials(check_spec(SMALL), setting)
    assert draw_trials(check_spec(SMALL), setting) != draw_trials(check_spec(SMALL | {"search_seed": 3}), setting)
    assert draw_trials(check_spec(SMALL | {"trials": 1, "search": {}}), setting) == [{}]


def test_the_draws_of_the_offline_bench_stay_as_they_were() -> None:
    """Whoever goes on with that bench has trials of these values already."""
    spec = load_spec(SPECS[0].with_name("offline.yaml"))
    lr = [0.04312041006163176, 0.03366189370179148, 0.02285397361841489]
    weights = [0.10058498019016086, 0.09904672197685094, 0.08820628128661348]
    plain, cheap = (draw_trials(spec, setting)[1:] for setting in settings_of(spec)[:2])
    assert [trial["lr"] for trial in plain] == [trial["lr"] for trial in cheap] == lr
    assert [trial["image_weight"] for trial in cheap] == weights


def test_of_a_whole_number_whole_numbers_are_drawn() -> None:
    whole = {"batch_size": {"low": 8, "high": 64}, "max_steps": {"low": 1, "high": 1000, "log": True}}
    space = whole | {"weight_decay": {"low": 0, "high": 1}}
    spec = check_spec(SMALL | {"methods": ["vanilla"], "trials": 40, "search": {"all": space}})
    drawn = draw_trials(spec, settings_of(spec)[0])[1:]
    for key, span in whole.items():
        values = [trial[key] for trial in drawn]
        assert {type(value) for value in values} == {int}
        assert span["low"] <= min(values) < max(values) <= span["high"]
    assert {type(trial["weight_decay"]) for trial in drawn} == {float}
    assert sum(trial["max_steps"] < 32 for trial in drawn) > 10  # evenly in the logarithm
    assert len({config_of(spec, settings_of(spec)[0], seed=1, drawn=trial).optim.batch_size for trial in drawn}) > 10


def test_the_best_trial_is_by_accuracy_then_loss_then_number() -> None:
    assert best_trial({}) is None
    values = [(0.7, 0.1), (0.9, 0.5), (0.9, 0.4), (0.9, 0.4)]
    assert best_trial({number: {"accuracy": first, "loss": loss} for number, (first, loss) in enumerate(values)}) == 2


def test_of_the_worst_group_where_every_trial_chose_its_epoch_by_it() -> None:
    values = [(0.9, 0.1, 0.2), (0.8, 0.2, 0.5), (0.8, 0.1, 0.5), (0.7, 0.0, 0.5)]
    reached = {
        number: {"accuracy": first, "loss": loss, "worst_group_accuracy": worst}
        for number, (first, loss, worst) in enumerate(values)
    }
    assert best_trial(reached) == 2
    del reached[3]["worst_group_accuracy"]  # by another measure: what all have chooses
    assert best_trial(reached) == 0
