"""The baseline of prior work: a predictor of the next frame from actions, deterministic and trained by regression.

A recurrent convolutional network in the latents of the same tokenizer, of the kind of action-conditioned ConvLSTM
predictors ([Finn et al. 2016](https://arxiv.org/abs/1605.07157)): two convolutional GRUs, one at the latents' size and
one at half of it, whose inputs the action scales and shifts, and a change that is added to the last latent frame. Some
frames of a training window are given, for the others the network goes on from its own predictions, and the squared
error of every predicted latent is the loss. There is no noise: it answers with the mean of what could happen.

`RegressionSession` drives it; it satisfies `dreamdojo.world.World`, so that it is scored as every other model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.nn.patches import actions_to_chunks
from dreamdojo.rollout.session import CAMERA, tokenizer_folder
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.model import ResidualBlock, from_pixels, to_pixels
from dreamdojo.tokenizer.protocol import CausalState, VideoTokenizer
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute, Device, choose_compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit
from dreamdojo.training.hub import Pretrained
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation, Prediction
from dreamdojo.world_model.train import all_latents, motion_emphasis


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Sizes of the predictor and the body it knows."""

    latent_channels: int
    """Channels of a latent frame."""
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    rate: float
    """Frames (and actions) per second."""
    embodiment: Embodiment
    """Whose actions it takes; without relative actions."""
    actions_per_latent: int = 1
    """`k`, the actions that lead to one latent frame."""
    width: int = 48
    """Channels at the latents' size, twice as many at half of it; a multiple of 8."""
    action_width: int = 64
    """Width of what an action is turned into."""

    def __post_init__(self) -> None:
        if self.embodiment.relative:
            raise ConfigError(f"expected a body with absolute actions, {self.embodiment.name} has relative ones")


@dataclass(frozen=True)
class Memory:
    """What the predictor remembers. It is never changed in place, so a copy of the reference is a fork."""

    last: Float[Tensor, "b c h w"]
    """The newest latent frame."""
    fine: Float[Tensor, "b f h w"]
    coarse: Float[Tensor, "b f2 h2 w2"]

    def expand(self, n: int) -> Memory:
        """A memory of batch 1 as one of batch `n`."""
        return Memory(*(part.expand(n, *part.shape[1:]) for part in (self.last, self.fine, self.coarse)))


class ConvGRU(nn.Module):
    """A gated recurrent unit of 3x3 convolutions whose input is scaled and shifted by an action."""

    def __init__(self, width: int, action_width: int) -> None:
        super().__init__()
        self.film = nn.Linear(action_width, 2 * width)
        self.gates = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.candidate = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], state: Float[Tensor, "b c h w"], told: Float[Tensor, "b a"]
    ) -> Float[Tensor, "b c h w"]:
        """The new state."""
        scale, shift = self.film(told)[..., None, None].chunk(2, dim=1)
        x = x * (1 + scale) + shift
        update, reset = self.gates(torch.cat([x, state], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([x, reset * state], dim=1)).tanh()
        return state + update * (candidate - state)


class LatentPredictor(Pretrained):
    """The newest latent frame, a memory and an action to the next latent frame."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        width, told = config.width, config.action_width
        chunk = config.embodiment.action_dim * config.actions_per_latent
        self.tell = nn.Sequential(nn.Linear(chunk, told), nn.SiLU(), nn.Linear(told, told))
        self.enter = nn.Sequential(nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.SiLU())
        self.fine = ConvGRU(width, told)
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.SiLU())
        self.coarse = ConvGRU(2 * width, told)
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.mix = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), ResidualBlock(width), nn.SiLU())
        self.change = nn.Conv2d(width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        assert self.change.bias is not None
        nn.init.zeros_(self.change.bias)

    def start(self, latent: Float[Tensor, "b c h w"]) -> Memory:
        """Begin with a first, given latent frame."""
        b, _, h, w = latent.shape
        width = self.config.width
        return Memory(latent, latent.new_zeros(b, width, h, w), latent.new_zeros(b, 2 * width, h // 2, w // 2))

    def forward(self, memory: Memory, told: Float[Tensor, "b a"]) -> Memory:
        """The memory after the action, whose `last` is the predicted latent frame."""
        fine = self.fine(self.enter(memory.last), memory.fine, told)
        coarse = self.coarse(self.down(fine), memory.coarse, told)
        change = self.change(self.mix(torch.cat([fine, self.up(coarse)], dim=1)))
        return Memory(memory.last + change, fine, coarse)

    def roll_out(
        self, latents: Float[Tensor, "b t c h w"], told: Float[Tensor, "b t a"], given: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t-1 c h w"]:
        """Predict latents 1 and on: from the true frames while fewer than `given` are seen, then from its own.

        `told[:, i]` leads to latent frame i.
        """
        memory, predicted = self.start(latents[:, 0]), []
        for index in range(1, latents.shape[1]):
            memory = self(memory, told[:, index])
            predicted.append(memory.last)
            shown = (index < given)[:, None, None, None]
            memory = replace(memory, last=torch.where(shown, latents[:, index], memory.last))
        return torch.stack(predicted, dim=1)


@dataclass(frozen=True, kw_only=True)
class PredictorTraining:
    """How the predictor is trained."""

    fit: FitConfig
    """The loop's settings."""
    context: int = 5
    """Most latent frames of a window that are given; each window draws from 1 to so many."""
    rollout: int = 6
    """Latent frames after them, each predicted from the predictions before it."""
    emphasis: float = 1.0
    """How much more latent pixels that change between frames count in the loss, as for the world model."""

    @property
    def frames(self) -> int:
        """Latent frames of a window."""
        return self.context + self.rollout


def train_predictor(
    model: LatentPredictor,
    training: PredictorTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    report: Report = silent,
) -> LatentPredictor:
    """Train in place on `latent` and `chunk` of `sources`; afterwards the model holds the averaged weights.

    A source whose embodiment is not the model's is video without actions: the model is told nothing there.
    """
    sampler = WindowSampler(sources, length=training.frames, batch_size=training.fit.batch_size, seed=training.fit.seed)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        latents = all_latents(batch, compute.device)
        given = torch.randint(
            1, training.context + 1, (len(latents),), generator=state.generator, device=compute.device
        )
        predicted = model.roll_out(latents, told_of(model, batch, compute.device), given)
        error = (predicted.float() - latents[:, 1:]).square() * motion_emphasis(latents, training.emphasis)
        own = torch.arange(1, training.frames, device=compute.device) >= given[:, None]
        return error.mean(), {"rollout": error.mean(dim=(2, 3, 4))[own].mean()}

    fit(model, step, sampler, config=training.fit, folder=folder, compute=compute, report=report)
    return model


def told_of(model: LatentPredictor, batch: Windows, device: torch.device) -> Float[Tensor, "b t a"]:
    """What the model is told of a batch's actions, in the order of its latents; zeros where it has none."""
    parts = []
    for name, samples in batch.by_embodiment.items():
        b, t = samples["chunk"].shape[:2]
        if name == model.config.embodiment.name:
            parts.append(model.tell(samples["chunk"].to(device).float()))
        else:
            parts.append(torch.zeros(b, t, model.config.action_width, device=device))
    return torch.cat([part.float() for part in parts])


def predictor_flops(config: PredictorConfig, rows: int, columns: int, *, frames: int) -> int:
    """Operations of one window's forward pass over `frames` latent frames of `rows` by `columns`."""
    with torch.device("meta"):
        model, given = LatentPredictor(config), torch.ones(1, dtype=torch.long)
        latents = torch.empty(1, frames, config.latent_channels, rows, columns)
        told = torch.empty(1, frames, config.action_width)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.roll_out(latents, told, given)
    return counter.get_total_flops()


@dataclass(frozen=True)
class _Moment:
    memory: Memory
    encoder: CausalState
    decoder: CausalState

    def expand(self, n: int) -> _Moment:
        encoder, decoder = (
            tuple(part.expand(n, *part.shape[1:]) for part in state) for state in (self.encoder, self.decoder)
        )
        return _Moment(self.memory.expand(n), encoder, decoder)


class RegressionSession:
    """A deterministic predictor that is being driven; satisfies `dreamdojo.world.World`. Seeds change nothing.

    Args:
        model: the predictor.
        tokenizer: the `VideoTokenizer` it was trained with.
        compute: where it runs.

    Raises:
        ConfigError: if the model was trained with another tokenizer.
    """

    def __init__(self, model: LatentPredictor, tokenizer: nn.Module, *, compute: Compute | None = None) -> None:
        self._compute = compute or choose_compute("cpu")
        self._model = model.to(self._compute.device).eval()
        tokenizer = tokenizer.to(self._compute.device).eval()
        assert isinstance(tokenizer, VideoTokenizer)
        config = model.config
        if (tokenizer.latent_channels, tokenizer.temporal_factor) != (
            config.latent_channels,
            config.actions_per_latent,
        ):
            raise ConfigError(
                f"expected a tokenizer of {config.latent_channels} latent channels and {config.actions_per_latent} "
                f"frames to a latent, got {tokenizer.latent_channels} and {tokenizer.temporal_factor}"
            )
        self._tokenizer = tokenizer
        self._now: _Moment | None = None
        self._anchor: _Moment | None = None

    @property
    def embodiment(self) -> Embodiment:
        """The body whose actions the session takes."""
        return self._model.config.embodiment

    @property
    def fps(self) -> float:
        """Frames (and actions) per second."""
        return self._model.config.rate

    @property
    def actions_per_step(self) -> int:
        """The actions of one latent frame."""
        return self._model.config.actions_per_latent

    @property
    def cameras(self) -> tuple[str, ...]:
        """The one camera of the model."""
        return (CAMERA,)

    @torch.no_grad()
    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Start from one real frame `b 1 3 h w`; returns it as given.

        Raises:
            ConfigError: if no observation is given.
            DataError: if it is not one uint8 frame of the model's size.
        """
        del seed
        if observation is None:
            raise ConfigError("a session starts from a real frame: expected an observation, got None")
        frames = self._frames(observation)
        if frames.shape[1] != 1:
            raise DataError(f"a session starts from one frame, got {frames.shape[1]}; give later ones to observe()")
        with self._compute.autocasting():
            latents, encoder = self._tokenizer.encode(frames)
            _, decoder = self._tokenizer.decode(latents.float())
        self._now = self._anchor = _Moment(self._model.start(latents[:, 0].float()), encoder, decoder)
        return observation

    @torch.no_grad()
    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Continue from the last real frame with frames `b t 3 h w` that `actions` `b t a` led to.

        Raises:
            DataError: if there are not as many frames as actions, a multiple of `k`.
        """
        moment, frames = self._require(self._anchor), self._frames(observation)
        if frames.shape[1] % self.actions_per_step or frames.shape[:2] != actions.shape[:2]:
            raise DataError(
                f"expected as many frames as actions, a multiple of k = {self.actions_per_step}; got "
                f"{frames.shape[1]} frames and {actions.shape[1]} actions"
            )
        with self._compute.autocasting():
            latents, encoder = self._tokenizer.encode(frames, moment.encoder)
            _, decoder = self._tokenizer.decode(latents.float(), moment.decoder)
            memory = moment.memory
            for latent, told in zip(latents.float().unbind(1), self._told(actions).unbind(1), strict=True):
                memory = replace(self._model(memory, told), last=latent)
        self._now = self._anchor = _Moment(memory, encoder, decoder)

    @torch.no_grad()
    def step(self, actions: Tensor) -> Prediction:
        """Predict the frames that `actions` (`b k a`, the embodiment's units) lead to.

        Raises:
            DataError: if the shape does not fit.
        """
        moment = self._require(self._now)
        expected = (len(moment.memory.last), self.actions_per_step, self.embodiment.action_dim)
        if tuple(actions.shape) != expected:
            raise DataError(f"expected actions of shape b k a = {expected}, got {tuple(actions.shape)}")
        with self._compute.autocasting():
            memory = self._model(moment.memory, self._told(actions)[:, 0])
            memory = replace(memory, last=memory.last.float())
            frames, decoder = self._tokenizer.decode(memory.last[:, None], moment.decoder)
        self._now = _Moment(memory, moment.encoder, decoder)
        return Prediction(frames={CAMERA: to_pixels(frames).cpu()})

    def fork(self, n: int) -> RegressionSession:
        """`n` copies of a session of batch 1, as one session of batch `n`.

        Raises:
            ConfigError: if the batch is not 1.
        """
        moment, anchor = self._require(self._now), self._require(self._anchor)
        if len(moment.memory.last) != 1:
            raise ConfigError(f"only a session of batch 1 can be forked, this one has {len(moment.memory.last)}")
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._now, copy._anchor = moment.expand(n), anchor.expand(n)
        return copy

    def close(self) -> None:
        """Forget the rollout."""
        self._now = self._anchor = None

    def _told(self, actions: Tensor) -> Float[Tensor, "b n a"]:
        values = actions.detach().cpu()
        if not values.isfinite().all():
            raise DataError("expected finite actions, got NaN or infinity")
        normal = torch.from_numpy(self.embodiment.normalize_action(values.numpy())).float()
        return self._model.tell(actions_to_chunks(normal.to(self._compute.device), self.actions_per_step))

    def _frames(self, observation: Observation) -> Tensor:
        frames, size = observation.frames.get(CAMERA), self._model.config.size
        if frames is None or frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-3:] != (3, *size):
            found = "none" if frames is None else f"{frames.dtype} {tuple(frames.shape)}"
            raise DataError(f"expected uint8 frames b t 3 {size[0]} {size[1]} of the camera {CAMERA!r}, got {found}")
        return from_pixels(frames.to(self._compute.device))

    @staticmethod
    def _require(moment: _Moment | None) -> _Moment:
        if moment is None:
            raise ConfigError("the session has no frame yet: call reset(observation) first")
        return moment


def load_regression_session(folder: Path, *, device: Device = "auto") -> RegressionSession:
    """Open the predictor in `folder` with the tokenizer in `folder/tokenizer` or beside it.

    Raises:
        CheckpointError: if the checkpoint is not whole, or there is no tokenizer.
    """
    model = load_model(folder, LatentPredictor)
    return RegressionSession(model, load_tokenizer(tokenizer_folder(folder)), compute=choose_compute(device))
