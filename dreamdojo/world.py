"""The protocol that a rollout session and the dojo both satisfy.

Whoever drives, evaluates or plans holds a `World` and cannot tell a dream from the simulator. Video is `b t c h w`
uint8, keyed by camera; actions are `b k a` in the embodiment's own units, `k` actions per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment

StateSource = Literal["simulator", "integrator", "head"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a robot's sensors report: `t` frames per camera and the proprioception at each."""

    frames: Mapping[str, Tensor]
    """Camera name -> `b t c h w` uint8."""
    state: Tensor | None = None
    """`b t s` float32 in the embodiment's units, or None where the recording has none."""
    depth: Mapping[str, Tensor] | None = None
    """Camera name -> `b t 1 h w` float32 metres, or None."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a world says happens under one action chunk: one frame after each of its `k` actions."""

    frames: Mapping[str, Tensor]
    """Camera name -> `b k c h w` uint8."""
    state: Tensor | None = None
    """`b k s` float32 in the embodiment's units, or None where nothing predicts it."""
    state_source: StateSource | None = None
    """Where `state` comes from; None exactly when `state` is."""
    depth: Mapping[str, Tensor] | None = None
    """Camera name -> `b k 1 h w` float32 metres, or None."""
    uncertainty: Tensor | None = None
    """`b k` spread of the predicted pixels (standard deviation over samples, 0 to 1), or None where not asked for."""


@runtime_checkable
class World(Protocol):
    """Something that can be reset, stepped with action chunks, re-anchored and branched."""

    @property
    def embodiment(self) -> Embodiment:
        """The body whose actions the world takes."""
        ...

    @property
    def fps(self) -> float:
        """Frames (and actions) per second."""
        ...

    @property
    def actions_per_step(self) -> int:
        """`k`, the actions that one `step` takes."""
        ...

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras in every observation and prediction."""
        ...

    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Start anew and return the first observation.

        A session starts from `observation` and draws its noise from `seed`; the dojo builds the scene of `seed` and
        takes no observation.

        Raises:
            ConfigError: if the observation is missing where one is needed, or given where none can be used.
        """
        ...

    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Re-anchor on real frames (`t` a multiple of `k`) that `actions` (`b t a`) led to, without a reset."""
        ...

    def step(self, actions: Tensor) -> Prediction:
        """Advance by one action chunk `b k a`.

        Raises:
            DataError: if the shape does not fit or an action is not finite.
        """
        ...

    def fork(self, n: int) -> World:
        """`n` independent copies of a world of batch 1, as one world of batch `n`."""
        ...

    def close(self) -> None:
        """Free renderers, caches and memory."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Something that acts: it is shown what a world shows, and answers with an action chunk."""

    def reset(self, *, seed: int = 0) -> None:
        """Forget the last episode; whatever is random about the policy is drawn from `seed`."""
        ...

    def act(self, observation: Observation) -> Tensor:
        """The next actions `b k a` in the embodiment's own units, from the latest frames (and state) of each world."""
        ...
