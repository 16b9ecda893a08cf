"""A published figure stands beside the same data, network and sample rate, and says what was otherwise."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from concept_tuning.bench.published import ARCHITECTURE, Published, published
from concept_tuning.bench.spec import BenchSpec, check_spec, config_of, load_spec, settings_of
from concept_tuning.engine.schedule import rate_factor

PAPER = Path(__file__).parents[2] / "benchmarks" / "specs" / "paper.yaml"
BASE = {
    "name": "few",
    "data": [{"name": "birds", "source": "cub200"}],
    "methods": ["vanilla", "co-tuning", "l2-sp", "concept-tuning"],
    "backbones": [ARCHITECTURE],
    "preset": "paper",
}
WHOLE = {"weights": "timm"}
LIBRARY = {"epochs": 1000, "max_steps": 10_000, "schedule": "step", "step_points": [0.6]}
AUTHORS = LIBRARY | {"max_steps": 20_000, "step_points": [0.3, 0.6]}


@functools.cache
def paper() -> BenchSpec:
    return load_spec(PAPER)


def found(values: dict, method: str) -> Published | None:
    spec = check_spec(BASE | values)
    setting = next(one for one in settings_of(spec) if one.method == method)
    return published(setting, config_of(spec, setting, seed=1, drawn={}))


# As they were copied from the sources another time; the figures without a name are the best of several methods.
@pytest.mark.parametrize(
    ("data", "rate", "method", "percent"),
    [
        ("cub200", 100, "vanilla", 81.8),
        ("cub200", 100, "co-tuning", 82.5),
        ("cub200", 100, "bi-tuning", 83.1),
        ("cub200", 100, "concept-tuning", 85.14),
        *(("cub200", rate, "vanilla", value) for rate, value in ((15, 51.2), (30, 64.6), (50, 74.6))),
        *(("cub200", rate, "co-tuning", value) for rate, value in ((15, 57.6), (30, 70.1), (50, 77.3))),
        *(("cub200", rate, "bi-tuning", value) for rate, value in ((15, 55.8), (30, 69.3), (50, 77.2))),
        ("stanford-cars", 100, "vanilla", 87.8),
        ("stanford-cars", 100, "co-tuning", 89.1),
        ("stanford-cars", 100, "bi-tuning", 90.2),
        ("aircraft", 100, "vanilla", 80.2),
        ("aircraft", 100, "delta", 82.7),
        ("aircraft", 100, "bi-tuning", 84.3),
    ],
)
@pytest.mark.parametrize("ending", ["", "-10000"])
def test_the_papers_settings_have_the_published_figures(
    data: str, rate: float, method: str, percent: float, ending: str
) -> None:
    spec = paper()
    wanted = (data + ending, rate, method)
    setting = next(one for one in settings_of(spec) if (one.data, one.sample_rate, one.method) == wanted)
    known = published(setting, config_of(spec, setting, seed=1, drawn={}))
    assert known is not None
    assert known.accuracy == pytest.approx(percent / 100)
    assert ("chosen on test" in known.source) is (method == "concept-tuning")


def test_what_was_not_published_has_none() -> None:
    spec: BenchSpec = paper()
    lacking = {
        (one.data, one.sample_rate, one.method)
        for one in settings_of(spec)
        if published(one, config_of(spec, one, seed=1, drawn={})) is None
    }
    places = [("cub200", rate) for rate in (100, 15, 30, 50)] + [("stanford-cars", 100), ("aircraft", 100)]
    nowhere = {(*place, method) for place in places for method in ("l2-sp", "core-tuning")}
    both = [*places, *((f"{data}-10000", rate) for data, rate in places)]
    known = [("cub200", 100), ("cub200-10000", 100)]
    assert lacking == nowhere | {(*place, "concept-tuning") for place in both if place not in known}


def otherwise(values: dict, method: str = "vanilla") -> list[str]:
    known = found(values, method)
    assert known is not None
    return known.otherwise.split("; ")


def test_what_was_otherwise_is_said_and_no_more() -> None:
    ours = "100 passes over the training pictures, the learning rate by a cosine"
    theirs = "10,000 steps at every sample rate, the learning rate a tenth after 6,000"
    validation = "no pictures set aside for validation (here 20 % of training's)"
    assert otherwise({}) == [f"{theirs} (here {ours})", validation]
    assert otherwise({"set": LIBRARY}) == [validation]
    assert otherwise({"set": LIBRARY | {"validation_fraction": 0.05}}) == [validation.replace("20 %", "5 %")]
    assert otherwise({"set": LIBRARY, "sample_rates": [30]}) == [validation, "another sample of the training pictures"]
    both = "trained on the official training and validation pictures together, twice as many as here"
    assert otherwise({"set": LIBRARY, "data": [{"name": "planes", "source": "aircraft"}]}) == [both]
    cars = {"set": LIBRARY, "data": [{"name": "cars", "source": "stanford-cars"}]}
    assert otherwise(cars) == [validation]


def test_what_was_otherwise_in_the_authors_run_is_said() -> None:
    noise = "the latent's noise in evaluation too"
    parts = ["a latent of 512 numbers", "negatives of all 199 other classes", "the exponential of sigma in the KL term"]
    theirs = "20,000 steps, the learning rate a tenth after 6,000 and a hundredth after 12,000"
    told = otherwise({}, "concept-tuning")
    assert told[0].startswith(f"{theirs} (here 100 passes over the training pictures")
    assert told[2:] == [*parts, noise]
    assert otherwise({"set": AUTHORS}, "concept-tuning") == [told[1], *parts, noise]
    assert otherwise({"set": LIBRARY}, "concept-tuning")[0].startswith(f"{theirs} (here 10,000 steps")
    same = {"latent_dim": 512, "confusing_for_negatives": 199, "kl_deviation": "exp-sigma"}
    variants = {"theirs": {"method": "concept-tuning", "set": same}}
    values = {"methods": ["vanilla", "theirs"], "variants": variants, "set": AUTHORS}
    assert otherwise(values, "theirs") == [told[1], noise]


def test_the_papers_spec_trains_as_the_library_does() -> None:
    """20 epochs of 500 batches of 48, a tenth from epoch 12 on, as its scripts have it."""
    spec = paper()
    for setting in settings_of(spec):
        if setting.data.endswith("-10000"):
            optim = config_of(spec, setting, seed=1, drawn={}).optim
            assert (optim.max_steps, optim.batch_size, optim.schedule) == (20 * 500, 48, "step")
            factors = [rate_factor(optim, step, 10_000) for step in (0, 12 * 500 - 1, 12 * 500, 9_999)]
            assert factors == pytest.approx([1, 1, 0.1, 0.1])
            assert optim.epochs > 10_000 // (0.8 * 0.15 * 5_994 // 48)  # of CUB's smallest sample


def test_the_librarys_settings_of_lwf_can_be_drawn() -> None:
    space = paper().space("lwf")
    for key, value in {"lr": 0.001, "lwf.weight": 4, "lwf.temperature": 3}.items():
        assert value in space[key].choices or space[key].low <= value <= space[key].high


@pytest.mark.parametrize("method", ["vanilla", "concept-tuning"])
@pytest.mark.parametrize(
    "change",
    [
        {"backbones": ["resnet50.a1_in1k"]},
        {"backbones": ["resnet50"]},
        {"backbones": ["resnet18"]},
        {"sample_rates": [40]},
        {"set": {"image_size": 192}},
        {"set": {"weights": "random"}},
        {"set": {"per_class": 10}},
        {"data": [{"name": "cub200", "source": "flowers102"}]},
        {"set": {"max_steps": 144}},
        {"set": {"epochs": 10}},
        {"set": {"batch_size": 24}},
        {"set": {"optimizer": "adamw"}},
        {"set": {"weight_decay": 0.1}},
        {"set": {"schedule": "constant"}},
        {"set": LIBRARY | {"max_steps": 5_000}},
        {"set": LIBRARY | {"epochs": 100}},
        {"set": LIBRARY | {"step_points": [0.5]}},
        {"set": LIBRARY | {"step_factor": 0.5}},
        {"set": LIBRARY | {"batch_size": 24}},
        {"set": {"precision": "bf16"}},
        {"preset": "small", "set": {"image_size": 224}},
    ],
    ids=str,
)
def test_another_setting_has_none(change: dict, method: str) -> None:
    methods = {"methods": ["vanilla", "concept-tuning"]}  # the others cannot begin with random weights
    assert found(methods | {"set": WHOLE}, method) is not None
    assert found(methods | change, method) is None


def test_a_method_that_lacks_a_part_has_none_and_the_whole_one_under_another_name_has() -> None:
    names = {"views": 2}, {"concept_weight": 0}, {"front_door": False}, {"patches": "feature-map"}, {}
    variants = {f"v{number}": {"method": "concept-tuning", "set": values} for number, values in enumerate(names)}
    variants["co"] = {"method": "co-tuning", "set": {"co_tuning.weight": 0}}
    values = {"variants": variants, "methods": ["vanilla", *variants]}
    assert [found(values, name) is not None for name in variants] == [False, False, False, False, True, False]


def test_the_learning_rate_may_be_another() -> None:
    assert found({"set": {"lr": 0.03}}, "vanilla") is not None


def test_timm_knows_the_network_and_its_weights() -> None:
    import timm

    spec = paper()
    assert spec.backbones == (ARCHITECTURE,)
    assert ARCHITECTURE in timm.list_pretrained("resnet50*")
    assert timm.get_pretrained_cfg(ARCHITECTURE).url.endswith("resnet50-0676ba61.pth")  # torchvision's IMAGENET1K_V1


def test_a_figure_is_of_the_sample_rate_that_is_run() -> None:
    spec = check_spec(BASE | {"sample_rates": [15]})
    setting = settings_of(spec)[0]
    config = config_of(spec, setting, seed=1, drawn={})
    known, other = (
        published(setting, config),
        published(setting, replace(config, data=replace(config.data, sample_rate=30))),
    )
    assert known is not None
    assert other is not None
    assert (known.accuracy, other.accuracy) == pytest.approx((0.512, 0.646))
