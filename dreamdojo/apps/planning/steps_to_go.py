"""A learned value: how many steps a picture is from success, read off its latent frame.

Trained on recorded episodes of which it is known when, if ever, they succeeded. The target is the share of `most` steps
that are still to go, 1 where success is further away or never comes, so that every number is a cost in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.objectives import Embed, frames_of
from dreamdojo.errors import DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit, is_finished
from dreamdojo.training.progress import Report, silent


@dataclass(frozen=True, kw_only=True)
class StepsToGoConfig:
    """The network."""

    latent_channels: int
    """Of the tokenizer."""
    width: int = 32
    """Channels at the latent's size; twice as many at half of it."""
    most: int = 60
    """Steps that count as 1: what is further away is all the same."""


class StepsToGo(nn.Module):
    """Latent frame `n c h w` -> share of `most` steps to go, `n` in [0, 1]."""

    def __init__(self, config: StepsToGoConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.layers = nn.Sequential(
            nn.Conv2d(config.latent_channels, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(4, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 1),
        )

    def forward(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Share of `most` steps to go."""
        return self.layers(latents)[:, 0].sigmoid()


@dataclass(frozen=True, kw_only=True)
class JudgedEpisode:
    """A recording and when it succeeded."""

    latents: Float[Tensor, "t c h w"]
    """Of its frames."""
    success: int | None
    """Number of the first frame of success; None if there is none."""

    def steps_to_go(self, most: int) -> Float[Tensor, " t"]:
        """The target: the share of `most` steps to success at each frame, 0 from then on."""
        count = len(self.latents)
        if self.success is None:
            return torch.ones(count)
        return ((self.success - torch.arange(count)).clamp(min=0) / most).clamp(max=1.0)


def judged(frames: UInt8[Tensor, "t c h w"], success: int | None, embed: Embed) -> JudgedEpisode:
    """An episode as the network learns from it; `embed` is `latents(tokenizer)`."""
    return JudgedEpisode(latents=embed(frames), success=success)


def train_steps_to_go(
    config: StepsToGoConfig,
    training: FitConfig,
    episodes: Sequence[JudgedEpisode],
    folder: Path,
    *,
    compute: Compute,
    report: Report = silent,
) -> StepsToGo:
    """Train on frames of all episodes alike; a finished folder is loaded.

    loss = mean Huber(predicted share - target, 0.1)

    Raises:
        DataError: if no episode succeeds: then there is nothing to tell apart.
    """
    if is_finished(folder, training):
        return load_model(folder, StepsToGo).to(compute.device)
    if all(episode.success is None for episode in episodes):
        raise DataError(f"steps to success are learned from successes; none of {len(episodes)} episodes has one")
    torch.manual_seed(training.seed)
    model = StepsToGo(config)
    latents = torch.cat([episode.latents for episode in episodes])
    targets = torch.cat([episode.steps_to_go(config.most) for episode in episodes])

    def batches(index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + index)
        rows = torch.randint(len(latents), (training.batch_size,), generator=generator)
        return latents[rows].to(compute.device), targets[rows].to(compute.device)

    def step(batch: tuple[Tensor, Tensor], state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        del state
        given, target = batch
        error = (model(given).float() - target).abs()
        return F.huber_loss(error, torch.zeros_like(error), delta=0.1), {"error": error.mean()}

    fit(model, step, batches, config=training, folder=folder, compute=compute, report=report)
    return model


@dataclass(frozen=True, kw_only=True)
class FewestSteps:
    """The objective: steps to go, averaged over the last frames, as a share of the network's `most`."""

    model: StepsToGo
    embed: Embed
    """`latents(tokenizer)` of the tokenizer it was trained with."""
    last: int = 4
    """Frames at the end that are looked at, as published."""

    @torch.no_grad()
    def __call__(self, imagined: Imagined) -> Float[Tensor, " n"]:
        """Costs."""
        frames = frames_of(imagined, CAMERA)[:, -self.last :]
        device = next(self.model.parameters()).device
        share = self.model(self.embed(frames.flatten(0, 1)).to(device)).cpu()
        return share.unflatten(0, frames.shape[:2]).mean(dim=1)
