"""What a bench compares, read from a YAML file and checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from concept_tuning.config import RunConfig
from concept_tuning.errors import ConfigError
from concept_tuning.settings import build_config, resolve_key, resolve_keys, settings

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_NAME = r"^\w[\w.-]{0,39}$"
#: Key of the search space that every method has.
ALL = "all"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Range:
    """Values of a setting that the search draws from: a range, or a list of choices.

    Attributes:
        low: Least value.
        high: Greatest value.
        log: Whether it is drawn evenly in the logarithm.
        choices: The values, in place of the three above.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            if self.log or self.low is not None or self.high is not None:
                raise ValueError("choices stand alone; leave out low, high and log, or the choices")
        elif self.low is None or self.high is None or self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("write low below high (above 0 if log), such as {low: 0.001, high: 0.1}, or choices")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataSpec:
    """Data of a bench.

    Attributes:
        name: What it is called in the tables.
        source: Value of ``data.source``.
        set: Settings by name, such as ``rho``.
        methods: Which of the bench's methods learn it; None: all.
        backbones: With which networks; None: the bench's.
        sample_rates: At which sample rates; None: the bench's.
        tuned_on: Earlier data of the bench whose choice is taken, in place of a search of its own: that of the same
            backbone and sample rate, or of that data's first where it has not these, or where the search is shared.
        choices: What a search chose before, by method, for all backbones and sample rates of the data, which is then
            not searched again: on another machine or version numbers drift apart, and it may choose otherwise. A
            variant that is tuned as another takes that one's; ``tuned_on`` then says no more than on which data.
    """

    name: Annotated[str, Field(pattern=_NAME)]
    source: str
    set: dict[str, Any] = Field(default_factory=dict)
    methods: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    sample_rates: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    tuned_on: str | None = None
    choices: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Source and settings in words: ``planted, rho = 0.9``."""
        return ", ".join([self.source, *(f"{name} = {value}" for name, value in self.set.items())])


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Variant:
    """A method with settings of its own, under a name of its own: a cheaper mode, or one part left out.

    Attributes:
        method: Whose settings are changed.
        set: The settings; they stand over what a search draws.
        tuned_as: Method or variant whose choice it takes, in place of a search of its own: for an ablation, which
            leaves one part out and all else as it is.
    """

    method: str
    set: dict[str, Any] = Field(default_factory=dict)
    tuned_as: str | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BenchSpec:
    """A bench.

    Attributes:
        name: Of the bench.
        data: What is learnt.
        methods: By which methods or variants; the first is what the others are compared with.
        variants: Methods with settings of their own, by name.
        backbones: With which networks.
        sample_rates: Shares of the training pictures, in percent.
        seeds: Of the final runs; not those of the search.
        preset: How long, as ``--preset``; None: the defaults.
        set: Settings that every run has; none that is searched, or has a place of its own here.
        trials: Runs of the search for each method on each data, backbone and sample rate; 0 or 1: no search. Every
            method has as many.
        share_search: Search once for each method on each data, with its first backbone and sample rate, and take the
            choice for the others too.
        search_seed: Of the draws and of the search's runs; none of the seeds, or a final run would be a trial again.
        search: Search space by method, and under ``all`` for every method; a variant has its method's, unless it has
            one of its own. How a method learns may be searched, not what is learnt, nor the seed; how long, under
            ``all`` alone. A range over a whole number is one of whole numbers.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]{0,59}$")]
    data: Annotated[tuple[DataSpec, ...], Field(min_length=1)]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    variants: dict[Annotated[str, Field(pattern=_NAME)], Variant] = Field(default_factory=dict)
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = ("tf_efficientnet_lite0",)
    sample_rates: Annotated[tuple[float, ...], Field(min_length=1)] = (100.0,)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    preset: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    trials: Annotated[int, Field(ge=0, le=1000)] = 0
    share_search: bool = False
    search_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    search: dict[str, dict[str, Range]] = Field(default_factory=dict)

    def variant(self, name: str) -> Variant:
        """Return a variant by name; a method is the variant of itself that changes nothing."""
        return self.variants.get(name) or Variant(method=name)

    def chooser(self, name: str) -> str:
        """Return the method or variant whose choice one takes; most often itself."""
        return self.variant(name).tuned_as or name

    def space(self, name: str) -> dict[str, Range]:
        """Return the search space of a method or variant."""
        own = self.search.get(name, self.search.get(self.variant(name).method, {}))
        return {**self.search.get(ALL, {}), **own}

    def space_of(self, name: str, key: str) -> str:
        """Return under which name of ``search`` a setting stands that a method or variant searches."""
        own = name if name in self.search else self.variant(name).method
        return own if key in self.search.get(own, {}) else ALL

    def data_named(self, name: str) -> DataSpec:
        """Return data by name."""
        return next(one for one in self.data if one.name == name)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Setting:
    """One method or variant on one data, backbone and sample rate: what is run with every seed."""

    data: str
    backbone: str
    sample_rate: float
    method: str

    @property
    def place(self) -> str:
        """Its folder below the bench's."""
        return f"{self.data}/{self.backbone}/{self.sample_rate:g}/{self.method}"


def load_spec(path: Path) -> BenchSpec:
    """Read a bench and check that every run of it can be configured.

    Raises:
        ConfigError: if the file cannot be read, holds what is not known, or a run's settings are not valid.
    """
    import yaml

    from concept_tuning.bench.spec_yaml import plain_values

    try:
        values = plain_values(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The bench {path} cannot be read ({error}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date 2024-13-01, of thousands of brackets
        raise ConfigError(f"The bench {path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The bench {path} holds no settings; see benchmarks/specs for examples.")
    return check_spec(values)


def check_spec(values: Mapping[str, Any]) -> BenchSpec:
    """Return a bench from plain values; raises ConfigError as :func:`load_spec`."""
    from concept_tuning.bench.spec_checks import check
    from concept_tuning.bench.spec_words import explain

    try:
        spec = TypeAdapter(BenchSpec).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, values)) from error
    check(spec)
    return spec


def settings_of(spec: BenchSpec) -> list[Setting]:
    """Return what a bench runs with every seed, in the order of its file."""
    return [
        Setting(data=data.name, backbone=backbone, sample_rate=rate, method=method)
        for data in spec.data
        for backbone in data.backbones or spec.backbones
        for rate in data.sample_rates or spec.sample_rates
        for method in data.methods or spec.methods
    ]


def tuned_as(spec: BenchSpec, setting: Setting) -> Setting:
    """Return the setting whose search chooses for a setting; most often itself."""
    data = spec.data_named(setting.data)
    method = spec.chooser(setting.method)
    if data.choices:
        return replace(setting, method=method)
    if data.tuned_on is None and not spec.share_search:
        return replace(setting, method=method)
    data = spec.data_named(data.tuned_on or data.name)
    backbones, rates = data.backbones or spec.backbones, data.sample_rates or spec.sample_rates
    same_backbone = setting.backbone in backbones and not spec.share_search
    same_rate = setting.sample_rate in rates and not spec.share_search
    return Setting(
        data=data.name,
        backbone=setting.backbone if same_backbone else backbones[0],
        sample_rate=setting.sample_rate if same_rate else rates[0],
        method=method,
    )


def chosen_before(spec: BenchSpec, setting: Setting) -> dict[str, Any] | None:
    """Return what the bench's file says was chosen for a setting, by name; None where it says nothing."""
    choices = spec.data_named(setting.data).choices
    return dict(choices[spec.chooser(setting.method)]) if choices else None


def config_of(
    spec: BenchSpec, setting: Setting, *, seed: int, drawn: Mapping[str, Any], trial: int | None = None
) -> RunConfig:
    """Return the settings of one run.

    Args:
        spec: The bench.
        setting: What is run.
        seed: Of the run.
        drawn: What the search drew, by name of the setting.
        trial: The trial that drew it, for the message; None: it is not of one.

    Raises:
        ConfigError: if they are not valid, with the setting's place and the block of the bench's file at fault.
    """
    layers = _layers(spec, setting, seed=seed, drawn=drawn)
    try:
        return _build(spec, setting, layers)
    except ConfigError as error:
        said = str(error)
        block = _block_at_fault(spec, setting, layers, said)
        run = f"The bench's setting {setting.place} cannot be run"
        run += "." if trial is None else f" with what trial {trial} draws."
        raise ConfigError(f"{run} In {block}: {said}" if block else f"{run} {said}") from error


def _layers(
    spec: BenchSpec, setting: Setting, *, seed: int, drawn: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the settings of one run with the block of the file that has them; each stands over those before."""
    data, variant, searched = spec.data_named(setting.data), spec.variant(setting.method), tuned_as(spec, setting)
    spaces = " and ".join(dict.fromkeys(repr(spec.space_of(searched.method, key)) for key in drawn))
    values = ", ".join(f"{key} = {value}" for key, value in drawn.items())
    before = spec.data_named(searched.data).choices
    chosen = f"`choices` of the data {searched.data!r}" if before else f"`search` for {spaces}"
    return [
        ("the bench's `set`", spec.set),
        (f"the `set` of the data {data.name!r}", data.set),
        (f"{chosen} ({values})", drawn),
        (f"the `set` of the variant {setting.method!r}", variant.set),
        ("`seeds`", {"engine.seed": seed}),
        ("`sample_rates`", {} if setting.sample_rate == 100 else {"data.sample_rate": setting.sample_rate}),
    ]


def _build(spec: BenchSpec, setting: Setting, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> RunConfig:
    method = spec.variant(setting.method).method
    overrides: dict[str, Any] = {}
    for _, layer in layers:
        overrides |= resolve_keys(layer.items(), method)
    return build_config(
        data=spec.data_named(setting.data).source,
        backbone=setting.backbone,
        method=method,
        preset=spec.preset,
        overrides=overrides,
    )


def _block_at_fault(
    spec: BenchSpec, setting: Setting, layers: Sequence[tuple[str, Mapping[str, Any]]], said: str
) -> str | None:
    """Return the block with which a fault comes in, told by its message; None if it is there without any."""
    for count in reversed(range(len(layers))):
        try:
            _build(spec, setting, layers[:count])
        except ConfigError as error:
            if str(error) == said:
                continue
        return layers[count][0]
    return None


def kind_of(key: str, method: str) -> str:
    """Return the type of a method's setting as ``concept-tuning settings`` lists it; raises as `resolve_key`."""
    full = resolve_key(key, method)
    return next(one.type for one in settings() if one.key == full)


def configs_of(spec: BenchSpec) -> Iterator[tuple[Setting, RunConfig]]:
    """Yield the settings of every run, and of trials at each choice and end of a range; raises as :func:`config_of`."""
    for setting in settings_of(spec):
        for seed in (spec.search_seed, *spec.seeds):
            yield setting, config_of(spec, setting, seed=seed, drawn={})
        searched = tuned_as(spec, setting)
        space = {} if spec.data_named(searched.data).choices else spec.space(searched.method)
        for key, span in space.items():
            for value in span.choices or (span.low, span.high):
                yield setting, config_of(spec, setting, seed=spec.search_seed, drawn={key: value})
