"""Whether a run asks for bfloat16 of a processor that has no instructions for it, where it is slower than float32."""

from __future__ import annotations

import torch

from concept_tuning.config import RunConfig

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def slow_bfloat16(config: RunConfig, device: torch.device) -> str:
    """Return a caution if a run's bfloat16 will be computed without instructions for it; else an empty text.

    Of other processors than x86-64 nothing is said, nor with a version of torch that does not tell.

    Args:
        config: The run's settings.
        device: That it trains on.
    """
    values = {"precision": config.engine.precision, "key_precision": config.concept_tuning.key_precision}
    asked = [name for name, value in values.items() if value == "bf16"]
    if not asked or device.type != "cpu":
        return ""
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if told.get("architecture") != "x86_64" or any(told.get(name) for name in _INSTRUCTIONS):
        return ""
    settings = " and ".join(f"{name}=bf16" for name in asked)
    return (
        f"This processor has no bfloat16 instructions: {settings} will make the training slower, by our measurements "
        "up to four times. Leave it out."
    )
