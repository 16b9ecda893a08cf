"""What a bench may not hold: unequal budgets, a search of what is learnt, settings in two places; said in sentences."""

from __future__ import annotations

import re

import pytest

from concept_tuning.bench.search import draw_trials
from concept_tuning.bench.spec import check_spec, settings_of
from concept_tuning.bench.spec_checks import FINISHING
from concept_tuning.errors import ConfigError
from concept_tuning.methods.base import Method
from concept_tuning.methods.registry import METHODS
from concept_tuning.settings import METHOD_SECTIONS

LR = {"lr": {"low": 0.001, "high": 0.1, "log": True}}
DECAY = {"l2_sp.backbone_decay": {"choices": [0.01, 0.1]}}
PLAIN = {
    "name": "plain",
    "data": [{"name": "birds", "source": "planted"}, {"name": "cells", "source": "elpv"}],
    "methods": ["vanilla", "l2-sp"],
}
SEARCHING = PLAIN | {"trials": 3, "search": {"all": LR, "l2-sp": DECAY}}
HALF = {"method": "l2-sp", "set": {"l2_sp.backbone_decay": 0.5}}


def refused(values: dict, words: str) -> None:
    """Check that a bench is refused with these words, letter by letter, and with a whole sentence."""
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        check_spec(values)
    said = str(caught.value)
    assert said.endswith((".", "?"))
    assert not any(odd in said for odd in ("Value error", "Input should", "pydantic"))


def test_these_benches_can_be_run() -> None:
    assert check_spec(PLAIN).trials == 0
    assert check_spec(SEARCHING).trials == 3
    assert check_spec(PLAIN | {"trials": 1, "search": {"all": {}}}).trials == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search": {}}, "3 trials and nothing to search; write a space under `search`"),
        ({"search": {"all": {}}}, "or `trials: 0`"),
        ({"trials": 1}, "`trials` is 1, with which nothing is searched; write `trials: 2` or more"),
        ({"trials": 0}, "or leave out `search`"),
        ({"search": {"l2-sp": DECAY}}, "searches nothing for 'vanilla' and something for others"),
        ({"search": {"l2-sp": DECAY}}, "or one for every method under `all`"),
        ({"search": {"vanilla": LR}}, "searches nothing for 'l2-sp'"),
    ],
)
def test_every_method_has_the_same_number_of_trials_or_none(change: dict, words: str) -> None:
    refused(SEARCHING | change, words)


def test_a_variant_has_a_search_of_its_own_or_is_tuned_as_another() -> None:
    values = SEARCHING | {"methods": ["vanilla", "half"], "search": {"vanilla": LR, "half": {}}}
    refused(values | {"variants": {"half": {"method": "l2-sp"}}}, "searches nothing for 'half'")
    ablation = {"half": {"method": "vanilla", "tuned_as": "vanilla", "set": {"lr": 0.02}}}
    check_spec(values | {"search": {"vanilla": LR}, "variants": ablation})
    refused(values | {"variants": ablation}, "tuned as 'vanilla', and has a search of its own too")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("rho", "for 'all' changes 'rho' (planted.rho), which is what is learnt"),
        ("data.per_class", "changes 'data.per_class' (data.per_class), which is what is learnt"),
        ("image_size", "changes 'image_size' (data.image_size)"),
        ("elpv.task", "which is what is learnt"),
        ("seed", "changes 'seed', which belongs under `seeds` (that of the search: `search_seed`); leave it out"),
        ("architecture", "belongs under `backbones`"),
    ],
)
def test_what_is_learnt_and_the_seed_are_not_searched(key: str, words: str) -> None:
    space = {"all": LR | {key: {"choices": [1, 2]}}}
    refused(PLAIN | {"trials": 3, "search": space}, words)
    refused(PLAIN | {"trials": 3, "search": {"all": LR, "vanilla": {key: {"choices": [1]}}}}, key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("rho", "`set` of the variant 'own' changes 'rho' (planted.rho), which is what is learnt"),
        ("validation_fraction", "which is what is learnt"),
        ("engine.seed", "belongs under `seeds`"),
        ("source", "belongs under `source` of the data"),
    ],
)
def test_a_variant_learns_the_same(key: str, words: str) -> None:
    variants = {"own": {"method": "vanilla", "set": {key: 0.5}}}
    refused(PLAIN | {"methods": ["vanilla", "own"], "variants": variants}, words)


def test_a_variant_may_see_its_pictures_in_another_way() -> None:
    seen = {"image_size": 64, "strong_scale_min": 0.5, "horizontal_flip": False, "data.color_jitter": 0.2}
    crops = {"own": {"method": "vanilla", "set": seen}, "mild": {"method": "concept-tuning", "set": {}}}
    crops["mild"]["set"] = {"mild_scale_min": 0.8}
    check_spec(PLAIN | {"methods": ["vanilla", *crops], "variants": crops})


@pytest.mark.parametrize(("key", "place"), [("seed", "seeds"), ("sample_rate", "sample_rates"), ("source", "source")])
def test_what_has_a_place_of_its_own_is_in_no_set(key: str, place: str) -> None:
    refused(PLAIN | {"set": {key: 1}}, f"The bench's `set` holds {key!r}, which belongs under `{place}`")
    data = [PLAIN["data"][0] | {"set": {key: 1}}]
    refused(PLAIN | {"data": data}, f"`set` of the data 'birds' holds {key!r}, which belongs under `{place}`")


def test_what_is_searched_is_not_fixed_too() -> None:
    refused(
        SEARCHING | {"set": {"optim.lr": 0.1}},
        "searches 'lr' (in `search` for 'all'), which stands in the bench's `set` too; leave out one of them.",
    )
    data = [PLAIN["data"][0] | {"set": {"lr": 0.1}}, PLAIN["data"][1]]
    refused(SEARCHING | {"data": data}, "which stands in the `set` of the data 'birds' too")
    check_spec(SEARCHING | {"set": {"weight_decay": 0.1}})


def test_a_setting_is_searched_under_one_name() -> None:
    both = {"all": LR, "vanilla": {"optim.lr": {"low": 0.001, "high": 0.1}}}
    refused(
        SEARCHING | {"search": both},
        "has 'lr' (for 'all') and 'optim.lr' (for 'vanilla'), which are one setting of 'vanilla'",
    )
    twice = {"all": LR | {"optim.lr": {"low": 0.001, "high": 0.1}}}
    refused(SEARCHING | {"search": twice}, "(for 'all'), which are one setting of 'vanilla'; leave out one of them.")
    check_spec(SEARCHING | {"search": both | {"vanilla": {"lr": {"low": 0.001, "high": 0.1}}}})


def test_of_data_and_variants_only_what_is_searched_with_them_counts() -> None:
    data = [PLAIN["data"][0] | {"methods": ["vanilla"], "set": {"weight_decay": 0.1}}]
    only_l2 = SEARCHING | {"search": {"vanilla": LR, "l2-sp": {"weight_decay": {"low": 0, "high": 0.1}}}}
    check_spec(only_l2 | {"data": data})
    refused(
        only_l2 | {"data": [data[0] | {"methods": None}]},
        "searches 'weight_decay' (in `search` for 'l2-sp'), which stands in the `set` of the data 'birds' too",
    )
    values = SEARCHING | {"methods": ["vanilla", "l2-sp", "half"]}
    refused(
        values | {"variants": {"half": HALF}},
        "'l2_sp.backbone_decay' (in `search` for 'l2-sp'), which stands in the `set` of the variant 'half' too",
    )
    check_spec(values | {"variants": {"half": HALF | {"tuned_as": "l2-sp"}}})
    check_spec(values | {"variants": {"half": HALF}, "search": {"all": LR, "half": {}}})


@pytest.mark.parametrize("key", ["front_door", "aggregate", "views"])
def test_only_numbers_have_ranges(key: str) -> None:
    values = PLAIN | {"methods": ["vanilla", "concept-tuning"], "trials": 2}
    space = {"vanilla": LR, "concept-tuning": {key: {"low": 0, "high": 1}}}
    refused(values | {"search": space}, f"search for 'concept-tuning' has a range of {key!r}, which is no number")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dat": 1}, "The bench has no setting 'dat'; did you mean 'data'?"),
        ({"colour": 1, "seeds": ["a"]}, "The bench has no setting 'colour'. It may have: name, data, methods,"),
        (
            {"data": [{"name": "birds", "sauce": "planted"}]},
            "data 'birds' has no setting 'sauce'; did you mean 'source'?",
        ),
        ({"data": [{"name": "birds"}]}, "The bench's data 'birds' lacks 'source'."),
        ({"data": [{"source": "planted"}]}, "The bench's data number 1 lacks 'name'."),
        ({"data": {"name": "birds", "source": "planted"}}, "The bench's data must be a list (got {'name'"),
        ({"data": ["planted"]}, "data must hold only data such as {name: birds, source: planted} (got 'planted')."),
        ({"data": []}, "The bench's data must not be empty"),
        ({"methods": "vanilla"}, "The bench's methods must be a list (got 'vanilla')."),
        ({"methods": [1]}, "The bench's methods must hold only text; put it in quotes (got 1)."),
        ({"seeds": [1, 1.5]}, "The bench's seeds must hold only whole numbers (got 1.5)."),
        ({"seeds": [1, "one"]}, "The bench's seeds must hold only whole numbers (got 'one')."),
        ({"seeds": []}, "The bench's seeds must not be empty"),
        ({"sample_rates": ["half"]}, "The bench's sample_rates must hold only numbers (got 'half')."),
        ({"sample_rates": [float("inf")]}, "sample_rates must hold only finite numbers"),
        ({"trials": -1}, "The bench's trials must be at least 0, got -1."),
        ({"trials": 5000}, "The bench's trials must be at most 1000, got 5000."),
        ({"share_search": "perhaps"}, "The bench's share_search must be true or false"),
        ({"set": None}, "The bench's set must be settings by name, such as {lr: 0.01} (got nothing)."),
        ({"set": {5: 1}}, "The bench has a name that is no text: 5; put it in quotes."),
        ({5: 1}, "The bench has a name that is no text: 5; put it in quotes."),
        (
            {"data": [{"name": "birds", "source": "planted", True: 1}]},
            "The bench's data 'birds' has a name that is no text",
        ),
        ({"name": "a" * 61}, "has at most 60 characters"),
        ({"name": b"\xff"}, "The bench's name cannot be used: input should be a valid string, unable to parse"),
        ({"variants": {"b" * 41: HALF}}, "has at most 40 characters"),
        ({"methods": {str(number): number for number in range(99)}}, "'9': 9,...)."),
        ({"name": "a b"}, "The bench cannot be named 'a b': the name may hold letters, digits, '_', '.' and '-'"),
        ({"data": [{"name": "a/b", "source": "planted"}]}, "the name may hold letters, digits, '_', '.' and '-'"),
        ({"variants": {"a/b": HALF}}, "variant 'a/b' cannot be named 'a/b': the name may hold letters"),
        ({"variants": {"half": "l2-sp"}}, "must be a variant such as {method: vanilla, set: {lr: 0.01}} (got 'l2-sp')"),
        ({"variants": {"half": HALF | {"tune_as": "x"}}}, "has no setting 'tune_as'; did you mean 'tuned_as'?"),
        ({"variants": {"half": {"set": {}}}}, "The bench's variant 'half' lacks 'method'."),
        ({"variants": {"half": {"method": "l2sp"}}}, "'l2sp', which there is not; did you mean 'l2-sp'?"),
        ({"variants": {"all": HALF}}, "has the name that stands for all methods; give it one of its own"),
        ({"search": {"all": "lr"}}, "search.all must be settings by name with a range each, such as {lr: {low:"),
        (
            {"search": {"all": {"lr": [0.001, 0.1]}}},
            "search for 'all', lr must be a range such as {low: 0.001, high: 0.1}",
        ),
        ({"search": {"all": {"lr": 0.1}}}, "lr must be a range such as {low: 0.001, high: 0.1} or {choices: [...]}"),
        ({"search": {"all": {"lr": {"low": 1, "high": 0.1}}}}, "lr: write low below high (above 0 if log), such as"),
        ({"search": {"all": {"lr": {"min": 1}}}}, "search of 'lr' for 'all' has no setting 'min'"),
        (
            {"search": {"all": {"lr": {"low": "a", "high": 1}}}},
            "search of 'lr' for 'all', low must be a number (got 'a')",
        ),
        ({"search": {"all": {5: {"low": 0, "high": 1}}}}, "has a name that is no text: 5"),
        ({"search": {"vanila": LR}, "trials": 2}, "'vanila', which is none of its methods; did you mean 'vanilla'?"),
        ({"methods": ["vanilla", "l2sp"]}, "'l2sp', which is neither a method nor a variant; did you mean 'l2-sp'?"),
        (
            {"data": [PLAIN["data"][0], {"name": "more", "source": "planted", "tuned_on": "bird"}]},
            "none of the data before it; did you mean 'birds'?",
        ),
        (
            {"data": [PLAIN["data"][0] | {"methods": ["vanilla", "l2sp"]}]},
            "names 'l2sp', which is none of its methods; did you mean 'l2-sp'?",
        ),
        (
            {"methods": ["vanilla", "half"], "variants": {"half": HALF | {"tuned_as": "vanila"}}},
            "which is not compared; did you mean 'vanilla'?",
        ),
    ],
)
def test_faults_are_said_in_plain_words(change: dict, words: str) -> None:
    refused(PLAIN | change, words)


def test_what_lacks_is_named_unless_it_is_misspelt() -> None:
    refused({}, "The bench lacks 'name', 'data' and 'methods'.")
    refused({"name": "a", "methods": ["vanilla"]}, "The bench lacks 'data'.")
    refused({"name": "a", "methods": ["vanilla"], "dta": []}, "no setting 'dta'; did you mean 'data'?")


def test_the_search_has_a_seed_that_no_final_run_has() -> None:
    words = "search_seed, 0, is one of its seeds, whose final run would only repeat the trial that was chosen; write "
    refused(SEARCHING | {"seeds": [1, 0, 2]}, f"{words}`search_seed: 3`, or take 0 out of `seeds`.")
    refused(SEARCHING | {"search_seed": 2}, "write `search_seed: 0`, or take 2 out of `seeds`.")
    check_spec(SEARCHING | {"seeds": [1, 0, 2], "search_seed": 3})
    check_spec(PLAIN | {"seeds": [0, 1]})
    check_spec(PLAIN | {"seeds": [0, 1], "trials": 1, "search": {"all": {}}})


@pytest.mark.parametrize("key", ["epochs", "max_steps", "batch_size", "optim.max_steps"])
def test_no_method_searches_by_itself_how_long_it_learns(key: str) -> None:
    span = {"choices": [8, 64]}
    words = f"search for 'l2-sp' changes {key!r} (optim.{key.removeprefix('optim.')}), which is how long is trained"
    refused(SEARCHING | {"search": {"all": LR, "l2-sp": DECAY | {key: span}}}, words)
    refused(SEARCHING | {"search": {"all": LR | {key: span}, "l2-sp": {key: span}}}, words)
    variants = {"half": {"method": "l2-sp"}}
    values = SEARCHING | {"methods": ["vanilla", "half"], "variants": variants}
    refused(values | {"search": {"all": LR, "half": {key: span}}}, "for 'half'")
    check_spec(SEARCHING | {"search": {"all": LR | {key: span}, "l2-sp": DECAY}})


@pytest.mark.parametrize("key", ["dfr.subsets", "dfr.data", "subsets"])
@pytest.mark.parametrize("name", ["dfr", "half", "all"])
def test_what_is_read_after_the_training_alone_is_not_searched(key: str, name: str) -> None:
    values = SEARCHING | {"data": PLAIN["data"][:1], "methods": ["vanilla", "dfr"], "search": {"all": LR}}
    if name == "half":
        values |= {"methods": ["vanilla", "dfr", "half"], "variants": {"half": {"method": "dfr"}}}
    check_spec(values)
    space = {key: {"choices": ["validation", "training"] if key == "dfr.data" else [5, 10]}}
    full = f"dfr.{key.removeprefix('dfr.')}"
    words = f"search for {name!r} changes {key!r} ({full}), which is read when the training is over, and a trial ends"
    refused(values | {"search": {"all": LR} | {name: LR | space}}, words)
    what = f"compare its values by variants such as {{method: dfr, tuned_as: dfr, set: {{{full}: ...}}}}."
    refused(values | {"search": {"all": LR} | {name: LR | space}}, what)
    taken = {"few": {"method": "dfr", "tuned_as": "dfr", "set": {key: space[key]["choices"][0]}}}
    check_spec(values | {"methods": [*values["methods"], "few"], "variants": values.get("variants", {}) | taken})


def test_the_sections_read_after_the_training_are_those_of_the_methods_that_do_something_then() -> None:
    finishing = {name for name, method in METHODS.items() if method.finish is not Method.finish}
    assert finishing == {name for section in FINISHING for name in METHOD_SECTIONS[section]}


def test_a_variant_that_is_never_run_is_refused() -> None:
    refused(
        PLAIN | {"variants": {"half": HALF}},
        "The bench's variant 'half' is none of its methods, so that it would never run; add it to `methods`, or leave",
    )
    check_spec(PLAIN | {"methods": ["vanilla", "half"], "variants": {"half": HALF}})


@pytest.mark.parametrize("more", [{"low": 0.1}, {"high": 0.1}, {"low": 0.001, "high": 0.1}, {"log": True}], ids=str)
def test_choices_stand_alone(more: dict) -> None:
    words = "search for 'all', lr: choices stand alone; leave out low, high and log, or the choices."
    refused(SEARCHING | {"search": {"all": {"lr": {"choices": [0.1, 0.2]} | more}}}, words)


FRONT_DOOR = {"front_door": {"choices": [True, False]}, "beta": {"low": 0.001, "high": 0.1}}


def test_draws_that_cannot_be_had_together_are_refused_with_their_trial() -> None:
    """Each choice can be run by itself, and so can each end of the range."""
    values = PLAIN | {"methods": ["vanilla", "concept-tuning"], "trials": 4, "search": {"all": LR}}
    space = {"search": {"all": LR, "concept-tuning": FRONT_DOOR}}
    refused(values | space, "concept-tuning cannot be run with what trial 1 draws. In `search` for 'all' and 'concept")
    refused(values | space, "(lr = 0.0")
    refused(values | space, "front_door = False, beta = 0.0")
    refused(values | space, "): Setting concept_tuning.beta would do nothing here: there is no latent bottleneck.")


def test_draws_are_tried_with_what_takes_the_choice_too() -> None:
    """A variant whose own settings leave a drawn one without effect is refused for the trial that draws both."""
    spaces = {"vanilla": LR, "concept-tuning": {"image_weight": {"choices": [0, 1]}, "temperature": {"choices": [0.2]}}}
    quiet = {"method": "concept-tuning", "tuned_as": "concept-tuning", "set": {"concept_weight": 0}}
    values = PLAIN | {
        "data": PLAIN["data"][:1],
        "methods": ["vanilla", "concept-tuning"],
        "trials": 8,
        "search": spaces,
    }
    spec = check_spec(values)
    drawn = [trial.get("image_weight") for trial in draw_trials(spec, settings_of(spec)[1])]
    words = f"lite0/100/quiet cannot be run with what trial {drawn.index(0)} draws. In "
    refused(values | {"methods": [*values["methods"], "quiet"], "variants": {"quiet": quiet}}, words)


def test_trials_of_a_method_that_the_data_itself_does_not_learn_are_tried() -> None:
    own = {"method": "concept-tuning", "tuned_as": "concept-tuning", "set": {}}
    data = [PLAIN["data"][0] | {"methods": ["vanilla", "own"]}]
    values = PLAIN | {"methods": ["vanilla", "concept-tuning", "own"], "variants": {"own": own}, "trials": 4}
    search = {"vanilla": LR, "concept-tuning": FRONT_DOOR}
    refused(
        values | {"data": data, "search": search}, "lite0/100/concept-tuning cannot be run with what trial 1 draws."
    )


CHANGES = {
    "the bench's `set`": {"set": {"epochs": 0}},
    "the `set` of the data 'birds'": {"data": [PLAIN["data"][0] | {"set": {"epochs": 0}}]},
    "the `set` of the variant 'own'": {
        "methods": ["vanilla", "own"],
        "variants": {"own": {"method": "l2-sp", "set": {"epochs": 0}}},
    },
    "`search` for 'all' (epochs = 0)": {"trials": 2, "search": {"all": {"epochs": {"choices": [0, 1]}}}},
    "`search` for 'l2-sp' (lr = -1.0)": {
        "trials": 2,
        "search": {"vanilla": LR, "l2-sp": {"lr": {"low": -1, "high": 1}}},
    },
    "`seeds`": {"seeds": [-1]},
    "`sample_rates`": {"sample_rates": [0]},
}


@pytest.mark.parametrize("block", CHANGES)
def test_settings_that_cannot_be_run_are_said_with_their_place_and_block(block: str) -> None:
    method = next((name for name in ("own", "l2-sp") if repr(name) in block), "vanilla")
    place = f"The bench's setting birds/tf_efficientnet_lite0/100/{method} cannot be run."
    place = place.replace("/100/", "/0/") if block == "`sample_rates`" else place
    refused(PLAIN | CHANGES[block], f"{place} In {block}: Setting ")


def test_a_block_that_mends_another_is_not_at_fault() -> None:
    """`step_points` of the bench needs the schedule of the data; what is wrong is the variant's."""
    data = [PLAIN["data"][0] | {"set": {"schedule": "step"}}]
    values = PLAIN | {"set": {"step_points": [0.5]}, "data": data, "methods": ["vanilla", "own"]}
    check_spec(values | {"variants": {"own": {"method": "l2-sp"}}})
    variants = {"own": {"method": "l2-sp", "set": {"lr": 0}}}
    refused(values | {"variants": variants}, "In the `set` of the variant 'own': Setting optim.lr = 0 is not valid")
    variants = {"own": {"method": "l2-sp", "set": {"schedule": "cosine"}}}
    refused(values | {"variants": variants}, "In the `set` of the variant 'own': Setting optim.step_points would do")


def test_what_no_block_is_at_fault_for_has_its_place_alone() -> None:
    refused(PLAIN | {"preset": "huge"}, "The bench's setting birds/tf_efficientnet_lite0/100/vanilla cannot be run. Un")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"set": {"epocs": 1}}, "The bench's `set`"),
        ({"data": [PLAIN["data"][0] | {"set": {"epocs": 1}}]}, "`set` of the data 'birds'"),
        ({"trials": 2, "search": {"all": {"epocs": {"choices": [1]}}}}, "The bench's search for 'all'"),
        ({"methods": ["own"], "variants": {"own": {"method": "bss", "set": {"epocs": 1}}}}, "of the variant 'own'"),
    ],
)
def test_an_unknown_setting_is_said_with_its_block(change: dict, where: str) -> None:
    refused(PLAIN | change, f"{where}: Unknown setting 'epocs'. Did you mean 'epochs'?")
