"""One device setting, and the reason for what `auto` chose."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from dreamdojo.errors import ConfigError
from dreamdojo.training.distributed import ALONE, Processes, start_processes

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """Where and in which precision a run computes, and why."""

    device: torch.device
    autocast: bool
    reason: str
    processes: Processes = ALONE
    """The processes that compute together; one, unless torchrun started several."""
    peak_flops: float | None = None
    """Operations per second that one device can do at most, of which training logs its share; measured if None."""

    def autocasting(self) -> contextlib.AbstractContextManager:
        """bfloat16 autocast where it was chosen, nothing elsewhere; weights stay float32."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_compute(device: Device = "auto", precision: Precision = "auto") -> Compute:
    """Pick a device and a precision.

    Raises:
        ConfigError: if there is no such device, or it is not there.
    """
    if device not in get_args(Device):
        raise ConfigError(f"there is no device {device!r}; there are: {', '.join(get_args(Device))}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(kind for kind, there in available.items() if there) if device == "auto" else device
    if not available[name]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise ConfigError(f"device {name} was asked for and is not available here; available: {there}")
    why_device = "the best one here" if device == "auto" else "as asked"
    if precision != "auto":
        return Compute(torch.device(name), precision == "bfloat16", f"{name} ({why_device}), {precision} (as asked)")
    fast = has_fast_bfloat16(name)
    why = "native matrix products" if fast else "no native bfloat16"
    return Compute(
        torch.device(name), fast, f"{name} ({why_device}), {'bfloat16 autocast' if fast else 'float32'} ({why})"
    )


def join_processes(compute: Compute) -> Compute:
    """The same beside the other processes that torchrun started, each on a GPU of its own; unchanged without torchrun.

    Raises:
        ConfigError: if torchrun started more processes on this machine than it has GPUs.
    """
    device, number = compute.device, int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if number >= torch.cuda.device_count():
            raise ConfigError(
                f"each process needs a GPU of its own: expected more than {number}, found {torch.cuda.device_count()}. "
                "Start torchrun with a smaller --nproc-per-node."
            )
        torch.cuda.set_device(number)
        device = torch.device("cuda", number)
    processes = start_processes(device)
    if not processes.several:
        return compute
    reason = f"{processes.count} processes, each on {compute.reason}"
    return replace(compute, device=device, processes=processes, reason=reason)


def autocast_where_fast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 autocast on a device that computes it natively, nothing on others, where it is many times slower."""
    return Compute(device, has_fast_bfloat16(device.type), "").autocasting()


def has_fast_bfloat16(device: str) -> bool:
    """Whether a kind of device multiplies matrices of bfloat16 natively."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    if device != "cpu":
        return False
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capabilities and bool(torch.cpu._is_avx512_bf16_supported())
