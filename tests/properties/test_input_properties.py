"""What must hold whatever comes in: settings, CSV files, archives, splits.

The examples are few here; the slow test repeats every property with many more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from concept_tuning.config import METHOD_NAMES, DataConfig, RunConfig
from concept_tuning.data.csv_file import csv_table
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.splits import split_table, splits_from_keys, splits_to_json
from concept_tuning.data.table import SPLITS
from concept_tuning.data.unpacking import extract_archive
from concept_tuning.engine.checkpoint import load_checkpoint, save_checkpoint
from concept_tuning.errors import ConfigError, DataError
from concept_tuning.settings import build_config
from concept_tuning.settings import settings as every_setting

_MANY = 1000
Property = Callable[[], None]
PROPERTIES: list[Property] = []
KEYS = [setting.key for setting in every_setting()]

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5),
    st.sampled_from(["none", "1e999", "-1", "0.5", "true", "planted", "[1,2]", "", "\ud800", "9" * 5000]),
)  # fmt: skip
NESTED = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
)


def kept(examples: int, *strategies: Any) -> Callable[[Any], Property]:
    """Make a property of a function: with a few examples as a test, and with many more for the slow test."""

    def keep(function: Any) -> Property:
        patient = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
        PROPERTIES.append(settings(max_examples=_MANY, **patient)(given(*strategies)(function)))
        return settings(max_examples=examples, **patient)(given(*strategies)(function))

    return keep


def words(error: Exception) -> None:
    assert str(error).strip(), type(error)


@kept(
    60,
    st.dictionaries(st.sampled_from([*KEYS, "method", "nothing"]), NESTED, max_size=4),
    st.sampled_from(METHOD_NAMES),
)
def test_any_settings_are_a_configuration_or_refused_in_words(values, method) -> None:
    nested: dict[str, object] = {"method": method}
    for key, value in values.items():
        section, _, field = key.partition(".")
        if field and isinstance(nested.setdefault(section, {}), dict):
            nested[section][field] = value
        else:
            nested[section] = value
    whole_or_refused(lambda: RunConfig.from_dict(nested))
    whole_or_refused(lambda: build_config(method=method, overrides=values))


@kept(
    60, st.lists(st.sampled_from(KEYS) | st.text(max_size=12), max_size=3), st.lists(st.text(max_size=12), max_size=3)
)
def test_any_typed_settings_are_a_configuration_or_refused_in_words(keys, values) -> None:
    texts = [f"{key}={value}" for key, value in zip(keys, values, strict=False)] + values[len(keys) :]
    whole_or_refused(lambda: build_config(overrides=texts))


def whole_or_refused(build: Callable[[], RunConfig]) -> None:
    try:
        config = build()
    except ConfigError as error:
        words(error)
        return
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


LINES = st.lists(
    st.lists(
        st.sampled_from(
            ["path", "label", "split", "group", "mask", "a.png", "b.png", "train", "val", "", "../a.png", '"']
        )
        | st.text(max_size=6),
        max_size=5,
    ),
    max_size=6,
)


@kept(
    80,
    st.binary(max_size=80)
    | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.tuples(LINES, st.sampled_from(",;\t"), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])).map(
        lambda parts: "\n".join(parts[1].join(cells) for cells in parts[0]).encode(parts[2], "surrogatepass")
    )
    | LINES.map(
        lambda lines: ("path,label\n" + "\n".join(",".join(cells) for cells in lines)).encode("utf-8", "replace")
    ),
)
def test_any_bytes_are_a_listing_or_refused_in_words(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in ("a.png", "b.png"):
            (folder / picture).write_bytes(b"x")
        (folder / "list.csv").write_bytes(data)
        try:
            table = csv_table(folder / "list.csv", DataConfig(), allow_absolute=False)
        except DataError as error:
            words(error)
            return
        assert len(table.keys) == len(table.labels) > 0
        assert len(set(table.keys)) == len(table.keys)
        assert set(np.unique(table.labels)) == set(range(len(table.class_names)))
        assert {key.rsplit("/", 1)[-1] for key in table.keys} <= {"a.png", "b.png"}
        with suppress(UnreadableImage):
            table.read(0)


@kept(60, st.integers(0, 2**32), st.sampled_from(["zip", "tar"]))
def test_any_archive_is_unpacked_inside_its_folder_or_refused_in_words(seed: int, kind: str) -> None:
    import random

    from fuzz_samples import hostile_archive

    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "1/2/3/4/5/6/7/8/9/10"
        place.mkdir(parents=True)
        (place / "x").write_bytes(hostile_archive(kind, name, random.Random(seed)))
        before = sorted(Path(name).rglob("*"))
        try:
            extract_archive(place / "x", place / "target", max_entries=100, max_bytes=10_000, max_ratio=100)
        except DataError as error:
            words(error)
            assert sorted(Path(name).rglob("*")) == before
            return
        added = {*Path(name).rglob("*")} - {*before}
        assert all(path.is_relative_to(place / "target") for path in added)
        assert not any(path.is_symlink() for path in added)


@st.composite
def tables(draw) -> tuple[np.ndarray, np.ndarray | None, DataConfig]:
    sizes = draw(st.lists(st.integers(3, 25), min_size=2, max_size=5))
    labels = np.repeat(np.arange(len(sizes)), sizes)[
        np.random.default_rng(draw(st.integers(0, 99))).permutation(sum(sizes))
    ]
    groups = draw(st.none() | st.integers(1, 4))
    config = DataConfig(
        data_seed=draw(st.integers(0, 2**32 - 1)),
        sample_rate=draw(st.floats(0.5, 100)),
        per_class=draw(st.none() | st.integers(1, 9)),
        validation_fraction=draw(st.floats(0.01, 0.99)),
        test_fraction=draw(st.floats(0.01, 0.99)),
    )
    return labels, None if groups is None else np.arange(len(labels)) % groups, config


@kept(80, tables())
def test_splits_are_disjoint_counted_stable_and_hold_every_class(table) -> None:
    labels, groups, config = table
    names = [str(number) for number in range(labels.max() + 1)]
    parts = split_table(labels, groups, None, config, class_names=names)
    rows = np.concatenate([parts[name] for name in SPLITS])
    assert len(np.unique(rows)) == len(rows)
    for label, size in enumerate(np.bincount(labels)):
        count = {name: int((labels[part] == label).sum()) for name, part in parts.items()}
        assert min(count.values()) >= 1
        # what is left over was thinned out of training, by the closed form and by nothing else
        trainable = size - count["val"] - count["test"]
        share = max(1, int(np.floor(trainable * config.sample_rate / 100 + 0.5)))
        assert count["train"] == min(share, config.per_class or share)
    again = split_table(labels, groups, None, config, class_names=names)
    assert all(np.array_equal(parts[name], again[name]) for name in SPLITS)


@kept(60, tables(), st.randoms(use_true_random=False))
def test_saved_splits_are_found_again_in_whatever_order_the_pictures_come(table, chance) -> None:
    labels, groups, config = table
    keys = [f"{number}.png" for number in range(len(labels))]
    names = [str(number) for number in range(labels.max() + 1)]
    saved = splits_to_json(split_table(labels, groups, None, config, class_names=names), keys)
    other = list(keys)
    chance.shuffle(other)
    found = splits_from_keys(json.loads(json.dumps(saved)), other)
    assert {name: [other[row] for row in rows] for name, rows in found.items()} == saved


@kept(20, st.lists(st.integers(1, 10**8), min_size=1, max_size=4, unique=True).map(sorted), st.integers(0, 2**32))
def test_a_checkpoint_comes_back_as_it_was(steps: list[int], seed: int) -> None:
    import torch

    with tempfile.TemporaryDirectory() as name:
        weights = {"a.b": torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)), "c": torch.tensor(seed)}
        for step in steps:
            path = save_checkpoint(Path(name), step=step, weights=weights, state={"step": step, "best": {"loss": 0.1}})
        found, state = load_checkpoint(path)
        assert state == {"step": steps[-1], "best": {"loss": 0.1}}
        assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__.removeprefix("test_"))
def test_with_many_more_examples(prop: Property) -> None:
    prop()
