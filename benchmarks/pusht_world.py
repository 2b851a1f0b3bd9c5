"""gym-pusht as a `World`: the real one that a plan is executed in, and rehearsals of it that know the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.pusht_play import BODY, FPS, NEAR, PIXEL, TURNED, Errand, Moment, Table, apart, errand_of
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dojo.errands import Outcome
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.world import Observation, Prediction

STEM = 0.1
"""Metres along the T's stem at which its second marker is: where both markers are, the T is."""
BLOCK = 5
"""Actions of a step in a rehearsal with pictures, which draws the last moment of each."""


@dataclass(frozen=True, kw_only=True)
class PushOutcome(Outcome):
    """How an errand stands; `distance` is that of pusher and block together, as success is judged."""

    turn: float
    """Radians that the block is turned off the goal."""


@dataclass(frozen=True, kw_only=True)
class Markers:
    """Where things are, as `Truthful` worlds say: the pusher, and two markers on the block."""

    effector_position: np.ndarray
    object_poses: np.ndarray
    touched: np.ndarray
    effector_pixel: np.ndarray
    object_pixels: np.ndarray


def markers(moment: Moment) -> Markers:
    """Of a moment, in metres, and in the picture from 0 to 1."""
    pusher, block, angle = moment.pusher[:2] * PIXEL, moment.block[:2] * PIXEL, moment.block[2]
    stem = block + STEM * np.array([-np.sin(angle), np.cos(angle)])
    places = np.stack([pusher, block, stem])
    solid = np.pad(places, ((0, 0), (0, 1)))
    seen = places / (512 * PIXEL)
    return Markers(
        effector_position=solid[0],
        object_poses=np.pad(solid[1:], ((0, 0), (0, 4))),
        touched=np.zeros(2, bool),
        effector_pixel=seen[0],
        object_pixels=seen[1:],
    )


class PushTWorld:
    """Tables on which an errand is to be done, one per row of the batch; satisfies `RealWorld`."""

    def __init__(self) -> None:
        self._tables: list[Table] = []
        self._errand: Errand | None = None
        self._seed, self._k, self._drawn = 0, 1, True

    @property
    def embodiment(self) -> Embodiment:
        """The pusher."""
        return BODY

    @property
    def fps(self) -> float:
        """Actions per second."""
        return FPS

    @property
    def actions_per_step(self) -> int:
        """One; five in a rehearsal with pictures."""
        return self._k

    @property
    def cameras(self) -> tuple[str, ...]:
        """The view from above; none in a rehearsal without pictures."""
        return (CAMERA,) if self._drawn else ()

    @property
    def seed(self) -> int:
        """Number of the errand."""
        return self._seed

    @property
    def errand(self) -> Errand:
        """What is to be done.

        Raises:
            ConfigError: if the world has not been reset.
        """
        if self._errand is None:
            raise ConfigError("there is no errand yet: call reset(seed=...) first")
        return self._errand

    @property
    def moments(self) -> list[Markers]:
        """The truth now, one per row."""
        return [markers(table.moment) for table in self._tables]

    @property
    def outcomes(self) -> list[PushOutcome]:
        """How the errand of each row stands."""
        parts = [apart(table.moment.pose, self.errand.goal.pose) for table in self._tables]
        return [
            PushOutcome(
                success=distance < NEAR and turn < TURNED,
                distance=distance * PIXEL,
                lifted=False,
                lost=False,
                turn=turn,
            )
            for distance, turn in parts
        ]

    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """The start of errand number `seed`.

        Raises:
            ConfigError: if an observation is given.
        """
        if observation is not None:
            raise ConfigError("a simulator starts from a seed; call reset(seed=...) without an observation")
        self._seed, self._errand, table = seed, errand_of(seed), Table()
        table.put(self._errand.start)
        self._tables = [table]
        return Observation(frames={CAMERA: _stacked([[table.picture()]])}, state=_stacked([[_place(table)]]))

    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Nothing: this is the truth."""

    def step(self, actions: Tensor) -> Prediction:
        """Advance by `b k a` metres; the picture of a rehearsal's step is that of its end.

        Raises:
            DataError: if the shape does not fit or an action is not finite.
        """
        expected = (len(self._tables), self._k, BODY.action_dim)
        if tuple(actions.shape) != expected or not torch.isfinite(actions).all():
            raise DataError(f"expected finite actions of shape b k a = {expected}, got {tuple(actions.shape)}")
        states = []
        for table, chunk in zip(self._tables, actions.double().numpy(), strict=True):
            states.append([])
            for offset in chunk:
                table.act(offset / PIXEL)
                states[-1].append(_place(table))
        frames = {CAMERA: _stacked([[t.picture()] * self._k for t in self._tables])} if self._drawn else {}
        return Prediction(frames=frames, state=_stacked(states), state_source="simulator")

    def fork(self, n: int) -> PushTWorld:
        """`n` copies of a world of batch 1, as one world of batch `n`; one copy of any batch.

        Raises:
            ConfigError: if several copies of a larger batch are asked for.
        """
        if n < 1 or 1 not in (n, len(self._tables)):
            raise ConfigError(f"expected a world of batch 1 and n of 1 or more, got {len(self._tables)} and n={n}")
        other = object.__new__(PushTWorld)
        other.__dict__.update(self.__dict__)
        other._tables = []
        for moment in [table.moment for table in self._tables] * n:
            other._tables.append(Table())
            other._tables[-1].put(moment)
        return other

    def rehearsal(self, *, pictures: bool = False) -> PushTWorld:
        """This very moment for trying things out."""
        other = self.fork(1)
        other._drawn, other._k = pictures, BLOCK if pictures else 1
        return other

    def close(self) -> None:
        """Drop the tables."""
        self._tables = []


def _place(table: Table) -> np.ndarray:
    return (table.pusher * PIXEL).astype(np.float32)


def _stacked(rows: list[list[np.ndarray]]) -> Tensor:
    """`b t ...`; pictures with their channels first."""
    values = torch.from_numpy(np.array(rows))
    return values.permute(0, 1, 4, 2, 3).contiguous() if values.ndim == 5 else values
