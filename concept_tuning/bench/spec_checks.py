"""Checks of a bench that has all its parts: names that exist, equal budgets, and runs that can be configured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, product

from concept_tuning.bench.search import draw_trials
from concept_tuning.bench.spec import (
    ALL,
    BenchSpec,
    Range,
    Setting,
    config_of,
    configs_of,
    kind_of,
    settings_of,
    tuned_as,
)
from concept_tuning.bench.spec_words import did_you_mean
from concept_tuning.config import METHOD_NAMES
from concept_tuning.errors import ConfigError
from concept_tuning.settings import METHOD_SECTIONS, resolve_key

#: Settings that have a place of their own in a bench's file, by full name.
_OWN_PLACES = {
    "data.source": "`source` of the data",
    "data.sample_rate": "`sample_rates`",
    "backbone.architecture": "`backbones`",
    "engine.seed": "`seeds` (that of the search: `search_seed`)",
}
#: Sections that say what is learnt.
_LEARNT = ("data", "planted", "elpv")
#: Settings of these sections that say how it is learnt, which a variant may change.
_HOW = (
    "data.image_size",
    "data.strong_scale_min",
    "data.mild_scale_min",
    "data.horizontal_flip",
    "data.color_jitter",
)
#: Settings that say how long is trained, which methods have in common.
_LENGTH = ("optim.epochs", "optim.max_steps", "optim.batch_size")
#: Sections that are read after the training alone (``Method.finish``), which a trial leaves out.
FINISHING = ("dfr",)


def check(spec: BenchSpec) -> None:
    """Check that a bench names what there is, tunes its methods alike, and that every run can be configured.

    Raises:
        ConfigError: with a sentence on the first fault.
    """
    _check_twice(spec)
    _check_methods(spec)
    _check_variants(spec)
    _check_tuned_on(spec)
    _check_budget(spec)
    _check_choices(spec)
    _check_search_seed(spec)
    _check_own_places(spec)
    _check_learnt(spec)
    _check_length(spec)
    _check_finishing(spec)
    _check_fixed(spec)
    _check_aliases(spec)
    _check_ranges(spec)
    for _ in configs_of(spec):
        pass
    _check_draws(spec)


def _check_twice(spec: BenchSpec) -> None:
    lists: dict[str, Sequence[object]] = {"data": [one.name for one in spec.data], "seeds": spec.seeds}
    for what in ("methods", "backbones", "sample_rates"):
        lists[what] = getattr(spec, what)
        lists |= {f"{what} of the data {data.name!r}": getattr(data, what) or () for data in spec.data}
    for what, values in lists.items():
        if len(set(values)) < len(values):
            raise ConfigError(f"The bench names one of its {what} twice: {', '.join(map(str, values))}.")
    places: dict[str, Setting] = {}
    for one in settings_of(spec):
        other = places.setdefault(one.place.casefold(), one)
        if other != one:
            raise ConfigError(
                f"Two settings of the bench would share the folder {one.place}, as some disks have it: its sample "
                "rates or the names of its data, backbones or methods are too much alike."
            )


def _check_methods(spec: BenchSpec) -> None:
    known = [*METHOD_NAMES, *spec.variants]
    for method in spec.methods:
        if method not in known:
            raise ConfigError(
                f"The bench's methods name {method!r}, which is neither a method nor a variant"
                f"{did_you_mean(method, known)}"
            )
    searchable = [ALL, *spec.methods, *(found.method for found in spec.variants.values())]
    for name in spec.search:
        if name not in searchable:
            raise ConfigError(
                f"The bench's search names {name!r}, which is none of its methods{did_you_mean(name, searchable)}"
            )
    for data in spec.data:
        for name in data.methods or ():
            if name not in spec.methods:
                raise ConfigError(
                    f"The bench's data {data.name!r} names {name!r}, which is none of its methods"
                    f"{did_you_mean(name, spec.methods)}"
                )
        if data.methods is not None and spec.methods[0] not in data.methods:
            raise ConfigError(
                f"The bench's data {data.name!r} leaves out {spec.methods[0]!r}, with which the others are compared."
            )


def _check_variants(spec: BenchSpec) -> None:
    for variant, found in spec.variants.items():
        where = f"The bench's variant {variant!r}"
        if variant in (ALL, *METHOD_NAMES):
            whose = "the name that stands for all methods" if variant == ALL else "a method's name"
            raise ConfigError(f"{where} has {whose}; give it one of its own.")
        if found.method not in METHOD_NAMES:
            raise ConfigError(
                f"{where} is of the method {found.method!r}, which there is not"
                f"{did_you_mean(found.method, METHOD_NAMES)}"
            )
        if found.tuned_as is None:
            continue
        where += f" is tuned as {found.tuned_as!r}"
        if found.tuned_as not in spec.methods:
            raise ConfigError(f"{where}, which is not compared{did_you_mean(found.tuned_as, spec.methods)}")
        if spec.variant(found.tuned_as).tuned_as is not None:
            raise ConfigError(f"{where}, which has no search of its own.")
        if variant in spec.search:
            raise ConfigError(f"{where}, and has a search of its own too; leave one of them out.")
    for variant in spec.variants:
        if variant not in spec.methods:
            raise ConfigError(
                f"The bench's variant {variant!r} is none of its methods, so that it would never run; add it to "
                "`methods`, or leave it out."
            )


def _check_tuned_on(spec: BenchSpec) -> None:
    earlier: list[str] = []
    for data in spec.data:
        if data.tuned_on is not None:
            where = f"The bench's data {data.name!r} is tuned on {data.tuned_on!r}"
            if data.tuned_on not in earlier:
                raise ConfigError(f"{where}, which is none of the data before it{did_you_mean(data.tuned_on, earlier)}")
            if spec.data_named(data.tuned_on).tuned_on is not None:
                raise ConfigError(f"{where}, which has no search of its own.")
            searched = spec.data_named(data.tuned_on).methods or spec.methods
            tuned = [spec.chooser(method) for method in data.methods or spec.methods]
            odd = [method for method in tuned if method not in searched]
            if odd:
                raise ConfigError(f"{where}, which is not learnt by {odd[0]!r}.")
        earlier.append(data.name)


def _check_budget(spec: BenchSpec) -> None:
    searched = any(spec.search.values())
    if spec.trials >= 2 and not searched:
        raise ConfigError(
            f"The bench has {spec.trials} trials and nothing to search; write a space under `search`, such as "
            f"{{{ALL}: {{lr: {{low: 0.001, high: 0.1, log: true}}}}}}, or `trials: 0`."
        )
    if spec.trials < 2 and searched:
        raise ConfigError(
            f"The bench has a search, and `trials` is {spec.trials}, with which nothing is searched; write `trials: 2` "
            "or more, or leave out `search`."
        )
    for method in spec.methods if searched else ():
        if spec.variant(method).tuned_as is None and not spec.space(method):
            raise ConfigError(
                f"The bench searches nothing for {method!r} and something for others, which is no equal budget; give "
                f"it a space under `search`, or one for every method under `{ALL}`."
            )


def _check_choices(spec: BenchSpec) -> None:
    """Refuse choices of what the bench does not search, or outside its ranges, or that some of the methods lack."""
    for data in spec.data:
        if not data.choices:
            continue
        where = f"The bench's data {data.name!r} has `choices`"
        if spec.trials < 2:
            raise ConfigError(f"{where}, and the bench searches nothing; write what all runs have under `set`.")
        methods = list(dict.fromkeys(spec.chooser(name) for name in data.methods or spec.methods))
        for method, chosen in data.choices.items():
            if method not in methods:
                raise ConfigError(f"{where} of {method!r}, by which nothing is tuned{did_you_mean(method, methods)}")
            _check_choice(spec, f"{where} of {method!r}", method, chosen)
        lacking = [method for method in methods if method not in data.choices]
        if lacking:
            raise ConfigError(
                f"{where}, and none of {lacking[0]!r}; write what was chosen for it, `{lacking[0]}: {{}}` for the "
                "defaults."
            )


def _check_choice(spec: BenchSpec, where: str, method: str, chosen: Mapping[str, object]) -> None:
    """Refuse what lies outside the search space of a method."""
    of = spec.variant(method).method
    spans = {_resolved(f"The bench's search for {method!r}", key, of): span for key, span in spec.space(method).items()}
    seen: set[str] = set()
    for key, value in chosen.items():
        full = _resolved(where, key, of)
        span = spans.get(full)
        if span is None:
            raise ConfigError(f"{where} with {key!r} ({full}), which is not searched; leave it out.")
        if full in seen:
            raise ConfigError(f"{where} with {full} twice; leave out one of them.")
        seen.add(full)
        if not _in_span(value, span):
            kind = f"one of {list(span.choices)}" if span.choices else f"between {span.low} and {span.high}"
            raise ConfigError(f"{where} with {key} = {value!r}, which is not {kind}, as the search has it.")


def _in_span(value: object, span: Range) -> bool:
    if span.choices:
        return value in span.choices
    assert span.low is not None
    assert span.high is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and span.low <= value <= span.high


def _check_search_seed(spec: BenchSpec) -> None:
    """Refuse a search that has one of the seeds: the final run with it would be the chosen trial once more."""
    if spec.trials > 1 and spec.search_seed in spec.seeds:
        free = next(seed for seed in count() if seed not in spec.seeds)
        raise ConfigError(
            f"The bench's search_seed, {spec.search_seed}, is one of its seeds, whose final run would only repeat the "
            f"trial that was chosen; write `search_seed: {free}`, or take {spec.search_seed} out of `seeds`."
        )


def _check_own_places(spec: BenchSpec) -> None:
    """Refuse what the bench's file has a place for among the settings of the bench and its data."""
    for where, values in [
        ("The bench's `set`", spec.set),
        *((f"`set` of the data {data.name!r}", data.set) for data in spec.data),
    ]:
        for key in values:
            full = _resolved(where, key, spec.variant(spec.methods[0]).method)
            if full in _OWN_PLACES:
                raise ConfigError(f"{where} holds {key!r}, which belongs under {_OWN_PLACES[full]}; write it there.")


def _check_learnt(spec: BenchSpec) -> None:
    """Refuse a search or a variant that changes what is learnt, or the seed."""
    for name, space in spec.search.items():
        for method in spec.methods if name == ALL else (name,):
            _refuse_learnt(f"The bench's search for {name!r}", space, spec.variant(method).method, allowed=())
    for name, variant in spec.variants.items():
        _refuse_learnt(f"`set` of the variant {name!r}", variant.set, variant.method, allowed=_HOW)


def _refuse_learnt(where: str, keys: Iterable[str], method: str, *, allowed: Collection[str]) -> None:
    for key in keys:
        full = _resolved(where, key, method)
        if full in _OWN_PLACES:
            raise ConfigError(f"{where} changes {key!r}, which belongs under {_OWN_PLACES[full]}; leave it out.")
        if full.split(".")[0] in _LEARNT and full not in allowed:
            raise ConfigError(
                f"{where} changes {key!r} ({full}), which is what is learnt: runs on other data are no comparison of "
                "methods. Leave it out, or write it in the `set` of a data."
            )


def _resolved(where: str, key: str, method: str) -> str:
    """Return the full name of a setting; raises ConfigError that begins with where it stands."""
    try:
        return resolve_key(key, method)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_length(spec: BenchSpec) -> None:
    """Refuse a search of how long is trained for one method; under :data:`ALL` every method draws the same."""
    for name, space in spec.search.items():
        for key in space if name != ALL else ():
            full = resolve_key(key, spec.variant(name).method)
            if full in _LENGTH:
                raise ConfigError(
                    f"The bench's search for {name!r} changes {key!r} ({full}), which is how long is trained: methods "
                    f"that learn for longer are no equals. Search it under `{ALL}`, or leave it out."
                )


def _check_finishing(spec: BenchSpec) -> None:
    """Refuse a search of what is read after the training alone: all its trials would be the same."""
    for name, space in spec.search.items():
        for key, method in product(space, spec.methods if name == ALL else (name,)):
            full = resolve_key(key, spec.variant(method).method)
            section = full.split(".")[0]
            if section in FINISHING:
                of = METHOD_SECTIONS[section][0]
                raise ConfigError(
                    f"The bench's search for {name!r} changes {key!r} ({full}), which is read when the training is "
                    "over, and a trial ends there: all trials would be the same, and the choice would mean nothing. "
                    f"Leave it out, and compare its values by variants such as {{method: {of}, tuned_as: {of}, set: "
                    f"{{{full}: ...}}}}."
                )


def _check_fixed(spec: BenchSpec) -> None:
    """Refuse a setting that is searched and fixed too."""
    for setting in settings_of(spec):
        data, variant = spec.data_named(setting.data), spec.variant(setting.method)
        fixed = [("the bench's `set`", spec.set), (f"the `set` of the data {data.name!r}", data.set)]
        if variant.tuned_as is None:
            fixed.append((f"the `set` of the variant {setting.method!r}", variant.set))
        searched = tuned_as(spec, setting).method
        names = {resolve_key(key, variant.method): key for key in spec.space(searched)}
        for where, values in fixed:
            both = [full for key in values if (full := resolve_key(key, variant.method)) in names]
            if both:
                block = spec.space_of(searched, names[both[0]])
                raise ConfigError(
                    f"The bench searches {names[both[0]]!r} (in `search` for {block!r}), which stands in {where} too; "
                    "leave out one of them."
                )


def _check_aliases(spec: BenchSpec) -> None:
    """Refuse a space that has a setting under two names, of which one would win unsaid."""
    for method in spec.methods:
        named: dict[str, str] = {}
        for key in spec.space(method):
            other = named.setdefault(resolve_key(key, spec.variant(method).method), key)
            if other != key:
                blocks = spec.space_of(method, other), spec.space_of(method, key)
                what = "leave out one of them."
                if blocks[0] != blocks[1]:
                    what = "write it the same way, and a method's own range replaces that of all."
                raise ConfigError(
                    f"The bench's search has {other!r} (for {blocks[0]!r}) and {key!r} (for {blocks[1]!r}), which are "
                    f"one setting of {method!r}; {what}"
                )


def _check_ranges(spec: BenchSpec) -> None:
    """Refuse a range over a setting that is no number."""
    for method in spec.methods:
        for key, span in spec.space(method).items():
            kind = kind_of(key, spec.variant(method).method)
            if not span.choices and kind.split()[0] not in {"integer", "number"}:
                raise ConfigError(
                    f"The bench's search for {spec.space_of(method, key)!r} has a range of {key!r}, which is no number "
                    f"({kind}); write {{choices: [...]}}."
                )


def _check_draws(spec: BenchSpec) -> None:
    """Refuse draws of several settings at once that a trial, or a final run that takes its choice, cannot have."""
    if spec.trials < 2:
        return
    takers: dict[Setting, list[Setting]] = {}
    for setting in settings_of(spec):
        takers.setdefault(tuned_as(spec, setting), []).append(setting)
    for searched, settings in takers.items():
        trials = draw_trials(spec, searched)
        for number, drawn in enumerate(trials):
            trial = number if len(trials) > 1 else None
            for one in dict.fromkeys((searched, *settings)):
                config_of(spec, one, seed=spec.search_seed, drawn=drawn, trial=trial)
