"""Distribution matching distillation with self-forcing, as published: the formulas of the generator and critic steps.

A student rolls out on its own frames (self-forcing, arXiv 2506.08009). A frozen teacher and a critic, which learns what
the student makes, both say what a noisy version of the student's last frames should be, and the student follows the
difference (DMD2, arXiv 2405.14867). In TrigFlow angles, with clip G of the student and noise e:

    noisy  = cos(t) G + sin(t) e,      sigma = 5 u / (1 + 4 u),  t = atan(sigma / (1 - sigma)),  u uniform
    g      = (fake(noisy) - teacher(noisy)) / mean |G - teacher(noisy)|
    generator loss = mean (G - stop(G - g))^2
    critic loss    = mean (G - fake(noisy))^2 / sin^2 t

Teacher and critic see a clip whose first frame is real and given, so a student that drifted is judged against where it
should have been. Their own first frame is that frame; it counts in the means with no gradient. They are told of it as
the teacher was in training: clean where every frame has a level of its own, at the level of the others where a mask
marks it; published weights were told `GIVEN_ANGLE` (`reference_compatible`; docs/faults.md, 9).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from dreamdojo.flow.rectified import per_frame, shifted
from dreamdojo.flow.trigflow import angle_of_sigma, precondition
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.world_model.model import WorldModel

SMALLEST_SCALE = 1e-5
"""Lower bound of the mean distance that the generator's gradient is divided by."""

GIVEN_ANGLE = math.atan(1e-4)
"""The angle that the published teacher and critic are told for the given frame."""


def draw_angle(u: Float[Tensor, " b"], shift: float = 5.0) -> Float64[Tensor, " b"]:
    """The angle of each sample from a uniform number; all frames of a sample share it."""
    return angle_of_sigma(shifted(u.double(), shift))


def critic_clip(
    latents: Float[Tensor, "b n c h w"], tokenizer: VideoTokenizer, length: int
) -> Float[Tensor, "b t c h w"]:
    """The last `length` latent frames of a rollout as a clip of its own.

    A clip's first latent frame holds one picture, so the frame before the last `length - 1` is decoded with all that
    led to it and its last picture encoded again alone. A rollout of exactly `length` frames is such a clip already.
    """
    if latents.shape[1] == length:
        return latents
    pictures, _ = tokenizer.decode(latents[:, : latents.shape[1] - length + 1])
    first, _ = tokenizer.encode(pictures[:, -1:])
    return torch.cat([first.to(latents.dtype), latents[:, 1 - length :]], dim=1)


def clean_prediction(
    model: WorldModel,
    clip: Float[Tensor, "b t c h w"],
    given: Float[Tensor, "b c h w"],
    chunk: Float[Tensor, "b t kl"],
    noise: Float[Tensor, "b t c h w"],
    t: Float64[Tensor, " b"],
    reference: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b t c h w"]:
    """What a model takes the noisy clip for, when told that its first frame is `given`; that frame comes back as it is.

    `chunk` has one row per latent frame, the first without meaning. A model that takes the previous latent sees the
    clip's own, and `given` before the second; one that takes a reference, `reference` or else `given`.
    """
    config = model.config.dit
    angle = t[:, None].repeat(1, clip.shape[1])
    if model.config.reference_compatible:
        angle[:, 0] = GIVEN_ANGLE
    elif not config.mask_channels:
        angle[:, 0] = 0
    c = precondition(angle)
    skip, out, scale = (per_frame(part.to(clip)) for part in (c.skip, c.out, c.input))
    noisy = per_frame(angle.cos().to(clip)) * clip + per_frame(angle.sin().to(clip)) * noise
    is_given = torch.zeros(clip.shape[:2], device=clip.device)
    is_given[:, 0] = 1
    shown = torch.where(per_frame(is_given) > 0, given[:, None], scale * noisy)
    before = torch.cat([given[:, None], given[:, None], clip[:, 1:-1]], dim=1)
    output, _ = model.dit(
        shown,
        c.noise.to(clip),
        chunk,
        previous=before if config.previous_latent else None,
        reference=(given if reference is None else reference) if config.reference_latent else None,
        condition_mask=is_given if config.mask_channels else None,
        text=model.context(len(clip)),
    )
    clean = output.float() if config.prediction == "clean" else skip * noisy + out * output
    return torch.where(per_frame(is_given) > 0, given[:, None], clean)


def generator_loss(
    clip: Float[Tensor, "b t c h w"], teacher: Float[Tensor, "b t c h w"], fake: Float[Tensor, "b t c h w"]
) -> Float64[Tensor, ""]:
    """The loss whose gradient moves the student's clip along `g`, in double precision."""
    made, teacher, fake = clip.double(), teacher.detach().double(), fake.detach().double()
    with torch.no_grad():
        scale = (made - teacher).abs().mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=SMALLEST_SCALE)
        target = made - (fake - teacher) / scale
    return (made - target).square().mean()


def critic_loss(
    clip: Float[Tensor, "b t c h w"],
    fake: Float[Tensor, "b t c h w"],
    t: Float64[Tensor, " b"],
    smallest: float = 0.0,
) -> Float[Tensor, ""]:
    """How far the critic is from what the student made, weighted by `1 / sin^2 t`.

    A critic that predicts a velocity is right where there is no noise; one that predicts the clean latent is not, and
    its weight is bounded by `1 / smallest^2`.
    """
    weight = t.sin().clamp(min=smallest).square().to(clip)[:, None, None, None, None]
    return ((clip.detach() - fake).square() / weight).mean()
