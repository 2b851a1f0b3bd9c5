"""Roll a causal world model out, one latent frame at a time, with a rolling cache of keys and values.

A frame costs `steps` passes that denoise it (the cache is read) and one that commits it (the cache is written). The
cache holds keys before rotary positions, and positions are relative to the window, so a rollout has no greatest length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.flow.rectified import sigma_schedule
from dreamdojo.world_model.dit import KeyValue
from dreamdojo.world_model.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a latent frame is denoised."""

    steps: int
    """Euler steps from noise to a clean latent."""
    shift: float = 5.0
    """Shift of the noise levels towards noise."""


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

    def __init__(self, model: WorldModel, sampler: SamplerConfig, window: int) -> None:
        """Frames attend to at most `window - 1` frames before them."""
        if not model.config.dit.causal:
            raise ConfigError("frame-by-frame rollout needs a model with causal=True; this one attends to the future")
        self.model, self.sampler, self.window = model, sampler, window
        self.schedule = sigma_schedule(sampler.steps, sampler.shift)

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
            past=state.past if state else None,
        )
        return prediction[:, 0].float(), own

    def _commit(
        self, state: RolloutState | None, latent: Tensor, previous: Tensor, chunk: Tensor, *, has_action: float
    ) -> RolloutState:
        clean = latent.new_zeros(len(latent), 1)
        _, own = self._forward(state, latent, clean, previous, chunk, has_action=has_action)
        if state is not None:
            own = [
                KeyValue(
                    torch.cat([old.key, new.key.to(old.key.dtype)], dim=1)[:, -(self.window - 1) :],
                    torch.cat([old.value, new.value.to(old.value.dtype)], dim=1)[:, -(self.window - 1) :],
                )
                for old, new in zip(state.past, own, strict=True)
            ]
        return RolloutState(latent, tuple(own))
