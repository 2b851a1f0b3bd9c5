"""Numbers that tell whether a student is healthy, and when it is lost.

All are ratios whose healthy value is near 1: against the teacher (`spread`) or against what really happened.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import TrainingDiverged
from dreamdojo.metrics import gradient_energy
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, ChunkSampler, SamplerConfig, roll_out

MOST_ENERGY = 10.0
"""Latents with more than so many times the energy of real ones mean nothing any more."""


def continue_with(
    model: WorldModel,
    sampler: SamplerConfig,
    first: Float[Tensor, "b c h w"],
    chunk: Float[Tensor, "b t kl"],
    noise: Float[Tensor, "b t c h w"],
) -> Float[Tensor, "b t c h w"]:
    """`first` and the frames that a model says come after it; row 0 of `chunk` and `noise` has no meaning."""
    if model.config.dit.causal:
        causal = CausalSampler(model, sampler, model.config.dit.window)
        return roll_out(causal, first[:, None], chunk[:, 1:], noise[:, 1:])
    return ChunkSampler(model, sampler).predict(first[:, None], chunk[:, 1:], noise)


def spread(
    student: tuple[WorldModel, SamplerConfig],
    teacher: tuple[WorldModel, SamplerConfig],
    first: Float[Tensor, "b c h w"],
    chunk: Float[Tensor, "b t kl"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """How far two samples of the student lie apart, over the same of the teacher: below 1 it has lost variety."""
    shape = (*chunk.shape[:2], *first.shape[1:])
    noises = [torch.randn(shape, generator=generator, device=first.device) for _ in range(2)]

    def apart(model: WorldModel, sampler: SamplerConfig) -> Tensor:
        one, other = (continue_with(model, sampler, first, chunk, noise)[:, 1:] for noise in noises)
        return (one - other).square().mean().sqrt()

    return apart(*student) / apart(*teacher).clamp(min=1e-6)


def moving_energy(
    made: Float[Tensor, "b t c h w"], truth: Float[Tensor, "b t c h w"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sharpness and motion of a student's latents over the truth's, where the truth moves more than on average."""
    change = torch.diff(truth, dim=1)
    amount = change.square().mean(dim=2)
    moving = amount > amount.mean(dim=(1, 2, 3), keepdim=True)
    inside = moving[..., :-1, :-1]

    def sharpness(latents: Tensor) -> Tensor:
        return (gradient_energy(latents[:, 1:]) * inside).sum()

    def motion(latents: Tensor) -> Tensor:
        return (torch.diff(latents, dim=1).square().mean(dim=2) * moving).sum()

    return sharpness(made) / sharpness(truth).clamp(min=1e-6), motion(made) / motion(truth).clamp(min=1e-6)


def stop_if_lost(made: Tensor, truth: Tensor, step: int) -> None:
    """Stop a training whose student has left the range of real latents.

    Raises:
        TrainingDiverged: if it has.
    """
    energy = float(made.detach().square().mean() / truth.square().mean().clamp(min=1e-6))
    if energy > MOST_ENERGY:
        raise TrainingDiverged(
            f"step {step}: the student's latents have {energy:.3g} times the energy of real ones (most: "
            f"{MOST_ENERGY:g}). The weights are those of before this step. Lower the student's learning rate, or give "
            "the critic more steps."
        )
