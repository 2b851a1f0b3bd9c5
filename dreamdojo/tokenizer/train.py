"""Train the small video tokenizer, then measure the statistics that normalise its latents.

loss = mean |frames - redrawn| + edge_weight * mean |grad frames - grad redrawn| + latent_weight * mean raw^2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.dataset.windows import Arrays, Source, Windows, WindowSampler
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig, from_pixels
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer, rgb_tokenizer
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.training.checkpoint import load_model, read_about, save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit, is_finished
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """How the tokenizer is trained."""

    fit: FitConfig
    """The loop's settings."""
    latent_frames: int = 2
    """Latent frames of a training window."""
    edge_weight: float = 1.0
    """Weight of the error of differences between neighbouring pixels, which keeps edges sharp."""
    latent_weight: float = 1e-3
    """Weight of the squared raw latents, which keeps them small."""
    latent_noise: float = 0.05
    """Standard deviation of noise on raw latents while training, so that a slightly wrong latent decodes well."""
    colour_jitter: float = 0.2
    """Largest random gain of each colour channel, so that unseen colours are not washed out."""


def train_tokenizer(
    config: TokenizerConfig,
    training: TokenizerTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
    picture: Callable[[Tensor], Tensor] = from_pixels,
) -> Tokenizer:
    """Train on the `frames` (`t c h w`) of `sources`; a finished folder is loaded.

    `picture` turns a batch of frames into [-1, 1], on the device: uint8 pixels by default.
    """
    if is_finished(folder, training.fit) and read_about(folder).get("statistics_measured"):
        return load_model(folder, Tokenizer).to(compute.device)
    torch.manual_seed(training.fit.seed)
    model = Tokenizer(config)
    length = 1 + config.temporal_factor * (training.latent_frames - 1)
    sampler = WindowSampler(
        sources,
        length=length,
        batch_size=training.fit.batch_size,
        seed=training.fit.seed,
        lanes=training.fit.micro_batches,
    )

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        frames = _pictures(batch, picture, compute)
        frames = jitter_colours(frames, training.colour_jitter, state.generator)
        side = [size // config.spatial_factor for size in frames.shape[-2:]]
        shape = (len(frames), training.latent_frames, config.latent_channels, *side)
        noise = training.latent_noise * torch.randn(shape, generator=state.generator, device=compute.device)
        redrawn, raw = model(frames, noise)
        redrawn = redrawn.float()
        pixels = (redrawn - frames).abs().mean()
        edges = edge_error(redrawn, frames)
        size = raw.float().square().mean()
        loss = pixels + training.edge_weight * edges + training.latent_weight * size
        return loss, {"pixels": pixels, "edges": edges, "latent_square": size}

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
    measure_statistics(model, sampler, compute, picture=picture)
    if compute.processes.is_main:
        save_model(folder, model, about={"statistics_measured": True})
    compute.processes.wait()
    return model


def _pictures(batch: Windows, picture: Callable[[Tensor], Tensor], compute: Compute) -> Tensor:
    """The frames of all samples in [-1, 1]; joined in float32, because autocast joins no float16 on a CPU."""
    return torch.cat([picture(samples["frames"].to(compute.device)) for samples in batch.by_embodiment.values()])


def jitter_colours(
    frames: Float[Tensor, "b t c h w"], amount: float, generator: torch.Generator
) -> Float[Tensor, "b t c h w"]:
    """Multiply each channel of a clip by its own random gain in `1 +- amount`; the frames are in [-1, 1]."""
    b, _, c = frames.shape[:3]
    gain = 1 + amount * (2 * torch.rand(b, 1, c, 1, 1, generator=generator, device=frames.device) - 1)
    return ((frames + 1) * gain - 1).clamp(-1, 1)


def edge_error(a: Float[Tensor, "b t c h w"], b: Float[Tensor, "b t c h w"]) -> Float[Tensor, ""]:
    """Mean absolute error of horizontal and vertical differences between neighbouring pixels."""
    error = a - b
    return torch.diff(error, dim=-1).abs().mean() + torch.diff(error, dim=-2).abs().mean()


@torch.no_grad()
def measure_statistics(
    model: Tokenizer | TAEF2Tokenizer,
    batches: Callable[[int], Windows],
    compute: Compute,
    num: int = 8,
    picture: Callable[[Tensor], Tensor] = from_pixels,
) -> None:
    """Set the latents' channel statistics from `num` batches, so that normalised latents are about N(0, 1)."""
    model.latent_mean.zero_()
    model.latent_std.fill_(1)
    latents = torch.cat([model.encode(_pictures(batches(i), picture, compute))[0] for i in range(num)])
    channels = latents.transpose(0, 2).flatten(1)
    model.latent_mean.copy_(channels.mean(dim=1))
    model.latent_std.copy_(channels.std(dim=1).clamp(min=1e-4))


@torch.no_grad()
def encode_episode(
    model: VideoTokenizer, frames: np.ndarray, compute: Compute, chunk: int = 64, *, depth: np.ndarray | None = None
) -> np.ndarray:
    """All latent frames of one episode: uint8 `t c h w` -> float16 `tl cl hl wl`; streams, so memory stays small.

    Frames after the last whole group of `k` are left out. A tokenizer of RGB and depth wants `depth` too, metres
    `t h w`.
    """
    k = model.temporal_factor
    usable = 1 + (len(frames) - 1) // k * k
    parts, state, start = [], None, 0
    while start < usable:
        stop = min(start + chunk * k + (1 if state is None else 0), usable)
        video = video_of(model, frames[start:stop], None if depth is None else depth[start:stop], compute)
        with compute.autocasting():
            latents, state = model.encode(video, state)
        parts.append(latents[0].float().cpu().numpy().astype(np.float16))
        start = stop
    return np.concatenate(parts)


def video_of(model: VideoTokenizer, frames: np.ndarray, depth: np.ndarray | None, compute: Compute) -> Tensor:
    """What `model` encodes, `1 t c h w` on the device, of uint8 `t 3 h w` and, if it takes depth, metres `t h w`."""
    video = from_pixels(torch.from_numpy(frames.copy()).to(compute.device))[None]
    if not isinstance(model, RGBDTokenizer):
        return video
    assert depth is not None, "a tokenizer of RGB and depth encodes both"
    return model.join(video, torch.from_numpy(depth.astype(np.float32)).to(compute.device)[None, :, None])


@torch.no_grad()
def reconstruction_psnr(model: VideoTokenizer, episodes: Sequence[Arrays], compute: Compute) -> float:
    """Mean over episodes of the PSNR (dB) of `frames` (uint8 `t 3 h w`) encoded and decoded again."""
    model = rgb_tokenizer(model)
    values = []
    for episode in episodes:
        video = video_of(model, _start_of(model, episode["frames"]), None, compute)
        latents, _ = model.encode(video)
        redrawn, _ = model.decode(latents)
        error = (redrawn.clamp(-1, 1) - video).square().mean() / 4
        values.append(float(-10 * error.log10()))
    return float(np.mean(values))


@torch.no_grad()
def reconstruction_depth_error(model: RGBDTokenizer, episodes: Sequence[Arrays], compute: Compute) -> float:
    """Mean over episodes of the absolute error (cm) of `depth` (metres `t h w`) encoded and decoded again.

    Pixels that the coding cannot hold do not count; nor does an episode without others.
    """
    values = []
    for episode in episodes:
        metres = torch.from_numpy(_start_of(model, episode["depth"]).astype(np.float32)).to(compute.device)
        latents, _ = model.depth_part.encode(model.coding.encode(metres)[None, :, None])
        redrawn = model.coding.decode(model.depth_part.decode(latents)[0])[0, :, 0]
        values.append(float((100 * (redrawn - metres).abs())[model.coding.within(metres)].mean()))
    return float(np.nanmean(values))


def _start_of(model: VideoTokenizer, rows: np.ndarray) -> np.ndarray:
    """The first 1 + 32 rows, or as many as there are, in whole groups of `k`."""
    k = model.temporal_factor
    return rows[: 1 + min(len(rows) - 1, 32) // k * k]
