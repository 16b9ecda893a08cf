"""What methods do before the first step, as the trainer has it: before it ever puts them in training mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rivals import CLASSES, SIZE, TinyPictures, source_file
from tiny_runs import tiny_config
from torch import nn

from concept_tuning.config import METHOD_NAMES, RunConfig
from concept_tuning.methods.base import Batch, Method, pool
from concept_tuning.methods.registry import build_method
from concept_tuning.models.backbone import build_backbone


class InBatches(TinyPictures):
    """The same pictures, so many at a time."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.at_once = at_once

    def batches(self, split: str) -> Iterator[Batch]:
        found = list(super().batches(split))
        images, labels = torch.cat([one.images for one in found]), torch.cat([one.labels for one in found])
        groups = torch.arange(len(labels)) // CLASSES % 2
        for rows in torch.arange(len(labels)).split(self.at_once):
            yield Batch(images[rows], labels[rows], groups[rows])

    def group_counts(self) -> torch.Tensor:
        return torch.full((CLASSES, 2), 2)


def config_of(name: str, folder: Path) -> RunConfig:
    """Return a tiny configuration whose backbone has running statistics that tell something."""
    config = tiny_config(name.partition("+")[0])
    backbone = dataclasses.replace(config.backbone, architecture="test_resnet", weights=source_file(folder))
    parts = dataclasses.replace(config.concept_tuning, regulariser=name.partition("+")[2] or "none")
    return dataclasses.replace(config, backbone=backbone, concept_tuning=parts)


def fresh(name: str, folder: Path) -> Method:
    """Return a method as a run builds it, with statistics as pre-training leaves them."""
    config = config_of(name, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        backbone = build_backbone(config.backbone, image_size=SIZE)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        return build_method(config, backbone, CLASSES)


def statistics(method: Method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items() if "running_" in name}


@pytest.mark.parametrize("name", [*METHOD_NAMES, "concept-tuning+delta", "concept-tuning+l2-sp"])
def test_no_running_statistic_moves_before_the_first_step(name: str, tmp_path: Path) -> None:
    method = fresh(name, tmp_path)
    before = statistics(method)
    method.prepare(InBatches(5))
    after = statistics(method)
    assert len(before) > 20
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


@pytest.mark.parametrize("name", ["delta", "concept-tuning+delta"])
def test_deltas_channels_and_distance_are_of_the_start_whatever_the_batch(name: str, tmp_path: Path) -> None:
    one, other = fresh(name, tmp_path), fresh(name, tmp_path)
    for method, at_once in ((one, 3), (other, 12)):
        method.prepare(InBatches(at_once))
    first, second = (method.starting_point.weights for method in (one, other))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)
    assert first.std() > 0.01 * first.mean()  # else any constant would do
    images = next(InBatches(12).batches("train")).images
    one.eval()
    with torch.no_grad():
        feature_map = one.backbone(images)
        assert pool(feature_map).abs().max() > 0.1
        distance = one.starting_point.distance(one.backbone, images, feature_map)
    assert float(distance["feature_distance"]) == pytest.approx(0, abs=1e-8)
