"""One device setting, and the reason for what `auto` chose."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from dreamdojo.errors import ConfigError

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """Where and in which precision a run computes, and why."""

    device: torch.device
    autocast: bool
    reason: str

    def autocasting(self) -> contextlib.AbstractContextManager:
        """bfloat16 autocast where it was chosen, nothing elsewhere; weights stay float32."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_compute(device: Device = "auto", precision: Precision = "auto") -> Compute:
    """Pick a device and a precision.

    Raises:
        ConfigError: if the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(kind for kind, there in available.items() if there) if device == "auto" else device
    if not available[name]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise ConfigError(f"device {name} was asked for and is not available here; available: {there}")
    why_device = "the best one here" if device == "auto" else "as asked"
    if precision != "auto":
        return Compute(torch.device(name), precision == "bfloat16", f"{name} ({why_device}), {precision} (as asked)")
    fast = {"cuda": torch.cuda.is_bf16_supported, "mps": lambda: False, "cpu": _cpu_has_bfloat16}[name]()
    why = "native matrix products" if fast else "no native bfloat16"
    return Compute(
        torch.device(name), fast, f"{name} ({why_device}), {'bfloat16 autocast' if fast else 'float32'} ({why})"
    )


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capabilities and bool(torch.cpu._is_avx512_bf16_supported())
