"""Policies without a network: a function of someone else's, actions at random, a policy with a shaking hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import DataError
from dreamdojo.world import Observation, Policy


class FunctionPolicy:
    """A function `observation -> actions b n a` in the embodiment's units, as a tensor or an array."""

    def __init__(self, function: Callable[[Observation], Any]) -> None:
        self._function = function

    def reset(self, *, seed: int = 0) -> None:
        """Nothing to forget."""
        del seed

    def act(self, observation: Observation) -> Tensor:
        """What the function answers.

        Raises:
            DataError: if it is no array `b n a`.
        """
        actions = torch.as_tensor(self._function(observation), dtype=torch.float32)
        if actions.ndim != 3:
            raise DataError(f"expected the policy's function to return actions b n a, got {tuple(actions.shape)}")
        return actions


class RandomPolicy:
    """Actions drawn over the declared ranges that wander: a share `memory` of each is that of the one before."""

    def __init__(self, embodiment: Embodiment, *, memory: float = 0.8, strength: float = 0.5, chunk: int = 1) -> None:
        self._embodiment, self._memory, self._strength, self._chunk = embodiment, memory, strength, chunk
        self.reset()

    def reset(self, *, seed: int = 0) -> None:
        """Start anew from the seed."""
        self._random = np.random.default_rng(seed)
        self._last: np.ndarray | None = None

    def act(self, observation: Observation) -> Tensor:
        """`chunk` actions for each world."""
        batch = len(next(iter(observation.frames.values())))
        draws = np.stack([self._draw(batch) for _ in range(self._chunk)], axis=1)
        return torch.from_numpy(self._embodiment.denormalize_action(draws.clip(-1, 1)))

    def _draw(self, batch: int) -> np.ndarray:
        draw = self._strength * self._random.normal(size=(batch, self._embodiment.action_dim))
        if self._last is not None:
            draw = self._memory * self._last + (1 - self._memory**2) ** 0.5 * draw
        self._last = draw
        return draw


class ShakyPolicy:
    """Another policy whose actions are off by Gaussian noise, a share `noise` of half of each declared range."""

    def __init__(self, policy: Policy, embodiment: Embodiment, *, noise: float) -> None:
        self._policy, self._embodiment, self._noise = policy, embodiment, noise
        self.reset()

    def reset(self, *, seed: int = 0) -> None:
        """Start anew from the seed."""
        self._random = np.random.default_rng([seed, 1])
        self._policy.reset(seed=seed)

    def act(self, observation: Observation) -> Tensor:
        """The other policy's actions, shaken and kept within the declared ranges."""
        actions = self._embodiment.normalize_action(self._policy.act(observation).numpy())
        shaken = actions + self._noise * self._random.normal(size=actions.shape)
        return torch.from_numpy(self._embodiment.denormalize_action(shaken.clip(-1, 1)))


class RecordedPolicy:
    """Does what was recorded, whatever it sees: `actions` `b n a` in the embodiment's units, all of them at once."""

    def __init__(self, actions: Tensor) -> None:
        self._actions = actions

    def reset(self, *, seed: int = 0) -> None:
        """Nothing to forget."""
        del seed

    def act(self, observation: Observation) -> Tensor:
        """The recording, from its start."""
        del observation
        return self._actions
