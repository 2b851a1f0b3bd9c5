"""How a world model continues a video, in tensors alone: what a session drives.

`CausalDream` goes on frame by frame: keys, values and the causal state of encoder and decoder persist between steps, so
nothing is encoded twice. `ClipDream` is the published teacher: each step starts from the last frame alone, encodes it,
denoises a whole clip and keeps the frames after the first.

States are never changed in place. A fork is a copy in memory of its own, as large as the window and not as the rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.tokenizer.model import from_pixels, to_pixels
from dreamdojo.tokenizer.protocol import CausalState, VideoTokenizer
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, ChunkSampler, Network, RolloutState, SamplerConfig, copies

Draw = Callable[[tuple[int, int, int, int, int]], Tensor]
"""Gives noise of a shape `b t c h w`."""

CLIP_LATENTS = 4
"""Latent frames of a published clip: one given, three predicted."""


@runtime_checkable
class DreamState(Protocol):
    """A place in a dream."""

    @property
    def batch(self) -> int:
        """How many dreams go on side by side."""
        ...

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is remembered."""
        ...

    def expand(self, n: int) -> DreamState:
        """A state of batch 1 as one of batch `n`, in memory of its own."""
        ...


State = TypeVar("State", bound=DreamState)


@runtime_checkable
class Dream(Protocol[State]):
    """A video that a model continues. Frames are `b t c h w` in [-1, 1], chunks `b n kl` as the DiT takes them.

    With a tokenizer of RGB and depth a frame's fourth channel is coded depth.
    """

    sampler_config: SamplerConfig
    """How the model is sampled."""
    chunks_per_step: int
    """Action chunks (latent frames) of one step."""

    def start(self, frame: Float[Tensor, "b 1 c h w"]) -> State:
        """Begin at a real frame."""
        ...

    def observe(self, state: State, frames: Float[Tensor, "b t c h w"], chunks: Float[Tensor, "b n kl"]) -> State:
        """Go on with real frames that the chunks led to."""
        ...

    def step(
        self, state: State, chunks: Float[Tensor, "b n kl"], draw: Draw
    ) -> tuple[Float[Tensor, "b t c h w"], State]:
        """The frames that the chunks lead to."""
        ...


@runtime_checkable
class Programs(Protocol):
    """Faster ways to call a causal model and its decoder, e.g. `dreamdojo.rollout.openvino`."""

    @property
    def network(self) -> Network:
        """In place of the model's DiT."""
        ...

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """In place of the tokenizer's."""
        ...

    def stepping(self) -> AbstractContextManager[None]:
        """Entered around a step."""
        ...


@dataclass(frozen=True)
class FrameState:
    """What a frame-by-frame dream remembers."""

    rollout: RolloutState
    encoder: CausalState
    decoder: CausalState

    @property
    def batch(self) -> int:
        """How many dreams go on side by side."""
        return len(self.rollout.last)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Keys and values, the newest latent, and the causal states of encoder and decoder."""
        return (*self.rollout.tensors, *self.encoder, *self.decoder)

    def expand(self, n: int) -> FrameState:
        """A state of batch 1 as one of batch `n`, in memory of its own."""
        encoder, decoder = (tuple(copies(tensor, n) for tensor in state) for state in (self.encoder, self.decoder))
        return FrameState(self.rollout.expand(n), encoder, decoder)


class CausalDream:
    """A causal model and a tokenizer, one latent frame per step."""

    chunks_per_step: int = 1

    def __init__(
        self, model: WorldModel, tokenizer: VideoTokenizer, sampler: SamplerConfig, programs: Programs | None = None
    ) -> None:
        self.sampler_config, self._tokenizer = sampler, tokenizer
        self._decoder, self._stepping = programs or tokenizer, programs.stepping if programs else nullcontext
        network = programs.network if programs else None
        self._sampler = CausalSampler(model, sampler, model.config.dit.window, network=network)

    def start(self, frame: Float[Tensor, "b 1 c h w"]) -> FrameState:
        """Encode the frame; decode it once, for the decoder's state."""
        latents, encoder = self._tokenizer.encode(frame)
        latents = latents.float()
        _, decoder = self._decoder.decode(latents)
        return FrameState(self._sampler.start(latents[:, 0]), encoder, decoder)

    def observe(
        self, state: FrameState, frames: Float[Tensor, "b t c h w"], chunks: Float[Tensor, "b n kl"]
    ) -> FrameState:
        """Encode the new frames and commit them to the cache."""
        latents, encoder = self._tokenizer.encode(frames, state.encoder)
        latents = latents.float()
        _, decoder = self._decoder.decode(latents, state.decoder)
        rollout = state.rollout
        for latent, chunk in zip(latents.unbind(1), chunks.unbind(1), strict=True):
            rollout = self._sampler.append(rollout, latent, chunk)
        return FrameState(rollout, encoder, decoder)

    def step(
        self, state: FrameState, chunks: Float[Tensor, "b n kl"], draw: Draw
    ) -> tuple[Float[Tensor, "b t c h w"], FrameState]:
        """Predict one latent frame and decode it."""
        latent = state.rollout.last
        b, c, h, w = latent.shape
        noise = draw((b, 1, c, h, w))[:, 0]
        with self._stepping():
            rollout = self._sampler.step(state.rollout, chunks[:, 0], noise)
            frames, decoder = self._decoder.decode(rollout.last[:, None], state.decoder)
        return frames, FrameState(rollout, state.encoder, decoder)


@dataclass(frozen=True)
class ClipState:
    """What the teacher remembers: the last frame."""

    frame: Float[Tensor, "b 1 c h w"]

    @property
    def batch(self) -> int:
        """How many dreams go on side by side."""
        return len(self.frame)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The frame."""
        return (self.frame,)

    def expand(self, n: int) -> ClipState:
        """A state of batch 1 as one of batch `n`, in memory of its own."""
        return ClipState(copies(self.frame, n))


class ClipDream:
    """A model that attends to whole clips, and a tokenizer.

    The last frame goes on as the eight-bit picture that was shown, its depth as it is. As published, a clip's first
    decoded frame, which repeats the given one, is dropped, and all others are kept (docs/faults.md, 5).
    """

    chunks_per_step: int = CLIP_LATENTS - 1

    def __init__(self, model: WorldModel, tokenizer: VideoTokenizer, sampler: SamplerConfig) -> None:
        self.sampler_config, self._tokenizer = sampler, tokenizer
        self._sampler = ChunkSampler(model, sampler)

    def start(self, frame: Float[Tensor, "b 1 c h w"]) -> ClipState:
        """Nothing is computed yet."""
        return ClipState(frame)

    def observe(
        self, state: ClipState, frames: Float[Tensor, "b t c h w"], chunks: Float[Tensor, "b n kl"]
    ) -> ClipState:
        """Only the newest frame is kept."""
        return ClipState(frames[:, -1:])

    def step(
        self, state: ClipState, chunks: Float[Tensor, "b n kl"], draw: Draw
    ) -> tuple[Float[Tensor, "b t c h w"], ClipState]:
        """Predict a clip."""
        given, _ = self._tokenizer.encode(state.frame)
        given = given.float()
        b, _, c, h, w = given.shape
        noise = draw((b, CLIP_LATENTS, c, h, w))
        latents = self._sampler.predict(given, chunks, noise)
        frames, _ = self._tokenizer.decode(latents)
        return frames[:, 1:], ClipState(_as_shown(frames[:, -1:]))


def dream_of(
    model: WorldModel, tokenizer: VideoTokenizer, sampler: SamplerConfig, programs: Programs | None = None
) -> Dream[Any]:
    """Frame by frame where the model is causal, through `programs` where given; else clip by clip."""
    if model.config.dit.causal:
        return CausalDream(model, tokenizer, sampler, programs)
    return ClipDream(model, tokenizer, sampler)


def _as_shown(frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
    shown = from_pixels(to_pixels(frames[:, :, :3]))
    return torch.cat([shown, frames[:, :, 3:].float().clamp(-1, 1)], dim=2)
