from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from concept_tuning.models.front_door import FrontDoorHead

CHANNELS, CLASSES, LATENT = 6, 4, 5


def head(seed: int = 0, *, gamma: float | None = 0.5, **settings: object) -> FrontDoorHead:
    """Return a small head in evaluation mode; ``gamma`` switches its attentions on, None leaves them at 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = FrontDoorHead(CHANNELS, CLASSES, latent_dim=LATENT, **settings).eval()
    for attention in (made.position, made.channel):
        if attention is not None and gamma is not None:
            nn.init.constant_(attention.gamma, gamma)
    return made


def feature_map(batch: int = 3) -> Tensor:
    return torch.randn(batch, CHANNELS, 2, 3, generator=torch.Generator().manual_seed(1))


def noise(batch: int = 3, seed: int = 2) -> Tensor:
    return torch.randn(batch, LATENT, generator=torch.Generator().manual_seed(seed))


def linear_path(made: FrontDoorHead, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, mean and deviation of pooled features, written out."""
    raw = pooled @ made.latent.weight.T + made.latent.bias
    mean, deviation = raw[:, :LATENT], (1 + (raw[:, LATENT:] - 5).exp()).log()
    return mean @ made.classifier.weight.T + made.classifier.bias, mean, deviation


def test_evaluation_is_deterministic_and_ignores_noise() -> None:
    made = head()
    state = torch.get_rng_state()
    plain, noisy = made(feature_map()), made(feature_map(), 100 * noise())
    assert torch.equal(plain.logits, noisy.logits)
    assert torch.equal(plain.logits, made.classifier(plain.mean))
    assert torch.equal(torch.get_rng_state(), state)


def test_training_reads_mean_plus_deviation_times_noise() -> None:
    made = head()
    quiet = made(feature_map())
    drawn = noise()
    noisy = made.train()(feature_map(), drawn)
    expected = made.classifier(quiet.mean + quiet.deviation * drawn)
    torch.testing.assert_close(noisy.logits, expected)
    assert not torch.allclose(noisy.logits, quiet.logits, atol=1e-5)
    assert torch.equal(noisy.mean, quiet.mean)


def test_noise_that_is_not_given_is_drawn_anew_from_torchs_generator() -> None:
    made = head().train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        drawn = torch.randn(3, LATENT)
        torch.manual_seed(4)
        first, second = made(feature_map()), made(feature_map())
    assert torch.equal(first.logits, made(feature_map(), drawn).logits)
    assert not torch.equal(first.logits, second.logits)


@pytest.mark.parametrize("raw", [-3.0, 0.0, 5.0, 40.0])
def test_deviation_is_the_softplus_of_raw_minus_five(raw: float) -> None:
    made = head()
    with torch.no_grad():
        made.latent.weight.zero_()
        made.latent.bias[LATENT:] = raw
    deviation = made(feature_map()).deviation
    expected = torch.tensor(raw - 5, dtype=torch.float64).exp().log1p().item()
    torch.testing.assert_close(deviation, torch.full((3, LATENT), expected))


@pytest.mark.parametrize(("aggregate", "copies"), [("sum", 1), ("concat", 2)])
def test_at_the_start_the_attentions_do_nothing(aggregate: str, copies: int) -> None:
    """Both gammas start at 0, so the first output is that of a linear path on the pooled features."""
    made = head(gamma=None, aggregate=aggregate)
    pooled = feature_map().mean((2, 3))
    # Summed, each of the two branches gives the feature map once.
    joined = 2 * pooled if copies == 1 else torch.cat([pooled, pooled], dim=1)
    logits, mean, deviation = linear_path(made, joined)
    output = made(feature_map())
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.mean, mean)
    torch.testing.assert_close(output.deviation, deviation, rtol=1e-4, atol=1e-7)


def test_from_the_start_the_gammas_learn() -> None:
    made = head(gamma=None).train()
    made(feature_map(), noise()).logits.square().sum().backward()
    assert made.position.gamma.grad.abs().item() > 0
    assert made.channel.gamma.grad.abs().item() > 0


def test_sum_adds_the_branches_and_concat_sets_them_side_by_side() -> None:
    added, joined = head(), head(aggregate="concat")
    joined.position.load_state_dict(added.position.state_dict())
    position, channel = added.position(feature_map()), added.channel(feature_map())
    assert not torch.allclose(position, channel)
    assert torch.equal(added.attend(feature_map()), position + channel)
    assert torch.equal(joined.attend(feature_map()), torch.cat([position, channel], dim=1))
    pooled = torch.cat([position, channel], dim=1).mean((2, 3))
    torch.testing.assert_close(joined(feature_map()).logits, linear_path(joined, pooled)[0])


@pytest.mark.parametrize("aggregate", ["sum", "concat"])
@pytest.mark.parametrize("name", ["position", "channel"])
def test_a_branch_alone_is_itself(name: str, aggregate: str) -> None:
    switches = {"position": False, "channel": False, name: True}
    made = head(aggregate=aggregate, **switches)
    branch = getattr(made, name)
    assert torch.equal(made.attend(feature_map()), branch(feature_map()))
    other = "channel" if name == "position" else "position"
    assert getattr(made, other) is None
    logits, _, _ = linear_path(made, branch(feature_map()).mean((2, 3)))
    torch.testing.assert_close(made(feature_map()).logits, logits)


def test_a_branch_left_out_for_diagnostics_passes_the_map_through() -> None:
    made = head()
    features = feature_map()
    position, channel = made.position(features), made.channel(features)
    assert torch.equal(made.attend(features, use_position=False), features + channel)
    assert torch.equal(made.attend(features, use_channel=False), position + features)
    neither = made(features, use_position=False, use_channel=False)
    torch.testing.assert_close(neither.logits, linear_path(made, 2 * features.mean((2, 3)))[0])
    # The head keeps no memory of the switch.
    assert torch.equal(made.attend(features), position + channel)


def test_without_bottleneck_there_is_no_deviation_and_no_noise() -> None:
    made = head(bottleneck=False).train()
    output = made(feature_map(), 100 * noise())
    assert output.deviation is None
    raw = made.latent(made.attend(feature_map()).mean((2, 3)))
    torch.testing.assert_close(output.mean, raw)
    torch.testing.assert_close(output.logits, made.classifier(raw))
    assert torch.equal(made(feature_map()).logits, made.eval()(feature_map()).logits)


def test_a_batch_of_one_and_a_map_of_one_cell() -> None:
    made = head()
    all_three = made(feature_map()).logits
    torch.testing.assert_close(made(feature_map()[1:2]).logits, all_three[1:2])
    # With a single cell the softmax over positions is 1, so the branch adds the values themselves.
    cell = feature_map()[:, :, :1, :1]
    torch.testing.assert_close(made.position(cell), cell + 0.5 * made.position.value(cell))


def test_noise_and_deviation_take_their_gradients() -> None:
    """The sampled latent is differentiable in mean and deviation (reparameterisation)."""
    made = head().train()
    drawn = noise()
    made(feature_map(), drawn).logits.sum().backward()
    raw = made.latent(made.attend(feature_map()).mean((2, 3)))
    slope = made.classifier.weight.sum(0).expand(3, -1)
    # d sigma / d raw is the logistic function of raw - 5.
    by_raw = slope * drawn * torch.sigmoid(raw[:, LATENT:] - 5)
    torch.testing.assert_close(made.latent.bias.grad[:LATENT], slope.sum(0))
    torch.testing.assert_close(made.latent.bias.grad[LATENT:], by_raw.sum(0), rtol=1e-4, atol=1e-6)


def test_half_precision_keeps_the_latent_in_float32() -> None:
    made = head().bfloat16().train()
    output = made(feature_map().bfloat16(), noise())
    assert output.mean.dtype == output.deviation.dtype == torch.float32
    assert output.logits.dtype == torch.bfloat16
    torch.testing.assert_close(
        output.logits.float(), head().train()(feature_map(), noise()).logits, rtol=0.1, atol=0.05
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"position": False, "channel": False}, "needs position or channel attention, got neither"),
        ({"aggregate": "mean"}, "aggregate must be 'sum' or 'concat', got 'mean'"),
        ({"latent_dim": 0}, "latent_dim must be >= 1, got 0"),
    ],
)
def test_settings_that_make_no_head(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FrontDoorHead(CHANNELS, CLASSES, **{"latent_dim": LATENT, **settings})


@pytest.mark.parametrize("shape", [(3, LATENT + 1), (2, LATENT), (LATENT,)])
def test_noise_of_another_shape_is_refused_also_in_evaluation(shape: tuple[int, ...]) -> None:
    expected = re.escape(f"noise must be (B, L) = (3, {LATENT}), got {shape}.")
    for made in (head(), head().train()):
        with pytest.raises(ValueError, match=expected):
            made(feature_map(), torch.zeros(shape))


def test_pooled_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"feature_map must be \(B, D, h, w\), got \(3, 6\)"):
        head()(feature_map().mean((2, 3)))


def test_the_kl_gradient_pulls_towards_a_standard_normal() -> None:
    """Following the rate term alone, the latent ends as N(0, 1) whatever it reads."""
    made = head()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(200):
        output = made(feature_map())
        loss = (0.5 * (output.mean.square() + output.deviation.square() - 1) - output.deviation.log()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    output = made(feature_map())
    assert output.mean.abs().max() < 0.05
    assert (output.deviation - 1).abs().max() < 0.05
