"""Figures of the authors' published code, and the formula its inputs were made by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Outputs of the Concept-Tuning authors' published code (Yang, Huang, Wei, ICCV 2023) on inputs given by formula.
FIGURES: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


def wave(shape: tuple[int, ...], a: float, b: float) -> Tensor:
    """sin(a * i + b) for i = 0..n-1, computed in float64, cast to float32, in C order."""
    count = torch.Size(shape).numel()
    return torch.sin(a * torch.arange(count, dtype=torch.float64) + b).float().reshape(shape)
