"""Sampling from the world model: a whole clip at once, or frame by frame with a rolling cache of keys and values.

`ChunkSampler` is the published teacher: it attends to all frames at once, so a clip is denoised together.
`CausalSampler` predicts one latent frame at a time. A frame costs `steps` passes that denoise it (the cache is read)
and one that commits it (the cache is written), or no pass of its own where the last denoising pass writes the cache.
The cache holds keys before rotary positions, and positions are relative to the window, so a rollout has no greatest
length; attention sees differences of positions only, so this equals the published absolute positions. With a `sink` the
first frames of a rollout stay in the cache and stand directly before the newest ones (attention sinks, arXiv
2309.17453), so that no distance is longer than any that was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    commit: Literal["extra_pass", "last_step"] = "extra_pass"
    """Frame by frame, what writes a predicted frame into the cache: a pass over the clean frame, as published, or its
    last denoising step, so that a frame costs `steps` passes; a student must be trained with it. Given frames always
    take a pass."""
    window: int | None = None
    """Frame by frame, how many frames a frame attends to, itself included; None: as many as the model was trained with,
    which is also the most."""
    sink: int = 0
    """How many of these are the first frames of the rollout, kept for ever."""
    still: float = 0.0
    """Frame by frame, a latent pixel that changes by less than this, with no larger change beside it, stays as it was:
    small errors add up over a rollout, and what does not move would dissolve. Root mean square over channels, in
    standard deviations of the latents; for cameras that stand, since one that moves changes every pixel."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampling takes at least one step, got steps={self.steps}")
        if self.sink < 0 or (self.window is not None and self.window < 1):
            raise ConfigError(
                f"expected a window of at least 1 and a sink of at least 0, got {self.window}, {self.sink}"
            )
        if self.still < 0:
            raise ConfigError(f"still is a size of change, at least 0: got {self.still}")


Network = Callable[..., tuple[Tensor, list[KeyValue]]]
"""Called as `DiT.forward`."""


@dataclass(frozen=True)
class RolloutState:
    """Everything a rollout remembers. It is never changed in place, so a copy of the reference is a fork."""

    last: Float[Tensor, "b c h w"]
    """The newest latent frame."""
    reference: Float[Tensor, "b c h w"]
    """The newest real one."""
    past: tuple[KeyValue, ...]
    """Keys and values of the newest frames, one entry per block, oldest first; at most window - 1 frames."""

    @property
    def num_frames(self) -> int:
        """Frames in the cache."""
        return self.past[0].key.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is remembered."""
        return (self.last, self.reference, *(tensor for kv in self.past for tensor in (kv.key, kv.value)))

    def expand(self, n: int) -> RolloutState:
        """A state of batch 1 as one of batch `n`, in memory of its own."""
        return RolloutState(
            copies(self.last, n),
            copies(self.reference, n),
            tuple(KeyValue(copies(kv.key, n), copies(kv.value, n)) for kv in self.past),
        )


def copies(tensor: Float[Tensor, "b ..."], n: int) -> Float[Tensor, "nb ..."]:
    """`n` copies of a batch, one after another, that share no memory with the original or with each other."""
    return tensor.repeat(n, *[1] * (tensor.ndim - 1))


class CausalSampler:
    """Predicts latent frames one by one from a causal model."""

    def __init__(
        self, model: WorldModel, sampler: SamplerConfig, window: int | None, *, network: Network | None = None
    ) -> None:
        """Frames attend to at most `window - 1` frames before them, or to all; the sampler's own window wins.

        `network` is called in place of the model's DiT, with the same arguments.

        Raises:
            ConfigError: if the model attends to the future, the sampler is one for whole clips, or its window is wider
                than the model's or has no room for the sink.
        """
        trained = model.config.dit.window
        if not model.config.dit.causal:
            raise ConfigError("frame-by-frame rollout needs a model with causal=True; this one attends to the future")
        if sampler.solver == "unipc" or sampler.guidance:
            raise ConfigError(
                "frame-by-frame rollout takes the solvers euler and renoise without guidance: "
                f"got solver={sampler.solver!r}, guidance={sampler.guidance}"
            )
        window = sampler.window or window
        if sampler.window is not None and trained is not None and sampler.window > trained:
            raise ConfigError(f"the model was trained with a window of {trained} frames, got {sampler.window}")
        if sampler.sink and (window is None or sampler.sink > window - 2):
            raise ConfigError(
                "a sink leaves room in the window for the newest frame and the one before: expected "
                f"sink <= window - 2, got sink={sampler.sink}, window={window}"
            )
        self.model, self.sampler, self.window = model, sampler, window
        self._network = network or model.dit
        self.schedule = sigma_schedule(sampler.steps, sampler.shift)
        self._renoise_steps = _renoise_steps(self.schedule, model.config.reference_compatible)

    @torch.no_grad()
    def start(self, latent: Float[Tensor, "b c h w"]) -> RolloutState:
        """Begin with a first, given latent frame."""
        chunk = latent.new_zeros(len(latent), self.model.config.dit.chunk_dim)
        return self._pass_over(None, latent, latent, chunk, has_action=0.0)

    @torch.no_grad()
    def append(
        self, state: RolloutState, latent: Float[Tensor, "b c h w"], chunk: Float[Tensor, "b kl"]
    ) -> RolloutState:
        """Continue with a real latent frame that `chunk` led to; from here on it is the reference."""
        return replace(self._pass_over(state, latent, state.last, chunk, has_action=1.0), reference=latent)

    @torch.no_grad()
    def predict(
        self, state: RolloutState, chunk: Float[Tensor, "b kl"], noise: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """The latent frame that `chunk` leads to; the state is not changed."""
        return self.denoise(state, chunk, noise)[0]

    def denoise(
        self,
        state: RolloutState,
        chunk: Float[Tensor, "b kl"],
        noise: Float[Tensor, "b c h w"],
        *,
        steps: int | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], list[KeyValue]]:
        """The clean prediction of the last step taken, and that step's own keys and values.

        Gradients, where they are wanted, go through the last step alone. `steps` takes fewer than the sampler's, from
        the first on; `watch(i, noisy)` is called before step i.
        """
        steps, x = steps or self.sampler.steps, noise
        for index in range(steps - 1):
            if watch is not None:
                watch(index, x)
            with torch.no_grad():
                clean, _ = self._step(state, x, index, chunk)
            x = self._renoised(x, clean, noise, index)
        if watch is not None:
            watch(steps - 1, x)
        latent, own = self._step(state, x, steps - 1, chunk)
        return settled(state.last, latent, self.sampler.still), own

    def clean(
        self, state: RolloutState, noisy: Float[Tensor, "b c h w"], sigma: float, chunk: Float[Tensor, "b kl"]
    ) -> Float[Tensor, "b c h w"]:
        """The model's clean latent for a noisy one at `sigma`."""
        return self._clean(state, noisy, sigma, chunk)[0]

    def step(self, state: RolloutState, chunk: Float[Tensor, "b kl"], noise: Float[Tensor, "b c h w"]) -> RolloutState:
        """Predict the next frame and commit it; it is `last` of the new state."""
        with torch.no_grad():
            return self.commit(state, chunk, *self.denoise(state, chunk, noise))

    @torch.no_grad()
    def commit(
        self, state: RolloutState, chunk: Float[Tensor, "b kl"], latent: Float[Tensor, "b c h w"], own: list[KeyValue]
    ) -> RolloutState:
        """Continue with a predicted frame whose last step left the keys and values `own`; they carry no gradient."""
        latent = latent.detach()
        if self.sampler.commit == "extra_pass":
            return self._pass_over(state, latent, state.last, chunk, has_action=1.0)
        return self._roll(state, latent, [KeyValue(kv.key.detach(), kv.value.detach()) for kv in own])

    def _step(self, state: RolloutState, x: Tensor, index: int, chunk: Tensor) -> tuple[Tensor, list[KeyValue]]:
        """The clean prediction of step `index`."""
        if self.sampler.solver == "euler":
            return self._clean(state, x, float(self.schedule[index]), chunk)
        c = self._renoise_steps[index]
        level = x.new_full((len(x), 1), c.noise)
        output, own = self._forward(state, c.input * x, level, state.last, chunk, has_action=1.0)
        return (c.skip * x + c.out * output if self.model.config.dit.prediction == "velocity" else output), own

    def _renoised(self, x: Tensor, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Where step `index + 1` begins: on the path, or with this frame's noise added to the clean prediction anew."""
        if self.sampler.solver == "euler":
            sigma, following = self.schedule[index : index + 2].tolist()
            return x + (following - sigma) * (x - clean) / sigma
        c = self._renoise_steps[index + 1]
        return c.cos * clean + c.sin * noise

    def _clean(self, state: RolloutState, noisy: Tensor, sigma: float, chunk: Tensor) -> tuple[Tensor, list[KeyValue]]:
        level = noisy.new_full((len(noisy), 1), sigma)
        prediction, own = self._forward(state, noisy, level, state.last, chunk, has_action=1.0)
        return (noisy - sigma * prediction if self.model.config.dit.prediction == "velocity" else prediction), own

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
        config = self.model.config.dit
        prediction, own = self._network(
            latent[:, None],
            sigma,
            chunk[:, None],
            has_action=torch.full_like(sigma, has_action),
            previous=previous[:, None] if config.previous_latent else None,
            reference=(state.reference if state else latent) if config.reference_latent else None,
            text=self.model.context(len(latent)),
            past=state.past if state else None,
        )
        return prediction[:, 0].float(), own

    def _pass_over(
        self, state: RolloutState | None, latent: Tensor, previous: Tensor, chunk: Tensor, *, has_action: float
    ) -> RolloutState:
        clean = latent.new_zeros(len(latent), 1)
        _, own = self._forward(state, latent, clean, previous, chunk, has_action=has_action)
        return self._roll(state, latent, own)

    def _roll(self, state: RolloutState | None, latent: Tensor, own: list[KeyValue]) -> RolloutState:
        """The state after a frame with these keys and values: the oldest beyond the sink make room for it."""
        if state is None:
            return RolloutState(latent, latent, tuple(own))
        kept = state.num_frames if self.window is None else max(self.window - 2, 0)  # beside the new one
        sink = min(self.sampler.sink, state.num_frames)
        newest = max(state.num_frames - kept, 0) + sink  # the first that is kept for being new

        def rolled(old: Tensor, new: Tensor) -> Tensor:
            return torch.cat([old[:, :sink], old[:, newest:], new.to(old.dtype)], dim=1)

        pairs = zip(state.past, own, strict=True)
        past = tuple(KeyValue(rolled(o.key, n.key), rolled(o.value, n.value)) for o, n in pairs)
        return RolloutState(latent, state.reference, past)


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


def settled(last: Float[Tensor, "b c h w"], latent: Float[Tensor, "b c h w"], still: float) -> Float[Tensor, "b c h w"]:
    """`latent` where it or a neighbour differs from `last` by `still` or more, `last` elsewhere."""
    if still == 0:
        return latent
    change = (latent - last).square().mean(dim=1, keepdim=True).sqrt()
    moves = torch.nn.functional.max_pool2d((change >= still).to(latent.dtype), kernel_size=3, stride=1, padding=1)
    return torch.where(moves > 0, latent, last)


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
