"""Distances from the start against closed forms and slow references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from concept_tuning.config_methods import DeltaConfig
from concept_tuning.losses import starting_point
from concept_tuning.losses.starting_point import (
    channel_attention,
    feature_map_distance,
    half_squared_distance,
    half_squared_norm,
)


def test_half_squares_in_closed_form() -> None:
    values = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    start = [torch.tensor([1.0, 0.0]), torch.tensor([[0.0]])]
    assert half_squared_distance(values, start).item() == pytest.approx((4 + 9) / 2)
    assert half_squared_norm(values).item() == pytest.approx((1 + 4 + 9) / 2)
    assert half_squared_distance([], []).item() == half_squared_norm([]).item() == 0
    with pytest.raises(ValueError, match="shape"):
        half_squared_distance(values, [start[0], torch.zeros(2)])
    with pytest.raises(ValueError, match="argument"):
        half_squared_distance(values, start[:1])


def test_the_gradient_of_the_distance_points_back_to_the_start() -> None:
    value = torch.tensor([2.0, -1.0], requires_grad=True)
    half_squared_distance([value], [torch.tensor([0.5, 0.5])]).backward()
    assert value.grad.tolist() == [1.5, -1.5]


def test_the_feature_maps_distance_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, start = (torch.randn(3, 5, 2, 4, generator=generator) for _ in range(2))
    weights = torch.rand(5, generator=generator).softmax(0)
    expected = 0.0
    for image in range(3):
        for channel in range(5):
            gap = (maps[image, channel] - start[image, channel]).pow(2).mean()
            expected += 5 * weights[channel] * gap / (2 * 3)
    assert feature_map_distance(maps, start, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    even = feature_map_distance(maps, start, torch.full((5,), 0.2))
    assert feature_map_distance(maps, start).item() == pytest.approx(even.item(), rel=1e-5)
    assert feature_map_distance(maps, maps, weights).item() == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="alike"):
        feature_map_distance(maps, maps[:1])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        feature_map_distance(maps, maps, torch.ones(4))


@pytest.mark.parametrize("times", [2, 5])
def test_the_distance_does_not_depend_on_the_size_of_the_batch(times: int) -> None:
    maps, start = torch.randn(2, 3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    expected = feature_map_distance(maps, start).item()
    found = feature_map_distance(maps.repeat(times, 1, 1, 1), start.repeat(times, 1, 1, 1)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_default_weight_is_that_of_the_librarys_sum_at_its_batch() -> None:
    """The term of the Transfer-Learning-Library, written from its code, at its batch of 48 with its 0.01."""
    maps, start = torch.randn(2, 48, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(5, generator=torch.Generator().manual_seed(1)).softmax(0)
    lengths = torch.linalg.vector_norm((maps - start).flatten(2), dim=2)
    theirs = 0.01 * 0.5 * (5 * weights * lengths**2 / (2 * 4)).sum()
    found = DeltaConfig().weight * feature_map_distance(maps, start, weights)
    assert found.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_without_attention_the_librarys_term_is_divided_by_the_cells_and_the_batch() -> None:
    """So is not the library's ``BehavioralRegularization``, nor ``reg_fea_map`` of the authors."""
    maps, start = torch.randn(2, 6, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    theirs = 0.5 * torch.linalg.vector_norm(maps - start) ** 2
    assert feature_map_distance(maps, start).item() == pytest.approx(theirs.item() / (3 * 4 * 6), rel=1e-5)


def test_attention_is_the_softmax_of_the_standardised_rises_of_the_loss_over_five() -> None:
    generator = torch.Generator().manual_seed(1)
    pooled, labels = torch.randn(7, 70, generator=generator), torch.arange(7) % 3
    weight, bias = torch.randn(3, 70, generator=generator), torch.randn(3, generator=generator)
    base = F.cross_entropy(pooled @ weight.T + bias, labels)
    rises = []
    for channel in range(70):
        without = pooled.clone()
        without[:, channel] = 0
        rises.append(F.cross_entropy(without @ weight.T + bias, labels) - base)
    found = channel_attention(pooled, labels, weight, bias)
    values = np.array([rise.item() for rise in rises])
    expected = torch.tensor((values - values.mean()) / values.std() / 5).float().softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_few_of_many_channels_that_matter_weigh_more_however_little_the_loss_rises() -> None:
    """4 of 1280 channels tell the class and the others nothing; the plain softmax would weigh all alike."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(60) % 2
    pooled = torch.rand(60, 1280, generator=generator)
    weight = 0.001 * torch.randn(2, 1280, generator=generator)
    pooled[:, :4] = labels[:, None].float()
    weight[:, :4] = torch.tensor([[-0.1], [0.1]])
    found = 1280 * channel_attention(pooled, labels, weight, torch.zeros(2))
    assert found[:4].min().item() > 3
    assert found[4:].max().item() < 1.5
    assert found[:4].min() > 2 * found[4:].max()


def test_channels_of_which_none_matters_more_weigh_alike() -> None:
    pooled, labels = torch.ones(6, 5), torch.arange(6) % 3
    found = channel_attention(pooled, labels, torch.zeros(3, 5), torch.zeros(3))
    assert found.tolist() == pytest.approx([0.2] * 5)


def attention_of_all_at_once(pooled: Tensor, labels: Tensor, classifier: Tensor, bias: Tensor) -> Tensor:
    """The attention as it was before pictures were taken some at a time, which recorded runs have."""
    logits = pooled @ classifier.T + bias
    base = F.cross_entropy(logits, labels, reduction="none")
    rises = []
    for channels in torch.arange(pooled.shape[1]).split(64):
        without = logits[:, None, :] - pooled[:, channels, None] * classifier.T[channels]
        losses = F.cross_entropy(without.flatten(0, 1), labels.repeat_interleave(len(channels)), reduction="none")
        rises.append((losses.view(-1, len(channels)) - base[:, None]).mean(0))
    rise = torch.cat(rises)
    deviation = rise.std(correction=0).clamp(min=torch.finfo(rise.dtype).eps)
    return ((rise - rise.mean()) / deviation / 5).softmax(0)


def attention_inputs(pictures: int, channels: int, classes: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pictures,), generator=generator)
    weight = torch.randn(classes, channels, generator=generator) / channels**0.5
    pooled = torch.rand(pictures, channels, generator=generator) + weight[labels]
    return pooled, labels, weight, torch.randn(classes, generator=generator)


@pytest.mark.parametrize("shape", [(600, 1280, 4), (1574, 130, 2), (600, 100, 10), (1, 64, 3)])
def test_the_attention_of_few_pictures_is_that_of_all_at_once_to_the_last_bit(shape: tuple[int, int, int]) -> None:
    given = attention_inputs(*shape)
    assert torch.equal(channel_attention(*given), attention_of_all_at_once(*given))


@pytest.mark.parametrize("at_once", [1, 7, 29, 30, 31, 90])
def test_the_attention_of_many_pictures_is_that_of_all_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = attention_inputs(90, 70, 5)
    monkeypatch.setattr(starting_point, "ATTENTION_CELLS", at_once * 64 * 5)
    torch.testing.assert_close(channel_attention(*given), attention_of_all_at_once(*given), rtol=1e-4, atol=1e-7)


class _Largest(TorchDispatchMode):
    """Remembers the most numbers of one tensor that an operator returned."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else [found]:
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel() if value._base is None else 0)
        return found


def test_memory_of_the_attention_does_not_grow_with_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting_point, "ATTENTION_CELLS", 10 * 64 * 5)
    largest = []
    for pictures in (10, 50, 400):
        given = attention_inputs(pictures, 70, 5)
        with _Largest() as seen:
            channel_attention(*given)
        largest.append(seen.numbers)
    assert largest == [10 * 64 * 5] * 3


def test_pictures_of_many_classes_are_taken_some_at_a_time() -> None:
    given = attention_inputs(1100, 64, 256)
    with _Largest() as seen:
        channel_attention(*given)
    assert 2**23 < seen.numbers <= starting_point.ATTENTION_CELLS == 2**24 < 1100 * 64 * 256
