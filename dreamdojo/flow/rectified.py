"""Rectified flow: the straight path between data and noise.

noisy    = (1 - sigma) * clean + sigma * noise          sigma 0 is clean, sigma 1 is noise
velocity = d noisy / d sigma = noise - clean
clean    = noisy - sigma * velocity
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PathPoint:
    """A point on the path and the velocity there."""

    noisy: Float[Tensor, "b t c h w"]
    velocity: Float[Tensor, "b t c h w"]


def interpolate(
    clean: Float[Tensor, "b t c h w"], noise: Float[Tensor, "b t c h w"], sigma: Float[Tensor, "b t"]
) -> PathPoint:
    """The point at `sigma` between each clean frame and its noise."""
    level = per_frame(sigma)
    return PathPoint((1 - level) * clean + level * noise, noise - clean)


def velocity_from_clean(
    noisy: Float[Tensor, "b t c h w"],
    clean: Float[Tensor, "b t c h w"],
    sigma: Float[Tensor, "b t"],
    smallest: float = 1e-3,
) -> Float[Tensor, "b t c h w"]:
    """The velocity that a prediction of the clean frames stands for; sigma is bounded below to keep it finite."""
    return (noisy - clean) / per_frame(sigma).clamp(min=smallest)


def clean_from_velocity(
    noisy: Float[Tensor, "b t c h w"], velocity: Float[Tensor, "b t c h w"], sigma: Float[Tensor, "b t"]
) -> Float[Tensor, "b t c h w"]:
    """The clean frames that a predicted velocity stands for."""
    return noisy - per_frame(sigma) * velocity


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """`shift * sigma / (1 + (shift - 1) * sigma)`: moves noise levels towards noise for `shift` above 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(
    shape: tuple[int, ...], *, shift: float, generator: torch.Generator, device: torch.device
) -> Float[Tensor, "*b"]:
    """Noise levels for training: logit-normal, then shifted (DreamDojo trains with shift 5)."""
    return shifted(torch.randn(shape, generator=generator, device=device).sigmoid(), shift)


def sample_table_sigma(
    shape: tuple[int, ...],
    *,
    shift: float,
    generator: torch.Generator,
    device: torch.device,
    levels: int = 1000,
    high_fraction: float = 0.0,
) -> Float[Tensor, "*b"]:
    """Noise levels as published: the logit-normal draw picks one of `levels` table entries, shifted.

    The published 14B model replaces a share `high_fraction` of them by a uniform pick among entries of at least 0.98.
    """
    drawn = torch.randn(shape, generator=generator, device=device).sigmoid()
    table = shifted((levels - torch.arange(levels, device=device)) / levels, shift)
    sigma = table[(levels * drawn).long().clamp(max=levels - 1)]
    if high_fraction == 0:
        return sigma
    high = table[table >= 0.98]
    pick = high[torch.randint(len(high), shape, generator=generator, device=device)]
    return torch.where(torch.rand(shape, generator=generator, device=device) < high_fraction, pick, sigma)


def sigma_schedule(steps: int, shift: float) -> Float[Tensor, " steps_1"]:
    """`steps + 1` noise levels from 1 to 0 for sampling, spaced evenly before the shift."""
    return shifted(torch.linspace(1, 0, steps + 1), shift)


def euler(velocity: Callable[[Tensor, float], Tensor], noise: Tensor, schedule: Float[Tensor, " steps_1"]) -> Tensor:
    """Integrate `velocity(noisy, sigma)` from noise to data along `schedule`; exact on a straight path."""
    x = noise
    for sigma, following in zip(schedule[:-1].tolist(), schedule[1:].tolist(), strict=True):
        x = x + (following - sigma) * velocity(x, sigma)
    return x


def per_frame(values: Float[Tensor, "b t"]) -> Float[Tensor, "b t 1 1 1"]:
    """One number per frame, ready to multiply its latent."""
    return values[..., None, None, None]
