"""Losses of the latent action model.

reconstruction = mean (next_frame - decode(frame, latent_action))^2
kl             = mean over pairs of -1/2 sum_d (1 + log_variance - mean^2 - exp(log_variance))
contrastive    = InfoNCE over the batch between the latent actions of two photometric views of one pair
total          = reconstruction + kl_weight * kl + contrastive_weight * contrastive
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.latent_action.model import LatentActionPosterior


@dataclass(frozen=True)
class LatentActionLoss:
    """The parts of the loss, each loggable."""

    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]


def kl_to_standard_normal(posterior: LatentActionPosterior) -> Float[Tensor, ""]:
    """KL divergence of the posterior from N(0, 1), summed over dimensions, averaged over pairs."""
    mean, log_variance = posterior.mean, posterior.log_variance
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1).mean()


def info_nce(first: Float[Tensor, "n l"], second: Float[Tensor, "n l"], temperature: float = 0.2) -> Float[Tensor, ""]:
    """Row i of `first` and row i of `second` attract, all other rows repel (symmetric InfoNCE on cosines)."""
    logits = nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T / temperature
    target = torch.arange(len(first), device=first.device)
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2


def latent_action_loss(
    *,
    next_frames: Float[Tensor, "b p c h w"],
    redrawn: Float[Tensor, "b p c h w"],
    posterior: LatentActionPosterior,
    other_view: Float[Tensor, "b p l"] | None,
    kl_weight: float,
    contrastive_weight: float,
    motion_emphasis: Float[Tensor, "b p 1 h w"] | float = 1.0,
) -> LatentActionLoss:
    """The loss above; `motion_emphasis` weighs pixels of the reconstruction (1 leaves it as published)."""
    reconstruction = ((next_frames - redrawn).square() * motion_emphasis).mean()
    kl = kl_to_standard_normal(posterior)
    contrastive = reconstruction.new_zeros(())
    if other_view is not None:
        contrastive = info_nce(posterior.mean.flatten(0, 1).float(), other_view.flatten(0, 1).float())
    total = reconstruction + kl_weight * kl + contrastive_weight * contrastive
    return LatentActionLoss(total, reconstruction, kl, contrastive)
