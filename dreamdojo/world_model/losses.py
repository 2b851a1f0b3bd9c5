"""The world model's loss.

    velocity = mean  weight * (v_hat - v)^2
    motion   = mean  (diff_t v_hat - diff_t v)^2            differences between neighbouring frames, along time
    total    = velocity + motion_weight * motion

Means are over the frames that the model had to predict. As published, given frames have no error but count in both
means, and their difference to the first predicted frame counts too (`given_count`); and the published code takes the
differences of the motion term between neighbouring channels (`reference_compatible`, docs/faults.md, 2).

A model that predicts the clean latent is trained on the same error in other units: `v_hat - v = (clean - clean_hat) /
sigma`, so its squared error is divided by `max(sigma, sigma_floor)^2`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.flow.rectified import PathPoint, per_frame
from dreamdojo.world_model.dit import DiTConfig


@dataclass(frozen=True)
class FlowLoss:
    """The parts of the loss, each loggable."""

    total: Float[Tensor, ""]
    velocity: Float[Tensor, ""]
    motion: Float[Tensor, ""]


def flow_loss(
    prediction: Float[Tensor, "b t c h w"],
    *,
    config: DiTConfig,
    clean: Float[Tensor, "b t c h w"],
    point: PathPoint,
    sigma: Float[Tensor, "b t"],
    counts: Float[Tensor, "b t"],
    emphasis: Float[Tensor, "b t 1 h w"] | float = 1.0,
    motion_weight: float = 0.0,
    sigma_floor: float = 0.5,
    given_count: bool = False,
    reference_compatible: bool = False,
) -> FlowLoss:
    """The loss above; `counts` is 1 on predicted frames, 0 on given ones."""
    if config.prediction == "velocity":
        error = prediction - point.velocity
    else:
        error = (prediction - clean) / per_frame(sigma.clamp(min=sigma_floor))
    counted = per_frame(counts)
    if given_count:
        error = error * counted
        velocity = (error.square() * emphasis).mean()
        motion = torch.diff(error, dim=2 if reference_compatible else 1).square().mean()
        return FlowLoss(velocity + motion_weight * motion, velocity, motion)
    size = error[0, 0].numel()
    velocity = (error.square() * counted * emphasis).sum() / (counts.sum() * size).clamp(min=1)
    both = (counts[:, 1:] * counts[:, :-1]).sum() * size
    pairs = per_frame(counts[:, 1:] * counts[:, :-1])
    motion = (torch.diff(error, dim=1).square() * pairs).sum() / both.clamp(min=1)
    return FlowLoss(velocity + motion_weight * motion, velocity, motion)
