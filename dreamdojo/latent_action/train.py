"""Train the latent action model on unlabelled pairs of frames, and infer latent actions for whole episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.losses import LossWeights, latent_action_loss
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit, is_finished
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker


@dataclass(frozen=True, kw_only=True)
class LatentActionTraining:
    """How the latent action model is trained."""

    fit: FitConfig
    """The loop's settings."""
    strides: tuple[int, ...] = (1, 2, 3, 4)
    """Frames between the two of a pair, drawn uniformly (the published model uses 1 to 4)."""
    kl_weight: float = 1e-6
    """Weight of the KL term; with a pixel error near 1e-3 a large one collapses the latent action."""
    contrastive_weight: float = 0.0
    """Weight of InfoNCE between two views of a pair."""
    transfer_weight: float = 0.0
    """Weight of InfoNCE between a latent action and itself read off again in another scene."""
    feature_weight: float = 0.0
    """Weight of the squared error between a frozen tokenizer's latents of the true and the redrawn frame."""
    label_weight: float = 0.0
    """Weight of the squared error between the first numbers of the latent action and what is known of the motion."""
    sample: bool = True
    """Whether the decoder is fed a posterior sample, as published, or the mean."""
    motion_emphasis: float = 0.0
    """How much more a pixel that changes by the full range counts in the reconstruction; 0 as published."""
    brightness: float = 0.1
    """Largest random shift of brightness, shared by the frames of a pair."""
    contrast: float = 0.2
    """Largest random gain of each colour channel, shared by the frames of a pair."""
    shift: float = 0.0
    """Largest random shift of the other view, shared by the frames of a pair, as a fraction of the picture's side."""
    zoom: float = 0.0
    """Largest random zoom of the other view, shared by the frames of a pair: 0.1 draws from 0.9 to 1.1."""


def train_latent_action_model(
    config: LatentActionConfig,
    training: LatentActionTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    tokenizer: nn.Module | None = None,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> LatentActionModel:
    """Train on the `frames` (uint8 `t c h w`) of `sources`; a finished folder is loaded.

    With a `label_weight` every episode carries `travelled` (float32 `t k`, see there), NaN where nothing is known.

    Raises:
        ConfigError: if `feature_weight` is positive and no tokenizer is given, or `label_weight` and no labels.
    """
    if training.feature_weight > 0 and not isinstance(tokenizer, VideoTokenizer):
        raise ConfigError(f"feature_weight={training.feature_weight} needs a trained tokenizer, got {tokenizer}")
    if training.label_weight > 0:
        _check_labels(config, training, sources)
    if is_finished(folder, training.fit):
        return load_model(folder, LatentActionModel).to(compute.device)
    torch.manual_seed(training.fit.seed)
    model = LatentActionModel(config)
    sampler = WindowSampler(
        sources,
        length=2,
        batch_size=training.fit.batch_size,
        seed=training.fit.seed,
        lanes=training.fit.micro_batches,
        strides=training.strides,
    )

    weights = LossWeights(
        kl=training.kl_weight,
        contrastive=training.contrastive_weight,
        transfer=training.transfer_weight,
        features=training.feature_weight,
        labels=training.label_weight,
    )
    if tokenizer is not None:
        tokenizer = tokenizer.to(compute.device).requires_grad_(False)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        raw = batch.cat("frames").to(compute.device).float() / 255
        frames = photometric_view(raw, training, state.generator)
        posterior = model.encode(frames)
        latent_action = posterior.mean
        if training.sample:
            noise = torch.randn(latent_action.shape, generator=state.generator, device=compute.device)
            latent_action = posterior.sample(noise)
        other_view = transferred = features = None
        if weights.contrastive > 0:
            moved = geometric_view(raw, training, state.generator)
            other_view = model.encode(photometric_view(moved, training, state.generator)).mean
        previous, following = frames[:, :-1], frames[:, 1:]
        redrawn = model.decode(previous, latent_action).float()
        if weights.transfer > 0:
            transferred = in_another_scene(model, previous, posterior.mean)
        if weights.features > 0 and isinstance(tokenizer, VideoTokenizer):
            wanted, drawn = (tokenizer.encode(2 * each.flatten(0, 1)[:, None] - 1)[0] for each in (following, redrawn))
            features = wanted.detach().float(), drawn.float()
        labels = batch.cat("travelled").to(compute.device).diff(dim=1) if weights.labels > 0 else None
        change = (following - previous).abs().amax(dim=2, keepdim=True)
        loss = latent_action_loss(
            next_frames=following,
            redrawn=redrawn,
            posterior=posterior,
            weights=weights,
            other_view=other_view,
            transferred=transferred,
            features=features,
            labels=labels,
            motion_emphasis=1 + training.motion_emphasis * change,
        )
        return loss.total, {part.name: getattr(loss, part.name) for part in dataclasses.fields(loss)[1:]}

    fit(
        model,
        step,
        sampler,
        config=training.fit,
        folder=folder,
        compute=compute,
        trackers=trackers,
        report=report,
    )
    return model


def _check_labels(config: LatentActionConfig, training: LatentActionTraining, sources: Sequence[Source]) -> None:
    for episode in (episode for source in sources for episode in source.episodes):
        if "travelled" not in episode:
            raise ConfigError(f"label_weight={training.label_weight} needs labels: give a dataset that has actions")
        if (width := episode["travelled"].shape[1]) > config.latent_dim:
            raise ConfigError(f"{width} labels do not fit into a latent action of {config.latent_dim} numbers")


def travelled(motion: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "t k"]:
    """How far an episode has come at each frame, from its motion between frames: a difference over any stride is the
    motion in between."""
    return np.concatenate([np.zeros_like(motion[:1]), motion.cumsum(axis=0)]).astype(np.float32)


def photometric_view(
    frames: Float[Tensor, "b t c h w"], training: LatentActionTraining, generator: torch.Generator
) -> Float[Tensor, "b t c h w"]:
    """Frames in [0, 1] under another light: one brightness shift and one gain per channel for a whole clip."""
    b, _, c = frames.shape[:3]
    shift, gain = (2 * torch.rand(b, 1, n, 1, 1, generator=generator, device=frames.device) - 1 for n in (1, c))
    return (frames * (1 + training.contrast * gain) + training.brightness * shift).clamp(0, 1)


def geometric_view(
    frames: Float[Tensor, "b t c h w"], training: LatentActionTraining, generator: torch.Generator
) -> Float[Tensor, "b t c h w"]:
    """Frames seen by a camera that stands a little aside or nearer: one shift and one zoom for a whole clip."""
    if training.shift == 0 and training.zoom == 0:
        return frames
    b, t, _, h, w = frames.shape
    random = 2 * torch.rand(b, 3, generator=generator, device=frames.device) - 1
    scale = 1 + training.zoom * random[:, :1]
    eye = torch.eye(2, device=frames.device).expand(b, 2, 2) * scale[..., None]
    map_to_source = torch.cat([eye, 2 * training.shift * random[:, 1:, None]], dim=2)
    grid = nn.functional.affine_grid(map_to_source, [b, 1, h, w], align_corners=False)
    seen = nn.functional.grid_sample(frames.flatten(1, 2), grid, padding_mode="reflection", align_corners=False)
    return seen.unflatten(1, (t, -1))


def in_another_scene(
    model: LatentActionModel, scenes: Float[Tensor, "b p c h w"], latent_action: Float[Tensor, "b p l"]
) -> Float[Tensor, "b p l"]:
    """Latent actions read off where the decoder moves another sample's scene by them, in the order they came.

    The drawing is not trained through, or the decoder would learn to hide the numbers in it.
    """
    others = scenes.roll(1, dims=0)
    with torch.no_grad():
        drawn = model.decode(others, latent_action).to(scenes.dtype).clamp(0, 1)
    pairs = torch.stack([others, drawn], dim=2).flatten(0, 1)
    return model.encode(pairs).mean.unflatten(0, latent_action.shape[:2])[:, :, 0]


@torch.no_grad()
def infer_latent_actions(
    model: LatentActionModel, frames: np.ndarray, compute: Compute, chunk: int = 256
) -> np.ndarray:
    """Posterior means of an episode: uint8 `t c h w` -> float32 `t l`; row i is the motion i -> i + 1.

    The last row has no motion to tell of and is zero; caches mask it.
    """
    rows = []
    for start in range(0, len(frames) - 1, chunk):
        part = torch.from_numpy(frames[start : start + chunk + 1].copy()).to(compute.device)
        pairs = torch.stack([part[:-1], part[1:]], dim=1).float() / 255
        with compute.autocasting():
            rows.append(model.encode(pairs).mean[:, 0].float().cpu().numpy())
    rows.append(np.zeros((1, model.config.latent_dim), np.float32))
    return np.concatenate(rows)
