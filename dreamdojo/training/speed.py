"""How fast a run is: samples, frames and tokens per second, and which share of its hardware the model makes use of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from dreamdojo.training.device import Compute

SPEEDS = ("seconds", "samples_per_second", "frames_per_second", "tokens_per_second", "model_flops_utilisation")
"""What a row of the log says of time; two runs of the same numbers differ in these only."""

SLOW = 0.2
"""Seconds of a matrix product after which no more are measured."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a model does with one sample of training."""

    frames: int
    """Frames that it sees (of video, not of latents)."""
    tokens: int
    """Tokens that go through the transformer."""
    flops: float
    """Operations of forward and backward pass, a multiply-add being two. What is only computed again (activation
    checkpointing) does not count, so it shows as a lower utilisation."""


class Speedometer:
    """Speeds of all processes together, since they were last read."""

    def __init__(self, compute: Compute, samples_per_step: int, work: Work | None) -> None:
        """Start the clock; with `work` and no peak told, the peak is measured first."""
        self._samples, self._work, self._peak = samples_per_step, work, float("nan")
        if work is not None:
            peak = compute.peak_flops or measured_peak(compute.device, compute.autocast)
            self._peak = peak * compute.processes.count
        self._since, self._steps = time.monotonic(), 0

    def step_done(self) -> None:
        """Count a step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Speeds since the last reading, whatever took the time: saving a state is in them. Utilisation is 0 to 1."""
        now = time.monotonic()
        samples = self._steps * self._samples / max(now - self._since, 1e-9)
        self._since, self._steps = now, 0
        if self._work is None:
            return {"samples_per_second": samples}
        return {
            "samples_per_second": samples,
            "frames_per_second": samples * self._work.frames,
            "tokens_per_second": samples * self._work.tokens,
            "model_flops_utilisation": samples * self._work.flops / self._peak,
        }


def in_words(speeds: Mapping[str, float]) -> str:
    """Speeds for a line of progress."""
    if "frames_per_second" not in speeds:
        return f"{speeds['samples_per_second']:.3g} samples/s"
    return f"{speeds['frames_per_second']:.3g} frames/s, {100 * speeds['model_flops_utilisation']:.3g} % of peak"


@lru_cache
def measured_peak(device: torch.device, bfloat16: bool, *, size: int | None = None) -> float:
    """Operations per second of one device's matrix products in the precision of training: the best of a few.

    It is what a product of two square matrices of up to `size` reaches here and now, somewhat less than a data sheet
    says. Where a product takes long, as in bfloat16 on a processor without it, larger ones are not tried.
    """
    size = size or (1024 if device.type == "cpu" else 8192)
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    best = 0.0
    for side in (max(size // 8, 1), size // 2, size):
        a = torch.linspace(-1, 1, side * side, device=device).view(side, side)
        a = a.to(torch.bfloat16 if bfloat16 else torch.float32)
        if not best:
            torch.mm(a, a)  # the first product of a process waits for its library
        for _ in range(6):
            wait()
            started = time.perf_counter()
            torch.mm(a, a)
            wait()
            seconds = time.perf_counter() - started
            best = max(best, 2 * side**3 / seconds)
            if seconds > SLOW:
                return best
    return best
