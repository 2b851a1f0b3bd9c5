"""What a candidate is: a few numbers from -1 to 1 that become actions within the embodiment's bounds.

`Knots` suits every body: actions at a few moments, straight lines between them. A `Stroke` suits what takes long and
must be exact, such as picking up: where the hand goes, and the actions follow from the declared velocities alone, so it
needs no simulator and works for any body whose effector is driven by velocity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.planning.search import Belief
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError, DataError

ARRIVED = 0.006
"""Metres from a waypoint at which a stroke goes on to the next."""
TURNED = 0.05
"""Radians, likewise."""
OPEN, CLOSED = 1.0, 0.0


@runtime_checkable
class Space(Protocol):
    """What candidates are."""

    def actions(self, x: Float[Tensor, "n m d"], state: Float[Tensor, " s"] | None) -> Float[Tensor, "n t a"]:
        """What the candidates do from `state` on, in the embodiment's units."""
        ...

    def belief(self) -> Belief:
        """Where to look first."""
        ...

    def shift(self, belief: Belief, done: int) -> Belief | None:
        """The belief after `done` of its actions were executed; None where nothing of it is left to use."""
        ...


@dataclass(frozen=True, kw_only=True)
class Knots:
    """Actions at evenly spaced moments, and straight lines between them.

    Numbers are actions as the embodiment normalises them; velocities are scaled by `gain`, so that nothing faster is
    asked for than `gain` of the declared range.
    """

    embodiment: Embodiment
    """Whose actions."""
    horizon: int
    """Actions of a candidate."""
    knots: int = 5
    """Moments at which they are chosen."""
    gain: float = 0.6
    """Share of the declared range that fields which integrate something (velocities) may use."""
    spread: float = 0.5
    """Standard deviation at first."""

    def __post_init__(self) -> None:
        if not 1 <= self.knots <= self.horizon or not 0 < self.gain <= 1:
            raise ConfigError(f"expected 1 to {self.horizon} knots and a gain in (0, 1], got {self.knots}, {self.gain}")

    def actions(self, x: Float[Tensor, "n m d"], state: Float[Tensor, " s"] | None) -> Float[Tensor, "n t a"]:
        """Interpolated and within bounds."""
        del state
        values = self._between(x.clamp(-1, 1), torch.linspace(0, self.knots - 1, self.horizon)) * self._scale()
        return torch.from_numpy(self.embodiment.denormalize_action(values.numpy()))

    def belief(self) -> Belief:
        """Rest, and an even spread."""
        mean = torch.zeros(self.knots, self.embodiment.action_dim)
        return Belief(mean=mean, spread=torch.full_like(mean, self.spread))

    def shift(self, belief: Belief, done: int) -> Belief | None:
        """What was planned for later comes first now; the last action goes on."""
        if done >= self.horizon:
            return None
        step = (self.knots - 1) / max(self.horizon - 1, 1)
        when = torch.arange(self.knots) + done * step
        kept = None if belief.kept is None else self._between(belief.kept, when)
        return Belief(mean=self._between(belief.mean[None], when)[0], spread=belief.spread, kept=kept)

    def _between(self, x: Tensor, when: Tensor) -> Tensor:
        """The polygon through the knots `n m d` at times `when`, counted in knots."""
        when = when.clamp(0, self.knots - 1)
        left = when.floor().long().clamp(max=max(self.knots - 2, 0))
        right, share = (left + 1).clamp(max=self.knots - 1), (when - left)[:, None]
        return x[:, left] * (1 - share) + x[:, right] * share

    def _scale(self) -> Tensor:
        gains = [self.gain if field.integrates else 1.0 for field in self.embodiment.action for _ in field.axes]
        return torch.tensor(gains)


@dataclass(frozen=True, kw_only=True)
class Waypoints:
    """Places that the hand goes through, `w` for each of `n` candidates."""

    position: Float[np.ndarray, "n w 3"]
    """Metres."""
    yaw: Float[np.ndarray, "n w"]
    """Radians."""
    opening: Float[np.ndarray, "n w"]
    """Of the hand on the way there."""
    wait: Sequence[int]
    """Actions to stay at each after arriving, e.g. for fingers to close."""


@dataclass(frozen=True, kw_only=True)
class Stroke(ABC):
    """What both strokes need: a body whose effector is driven by velocity, and where to look first.

    Numbers from -1 to 1 run over `low` to `high`; `centre` and `spread` (metres and radians) say where to look.
    """

    embodiment: Embodiment
    """Must declare effector_velocity, effector_yaw_rate and gripper_opening, and their integrals in its state."""
    centre: tuple[float, ...]
    """Of the search."""
    spread: tuple[float, ...]
    """Standard deviation of the search at first."""
    fps: float
    """Actions per second."""
    horizon: int = 70
    """Most actions; slower candidates are cut off."""
    speed: float = 0.2
    """Of the effector, m/s."""
    turn_rate: float = 0.8
    """Of the effector about the vertical, rad/s."""
    clear: float = 0.14
    """Height at which the hand crosses the table, metres."""

    def actions(self, x: Float[Tensor, "n m d"], state: Float[Tensor, " s"] | None) -> Float[Tensor, "n t a"]:
        """The velocities that lead from `state` through the candidate's waypoints, then rest.

        Raises:
            DataError: if there is no state to start from.
        """
        if state is None:
            raise DataError("a stroke starts from the body's state, and the observation has none. Plan with Knots.")
        low, high = self._bounds()
        values = low + (x[:, 0].double().numpy().clip(-1, 1) + 1) / 2 * (high - low)
        return torch.from_numpy(self.follow(self._waypoints(values), state.double().numpy()))

    def belief(self) -> Belief:
        """Around `centre`."""
        low, high = self._bounds()
        mean = 2 * (np.clip(self.centre, low, high) - low) / (high - low) - 1
        spread = 2 * np.array(self.spread) / (high - low)
        return Belief(mean=torch.tensor(mean).float()[None], spread=torch.tensor(spread).float()[None])

    def shift(self, belief: Belief, done: int) -> Belief | None:
        """A stroke is executed to its end; the next one begins anew."""
        del belief, done
        return None

    def _region(self, axes: str) -> tuple[list[float], list[float]]:
        """Declared range of the effector's place along `axes`."""
        place = {field.name: field for field in self.embodiment.state}["effector_position"]
        rows = [place.axes.index(axis) for axis in axes]
        return [place.low[row] for row in rows], [place.high[row] for row in rows]

    @abstractmethod
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`low` and `high`, `d` metres and radians."""

    @abstractmethod
    def _waypoints(self, values: np.ndarray) -> Waypoints:
        """Where candidates `n d`, in metres and radians, go."""

    def follow(self, way: Waypoints, state: np.ndarray) -> np.ndarray:
        """Actions `n t a` float32 from the state `(s,)` on, as long as the slowest candidate takes."""
        body, dt = self.embodiment, 1 / self.fps
        velocity, turn, opening = (
            body.columns(name, of="action") for name in ("effector_velocity", "effector_yaw_rate", "gripper_opening")
        )
        rows, last = np.arange(len(way.position)), way.position.shape[1] - 1
        position = np.repeat(state[None, body.columns("effector_position", of="state")], len(rows), axis=0)
        yaw = np.repeat(state[body.columns("effector_yaw", of="state")], len(rows))
        now, waited, wait = np.zeros(len(rows), int), np.zeros(len(rows), int), np.array(way.wait)
        done, actions = np.zeros(len(rows), bool), []
        while len(actions) < self.horizon and not done.all():
            away = way.position[rows, now] - position
            speed = np.linalg.norm(away, axis=1) / dt
            step = away / dt * np.minimum(1, self.speed / np.maximum(speed, 1e-9))[:, None]
            rate = np.clip((way.yaw[rows, now] - yaw) / dt, -self.turn_rate, self.turn_rate)
            action = np.zeros((len(rows), body.action_dim), np.float32)
            action[:, velocity], action[:, turn.start] = step, rate
            action[:, opening.start] = way.opening[rows, now]
            actions.append(action)
            position, yaw = position + step * dt, yaw + rate * dt
            arrived = np.linalg.norm(way.position[rows, now] - position, axis=1) < ARRIVED
            arrived &= np.abs(way.yaw[rows, now] - yaw) < TURNED
            waited += arrived
            through = waited > wait[now]
            done |= through & (now == last)
            now, waited = np.where(through, np.minimum(now + 1, last), now), np.where(through, 0, waited)
        return np.stack(actions, axis=1)


@dataclass(frozen=True, kw_only=True)
class PickPlace(Stroke):
    """Take at (x, y, z) with the hand turned by yaw, put down at (x, y): six numbers."""

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        take, put = self._region("xyz"), self._region("xy")
        turn = {field.name: field for field in self.embodiment.state}["effector_yaw"]
        low, high = ([*take[i], (turn.low, turn.high)[i][0], *put[i]] for i in (0, 1))
        high[2] = min(high[2], 0.10)  # nothing is taken higher up
        return np.array(low), np.array(high)

    def _waypoints(self, values: np.ndarray) -> Waypoints:
        x, y, z, yaw, to_x, to_y = values.T
        over = np.full_like(z, self.clear)
        high, down = z + 0.08, z + 0.004  # let it fall rather than press it
        position = [(x, y, over), (x, y, z), (x, y, z), (x, y, high), (to_x, to_y, high), (to_x, to_y, down)]
        position += [(to_x, to_y, down), (to_x, to_y, over)]
        opening = [OPEN, OPEN, CLOSED, CLOSED, CLOSED, CLOSED, OPEN, OPEN]
        return Waypoints(
            position=np.stack([np.stack(place, axis=1) for place in position], axis=1),
            yaw=np.repeat(yaw[:, None], len(position), axis=1),
            opening=np.tile(opening, (len(values), 1)),
            wait=(0, 0, 4, 0, 0, 1, 3, 0),
        )


@dataclass(frozen=True, kw_only=True)
class Push(Stroke):
    """Go down at (x, y) with the hand closed, and move along the table to (x, y): four numbers."""

    level: float = 0.02
    """Height of the hand that pushes, metres."""

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._region("xy")
        return np.array([*low, *low]), np.array([*high, *high])

    def _waypoints(self, values: np.ndarray) -> Waypoints:
        x, y, to_x, to_y = values.T
        over, level = np.full_like(x, self.clear), np.full_like(x, self.level)
        position = [(x, y, over), (x, y, level), (to_x, to_y, level), (to_x, to_y, over)]
        return Waypoints(
            position=np.stack([np.stack(place, axis=1) for place in position], axis=1),
            yaw=np.zeros((len(values), len(position))),
            opening=np.zeros((len(values), len(position))),
            wait=(0, 0, 0, 0),
        )
