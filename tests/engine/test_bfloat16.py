"""A run is told when its bfloat16 is slower than float32: on a processor without instructions for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_tuning.engine.bfloat16 import slow_bfloat16
from concept_tuning.settings import build_config

CPU = torch.device("cpu")
OLD = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}
KEYS, WHOLE = {"key_precision": "bf16"}, {"precision": "bf16"}


def told(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], device: torch.device = CPU, **set: Any) -> str:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    return slow_bfloat16(build_config(method="concept-tuning", overrides=set), device)


@pytest.mark.parametrize(
    ("set", "named"),
    [(KEYS, " key_precision=bf16 will"), (WHOLE, " precision=bf16 will"), (KEYS | WHOLE, "=bf16 and key_precision=")],
)
def test_it_is_said_where_the_processor_has_no_instructions(
    set: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named in told(monkeypatch, OLD, **set)


@pytest.mark.parametrize(
    ("capabilities", "device", "set"),
    [
        (OLD, CPU, {}),
        (OLD, CPU, {"precision": "fp16"}),
        (OLD, torch.device("cuda"), KEYS),
        (OLD | {"avx512_bf16": True}, CPU, KEYS),
        (OLD | {"amx_bf16": True}, CPU, WHOLE),
        ({"architecture": "aarch64"}, CPU, KEYS),
        ({}, CPU, KEYS),
    ],
)
def test_elsewhere_nothing_is_said(
    capabilities: dict[str, Any], device: torch.device, set: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(monkeypatch, capabilities, device, **set) == ""


def test_a_method_without_keys_is_not_asked_for_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: OLD, raising=False)
    assert slow_bfloat16(build_config(method="vanilla", overrides={}), CPU) == ""
    assert slow_bfloat16(build_config(method="vanilla", overrides=WHOLE), CPU)
