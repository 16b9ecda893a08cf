"""The rate of the stochastic latent bottleneck in the front-door head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def gaussian_kl(mean: Tensor, deviation: Tensor, *, deviation_form: Literal["sigma", "exp-sigma"] = "sigma") -> Tensor:
    """Return KL(N(mean, deviation) || N(0, 1)), summed over the latent dimensions, mean over the batch.

    The rate term of the deep variational information bottleneck (Alemi et al., arXiv 1612.00410, eq. 17),
    in nats, as Concept-Tuning (arXiv 2311.06868) uses it in its front-door part.

    Args:
        mean: (B, L).
        deviation: (B, L), the standard deviation with which the latent is sampled, >= 0.
        deviation_form: ``sigma`` takes that deviation; ``exp-sigma`` takes its exponential, as the authors'
            code does, so that the term no longer describes what is sampled.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: If the shapes differ or are not (B, L), or ``deviation_form`` is unknown.
    """
    if mean.ndim != 2 or mean.shape != deviation.shape:
        raise ValueError(
            f"mean and deviation must share one shape (B, L), got {tuple(mean.shape)} and {tuple(deviation.shape)}."
        )
    if deviation_form == "sigma":
        logarithm = deviation.clamp(min=torch.finfo(deviation.dtype).tiny).log()
        variance = deviation.square()
    elif deviation_form == "exp-sigma":
        logarithm = deviation
        variance = (2 * deviation).exp()
    else:
        raise ValueError(f"deviation_form must be 'sigma' or 'exp-sigma', got {deviation_form!r}.")
    return (0.5 * (mean.square() + variance - 1) - logarithm).sum(1).mean()
