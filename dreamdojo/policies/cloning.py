"""Behaviour cloning from pixels: a small convolutional network that repeats what demonstrators did.

The latest frame goes through four convolutions to a spatial softmax (Levine et al. 2016, https://arxiv.org/abs/1504.00702:
where is each feature?), proprioception beside it, and a chunk of the next actions comes out (Zhao et al. 2023,
https://arxiv.org/abs/2304.13705), of which the first few are carried out before it looks again.

Of the proprioception it sees what a world model can predict: the state fields that some action field integrates. The
others stand still in a dream, and a policy that leans on them would fail there for a reason that has nothing to do
with how well it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute, choose_compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit, is_finished
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker
from dreamdojo.world import Observation

LEAST_SPREAD = 0.05
"""An action that demonstrators hardly vary counts no more than one they vary by this share of half its range."""

SHARPNESS = 3.0
"""What a feature map of unit spread is multiplied by before its softmax, at the start: near 1 every map points at the
middle of the picture, and the network learns to do without looking."""


@dataclass(frozen=True, kw_only=True)
class PixelPolicyConfig:
    """A network from pixels to actions."""

    embodiment: Embodiment
    """Whose actions it gives, and how they are normalised."""
    camera: str
    """The camera it looks through."""
    size: tuple[int, int]
    """Height and width of its frames, pixels; multiples of 4."""
    rate: float
    """Frames and actions per second of the recordings it learned from."""
    width: int = 32
    """Channels of the first convolution."""
    hidden: int = 256
    """Width of the layers after the pixels."""
    chunk: int = 8
    """Actions it foresees."""
    execute: int = 2
    """Of these, how many are carried out before it looks again."""

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.chunk:
            raise ConfigError(f"expected 1 <= execute <= chunk, got execute={self.execute}, chunk={self.chunk}")
        if any(side % 4 for side in self.size):
            raise ConfigError(f"expected sides that are multiples of 4 pixels, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class PixelPolicyTraining:
    """How it is trained."""

    fit: FitConfig = field(
        default_factory=lambda: FitConfig(steps=2000, batch_size=32, learning_rate=3e-3, weight_decay=1e-3)
    )
    """The loop's settings."""
    brightness: float = 0.05
    """Largest random shift of brightness of a frame."""
    contrast: float = 0.15
    """Largest random gain of each colour channel of a frame."""
    shift: int = 2
    """Largest random shift of a frame, pixels."""
    state_noise: float = 0.02
    """Standard deviation of noise on the normalised proprioception."""


def predicted_state(embodiment: Embodiment) -> list[int]:
    """State columns that an action field integrates: those that mean something in a dream."""
    names = dict.fromkeys(each.integrates for each in embodiment.action if each.integrates)
    return [i for name in names for i in range(embodiment.state_dim)[embodiment.columns(name, of="state")]]


class PixelPolicy(nn.Module):
    """The network: frame and proprioception -> a chunk of normalised actions.

    Its last layer speaks in deviations from the demonstrators' mean action: a velocity that they use a fifth of counts
    as much as a gripper that they open and close.
    """

    usual: Tensor
    spread: Tensor

    def __init__(self, config: PixelPolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.columns = predicted_state(config.embodiment)
        self.register_buffer("usual", torch.zeros(config.embodiment.action_dim))
        self.register_buffer("spread", torch.ones(config.embodiment.action_dim))
        w = config.width
        self.look = nn.Sequential(
            _conv(3, w, stride=2),
            _conv(w, 2 * w, stride=2),
            _conv(2 * w, 2 * w),
            nn.Conv2d(2 * w, 2 * w, 3, padding=1),
            nn.GroupNorm(8, 2 * w),
        )
        self.sharpness = nn.Parameter(torch.full((2 * w, 1), SHARPNESS))
        self.decide = nn.Sequential(
            nn.Linear(4 * w + len(self.columns), config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.chunk * config.embodiment.action_dim),
        )

    def forward(self, frames: Float[Tensor, "b 3 h w"], state: Float[Tensor, "b s"]) -> Float[Tensor, "b n a"]:
        """Normalised actions from frames in [0, 1] and the whole normalised state."""
        places = spatial_softmax(self.look(2 * frames - 1) * self.sharpness[..., None])
        seen = torch.cat([places, state[:, self.columns]], dim=1)
        chunk = self.decide(seen).unflatten(1, (self.config.chunk, self.config.embodiment.action_dim))
        return self.usual + self.spread * chunk


def spatial_softmax(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2"]:
    """The mean place of each channel, (x, y) in [-1, 1], under the softmax of its map."""
    height, width = features.shape[-2:]
    mass = features.flatten(2).softmax(dim=2).unflatten(2, (height, width))
    x, y = (torch.linspace(-1, 1, n, device=features.device, dtype=features.dtype) for n in (width, height))
    return torch.cat([(mass.sum(dim=2) * x).sum(dim=2), (mass.sum(dim=3) * y).sum(dim=2)], dim=1)


def demonstrations(
    dataset: Dataset, indices: Sequence[int], frames: SideCache, *, rate: float
) -> list[dict[str, np.ndarray]]:
    """Recorded episodes as `train_policy` takes them.

    Args:
        dataset: of a robot.
        indices: the episodes to learn from.
        frames: their frames at the policy's size and rate.
        rate: frames and actions per second.

    Raises:
        DataError: if the dataset has no actions or no proprioception.
    """
    body, found = dataset.embodiment, []
    for index in indices:
        recorded = resample(dataset, index, rate)
        if recorded.actions is None or recorded.states is None:
            raise DataError(f"{dataset.root}: expected a robot dataset with actions and states, found {body.name}")
        actions = body.normalize_action(recorded.actions)
        found.append(
            {
                "frames": np.moveaxis(frames[index], -1, 1),
                "state": body.normalize_state(recorded.states),
                "action": np.concatenate([actions, np.full_like(actions[:1], np.nan)]),
            }
        )
    return found


def train_policy(
    config: PixelPolicyConfig,
    training: PixelPolicyTraining,
    episodes: Sequence[dict[str, np.ndarray]],
    folder: Path,
    *,
    compute: Compute,
    about: dict[str, object] | None = None,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> PixelPolicy:
    """Learn from demonstrations; a finished folder is loaded.

    Args:
        config: The network.
        training: How it is trained.
        episodes: `frames` uint8 `t 3 h w`, `state` float32 `t s` and `action` float32 `t a`, both normalised; the last
            row's action is NaN where the recording has none.
        folder: Run folder of the policy.
        compute: Where.
        about: Kept in the checkpoint: where the demonstrations came from.
        trackers: Where metrics go beside `metrics.jsonl`.
        report: Progress.

    Raises:
        DataError: if there is no episode, or one has no action.
    """
    if is_finished(folder, training.fit):
        return load_model(folder, PixelPolicy).to(compute.device)
    if not episodes:
        raise DataError("expected demonstrations to learn from, got none")
    padded = [_with_targets(episode, config.chunk) for episode in episodes]
    torch.manual_seed(training.fit.seed)
    model = PixelPolicy(config)
    shown = torch.from_numpy(np.concatenate([episode["action"] for episode in episodes]))
    shown = shown[shown.isfinite().all(dim=1)]
    model.usual, model.spread = shown.mean(dim=0), shown.std(dim=0, correction=0).clamp(min=LEAST_SPREAD)
    source = Source(embodiment=config.embodiment.name, episodes=padded)
    sampler = WindowSampler([source], length=1, batch_size=training.fit.batch_size, seed=training.fit.seed)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        frames = batch.cat("frames")[:, 0].to(compute.device)
        body, target = (batch.cat(key)[:, 0].to(compute.device) for key in ("state", "targets"))
        frames = augmented(frames, training, state.generator)
        noise = torch.randn(body.shape, generator=state.generator, device=compute.device)
        known = ~target.isnan()
        missed = (model(frames, body + training.state_noise * noise).float() - target.nan_to_num()) / model.spread
        # squared, for the mean: the median of a motion that is made now and then is to stand still
        loss = (missed.square() * known).sum() / known.sum().clamp(min=1)
        return loss, {"action_error": loss}

    fit(
        model,
        step,
        sampler,
        config=training.fit,
        folder=folder,
        compute=compute,
        about=about or {},
        trackers=trackers,
        report=report,
    )
    return model


class ClonedPolicy:
    """A trained network as a `Policy`."""

    def __init__(self, model: PixelPolicy, compute: Compute | None = None) -> None:
        self._compute = compute or choose_compute("cpu")
        self._model = model.to(self._compute.device).eval()

    @property
    def config(self) -> PixelPolicyConfig:
        """What it was trained as."""
        return self._model.config

    @classmethod
    def load(cls, folder: Path, compute: Compute | None = None) -> ClonedPolicy:
        """From the folder of `dreamdojo train-policy`.

        Raises:
            CheckpointError: if the folder holds no policy.
        """
        return cls(load_model(folder, PixelPolicy), compute)

    def reset(self, *, seed: int = 0) -> None:
        """Nothing to forget: it acts on the latest frame alone."""
        del seed

    @torch.no_grad()
    def act(self, observation: Observation) -> Tensor:
        """The next `execute` actions `b n a`.

        Raises:
            DataError: if the camera, the frame's size or the state is not what it learned from.
        """
        config = self.config
        frames = observation.frames.get(config.camera)
        if frames is None or tuple(frames.shape[-2:]) != config.size:
            found = ", ".join(observation.frames) if frames is None else f"{frames.shape[-2]}x{frames.shape[-1]} pixels"
            raise DataError(
                f"the policy learned from the camera {config.camera!r} at {config.size[0]}x{config.size[1]} pixels, "
                f"got {found}"
            )
        body = config.embodiment
        if observation.state is None:
            raise DataError("the policy sees proprioception: expected Observation.state, got None")
        state = torch.from_numpy(body.normalize_state(observation.state[:, -1].cpu().numpy()))
        device = self._compute.device
        actions = self._model(frames[:, -1].to(device).float() / 255, state.to(device))[:, : config.execute]
        return torch.from_numpy(body.denormalize_action(actions.clamp(-1, 1).float().cpu().numpy()))


def augmented(
    frames: UInt8[Tensor, "b 3 h w"], training: PixelPolicyTraining, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """The same frames in [0, 1] under another light and moved by whole pixels; the border repeats."""
    b, c, h, w = frames.shape
    device, reach = frames.device, training.shift

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1

    lit = frames.float() / 255 * (1 + training.contrast * draw(b, c, 1, 1)) + training.brightness * draw(b, 1, 1, 1)
    lit = F.pad(lit.clamp(0, 1), (reach,) * 4, mode="replicate")
    left, top = ((reach * draw(b)).round().long() + reach for _ in range(2))
    rows = top[:, None] + torch.arange(h, device=device)
    columns = left[:, None] + torch.arange(w, device=device)
    return lit[torch.arange(b, device=device)[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _with_targets(episode: dict[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
    """With `targets` `t n a`: the actions from each frame on, NaN past the end."""
    actions = episode["action"]
    if not np.isfinite(actions).any():
        raise DataError("expected demonstrations with actions, found an episode without any")
    rows = np.concatenate([actions, np.full((chunk, actions.shape[1]), np.nan, np.float32)])
    targets = np.stack([rows[i : i + len(actions)] for i in range(chunk)], axis=1)
    return {"frames": episode["frames"], "state": episode["state"], "targets": targets}


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, stride=stride, padding=2), nn.GroupNorm(min(8, outputs), outputs), nn.SiLU()
    )
