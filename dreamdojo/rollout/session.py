"""The world model as a thing you hold: reset it on a frame, step it with actions, branch it.

The session speaks to people and apps: cameras, an embodiment's actions in its own units, proprioception, seeds. How the
model goes on behind it, frame by frame or clip by clip, is `dreamdojo.rollout.dream`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import CheckpointError, ConfigError, DataError, brief
from dreamdojo.nn.patches import actions_to_chunks
from dreamdojo.rollout.dream import Draw, DreamState, Programs, dream_of
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.model import from_pixels, to_pixels
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer, rgb_tokenizer
from dreamdojo.training.checkpoint import from_plain, load_model, read_about
from dreamdojo.training.device import Compute, Device, choose_compute
from dreamdojo.training.memory import require_memory
from dreamdojo.video import Size, resize
from dreamdojo.world import Observation, Prediction
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig, published_noise

Backend = Literal["auto", "torch", "openvino"]

CAMERA = "head"
"""The camera of a world model of one view."""

DEPTH_SEED = 0x5EED
"""Added to a session's seed for the noise of depth, so that the noise of RGB is what it would be without depth."""

LARGE_FILE = 2**30
"""Weights files above so many bytes are not turned into float32."""


@dataclass(frozen=True)
class _Moment:
    """The state of a session between two steps."""

    dream: DreamState
    proprioception: np.ndarray | None
    """`b s`, or None where the start had none."""
    last_action: np.ndarray | None
    """`b a` normalised, what relative actions start from; None before the first."""
    num_actions: int
    """Actions since the reset."""

    def expand(self, n: int) -> _Moment:
        def grown(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.repeat(array, n, axis=0)

        return _Moment(self.dream.expand(n), grown(self.proprioception), grown(self.last_action), self.num_actions)


class Session:
    """A world model that is being driven; satisfies `dreamdojo.world.World`."""

    def __init__(
        self,
        model: WorldModel,
        tokenizer: nn.Module,
        sampler: SamplerConfig,
        *,
        embodiment: Embodiment,
        compute: Compute | None = None,
        backend: Backend = "torch",
    ) -> None:
        """Hold a model, the `VideoTokenizer` it was trained with, and how many steps a frame gets.

        Raises:
            ConfigError: if the model has no adapter for the embodiment, is causal without a window, was trained with
                another tokenizer, or the backend cannot run it.
        """
        self._compute = compute or choose_compute("cpu")
        self._model = model.to(self._compute.device).eval()
        tokenizer = tokenizer.to(self._compute.device).eval()
        assert isinstance(tokenizer, VideoTokenizer)
        if model.config.dit.causal and model.config.dit.window is None:
            raise ConfigError("a session needs a model with a window (frames that a frame attends to), got None")
        if tokenizer.latent_channels != model.config.dit.latent_channels:
            raise ConfigError(
                f"expected a tokenizer of {model.config.dit.latent_channels} latent channels, as the model takes, got "
                f"one of {tokenizer.latent_channels}. Both see depth, or neither."
            )
        model.adapter(embodiment.name)
        self._coding = tokenizer.coding if isinstance(tokenizer, RGBDTokenizer) else None
        self._rgb_channels = rgb_tokenizer(tokenizer).latent_channels
        self._tokenizer = tokenizer
        self._programs = programs_of(backend, self._model, tokenizer, sampler, self._compute)
        self._dream = dream_of(self._model, tokenizer, sampler, self._programs)
        self._embodiment = embodiment
        self._generator, self._depth_generator = _generators(0)
        self._seed = 0
        self._now: _Moment | None = None
        self._anchor: _Moment | None = None

    def __repr__(self) -> str:
        steps = self._dream.sampler_config.steps
        unit = "frame" if self._model.config.dit.causal else "clip"
        batch = 0 if self._now is None else self._now.dream.batch
        size = "x".join(map(str, self.size))
        fast = f", {self.backend}" if self._programs else ""
        seen = f"{size} px" if self._coding is None else f"{size} px with depth"
        rates = f"{self.fps:g} fps, {steps} steps a {unit}"
        return f"Session({self._embodiment.name}, {seen}, {rates}, batch {batch}{fast})"

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
        """The actions of one step: those of one latent frame, or of a clip's."""
        return self._model.config.dit.actions_per_latent * self._dream.chunks_per_step

    @property
    def cameras(self) -> tuple[str, ...]:
        """The one camera of the model."""
        return (CAMERA,)

    @property
    def sampler(self) -> SamplerConfig:
        """How a frame or clip is denoised."""
        return self._dream.sampler_config

    def use_steps(self, steps: int) -> None:
        """Denoise with so many steps from now on, e.g. with fewer to keep up with the clock; forks keep theirs."""
        if steps != self.sampler.steps:
            self._dream = dream_of(self._model, self._tokenizer, replace(self.sampler, steps=steps), self._programs)

    @property
    def backend(self) -> Backend:
        """What computes its frames."""
        return "openvino" if self._programs else "torch"

    @property
    def reference_compatible(self) -> bool:
        """Whether the model repeats the published system's faults."""
        return self._model.config.reference_compatible

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self._model.config.size

    @property
    def depth(self) -> DepthCoding | None:
        """Which metres the model sees and predicts; None for a model of RGB alone."""
        return self._coding

    @property
    def num_bytes(self) -> int:
        """Bytes of keys, values and causal states that the place in the dream, and the one to go back to, hold."""
        moments = {id(moment): moment for moment in (self._now, self._anchor) if moment is not None}
        stores = [t.untyped_storage() for moment in moments.values() for t in moment.dream.tensors]
        return sum({store.data_ptr(): store.nbytes() for store in stores}.values())

    @torch.no_grad()
    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Start from one real frame; returns it as given.

        Raises:
            ConfigError: if no observation is given.
            DataError: if it does not hold exactly one uint8 frame `b 1 3 h w` of the model's size from camera `head`,
                and its depth `b 1 1 h w` in metres where the model sees depth.
        """
        if observation is None:
            raise ConfigError("a session starts from a real frame: expected an observation, got None")
        frames = self._frames(observation)
        if frames.shape[1] != 1:
            raise DataError(
                f"a session starts from one frame, got {frames.shape[1]}. Give the later ones to observe() with the "
                "actions that led to them."
            )
        pictures = self._pictures(frames, observation)
        with self._compute.autocasting():
            dream = self._dream.start(pictures)
        state = None if observation.state is None else observation.state[:, -1].cpu().numpy()
        (self._generator, self._depth_generator), self._seed = _generators(seed), seed
        self._now = self._anchor = _Moment(dream, state, None, 0)
        return observation

    @torch.no_grad()
    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Continue from the last real frame with what really happened; frames predicted since then are forgotten.

        Args:
            observation: Frames `b t 3 h w` after the last real one, `t` a multiple of `k`, with their depth where the
                model sees it.
            actions: `b t a` in the embodiment's units; action i led to frame i.
        """
        moment, now = self._require(self._anchor), self._require(self._now)
        if moment.dream.batch < now.dream.batch:  # of a fork, whose anchor is kept once
            moment = moment.expand(now.dream.batch)
        frames, k = self._frames(observation), self._model.config.dit.actions_per_latent
        if frames.shape[1] % k or frames.shape[:2] != actions.shape[:2]:
            raise DataError(
                f"expected as many frames as actions, a multiple of k = {k}; got {frames.shape[1]} frames and "
                f"{actions.shape[1]} actions"
            )
        pictures = self._pictures(frames, observation)
        with self._compute.autocasting():
            chunks, last_action = self._conditioning(moment, actions)
            dream = self._dream.observe(moment.dream, pictures, chunks)
        state = moment.proprioception
        if observation.state is not None:
            state = observation.state[:, -1].cpu().numpy()
        self._now = self._anchor = _Moment(dream, state, last_action, moment.num_actions + actions.shape[1])

    @torch.no_grad()
    def step(self, actions: Tensor) -> Prediction:
        """Predict the frames that `actions` (`b k a`, the embodiment's units) lead to.

        Where the body is known to stop at a limit, the model is told what is left of them
        (`Embodiment.within_limits`): it has not seen a body that goes on.
        """
        moment = self._require(self._now)
        batch, k = moment.dream.batch, self.actions_per_step
        if actions.ndim != 3 or actions.shape[:2] != (batch, k):
            raise DataError(
                f"expected actions of shape ({batch}, {k}, {self._embodiment.action_dim}) "
                f"(batch, k, {', '.join(self._embodiment.action_names())}), got {tuple(actions.shape)}"
            )
        carried, states = self._carry_out(moment.proprioception, actions.detach().cpu().numpy())
        with self._compute.autocasting():
            chunks, last_action = self._conditioning(moment, torch.from_numpy(carried))
            frames, dream = self._dream.step(moment.dream, chunks, self._draw(moment))
        last_state = None if states is None else states[:, -1]
        self._now = _Moment(dream, last_state, last_action, moment.num_actions + k)
        return Prediction(
            frames={CAMERA: to_pixels(frames[:, :, :3]).cpu()},
            depth=None if self._coding is None else {CAMERA: self._coding.decode(frames[:, :, 3:]).cpu()},
            state=None if states is None else torch.from_numpy(states),
            state_source=None if states is None else "integrator",
        )

    def fork(self, n: int) -> Session:
        """`n` copies of a session of batch 1, as one session of batch `n` with noise of its own; one copy of any batch.

        They share nothing that changes with their parent, and hold `n` times what it holds of the last frames
        (`num_bytes`), however long it has run.

        Raises:
            ConfigError: if several copies of a larger batch are asked for.
        """
        moment = self._require(self._now)
        if 1 not in (n, moment.dream.batch):
            raise ConfigError(f"only a session of batch 1 can be forked, this one has {moment.dream.batch}")
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._now = moment.expand(n)
        copy._anchor = self._require(self._anchor).expand(1)
        copy._generator, copy._depth_generator = _copied(self._generator), _copied(self._depth_generator)
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
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-3:] != (3, *self.size):
            raise DataError(
                f"expected uint8 frames b t 3 {self.size[0]} {self.size[1]}, got {frames.dtype} {tuple(frames.shape)}. "
                "dreamdojo.video.resize changes their size; of floats in [0, 1] take (255 * x).round().byte()."
            )
        return frames.to(self._compute.device)

    def _pictures(self, frames: Tensor, observation: Observation) -> Tensor:
        """What the tokenizer encodes: RGB in [-1, 1], and coded depth where the model sees it."""
        rgb = from_pixels(frames)
        if self._coding is None:
            return rgb
        metres = (observation.depth or {}).get(CAMERA)
        expected = (*frames.shape[:2], 1, *frames.shape[3:])
        if metres is None or not metres.is_floating_point() or metres.shape != expected:
            found = "none" if metres is None else f"{metres.dtype} {tuple(metres.shape)}"
            raise DataError(
                f"this model sees depth: expected Observation.depth of the camera {CAMERA!r}, floating-point metres of "
                f"shape {expected} (0 where nothing was measured), got {found}"
            )
        return torch.cat([rgb, self._coding.encode(metres.to(rgb.device))], dim=2)

    def _conditioning(self, moment: _Moment, actions: Tensor) -> tuple[Tensor, np.ndarray]:
        """Action chunks `b n kl` as the DiT takes them, and the last normalised action."""
        values = actions.detach().cpu().numpy()
        if not np.isfinite(values).all():
            raise DataError(f"expected finite actions, got {values[~np.isfinite(values)][0]}")
        body, k = self._embodiment, self._model.config.dit.actions_per_latent
        normal = body.normalize_action(values)
        before = normal[:, 0] if moment.last_action is None else moment.last_action
        given = relative_actions(normal, before, k) if body.relative else normal
        state = None
        if body.state_dim and moment.proprioception is not None:
            state = torch.from_numpy(body.normalize_state(moment.proprioception)).to(self._compute.device)
        chunks = actions_to_chunks(torch.from_numpy(given).to(self._compute.device), k)
        return self._model.conditioning(body.name, chunks, state).float(), normal[:, -1]

    def _draw(self, moment: _Moment) -> Draw:
        """Noise of the session's seed; that of the published scripts where their clips are to be reproduced."""

        def draw(shape: tuple[int, int, int, int, int]) -> Tensor:
            b, t, channels, h, w = shape
            rgb = (b, t, self._rgb_channels, h, w)
            if self._model.config.reference_compatible and not self._model.config.dit.causal:
                noise = published_noise(self._seed + moment.num_actions, rgb)
            else:
                noise = torch.randn(rgb, generator=self._generator)
            if channels > self._rgb_channels:
                depth = (b, t, channels - self._rgb_channels, h, w)
                noise = torch.cat([noise, torch.randn(depth, generator=self._depth_generator)], dim=2)
            return noise.to(self._compute.device)

        return draw

    def _carry_out(self, state: np.ndarray | None, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """What the body carries out of actions `b k a`, and the states `b k s` that follow, where these are known."""
        if state is None or not self._embodiment.integrated().any():
            return actions, None
        carried, states = [], []
        for index in range(actions.shape[1]):
            action = self._embodiment.within_limits(state, actions[:, index], 1 / self.fps)
            following = self._embodiment.integrate(state, action, 1 / self.fps)
            assert following is not None
            state = following
            carried.append(action)
            states.append(state)
        return np.stack(carried, axis=1), np.stack(states, axis=1)

    @staticmethod
    def _require(moment: _Moment | None) -> _Moment:
        if moment is None:
            raise ConfigError("the session has no frame yet: call reset(observation) first")
        return moment


def observation(
    frame: np.ndarray, state: np.ndarray | None, size: Size, depth: np.ndarray | None = None
) -> Observation:
    """One frame `h w 3` uint8 of any size, centre-cropped and resized to the model's, and the state `(s,)`.

    `depth`, where there is one, is metres `h w` of any size, cropped likewise; resizing picks pixels.
    """
    picture = torch.from_numpy(resize(frame[None], size)).permute(0, 3, 1, 2)[None]
    metres = None if depth is None else torch.from_numpy(resize(np.asarray(depth, np.float32), size, nearest=True))
    return Observation(
        frames={CAMERA: picture},
        depth=None if metres is None else {CAMERA: metres[None, None, None]},
        state=None if state is None else torch.from_numpy(np.asarray(state, np.float32))[None, None],
    )


def load_session(
    folder: Path,
    *,
    embodiment: str | None = None,
    steps: int | None = None,
    sampler: SamplerConfig | None = None,
    device: Device = "auto",
    tile: int | None = None,
    backend: Backend = "torch",
) -> Session:
    """Open the world model in `folder` with the tokenizer in `folder/tokenizer` or beside it.

    Args:
        folder: A teacher's or student's checkpoint folder.
        embodiment: Which of the model's bodies to drive; may be left out when it has one.
        steps: Denoising steps per frame; by default those the checkpoint was made for.
        sampler: How to denoise, in place of the way the checkpoint was made for; `steps` counts no more then.
        device: Where to run.
        tile: Side of the tiles, in pixels, in which a Wan tokenizer works, so that it needs less memory; by default it
            takes whole frames.
        backend: What computes: `torch`; `openvino`, faster for a small model on a CPU, after some seconds of
            compiling; `auto` for OpenVINO where it is installed and can run the model.

    Large weights stay as they are stored (bfloat16, memory-mapped); small ones are computed with in float32.

    Raises:
        CheckpointError: if the checkpoint is not whole.
        ConfigError: if the embodiment is unknown or must be named.
    """
    weights = folder / "model.safetensors"
    large = weights.exists() and weights.stat().st_size > LARGE_FILE
    compute = choose_compute(device)
    if large:
        require_memory(
            weights.stat().st_size, compute.device, what=f"the model in {folder}", advice="Use a machine with more."
        )
    model = load_model(folder, WorldModel, dtype=None if large else torch.float32)
    tokenizer = load_tokenizer(tokenizer_folder(folder), tile=tile)
    bodies = {body.name: body for body in model.config.embodiments}
    if embodiment is None and len(bodies) != 1:
        raise ConfigError(f"name one of the model's embodiments: {', '.join(bodies) or 'it has none (post-train it)'}")
    name = embodiment or next(iter(bodies))
    if name not in bodies:
        raise ConfigError(
            f"the model has no embodiment {name!r}; it has: {', '.join(bodies) or 'none'}. If the recordings are of "
            "one of these, say so (--body); else post-train the model on them."
        )
    return Session(
        model,
        tokenizer,
        sampler or _made_for(folder, steps),
        embodiment=bodies[name],
        compute=compute,
        backend=backend,
    )


def programs_of(
    backend: Backend, model: WorldModel, tokenizer: VideoTokenizer, sampler: SamplerConfig, compute: Compute
) -> Programs | None:
    """What a session calls in place of the model's own functions; None for PyTorch.

    Raises:
        ConfigError: if there is no such backend, or OpenVINO is asked for and cannot run this model here.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"there is no backend {backend!r}; there are: {', '.join(get_args(Backend))}")
    if backend == "torch":
        return None
    from dreamdojo.rollout.openvino import OpenVINOPrograms, cannot_run

    reason = cannot_run(model, sampler, compute)
    if reason is None:
        try:
            return OpenVINOPrograms(model, tokenizer, sampler, compute)
        except Exception as error:  # what a foreign compiler cannot do shows itself as one of many kinds
            reason = f"cannot compile this model: {brief(error)}"
            if backend == "auto":
                warnings.warn(f"the backend openvino {reason}. PyTorch computes instead.", stacklevel=2)
    if backend == "auto":
        return None
    raise ConfigError(f"the backend openvino {reason}. Take the backend torch.")


def _made_for(folder: Path, steps: int | None) -> SamplerConfig:
    """The sampler a checkpoint was made for, with other `steps` where given."""
    about = read_about(folder).get("sampler")
    if about is None:
        raise CheckpointError(f"{folder}/config.json does not say how to sample (about.sampler). Train it again.")
    return from_plain(SamplerConfig, {**about, "steps": about["steps"] if steps is None else steps})


def _generators(seed: int) -> tuple[torch.Generator, torch.Generator]:
    """Those of the noise of RGB and of depth."""
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + DEPTH_SEED)


def _copied(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def tokenizer_folder(folder: Path) -> Path:
    """The folder of a world model's tokenizer: in the model's folder, or beside it.

    Raises:
        CheckpointError: if there is none.
    """
    for candidate in (folder / "tokenizer", folder.parent / "tokenizer"):
        if (candidate / "model.safetensors").exists():
            return candidate
    raise CheckpointError(
        f"expected the model's tokenizer in {folder}/tokenizer or {folder.parent}/tokenizer, found none"
    )
