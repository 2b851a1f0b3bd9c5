"""Sampling from the world model: a whole clip at once, or frame by frame with a rolling cache of keys and values.

`ChunkSampler` is the published teacher: it attends to all frames at once, so a clip is denoised together.
`CausalSampler` predicts one latent frame at a time. A frame costs `steps` passes that denoise it (the cache is read)
and one that commits it (the cache is written). The cache holds keys before rotary positions, and positions are relative
to the window, so a rollout has no greatest length; attention sees differences of positions only, so this equals the
published absolute positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.flow.rectified import euler, sigma_schedule
from dreamdojo.flow.trigflow import angle_of_sigma, precondition, round_bfloat16
from dreamdojo.flow.unipc import unipc, unipc_schedule
from dreamdojo.world_model.dit import KeyValue
from dreamdojo.world_model.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a latent frame is denoised."""

    steps: int
    """Steps from noise to a clean latent."""
    shift: float = 5.0
    """Shift of the noise levels towards noise."""
    solver: Literal["euler", "renoise", "unipc"] = "euler"
    """`euler` follows the path; `renoise` adds the frame's own noise to each clean prediction again, as the published
    student does; `unipc` is the published teacher's solver of second order."""
    guidance: float = 0.0
    """Extra weight of the text against no text; 0, as published, is one pass per step and not two."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampling takes at least one step, got steps={self.steps}")


@dataclass(frozen=True)
class RolloutState:
    """Everything a rollout remembers. It is never changed in place, so a copy of the reference is a fork."""

    last: Float[Tensor, "b c h w"]
    """The newest latent frame."""
    past: tuple[KeyValue, ...]
    """Keys and values of the newest frames, one entry per block, oldest first; at most window - 1 frames."""

    @property
    def num_frames(self) -> int:
        """Frames in the cache."""
        return self.past[0].key.shape[1]

    def expand(self, n: int) -> RolloutState:
        """A state of batch 1 as one of batch `n`; memory is shared until a step makes new tensors."""
        grown = tuple(
            KeyValue(kv.key.expand(n, *kv.key.shape[1:]), kv.value.expand(n, *kv.value.shape[1:])) for kv in self.past
        )
        return RolloutState(self.last.expand(n, *self.last.shape[1:]), grown)


class CausalSampler:
    """Predicts latent frames one by one from a causal model."""

    def __init__(self, model: WorldModel, sampler: SamplerConfig, window: int | None) -> None:
        """Frames attend to at most `window - 1` frames before them, or to all.

        Raises:
            ConfigError: if the model attends to the future, or the sampler is one for whole clips.
        """
        if not model.config.dit.causal:
            raise ConfigError("frame-by-frame rollout needs a model with causal=True; this one attends to the future")
        if sampler.solver == "unipc" or sampler.guidance:
            raise ConfigError(
                "frame-by-frame rollout takes the solvers euler and renoise without guidance: "
                f"got solver={sampler.solver!r}, guidance={sampler.guidance}"
            )
        self.model, self.sampler, self.window = model, sampler, window
        self.schedule = sigma_schedule(sampler.steps, sampler.shift)
        self._renoise_steps = _renoise_steps(self.schedule, model.config.reference_compatible)

    @torch.no_grad()
    def start(self, latent: Float[Tensor, "b c h w"]) -> RolloutState:
        """Begin with a first, given latent frame."""
        chunk = latent.new_zeros(len(latent), self.model.config.dit.chunk_dim)
        return self._commit(None, latent, latent, chunk, has_action=0.0)

    @torch.no_grad()
    def append(
        self, state: RolloutState, latent: Float[Tensor, "b c h w"], chunk: Float[Tensor, "b kl"]
    ) -> RolloutState:
        """Continue with a given latent frame that `chunk` led to."""
        return self._commit(state, latent, state.last, chunk, has_action=1.0)

    @torch.no_grad()
    def predict(
        self, state: RolloutState, chunk: Float[Tensor, "b kl"], noise: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """The latent frame that `chunk` leads to; the state is not changed."""
        if self.sampler.solver == "renoise":
            return self._renoise(state, chunk, noise)
        latent = noise
        for sigma, following in zip(self.schedule[:-1].tolist(), self.schedule[1:].tolist(), strict=True):
            clean = self.clean(state, latent, sigma, chunk)
            latent = clean if following == 0 else latent + (following - sigma) * (latent - clean) / sigma
        return latent

    def clean(
        self, state: RolloutState, noisy: Float[Tensor, "b c h w"], sigma: float, chunk: Float[Tensor, "b kl"]
    ) -> Float[Tensor, "b c h w"]:
        """The model's clean latent for a noisy one at `sigma`."""
        level = noisy.new_full((len(noisy), 1), sigma)
        prediction, _ = self._forward(state, noisy, level, state.last, chunk, has_action=1.0)
        if self.model.config.dit.prediction == "velocity":
            return noisy - sigma * prediction
        return prediction

    def step(self, state: RolloutState, chunk: Float[Tensor, "b kl"], noise: Float[Tensor, "b c h w"]) -> RolloutState:
        """Predict the next frame and commit it; it is `last` of the new state."""
        return self.append(state, self.predict(state, chunk, noise), chunk)

    def _renoise(self, state: RolloutState, chunk: Tensor, noise: Tensor) -> Tensor:
        """Every step ends at a clean prediction, to which the next adds this frame's noise anew."""
        x = clean = noise
        for index, c in enumerate(self._renoise_steps):
            if index:
                x = c.cos * clean + c.sin * noise
            level = noise.new_full((len(noise), 1), c.noise)
            output, _ = self._forward(state, c.input * x, level, state.last, chunk, has_action=1.0)
            if self.model.config.dit.prediction == "velocity":
                output = c.skip * x + c.out * output
            clean = output
        return clean

    def _forward(
        self,
        state: RolloutState | None,
        latent: Tensor,
        sigma: Tensor,
        previous: Tensor,
        chunk: Tensor,
        *,
        has_action: float,
    ) -> tuple[Tensor, list[KeyValue]]:
        uses_previous = self.model.config.dit.previous_latent
        prediction, own = self.model.dit(
            latent[:, None],
            sigma,
            chunk[:, None],
            has_action=torch.full_like(sigma, has_action),
            previous=previous[:, None] if uses_previous else None,
            text=self.model.context(len(latent)),
            past=state.past if state else None,
        )
        return prediction[:, 0].float(), own

    def _commit(
        self, state: RolloutState | None, latent: Tensor, previous: Tensor, chunk: Tensor, *, has_action: float
    ) -> RolloutState:
        clean = latent.new_zeros(len(latent), 1)
        _, own = self._forward(state, latent, clean, previous, chunk, has_action=has_action)
        if state is not None:
            kept = state.num_frames if self.window is None else self.window - 2  # beside the new one
            dropped = max(state.num_frames - max(kept, 0), 0)
            own = [
                KeyValue(
                    torch.cat([old.key[:, dropped:], new.key.to(old.key.dtype)], dim=1),
                    torch.cat([old.value[:, dropped:], new.value.to(old.value.dtype)], dim=1),
                )
                for old, new in zip(state.past, own, strict=True)
            ]
        return RolloutState(latent, tuple(own))


@dataclass(frozen=True)
class _RenoiseStep:
    """The numbers of one step of `renoise`: `noisy = cos clean + sin noise`, then TrigFlow's preconditioning."""

    cos: float
    sin: float
    skip: float
    out: float
    input: float
    noise: float


def _renoise_steps(schedule: Float[Tensor, " steps_1"], reference_compatible: bool) -> list[_RenoiseStep]:
    """Told by angles, because published weights saw angles and coefficients rounded to bfloat16
    (`reference_compatible`); unrounded, a step is at `(1 - sigma) clean + sigma noise` for each level.
    """
    t = angle_of_sigma(schedule[:-1])
    t = round_bfloat16(t) if reference_compatible else t
    cos, sin = t.cos(), t.sin()
    if reference_compatible:
        cos, sin = round_bfloat16(cos), round_bfloat16(sin)
    c = precondition(t, reference_compatible=reference_compatible)
    columns = (cos, sin, c.skip, c.out, c.input, c.noise)
    return [_RenoiseStep(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def roll_out(
    sampler: CausalSampler,
    context: Float[Tensor, "b tc c h w"],
    chunks: Float[Tensor, "b ta kl"],
    noise: Float[Tensor, "b tn c h w"],
) -> Float[Tensor, "b t c h w"]:
    """Context frames and `tn` predicted ones after them; `chunks[:, i]` leads to frame `i + 1`, `ta = tc - 1 + tn`.

    With the model's `reference_compatible`, predicted frame j reads `chunks[:, j]` whatever the context, as the
    published streaming scripts do: with three context frames, the actions of eight steps before (docs/faults.md, 4).
    """
    if chunks.shape[1] != context.shape[1] - 1 + noise.shape[1]:
        raise ConfigError(
            f"expected one action chunk per frame after the first, {context.shape[1] - 1 + noise.shape[1]}, "
            f"got {chunks.shape[1]}"
        )
    state = sampler.start(context[:, 0])
    frames = list(context.unbind(1))
    for index in range(1, context.shape[1]):
        state = sampler.append(state, context[:, index], chunks[:, index - 1])
    shift = 0 if sampler.model.config.reference_compatible else context.shape[1] - 1
    for index in range(noise.shape[1]):
        state = sampler.step(state, chunks[:, shift + index], noise[:, index])
        frames.append(state.last)
    return torch.stack(frames, dim=1)


class ChunkSampler:
    """Denoises the frames after some given ones all at once; for models that attend to the whole clip."""

    def __init__(self, model: WorldModel, sampler: SamplerConfig) -> None:
        """Hold a model and how it is sampled.

        Raises:
            ConfigError: if the model is one that predicts frame by frame, or takes the previous latent.
        """
        if model.config.dit.causal or model.config.dit.prediction != "velocity":
            raise ConfigError("whole clips are sampled from a model with causal=False and prediction='velocity'")
        if sampler.solver == "renoise":
            raise ConfigError("whole clips are sampled with the solvers unipc and euler, got 'renoise'")
        self.model, self.sampler = model, sampler

    @torch.no_grad()
    def predict(
        self,
        given: Float[Tensor, "b tg c h w"],
        chunks: Float[Tensor, "b ta kl"],
        noise: Float[Tensor, "b t c h w"],
        *,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Float[Tensor, "b t c h w"]:
        """All `t` frames: the given ones, and those that `chunks` (row i leads to frame i + 1) lead to.

        Every pass sees the given frames clean, though at the noise level of the others, as in training; their own
        velocity is known and drives them from their noise to what they are. `watch(i, noisy)` is called before step i.
        """
        count = given.shape[1]
        start = chunks.new_zeros(len(chunks), 1, chunks.shape[2])
        chunk = torch.cat([start, chunks], dim=1)
        is_given = torch.zeros(noise.shape[:2], device=noise.device)
        is_given[:, :count] = 1

        def velocity(noisy: Tensor, sigma: float) -> Tensor:
            if watch is not None:
                watch(len(seen), noisy)
            seen.append(sigma)
            shown = torch.cat([given, noisy[:, count:]], dim=1)
            level = noisy.new_full(noisy.shape[:2], sigma)
            guess = self._velocity(shown, level, chunk, is_given, dropped=False)
            if self.sampler.guidance:
                without = self._velocity(shown, level, chunk, is_given, dropped=True)
                guess = guess + self.sampler.guidance * (guess - without)
            return torch.cat([noise[:, :count] - given, guess[:, count:]], dim=1)

        seen: list[float] = []
        if self.sampler.solver == "euler":
            return euler(velocity, noise, sigma_schedule(self.sampler.steps, self.sampler.shift))
        schedule = unipc_schedule(self.sampler.steps, self.sampler.shift)
        sigmas: list[float] = schedule.sigma.tolist()
        times: list[float] = schedule.time.tolist()
        return unipc(lambda x, index: x - sigmas[index] * velocity(x, times[index]), noise, schedule)

    def _velocity(self, shown: Tensor, level: Tensor, chunk: Tensor, is_given: Tensor, *, dropped: bool) -> Tensor:
        batch = len(shown)
        everyone = torch.full((batch,), dropped, device=shown.device)
        prediction, _ = self.model.dit(
            shown,
            level,
            chunk,
            condition_mask=is_given if self.model.config.dit.mask_channels else None,
            text=self.model.context(batch, everyone),
        )
        return prediction.float()


def published_noise(seed: int, shape: tuple[int, int, int, int, int]) -> Float[Tensor, "b t c h w"]:
    """The noise that the published sampler draws for a seed: NumPy's legacy generator, channels before time."""
    b, t, c, h, w = shape
    drawn = np.random.RandomState(seed).standard_normal((b, c, t, h, w)).astype(np.float32)
    return torch.from_numpy(drawn).transpose(1, 2)
