"""Losses of the latent action model.

reconstruction = mean (next_frame - decode(frame, latent_action))^2
kl             = mean over pairs of -1/2 sum_d (1 + log_variance - mean^2 - exp(log_variance))
contrastive    = InfoNCE over the batch between the latent actions of two views of one pair: what moves alike attracts,
                 whatever the light and the place in the picture, and all other pairs repel
transfer       = InfoNCE between a latent action and the one read off again where it moves another scene: the decoder
                 shows the motion of pair i in the scene of pair j, and it must be recognised there
features       = mean (f(next_frame) - f(decode(frame, latent_action)))^2 for the latents f of a frozen tokenizer
labels         = mean over labelled pairs of (first numbers of the latent action - the motion that is known of them)^2
total          = reconstruction + kl_weight * kl + contrastive_weight * contrastive + transfer_weight * transfer
                 + feature_weight * features + label_weight * labels
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
    transfer: Float[Tensor, ""]
    features: Float[Tensor, ""]
    labels: Float[Tensor, ""]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """How much each part counts; the reconstruction counts 1."""

    kl: float
    contrastive: float = 0.0
    transfer: float = 0.0
    features: float = 0.0
    labels: float = 0.0


def kl_to_standard_normal(posterior: LatentActionPosterior) -> Float[Tensor, ""]:
    """KL divergence of the posterior from N(0, 1), summed over dimensions, averaged over pairs."""
    mean, log_variance = posterior.mean, posterior.log_variance
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1).mean()


def info_nce(first: Float[Tensor, "n l"], second: Float[Tensor, "n l"], temperature: float = 0.2) -> Float[Tensor, ""]:
    """Row i of `first` and row i of `second` attract, all other rows repel (symmetric InfoNCE on cosines)."""
    logits = nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T / temperature
    target = torch.arange(len(first), device=first.device)
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2


def label_error(latent_action: Float[Tensor, "b p l"], labels: Float[Tensor, "b p k"]) -> Float[Tensor, ""]:
    """Squared error of the first `k` numbers of labelled pairs; pairs without a label are NaN and do not count."""
    known = labels.isfinite()
    error = (latent_action[..., : labels.shape[-1]] - labels.nan_to_num()).square() * known
    return error.sum() / known.sum().clamp(min=1)


def latent_action_loss(
    *,
    next_frames: Float[Tensor, "b p c h w"],
    redrawn: Float[Tensor, "b p c h w"],
    posterior: LatentActionPosterior,
    weights: LossWeights,
    other_view: Float[Tensor, "b p l"] | None = None,
    transferred: Float[Tensor, "b p l"] | None = None,
    features: tuple[Tensor, Tensor] | None = None,
    labels: Float[Tensor, "b p k"] | None = None,
    motion_emphasis: Float[Tensor, "b p 1 h w"] | float = 1.0,
) -> LatentActionLoss:
    """The loss above; parts without their input are zero.

    Args:
        next_frames: What the decoder should draw.
        redrawn: What it drew.
        posterior: Latent actions of the pairs.
        weights: How much each part counts.
        other_view: Latent actions of other views of the same pairs.
        transferred: Latent actions read off after each was moved to another scene, in the order of the pairs.
        features: Features of `next_frames` and of `redrawn`.
        labels: What is known of the motion of each pair, in units of its spread; NaN where nothing is.
        motion_emphasis: Weighs pixels of the reconstruction; 1 leaves it as published.
    """
    reconstruction = ((next_frames - redrawn).square() * motion_emphasis).mean()
    kl = kl_to_standard_normal(posterior)
    own, zero = posterior.mean.flatten(0, 1).float(), reconstruction.new_zeros(())
    contrastive = zero if other_view is None else info_nce(own, other_view.flatten(0, 1).float())
    transfer = zero if transferred is None else info_nce(own, transferred.flatten(0, 1).float())
    feature = zero if features is None else (features[0] - features[1]).square().mean()
    label = zero if labels is None else label_error(posterior.mean.float(), labels)
    total = reconstruction + weights.kl * kl + weights.contrastive * contrastive
    total = total + weights.transfer * transfer + weights.features * feature + weights.labels * label
    return LatentActionLoss(total, reconstruction, kl, contrastive, transfer, feature, label)
