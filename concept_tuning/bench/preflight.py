"""What a bench needs of the machine it runs on, looked for before its first run: paths that are there, networks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from concept_tuning.bench.spec import BenchSpec, DataSpec, Setting, config_of, configs_of, settings_of, tuned_as
from concept_tuning.config import ARCHIVE_SUFFIXES, HUB_PREFIX, KNOWN_DATA, RunConfig
from concept_tuning.errors import ConfigError, DataError, StudioError
from concept_tuning.settings import NEEDS_GROUPS, NEEDS_PRETRAINED

#: Sources that are no path, and those of them whose pictures have groups.
_NAMED = ("planted", "elpv", *KNOWN_DATA)
_GROUPED = ("planted", "elpv", "isic", "waterbirds")
#: Values of ``backbone.weights`` that are no path.
_NO_FILES = ("auto", "packaged", "timm", "random")


def check_sources(spec: BenchSpec, only: Collection[str] | None = None) -> None:
    """Check that the sources and weights files that a bench names are there, and that timm has its backbones.

    A known data set must have its files, unless ``data.download`` may fetch them, and ``elpv`` must be installed. The
    pictures of a folder or CSV file are listed. Methods that need groups are refused where there are none, and so is a
    choice by the worst group; those that need pre-trained weights are where they are random. What an archive holds, and
    whether the Hub's data or timm's weights can be had, is not looked at. Relative paths are as seen from the current
    folder.

    Args:
        spec: The bench.
        only: Names of the data that are learnt now, with those they are tuned on; None: all.

    Raises:
        ConfigError: with the data or setting and what is wrong with it.
    """
    settings = [one for one in settings_of(spec) if only is None or one.data in only]
    wanted = list(dict.fromkeys([*settings, *(tuned_as(spec, one) for one in settings)]))
    for data in spec.data:
        of_data = [one for one in wanted if one.data == data.name]
        if of_data:
            _check_source(spec, data, of_data)
    _check_weights(spec, wanted)
    _check_backbones({one.backbone for one in wanted})


def _check_source(spec: BenchSpec, data: DataSpec, settings: Sequence[Setting]) -> None:
    configs = [config_of(spec, one, seed=spec.search_seed, drawn={}) for one in settings]
    named = data.source in _NAMED or data.source.startswith(HUB_PREFIX)
    if named and data.source not in _GROUPED:  # said before anybody fetches its files
        _refuse_what_needs_groups(data, configs)
    try:
        if named:
            _look_for_files(configs[0])
            return
        grouped = _path_has_groups(configs[0])
    except StudioError as error:
        others = " `--only` learns other data of the bench without it." if len(spec.data) > 1 else ""
        raise ConfigError(f"The bench's data {data.name!r} cannot be learnt. {error}{others}") from error
    if not grouped:
        _refuse_what_needs_groups(data, configs)


def _look_for_files(config: RunConfig) -> None:
    """Look for the files of a source with a name as opening it does; raises DataError if they are not there."""
    data = config.data
    if data.source == "elpv":
        from concept_tuning.data.elpv import elpv_table

        elpv_table(config.elpv, max_pixels=data.max_pixels)
    elif data.source in KNOWN_DATA:
        from concept_tuning.data.known.arrays import fashion_lacking
        from concept_tuning.data.known.catalogue import BY_NAME
        from concept_tuning.data.known.files import ready_root

        known = BY_NAME[data.source]
        if not (data.download and known.downloads):
            ready_root(known, data, lacking=fashion_lacking if known.name == "fashion-mnist" else None)


def _path_has_groups(config: RunConfig) -> bool:
    """Return whether a path's pictures may have groups; raises DataError if they are not there."""
    from concept_tuning.data.registry import open_table, unknown_source  # loads torch

    path = Path(config.data.source).expanduser()
    if not path.exists():
        raise DataError(unknown_source(config.data.source))
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return True  # perhaps: to open one is to unpack it
    return bool(open_table(config).group_names)


def _refuse_what_needs_groups(data: DataSpec, configs: Sequence[RunConfig]) -> None:
    if any(config.engine.select_by == "worst-group" for config in configs):
        raise ConfigError(
            f"The bench's data {data.name!r} has no groups, and select_by=worst-group chooses by them. Choose by "
            "`accuracy` or `loss`, or list its pictures in a CSV file with a group column."
        )
    needing = sorted({config.method for config in configs}.intersection(NEEDS_GROUPS))
    if needing:
        raise ConfigError(
            f"The bench's data {data.name!r} has no groups, without which {' and '.join(needing)} cannot learn. Give "
            "it methods of its own without them, or list its pictures in a CSV file with a group column."
        )


def _check_weights(spec: BenchSpec, wanted: Collection[Setting]) -> None:
    from concept_tuning.models.weights import find_weights

    configs = [(setting, config) for setting, config in configs_of(spec) if setting in wanted]
    for setting, config in configs:
        if config.backbone.weights == "random" and config.method in NEEDS_PRETRAINED:
            raise ConfigError(
                f"The bench's setting {setting.place} cannot be run. {config.method} keeps to what the pre-trained "
                "network knows, and weights=random knows nothing. Use pre-trained weights, or leave the method out."
            )
    found = {(config.backbone.weights, setting) for setting, config in configs}
    for weights, setting in sorted(found, key=lambda one: (one[1].place, one[0])):
        if weights in _NO_FILES:
            continue
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
