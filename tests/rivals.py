"""What the tests of the rival methods share: tiny methods driven by hand, step by step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from tiny_runs import tiny_config
from torch import Tensor, nn

from concept_tuning.config import RunConfig
from concept_tuning.engine.schedule import build_optimizer
from concept_tuning.methods.base import Batch, Method, StepContext
from concept_tuning.models.backbone import build_backbone

SIZE, CLASSES, SOURCE_CLASSES = 64, 3, 7


def rival_config(section: str, weights: str = "random", **settings: object) -> RunConfig:
    """Return a tiny configuration with settings of one method's section."""
    config = tiny_config("vanilla")
    changed = dataclasses.replace(getattr(config, section), **settings)
    backbone = dataclasses.replace(config.backbone, weights=weights)
    return dataclasses.replace(config, backbone=backbone, **{section: changed})


def build(
    kind: type[Method], config: RunConfig, *, classes: int = CLASSES, weights: str | None = None, seed: int = 0
) -> Method:
    """Return a method with the backbone's weights of the configuration, or others as where a run goes on."""
    chosen = dataclasses.replace(config.backbone, weights=weights or config.backbone.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(chosen, image_size=SIZE)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # timm starts the last of each block at 0, which stops the gradient
        return kind(config, backbone, classes).train()


def source_file(folder: Path, classes: int = SOURCE_CLASSES, architecture: str = "test_resnet") -> str:
    """Save a tiny timm network with its classifier, as if pre-trained, and return the path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = timm.create_model(architecture, num_classes=classes)
        nn.init.normal_(network.get_classifier().weight, std=0.3)
        nn.init.normal_(network.get_classifier().bias)
    path = folder / f"{architecture}-{classes}.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def batch(method: Method, size: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(size, len(method.view_kinds), 3, SIZE, SIZE, generator=generator)
    return views, torch.arange(size) % CLASSES


def context(seed: int = 5, rank: int = 0, processes: int = 1) -> StepContext:
    return StepContext(torch.Generator().manual_seed(seed), rank=rank, processes=processes)


def step(method: Method, optimizer: torch.optim.Optimizer, seed: int) -> dict[str, float]:
    """Do one optimiser step as the trainer does it and return the loss terms and their total."""
    terms, keep = method(*batch(method, seed=seed % 2), context(seed))
    total = method.total(terms)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    method.after_step(keep)
    return {name: value.item() for name, value in {**terms, "loss": total}.items()}


def train(method: Method, steps: int) -> list[dict[str, float]]:
    optimizer = build_optimizer(method, method.config.optim)
    return [step(method, optimizer, seed) for seed in range(steps)]


def assert_resumes(first: Method, fresh: Method) -> None:
    """A method rebuilt without pre-trained weights goes on from the state dicts with the very same numbers."""
    optimizer = build_optimizer(first, first.config.optim)
    for seed in range(3):
        step(first, optimizer, seed)
    saved = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    expected = [step(first, optimizer, seed) for seed in (3, 4)]
    other = build_optimizer(fresh, fresh.config.optim)
    fresh.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    assert [step(fresh, other, seed) for seed in (3, 4)] == expected
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in first.state_dict().items())


def gradients(method: Method, term: str) -> set[str]:
    """Return the parts (first names) that get a gradient from one loss term."""
    method.zero_grad(set_to_none=True)
    terms, _ = method(*batch(method), context())
    terms[term].backward()
    found = {name for name, value in method.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    return {name.partition(".")[0] for name in found}


class TinyPictures:
    """A few noise pictures as a method sees them in ``prepare``."""

    def __init__(self, size: int = 12) -> None:
        self.size = size

    def batches(self, split: str) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed({"train": 3, "val": 4}[split])
        for start in range(0, self.size, 5):
            labels = torch.arange(start, min(start + 5, self.size)) % CLASSES
            shift = labels[:, None, None, None] - 1.0
            yield Batch(torch.randn(len(labels), 3, SIZE, SIZE, generator=generator) + shift, labels, None)

    def group_counts(self) -> Tensor | None:
        return None
