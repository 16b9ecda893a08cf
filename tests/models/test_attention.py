from __future__ import annotations

import pytest
import torch
from golden import FIGURES, wave
from torch import Tensor

from concept_tuning.models.attention import ChannelAttention, PositionAttention

GOLDEN = FIGURES["dual_attention"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def opened(module: PositionAttention | ChannelAttention, gamma: float = 0.7) -> PositionAttention | ChannelAttention:
    torch.nn.init.constant_(module.gamma, gamma)
    return module


@torch.no_grad()
def test_both_branches_agree_with_the_authors() -> None:
    feature_map = wave((2, 64, 5, 6), 0.057, 0.2)
    position, channel = PositionAttention(64), ChannelAttention()
    for layer, shape, weight, bias, scale in (
        (position.query, (8, 64, 1, 1), (0.21, 0.1), (0.5, 0.0), 0.2),
        (position.key, (8, 64, 1, 1), (0.33, 0.2), (0.4, 0.3), 0.2),
        (position.value, (64, 64, 1, 1), (0.11, 0.4), (0.6, 0.1), 0.1),
    ):
        layer.weight.copy_(wave(shape, *weight) * scale)
        layer.bias.copy_(wave(shape[:1], *bias) * 0.1)
    position.gamma.fill_(0.5)
    channel.gamma.fill_(0.25)
    output = position(feature_map) + channel(feature_map)
    pooled = output.mean((2, 3))[:, :8]
    expected = torch.tensor([GOLDEN["pooled_first8_image0"], GOLDEN["pooled_first8_image1"]])
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-6)
    assert output.std().item() == pytest.approx(GOLDEN["output_std"], rel=1e-4)
    assert output.mean().item() == pytest.approx(GOLDEN["output_mean"], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("module", [PositionAttention(16), ChannelAttention()], ids=["position", "channel"])
def test_gamma_begins_at_zero_so_that_the_map_passes(module: torch.nn.Module) -> None:
    feature_map = draw(2, 16, 3, 4)
    assert torch.equal(module(feature_map), feature_map)


@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (4, 4), (7, 7)])
def test_channel_attention_equals_softmax_of_max_minus_gram(cells: tuple[int, int]) -> None:
    given = draw(2, 12, *cells, seed=1).double().requires_grad_()
    module = opened(ChannelAttention()).double()
    flat = given.flatten(2)
    energy = flat @ flat.mT
    attention = (energy.amax(2, keepdim=True) - energy).softmax(2)
    expected = given + 0.7 * (attention @ flat).reshape(given.shape)
    found = module(given)
    torch.testing.assert_close(found, expected)
    probe = draw(*given.shape, seed=2).double()
    gradients = [torch.autograd.grad((value * probe).sum(), given, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(module.weights(given), attention)  # type: ignore[operator]


def test_position_attention_equals_a_loop_over_cells() -> None:
    module = opened(PositionAttention(16)).double()
    given = draw(1, 16, 2, 3, seed=3).double()
    cells = given[0].flatten(1).T
    layers = (module.query, module.key, module.value)
    query, key, value = ([layer.weight[:, :, 0, 0] @ cell + layer.bias for cell in cells] for layer in layers)
    rows = []
    for i in range(6):
        scores = torch.stack([query[i] @ key[j] for j in range(6)]).softmax(0)
        rows.append(cells[i] + 0.7 * sum(scores[j] * value[j] for j in range(6)))
        torch.testing.assert_close(module.weights(given)[0, i], scores)  # type: ignore[operator]
    torch.testing.assert_close(module(given)[0].flatten(1).T, torch.stack(rows))


def test_few_channels_keep_at_least_one_query() -> None:
    assert PositionAttention(3).query.weight.shape == (1, 3, 1, 1)


def test_single_cell_attends_to_itself_and_identical_channels_share() -> None:
    assert PositionAttention(8).weights(draw(2, 8, 1, 1)).eq(1).all()
    same = torch.ones(1, 4, 2, 2)
    torch.testing.assert_close(ChannelAttention().weights(same), torch.full((1, 4, 4), 0.25))


def test_channel_attention_stays_in_float32_under_autocast() -> None:
    given = draw(1, 8, 4, 4) * 30  # Gram entries far beyond bfloat16's three digits
    module = opened(ChannelAttention())
    expected = module(given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(given), expected)


@pytest.mark.parametrize("module", [PositionAttention(8), ChannelAttention()], ids=["position", "channel"])
def test_wrong_shape_is_named(module: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"got \(2, 8, 3\)"):
        module(torch.zeros(2, 8, 3))
