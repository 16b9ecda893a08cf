"""What a bench needs of the machine it runs on, looked for before its first run: paths that are there, networks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from concept_tuning.bench.spec import BenchSpec, DataSpec, config_of, configs_of, settings_of, tuned_as
from concept_tuning.config import ARCHIVE_SUFFIXES, HUB_PREFIX, KNOWN_DATA
from concept_tuning.errors import ConfigError, StudioError

#: Sources that are no path.
_NAMED = ("planted", "elpv", *KNOWN_DATA)
#: Values of ``backbone.weights`` that are no path.
_NO_FILES = ("auto", "packaged", "timm", "random")


def check_sources(spec: BenchSpec, only: Collection[str] | None = None) -> None:
    """Check that the sources and weights files that a bench names are there, and that timm has its backbones.

    A folder's or CSV file's pictures are listed, and methods that need groups are refused where it has none. Whether a
    known data set is downloaded, what an archive holds, or whether timm's weights can be had, is not looked at.
    Relative paths are as seen from the current folder.

    Args:
        spec: The bench.
        only: Names of the data that are learnt now, with those they are tuned on; None: all.

    Raises:
        ConfigError: with the data and what is wrong with it.
    """
    settings = [one for one in settings_of(spec) if only is None or one.data in only]
    wanted = {*settings, *(tuned_as(spec, one) for one in settings)}
    names = {one.data for one in wanted}
    for data in spec.data:
        if data.name in names:
            _check_source(spec, data)
    _check_weights(spec, names)
    _check_backbones({one.backbone for one in wanted})


def _check_source(spec: BenchSpec, data: DataSpec) -> None:
    if data.source in _NAMED or data.source.startswith(HUB_PREFIX):
        return
    from concept_tuning.data.registry import open_table, unknown_source  # loads torch

    cannot = f"The bench's data {data.name!r} cannot be learnt."
    path = Path(data.source).expanduser()
    if not path.exists():
        raise ConfigError(f"{cannot} {unknown_source(data.source)}")
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return  # to open one is to unpack it
    settings = [one for one in settings_of(spec) if one.data == data.name]
    configs = [config_of(spec, one, seed=spec.search_seed, drawn={}) for one in settings]
    try:
        table = open_table(configs[0])
    except StudioError as error:
        raise ConfigError(f"{cannot} {error}") from error
    if not table.group_names:
        _refuse_methods_with_groups(data, {config.method for config in configs})


def _refuse_methods_with_groups(data: DataSpec, methods: Collection[str]) -> None:
    from concept_tuning.methods.registry import METHODS

    needing = sorted(name for name in methods if METHODS[name].needs_groups)
    if needing:
        raise ConfigError(
            f"The bench's data {data.name!r} has no groups, without which {' and '.join(needing)} cannot learn. Give "
            "it methods of its own without them, or list its pictures in a CSV file with a group column."
        )


def _check_weights(spec: BenchSpec, names: Collection[str]) -> None:
    from concept_tuning.models.weights import find_weights

    found = {
        (config.backbone.weights, setting)
        for setting, config in configs_of(spec)
        if setting.data in names and config.backbone.weights not in _NO_FILES
    }
    for weights, setting in sorted(found, key=lambda one: (one[1].place, one[0])):
        try:
            find_weights(setting.backbone, weights)
        except StudioError as error:
            raise ConfigError(f"The bench's setting {setting.place} cannot be run. {error}") from error


def _check_backbones(backbones: Collection[str]) -> None:
    from concept_tuning.models.weights import list_backbones

    rare = set(backbones) - {entry.name for entry in list_backbones()}
    if rare:
        from concept_tuning.models.backbone import find_architecture  # loads torch and timm

        for backbone in sorted(rare):
            find_architecture(backbone)
