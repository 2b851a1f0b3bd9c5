"""The robot's end of the link: it obeys orders only while it is sure that somebody means them.

    fresh order ── deadman held? ── no emergency stop? ── limits ── robot
                       │ no               │ no
                       └───── stand still ┘

All of this happens beside the robot, because what it guards against is the loss of everything else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.teleop.robot import Robot
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.world import Observation

Status = Literal["driving", "waiting", "released", "link lost", "stopped"]

REMEMBERED = 64
"""Actions that every report repeats, so that lost ones leave no gap."""


@dataclass(frozen=True, kw_only=True)
class Safeguards:
    """What the robot's end insists on."""

    watchdog: float = 0.5
    """Seconds after the last order that arrived when the robot stands still."""
    deadman: bool = False
    """Whether the robot moves only while the operator holds the deadman switch."""
    speed: float = 1.0
    """Share of each velocity's declared range that is allowed; targets may move by this share of their range in a
    second."""
    workspace: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    """State field -> lowest and highest values that motion may lead to; its declared range where it is not named."""

    def __post_init__(self) -> None:
        if not (0 < self.watchdog <= 10 and 0 < self.speed <= 1):
            raise ConfigError(
                f"expected a watchdog of up to 10 s and a speed above 0 and up to 1, got {self.watchdog} and "
                f"{self.speed}"
            )


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the operator wants done for one period."""

    number: int
    """Counts up."""
    action: np.ndarray
    """`(a,)` in the embodiment's units."""
    held: bool
    """Whether the deadman switch is held."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What the robot did for one period."""

    tick: int
    """Which period, from 1."""
    order: int
    """The newest order that had arrived; 0 before the first."""
    action: np.ndarray
    """`(a,)` what was really done."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the robot says after each period."""

    tick: int
    """Periods since the reset."""
    seen: Observation
    """What it sees now."""
    done: tuple[Done, ...]
    """The last periods, oldest first."""
    status: Status
    """What it is doing."""


class Onboard:
    """A robot behind its safeguards."""

    def __init__(self, robot: Robot, safeguards: Safeguards, controls: Controls) -> None:
        self.robot = robot
        self.safeguards = safeguards
        self._controls = controls
        self._stopped = threading.Event()
        self._refuse_before = 0
        self._clear()

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop is in force."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Emergency stop: at once, from any thread, and until it is released."""
        self._stopped.set()
        self.robot.halt()

    def release(self, *, since: int) -> None:
        """End the emergency stop. Orders with a number below `since`, those still on their way too, do not count."""
        self._refuse_before = since
        self._stopped.clear()

    def reset(self, *, seed: int) -> Report:
        """Put the robot at its start. An emergency stop stays in force."""
        self._clear()
        return self.begin(self.robot.reset(seed=seed))

    def begin(self, seen: Observation) -> Report:
        """Begin with a robot that is at its start already."""
        self._clear()
        self._state = _state(seen)
        self._action = self._controls.embodiment.denormalize_action(self._controls.rest(self._state))
        return Report(tick=0, seen=seen, done=(), status="waiting")

    def hear(self, orders: Sequence[Order], now: float) -> None:
        """Orders that arrived; an older one than was heard before is nothing new."""
        for order in orders:
            self._heard_at = now
            if self._newest is None or order.number > self._newest.number:
                self._newest = order

    def period(self, now: float) -> Report:
        """Act for one period, or stand still, and look.

        Raises:
            DataError: if what would be done is not finite; the robot is not told.
        """
        status = self._status(now)
        if status == "driving":
            assert self._newest is not None
            action = limited(
                self._newest.action,
                self._action,
                self._state,
                self.robot.embodiment,
                self.safeguards,
                dt=1 / self.robot.fps,
            )
        else:
            action = self._controls.still(self._action, self._state)
        if not np.isfinite(action).all():
            raise DataError(
                f"expected finite actions ({', '.join(self.robot.embodiment.action_names())}), got {action.tolist()}. "
                f"Look at who commands, and at the measured state: {self._state}"
            )
        seen = self.robot.act(action)
        self._tick += 1
        self._action, self._state = action, _state(seen)
        number = self._newest.number if self._newest else 0
        self._done.append(Done(tick=self._tick, order=number, action=action))
        return Report(tick=self._tick, seen=seen, done=tuple(self._done), status=status)

    def halt(self) -> None:
        """Stand still while nobody drives."""
        self.robot.halt()

    def _status(self, now: float) -> Status:
        if self._stopped.is_set():
            return "stopped"
        if self._newest is None or self._newest.number < self._refuse_before:
            return "waiting"
        if now - self._heard_at > self.safeguards.watchdog + 1e-9:
            return "link lost"
        if self.safeguards.deadman and not self._newest.held:
            return "released"
        return "driving"

    def _clear(self) -> None:
        self._newest: Order | None = None
        self._heard_at = 0.0
        self._refuse_before = 0
        self._tick = 0
        self._done: deque[Done] = deque(maxlen=REMEMBERED)
        self._state: np.ndarray | None = None
        self._action = np.zeros(self.robot.embodiment.action_dim, np.float32)


def limited(
    action: np.ndarray,
    before: np.ndarray,
    state: np.ndarray | None,
    body: Embodiment,
    safeguards: Safeguards,
    *,
    dt: float,
) -> np.ndarray:
    """An action `(a,)` cut to the declared ranges, the speed and the workspace that are allowed.

    A velocity that would lead out of the workspace is cut to what ends at its edge; one that leads back in is let
    through. A target moves from where it is measured, or else from where it was put (`before`).
    """
    allowed = np.array(action, np.float64)
    state_fields = {each.name: each for each in body.state}
    for each in body.action:
        columns = body.columns(each.name, of="action")
        low, high = np.array(each.low), np.array(each.high)
        if each.integrates is not None or each.resampling == "mean":
            rest = np.clip(0.0, low, high)
            wanted = np.clip(
                allowed[columns], rest + safeguards.speed * (low - rest), rest + safeguards.speed * (high - rest)
            )
            if each.integrates is not None and state is not None:
                place = state[body.columns(each.integrates, of="state")]
                measured = state_fields[each.integrates]
                lowest, highest = safeguards.workspace.get(each.integrates, (measured.low, measured.high))
                wanted = np.clip(
                    wanted,
                    np.minimum((np.array(lowest) - place) / dt, 0.0),
                    np.maximum((np.array(highest) - place) / dt, 0.0),
                )
            allowed[columns] = wanted
        else:
            lowest, highest = safeguards.workspace.get(each.name, (each.low, each.high))
            reach = safeguards.speed * (high - low) * dt
            origin = before[columns]
            if state is not None and each.name in state_fields and state_fields[each.name].size == each.size:
                origin = state[body.columns(each.name, of="state")]
            target = np.clip(allowed[columns], np.maximum(low, lowest), np.minimum(high, highest))
            # a gripper is not slowed down: closing late drops things
            quick = np.array(["gripper" in f"{each.name}.{axis}" for axis in each.axes])
            allowed[columns] = np.where(quick, target, np.clip(target, origin - reach, origin + reach))
    return allowed.astype(np.float32)


def _state(seen: Observation) -> np.ndarray | None:
    return None if seen.state is None else seen.state[0, -1].cpu().numpy()
