"""From the name of a known data set to its table."""

from __future__ import annotations

from importlib import import_module

from concept_tuning.config import HUB_PREFIX, KNOWN_DATA, DataConfig
from concept_tuning.data.known.catalogue import BY_NAME
from concept_tuning.data.known.files import data_root
from concept_tuning.data.table import ImageTable

#: The module of this package that reads a data set, and its function there.
_READERS = {
    "cub200": ("cub", "cub_table"),
    "cifar10": ("arrays", "cifar_table"),
    "cifar100": ("arrays", "cifar_table"),
    "fashion-mnist": ("arrays", "fashion_table"),
    "caltech101": ("class_folders", "class_folder_table"),
    "eurosat": ("class_folders", "class_folder_table"),
    "imagenet-folder": ("class_folders", "imagenet_table"),
    "isic": ("groups_csv", "isic_table"),
    "waterbirds": ("groups_csv", "waterbirds_table"),
}


def is_known(source: str) -> bool:
    """Whether a source is a known data set, or one of the Hub, rather than a path."""
    return source in KNOWN_DATA or source.startswith(HUB_PREFIX)


def is_there(name: str) -> bool:
    """Whether a known data set's files are in the folder that is taken where ``data.root`` is not set."""
    root = data_root(BY_NAME[name], DataConfig())
    if name == "fashion-mnist":
        from concept_tuning.data.known.arrays import fashion_lacking

        return fashion_lacking(root) is None
    return all((root / needed).exists() for needed in BY_NAME[name].needs)


def known_table(config: DataConfig) -> ImageTable:
    """List the pictures of the known data set ``config.source``.

    Args:
        config: ``source``, ``root``, ``download`` and ``max_pixels`` are used.

    Raises:
        DataError: Its files are missing, incomplete or laid out in another way, or could not be downloaded.
    """
    if config.source.startswith(HUB_PREFIX):
        from concept_tuning.data.known.hub import hub_table

        return hub_table(config)
    module, function = _READERS.get(config.source, ("torchvision_sets", "listed_table"))
    table: ImageTable = getattr(import_module(f"concept_tuning.data.known.{module}"), function)(
        BY_NAME[config.source], config
    )
    return table
