"""Let torchvision take miniatures, whose checksums cannot be the official ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from miniatures import MINIATURES
from torchvision import datasets


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the checksums away, which are tested apart."""
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(kind, "train_list", [[name, None] for name, _ in kind.train_list])
        monkeypatch.setattr(kind, "test_list", [[name, None] for name, _ in kind.test_list])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})
    files = {key: (name, None) for key, (name, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)


@pytest.fixture
def laid_out(tmp_path: Path, unchecked: None) -> Callable[[str], Path]:
    """Return a function that writes a data set in small and returns its root."""

    def write(name: str) -> Path:
        root = tmp_path / "data"
        root.mkdir()
        MINIATURES[name](root)
        return root

    return write
