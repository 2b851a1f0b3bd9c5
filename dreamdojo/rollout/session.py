"""The world model as a thing you hold: reset it on a frame, step it with actions, branch it.

Keys, values and the decoder's causal state persist between steps; nothing is encoded twice. All state is in immutable
tensors, so a fork shares memory with its parent and neither can disturb the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.tokenizer.model import Tokenizer, from_pixels, to_pixels
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.device import Compute, Device, choose_compute
from dreamdojo.world import Observation, Prediction
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, RolloutState, SamplerConfig

CAMERA = "head"
"""The camera of a world model of one view."""


@dataclass(frozen=True)
class _Moment:
    """The state of a session between two steps."""

    rollout: RolloutState
    encoder: Tensor | None
    decoder: Tensor
    proprioception: np.ndarray | None

    def expand(self, n: int) -> _Moment:
        def grown(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.expand(n, *tensor.shape[1:])

        decoder = grown(self.decoder)
        assert decoder is not None
        state = None if self.proprioception is None else np.repeat(self.proprioception, n, axis=0)
        return _Moment(self.rollout.expand(n), grown(self.encoder), decoder, state)


class Session:
    """A world model that is being driven; satisfies `dreamdojo.world.World`."""

    def __init__(
        self,
        model: WorldModel,
        tokenizer: Tokenizer,
        sampler: SamplerConfig,
        *,
        embodiment: Embodiment,
        compute: Compute | None = None,
    ) -> None:
        """Hold a model, the tokenizer it was trained with, and how many steps a frame gets.

        Raises:
            ConfigError: if the model has no adapter for the embodiment, or no window.
        """
        self._compute = compute or choose_compute("cpu")
        self._model = model.to(self._compute.device).eval()
        self._tokenizer = tokenizer.to(self._compute.device).eval()
        window = model.config.dit.window
        if window is None:
            raise ConfigError("a session needs a model with a window (frames that a frame attends to), got None")
        model.adapter(embodiment.name)
        self._sampler = CausalSampler(self._model, sampler, window)
        self._embodiment = embodiment
        self._generator = torch.Generator().manual_seed(0)
        self._now: _Moment | None = None
        self._anchor: _Moment | None = None

    def __repr__(self) -> str:
        steps = self._sampler.sampler.steps
        batch = 0 if self._now is None else len(self._now.rollout.last)
        return (
            f"Session({self._embodiment.name}, {self.size} px, {self.fps:g} fps, {steps} steps a frame, batch {batch})"
        )

    @property
    def embodiment(self) -> Embodiment:
        """The body whose actions the session takes."""
        return self._embodiment

    @property
    def fps(self) -> float:
        """Frames (and actions) per second."""
        return self._model.config.rate

    @property
    def actions_per_step(self) -> int:
        """`k`, the actions of one latent frame."""
        return self._model.config.dit.actions_per_latent

    @property
    def cameras(self) -> tuple[str, ...]:
        """The one camera of the model."""
        return (CAMERA,)

    @property
    def size(self) -> int:
        """Side of a frame in pixels."""
        return self._model.config.size

    @torch.no_grad()
    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Start from one real frame; returns it as given.

        Raises:
            ConfigError: if no observation is given.
            DataError: if it does not hold exactly one uint8 frame `b 1 3 h w` of the model's size from camera `head`.
        """
        if observation is None:
            raise ConfigError("a session starts from a real frame: expected an observation, got None")
        frames = self._frames(observation)
        if frames.shape[1] != 1:
            raise DataError(
                f"a session starts from one frame, got {frames.shape[1]}. Give the later ones to observe() with the "
                "actions that led to them."
            )
        with self._compute.autocasting():
            latents, encoder = self._tokenizer.encode(from_pixels(frames))
            latents = latents.float()
            _, decoder = self._tokenizer.decode(latents)
            rollout = self._sampler.start(latents[:, 0])
        state = None if observation.state is None else observation.state[:, -1].cpu().numpy()
        self._generator = torch.Generator().manual_seed(seed)
        self._now = self._anchor = _Moment(rollout, encoder, decoder, state)
        return observation

    @torch.no_grad()
    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Continue from the last real frame with what really happened; frames predicted since then are forgotten.

        Args:
            observation: Frames `b t 3 h w` after the last real one, `t` a multiple of `k`.
            actions: `b t a` in the embodiment's units; action i led to frame i.
        """
        moment = self._require(self._anchor)
        frames, k = self._frames(observation), self.actions_per_step
        if frames.shape[1] % k or frames.shape[:2] != actions.shape[:2]:
            raise DataError(
                f"expected as many frames as actions, a multiple of k = {k}; got {frames.shape[1]} frames and "
                f"{actions.shape[1]} actions"
            )
        with self._compute.autocasting():
            latents, encoder = self._tokenizer.encode(from_pixels(frames), moment.encoder)
            latents = latents.float()
            _, decoder = self._tokenizer.decode(latents, moment.decoder)
            rollout = moment.rollout
            for index in range(latents.shape[1]):
                chunk = self._conditioning(actions[:, index * k : (index + 1) * k])
                rollout = self._sampler.append(rollout, latents[:, index], chunk)
        state = moment.proprioception
        if observation.state is not None:
            state = observation.state[:, -1].cpu().numpy()
        self._now = self._anchor = _Moment(rollout, encoder, decoder, state)

    @torch.no_grad()
    def step(self, actions: Tensor) -> Prediction:
        """Predict the `k` frames that `actions` (`b k a`, the embodiment's units) lead to."""
        moment = self._require(self._now)
        latent = moment.rollout.last
        if actions.ndim != 3 or actions.shape[:2] != (len(latent), self.actions_per_step):
            raise DataError(
                f"expected actions of shape ({len(latent)}, {self.actions_per_step}, {self._embodiment.action_dim}) "
                f"(batch, k, {', '.join(self._embodiment.action_names())}), got {tuple(actions.shape)}"
            )
        with self._compute.autocasting():
            chunk = self._conditioning(actions)
            noise = torch.randn(latent.shape, generator=self._generator).to(latent.device)
            rollout = self._sampler.step(moment.rollout, chunk, noise)
            frames, decoder = self._tokenizer.decode(rollout.last[:, None], moment.decoder)
        states = self._integrate(moment.proprioception, actions.cpu().numpy())
        last_state = None if states is None else states[:, -1]
        self._now = replace(moment, rollout=rollout, decoder=decoder, proprioception=last_state)
        return Prediction(
            frames={CAMERA: to_pixels(frames).cpu()},
            state=None if states is None else torch.from_numpy(states),
            state_source=None if states is None else "integrator",
        )

    def fork(self, n: int) -> Session:
        """`n` copies of a session of batch 1, as one session of batch `n` with noise of its own."""
        moment = self._require(self._now)
        if len(moment.rollout.last) != 1:
            raise ConfigError(f"only a session of batch 1 can be forked, this one has {len(moment.rollout.last)}")
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._now = moment.expand(n)
        copy._anchor = self._require(self._anchor).expand(n)
        copy._generator = torch.Generator()
        copy._generator.set_state(self._generator.get_state())
        return copy

    def close(self) -> None:
        """Forget the rollout."""
        self._now = self._anchor = None

    def _frames(self, observation: Observation) -> Tensor:
        if not isinstance(observation, Observation):
            raise DataError(
                f"expected an Observation, got a {type(observation).__name__}. Wrap frames b t 3 h w uint8 as "
                f'Observation(frames={{"{CAMERA}": frames}}).'
            )
        frames = observation.frames.get(CAMERA)
        if frames is None:
            raise DataError(f"expected a camera {CAMERA!r}, found: {', '.join(observation.frames) or 'none'}")
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-3:] != (3, self.size, self.size):
            raise DataError(
                f"expected uint8 frames b t 3 {self.size} {self.size}, got {frames.dtype} {tuple(frames.shape)}. "
                "Resize them first (dreamdojo.video.resize)."
            )
        return frames.to(self._compute.device)

    def _conditioning(self, actions: Tensor) -> Tensor:
        values = actions.detach().cpu().numpy()
        if not np.isfinite(values).all():
            raise DataError(f"expected finite actions, got {values[~np.isfinite(values)][0]}")
        normal = torch.from_numpy(self._embodiment.normalize_action(values)).to(self._compute.device)
        return self._model.conditioning(self._embodiment.name, normal.flatten(1)[:, None])[:, 0].float()

    def _integrate(self, state: np.ndarray | None, actions: np.ndarray) -> np.ndarray | None:
        if state is None:
            return None
        states = []
        for index in range(actions.shape[1]):
            following = self._embodiment.integrate(state, actions[:, index], 1 / self.fps)
            if following is None:
                return None
            state = following
            states.append(state)
        return np.stack(states, axis=1)

    @staticmethod
    def _require(moment: _Moment | None) -> _Moment:
        if moment is None:
            raise ConfigError("the session has no frame yet: call reset(observation) first")
        return moment


def load_session(
    folder: Path, *, embodiment: str | None = None, steps: int | None = None, device: Device = "auto"
) -> Session:
    """Open the world model in `folder` with the tokenizer in `folder/tokenizer` or beside it.

    Args:
        folder: A teacher's or student's checkpoint folder.
        embodiment: Which of the model's bodies to drive; may be left out when it has one.
        steps: Denoising steps per frame; by default those the checkpoint was made for.
        device: Where to run.

    Raises:
        CheckpointError: if the checkpoint is not whole.
        ConfigError: if the embodiment is unknown or must be named.
    """
    model = load_model(folder, WorldModel)
    tokenizer = load_model(_tokenizer_folder(folder), Tokenizer)
    bodies = {body.name: body for body in model.config.embodiments}
    if embodiment is None and len(bodies) != 1:
        raise ConfigError(f"name one of the model's embodiments: {', '.join(bodies) or 'it has none (post-train it)'}")
    name = embodiment or next(iter(bodies))
    if name not in bodies:
        raise ConfigError(f"the model has no embodiment {name!r}; it has: {', '.join(bodies)}")
    stored = read_about(folder).get("sampler")
    if stored is None:
        raise CheckpointError(f"{folder}/config.json does not say how to sample (about.sampler). Train it again.")
    sampler = SamplerConfig(steps=steps or stored["steps"], shift=stored["shift"])
    return Session(model, tokenizer, sampler, embodiment=bodies[name], compute=choose_compute(device))


def _tokenizer_folder(folder: Path) -> Path:
    for candidate in (folder / "tokenizer", folder.parent / "tokenizer"):
        if (candidate / "model.safetensors").exists():
            return candidate
    raise CheckpointError(
        f"expected the model's tokenizer in {folder}/tokenizer or {folder.parent}/tokenizer, found none"
    )
