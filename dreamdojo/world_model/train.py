"""Train the world model: pre-training on latent actions and post-training on a robot are this one function.

Two schemes. `per_frame`: each frame gets a noise level of its own; some are given clean (the context) and do not count
in the loss. With probability `start_fraction` the first frame is treated as the start of a recording: clean, without
action, and without a frame before it. For models that take the previous latent, a window holds one latent frame more
than the model sees: the one before the first. The reference, for models that take one, is any earlier frame of the
recording, or the start itself. `first_frame`, as published: all frames share one noise level, the first
is given clean and marked by the condition mask, and the text is dropped now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dreamdojo.dataset.windows import Arrays, Source, Windows, WindowSampler
from dreamdojo.errors import DataError
from dreamdojo.flow.rectified import clean_from_velocity, interpolate, per_frame, sample_sigma, sample_table_sigma
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.speed import Work
from dreamdojo.training.trackers import Tracker
from dreamdojo.world_model.budget import Grid, pass_flops
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.losses import flow_loss
from dreamdojo.world_model.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class WorldModelTraining:
    """How the world model is trained."""

    fit: FitConfig
    """The loop's settings."""
    latent_frames: int
    """Latent frames of a training window."""
    scheme: Literal["per_frame", "first_frame"] = "per_frame"
    """Which frames are given, and how noise levels are shared (see above)."""
    shift: float = 5.0
    """Shift of the noise levels towards noise, as published."""
    clean_fraction: float = 0.5
    """Share of frames that are given clean as context for later ones."""
    start_fraction: float = 0.5
    """Share of windows that are treated as the start of a recording."""
    context_noise: float = 0.0
    """Largest standard deviation of noise on clean latents that the model is given, so that it mends its own drift."""
    context_contrast: float = 0.0
    """Largest relative change of contrast, of the whole and of detail, in what the model is given of a window. A
    rollout that sharpens a little does so in every frame; a model that has seen such frames leads back."""
    own_context: float = 0.0
    """Share of context frames that are the model's own predictions, so that it mends what it will do to itself in a
    rollout; costs a third more. The predictions are made in one step from the true context."""
    motion_weight: float = 0.0
    """Weight of the frame-to-frame term (0.1 as published)."""
    emphasis: float = 0.0
    """How much more latent pixels that change between frames count in the loss; 0 as published."""
    sigma_floor: float = 0.5
    """Below this noise level the loss on clean latents is no longer weighed up."""
    text_drop: float = 0.0
    """With `first_frame`, the share of samples that see no text (0.2 as published)."""
    high_sigma_fraction: float = 0.0
    """With `first_frame`, the share of samples drawn among the highest noise levels (0.05 in the published 14B)."""

    def window_length(self, dit: DiTConfig) -> int:
        """Latent frames of a window as the sampler draws it."""
        return self.latent_frames + (1 if dit.previous_latent or self.scheme == "per_frame" else 0)


@dataclass(frozen=True)
class Corrupted:
    """What the model is given in one training step, and what it should say. All latents are `b t c h w`."""

    clean: Tensor
    noisy: Tensor
    noise: Tensor
    sigma: Tensor
    """`b t` noise levels; 0 on given frames."""
    previous: Tensor | None
    reference: Tensor | None
    """`b c h w`"""
    chunk: Tensor
    """`b t kl` conditioning."""
    has_action: Tensor
    counts: Tensor
    """`b t`, 1 where a frame is to be predicted."""
    condition_mask: Tensor | None
    """`b t`, 1 on given frames, for models that are told."""
    text: Tensor | None
    """`b s dt`, for models that see one."""


def train_world_model(
    model: WorldModel,
    training: WorldModelTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    about: Mapping[str, Any] = {},
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
    save: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> WorldModel:
    """Train in place on `latent` and `chunk` of `sources`; afterwards the model holds the averaged weights.

    A source's embodiment is `LATENT_ACTION` for video without labels, else the name of a body with an adapter.
    `save`, where given, writes the trained weights in place of the model as it is.
    """
    sampler = WindowSampler(
        sources,
        length=training.window_length(model.config.dit),
        batch_size=training.fit.batch_size,
        seed=training.fit.seed,
        lanes=training.fit.micro_batches,
        reference="latent" if model.config.dit.reference_latent else None,
    )
    config = model.config.dit
    corrupted = corrupt if training.scheme == "per_frame" else corrupt_after_first

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        latent = all_latents(batch, compute.device)
        given = corrupted(model, batch, training, state.generator, compute.device)
        prediction, _ = model.dit(
            given.noisy,
            given.sigma,
            given.chunk,
            has_action=given.has_action,
            previous=given.previous,
            reference=given.reference,
            condition_mask=given.condition_mask,
            text=given.text,
        )
        loss = flow_loss(
            prediction.float(),
            config=config,
            clean=given.clean,
            point=interpolate(given.clean, given.noise, given.sigma),
            sigma=given.sigma,
            counts=given.counts,
            emphasis=motion_emphasis(latent, training.emphasis),
            motion_weight=training.motion_weight,
            sigma_floor=training.sigma_floor,
            given_count=training.scheme == "first_frame",
            reference_compatible=model.config.reference_compatible,
        )
        return loss.total, {"velocity": loss.velocity, "motion": loss.motion}

    fit(
        model,
        step,
        sampler,
        config=training.fit,
        folder=folder,
        compute=compute,
        about=about,
        trackers=trackers,
        report=report,
        work=work_of(model, training, sources),
        save=save,
    )
    return model


def work_of(model: WorldModel, training: WorldModelTraining, sources: Sequence[Source]) -> Work:
    """What a sample of training costs: a forward pass of the DiT, twice that for the gradients (less where weights are
    frozen), and one more where the model's own predictions are its context. Adapters and text are not counted.
    """
    config, frames = model.config.dit, training.latent_frames
    rows, columns = next(iter(sources[0].episodes))["latent"].shape[-2:]
    grid = Grid(rows=rows, columns=columns)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.dit.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained) / sum(size for size, _ in sizes)
    passes = 2 + trained + (training.scheme == "per_frame" and training.own_context > 0)
    return Work(
        frames=frames * config.actions_per_latent,
        tokens=frames * grid.tokens(config),
        flops=passes * pass_flops(config, grid, frames=frames, text_tokens=model.config.text_tokens or 512),
    )


def corrupt(
    model: WorldModel, batch: Windows, training: WorldModelTraining, generator: torch.Generator, device: torch.device
) -> Corrupted:
    """Draw noise levels and noise for a batch of windows of `latent_frames + 1` rows."""
    latent = all_latents(batch, device)
    chunk = torch.cat(
        [
            model.conditioning(name, samples["chunk"][:, 1:].to(device).float())
            for name, samples in batch.by_embodiment.items()
        ]
    )

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    clean = latent[:, 1:]
    b, t = clean.shape[:2]
    sigma = sample_sigma((b, t), shift=training.shift, generator=generator, device=device)
    starts = rand(b) < training.start_fraction
    given = rand(b, t) < training.clean_fraction
    given[:, 0] |= starts
    given[:, -1] &= t == 1  # the last frame is nobody's context
    sigma = torch.where(given, 0.0, sigma)

    noise = torch.randn(clean.shape, generator=generator, device=device)
    noisy = interpolate(clean, noise, sigma).noisy
    previous = latent[:, :-1]
    if training.context_noise > 0:
        level = training.context_noise * rand(b, 1, 1, 1, 1)
        blur = level * torch.randn(latent.shape, generator=generator, device=device)
        noisy = torch.where(given[..., None, None, None], noisy + blur[:, 1:], noisy)
        previous = previous + blur[:, :-1]
    if training.context_contrast > 0:
        factors = draw_contrast(b, training.context_contrast, generator, device)
        noisy = torch.where(given[..., None, None, None], with_contrast(noisy, *factors), noisy)
        previous = with_contrast(previous, *factors)
    first = torch.where(starts[:, None, None, None], noisy[:, 0], previous[:, 0])
    previous = torch.cat([first[:, None], previous[:, 1:]], dim=1)

    reference = reference_of(model, batch, starts, clean[:, 0])
    has_action = torch.ones(b, t, device=device)
    has_action[:, 0] = (~starts).float()
    if training.own_context > 0:
        level = sample_sigma((b, t), shift=training.shift, generator=generator, device=device)
        start = interpolate(clean, torch.randn(clean.shape, generator=generator, device=device), level).noisy
        own = own_predictions(model, start, level, chunk, has_action, previous, reference)
        chosen = ((rand(b, t) < training.own_context) & (has_action > 0))[..., None, None, None]
        noisy = torch.where(chosen & given[..., None, None, None], own, noisy)
        previous = torch.cat([previous[:, :1], torch.where(chosen[:, :-1], own[:, :-1], previous[:, 1:])], dim=1)
    return Corrupted(
        clean=clean,
        noisy=noisy,
        noise=noise,
        sigma=sigma,
        previous=previous if model.config.dit.previous_latent else None,
        reference=reference,
        chunk=chunk,
        has_action=has_action,
        counts=(~given).float(),
        condition_mask=None,
        text=model.context(b),
    )


def draw_contrast(
    batch: int, largest: float, generator: torch.Generator, device: torch.device
) -> tuple[Float[Tensor, "b 1 1 1 1"], Float[Tensor, "b 1 1 1 1"]]:
    """Factors on the contrast of the whole and of detail, each within `1 - largest` and `1 + largest`."""
    drawn = torch.rand(2, batch, 1, 1, 1, 1, generator=generator, device=device)
    whole, detail = 1 + largest * (2 * drawn - 1)
    return whole, detail


def with_contrast(
    latent: Float[Tensor, "b t c h w"], whole: Float[Tensor, "b 1 1 1 1"], detail: Float[Tensor, "b 1 1 1 1"]
) -> Float[Tensor, "b t c h w"]:
    """`whole * (smooth + detail * (latent - smooth))`, smooth being the mean of 3 x 3 latent pixels."""
    smooth = torch.nn.functional.avg_pool2d(latent.flatten(0, 1), 3, stride=1, padding=1, count_include_pad=False)
    smooth = smooth.unflatten(0, latent.shape[:2])
    return whole * (smooth + detail * (latent - smooth))


@torch.no_grad()
def own_predictions(
    model: WorldModel,
    noisy: Tensor,
    sigma: Tensor,
    chunk: Tensor,
    has_action: Tensor,
    previous: Tensor,
    reference: Tensor | None,
) -> Tensor:
    """What the model says of every frame in one step, each from its own noise level; `b t c h w`, float32."""
    prediction, _ = model.dit(
        noisy,
        sigma,
        chunk,
        has_action=has_action,
        previous=previous if model.config.dit.previous_latent else None,
        reference=reference,
        text=model.context(len(noisy)),
    )
    torch.clear_autocast_cache()  # weights that were cast without a gradient are not for the training step
    prediction = prediction.float()
    return prediction if model.config.dit.prediction == "clean" else clean_from_velocity(noisy, prediction, sigma)


def corrupt_after_first(
    model: WorldModel, batch: Windows, training: WorldModelTraining, generator: torch.Generator, device: torch.device
) -> Corrupted:
    """The published scheme: windows of `latent_frames`, the first given, one noise level for all.

    The given frame is shown clean and its noise level is told like the others'; its noise stays in `noise`.
    """
    clean = all_latents(batch, device)
    b, t = clean.shape[:2]
    chunk = chunks_after_first(model, batch, device)
    shared = sample_table_sigma(
        (b, 1), shift=training.shift, generator=generator, device=device, high_fraction=training.high_sigma_fraction
    )
    sigma = shared.expand(b, t)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    is_given = torch.zeros(b, t, device=device)
    is_given[:, 0] = 1
    noisy = torch.where(per_frame(is_given) > 0, clean, interpolate(clean, noise, sigma).noisy)
    dropped = torch.rand(b, generator=generator, device=device) < training.text_drop
    return Corrupted(
        clean=clean,
        noisy=noisy,
        noise=noise,
        sigma=sigma,
        previous=None,
        reference=None,
        chunk=chunk,
        has_action=1 - is_given,
        counts=1 - is_given,
        condition_mask=is_given if model.config.dit.mask_channels else None,
        text=model.context(b, dropped),
    )


def chunks_after_first(model: WorldModel, batch: Windows, device: torch.device) -> Tensor:
    """What the DiT is conditioned on, `b t kl`, for windows that begin with a given frame: row 0 is zero."""
    chunks = [
        model.conditioning(name, samples["chunk"][:, 1:].to(device).float(), _state(samples, device))
        for name, samples in batch.by_embodiment.items()
    ]
    return nn.functional.pad(torch.cat(chunks), (0, 0, 1, 0))


def _state(samples: Mapping[str, Tensor], device: torch.device) -> Tensor | None:
    """The normalised state at the first frame of each window, where the source has it."""
    return samples["state"][:, 0].to(device).float() if "state" in samples else None


def all_latents(batch: Windows, device: torch.device, key: Literal["latent", "reference"] = "latent") -> Tensor:
    """The latents of a batch, all embodiments together, in float32."""
    return torch.cat([samples[key].to(device).float() for samples in batch.by_embodiment.values()])


def reference_of(
    model: WorldModel, batch: Windows, starts: Bool[Tensor, " b"], first: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"] | None:
    """What stands beside the frames of each window: where it is a start its `first` frame, else the drawn earlier one.

    None for models that take none.
    """
    if not model.config.dit.reference_latent:
        return None
    return torch.where(starts[:, None, None, None], first, all_latents(batch, first.device, "reference")[:, 0])


def motion_emphasis(latent: Tensor, emphasis: float) -> Tensor | float:
    """`1 + emphasis * change` per latent pixel of every frame after the first, change in units of its mean per clip."""
    if emphasis == 0:
        return 1.0
    change = torch.diff(latent, dim=1).square().mean(dim=2, keepdim=True).sqrt()
    typical = change.mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-3)
    return 1 + emphasis * (change / typical).clamp(max=4)


def latent_episode(latents: np.ndarray, actions: np.ndarray, actions_per_latent: int) -> Arrays:
    """One episode as training reads it: row i of `chunk` holds the `k` actions that lead to latent frame i.

    Args:
        latents: `tl c h w`.
        actions: `t a`, action i leads from frame i to frame i + 1; at least `k (tl - 1)` rows.
        actions_per_latent: `k`.

    Raises:
        DataError: if there are too few actions, or one is not finite.
    """
    needed = actions_per_latent * (len(latents) - 1)
    if len(actions) < needed:
        raise DataError(f"expected at least {needed} actions for {len(latents)} latent frames, got {len(actions)}")
    if not np.isfinite(actions[:needed]).all():
        bad = int(np.flatnonzero(~np.isfinite(actions[:needed]).all(axis=1))[0])
        raise DataError(f"action {bad} is not finite: {actions[bad]}. Repair or drop the episode.")
    chunks = actions[:needed].reshape(len(latents) - 1, -1)
    start = np.zeros((1, chunks.shape[1]), chunks.dtype)
    return {"latent": latents, "chunk": np.concatenate([start, chunks]).astype(np.float32)}
