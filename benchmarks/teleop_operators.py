"""Simulated operators: they see what is shown, a reaction time ago and with noise, and servo on it.

An operator reads the gripper and the object off the shown picture with the probes, and height, opening and turn off the
shown readout (the late state, or the predicted one). It knows the camera, the size of the things, and where the goal
is: that was in the first picture. What it does is decided from these alone.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

HIGH, LOW, CARRY = 0.13, 0.03, 0.13  # metres: over things, beside them, while carrying


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A person at the page. Frozen on runs without an overlay; see `OPERATORS`."""

    reaction: int
    """Periods between what is shown and what is done about it."""
    noise: float
    """Standard deviation of where things are seen, metres on the table."""
    tremor: float
    """Standard deviation of the commanded velocity, m/s."""
    speed: float
    """Fastest velocity asked for, m/s."""
    gain: float
    """Velocity per distance while driving continuously, 1/s."""
    burst: int
    """Longest single move of move-and-wait, periods."""


OPERATORS = {
    "quick": Operator(reaction=2, noise=0.003, tremor=0.010, speed=0.25, gain=2.5, burst=8),
    "steady": Operator(reaction=3, noise=0.002, tremor=0.005, speed=0.18, gain=1.8, burst=8),
    "careful": Operator(reaction=3, noise=0.004, tremor=0.008, speed=0.12, gain=1.2, burst=10),
}
"""`benchmarks/teleop.py --tune` settles them, without any overlay and on scenes of the train split, before anything is
scored; these are set by hand and not yet settled."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an operator makes of a shown picture. Positions on the table, metres; None where a thing is not found."""

    gripper: np.ndarray | None
    """`(2,)`."""
    thing: np.ndarray | None
    """`(2,)` the object, or the obstacle."""
    height: float
    """Of the gripper, off the readout."""
    yaw: float
    """Of the gripper, off the readout."""
    opening: float
    """Of the gripper, off the readout."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What is to be done, as an operator knows it from the first picture."""

    task: str
    """push, pick_place or obstacle."""
    goal: np.ndarray
    """`(2,)` metres."""
    radius: float
    """Of the thing, metres."""
    grasp: np.ndarray
    """`(3,)` where to take it, from its middle on the table, metres."""
    yaw: float | None
    """How to turn the hand for that; None as it is."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Where to go now."""

    offset: np.ndarray
    """`(3,)` from the gripper, metres."""
    opening: float
    yaw: float | None
    limit: float = 1.0
    """Share of the operator's speed."""


class Mind:
    """One operator doing one thing."""

    def __init__(self, operator: Operator, brief: Brief, *, waits: int | None, seed: int) -> None:
        """`waits` periods pass in move-and-wait until a move can be seen; None drives continuously."""
        self._operator, self._brief, self._waits = operator, brief, waits
        self._rng = np.random.default_rng(seed)
        self._seen: deque[Seen] = deque(maxlen=operator.reaction + 1)
        self._stage, self._stayed = "over", 0
        self._move, self._left, self._resting = np.zeros(3), 0, 0
        self._last = Aim(offset=np.zeros(3), opening=1.0, yaw=None)

    @property
    def carries(self) -> bool:
        """Whether it believes that it has the thing in the gripper."""
        return self._stage in ("lift", "carry", "lower")

    @property
    def grasp_height(self) -> float:
        """Height of the gripper when it takes the thing, metres."""
        return float(self._brief.grasp[2])

    def act(self, seen: Seen, dt: float) -> np.ndarray:
        """The action of this period: velocity x y z, yaw rate, opening."""
        self._seen.append(self._blurred(seen))
        self._stayed += 1
        known = self._seen[0]
        if self._waits is None:
            aim = self._last = self._aim(known)
            velocity = self._operator.gain * aim.offset
        else:
            aim, velocity = self._in_bursts(known, dt)
        speed = float(np.linalg.norm(velocity))
        most = self._operator.speed * aim.limit
        velocity = velocity * min(1.0, most / max(speed, 1e-9))
        if speed > 1e-3:
            velocity = velocity + self._rng.normal(0, self._operator.tremor, 3)
        turn = 0.0 if aim.yaw is None else float(np.clip(1.5 * _wrap(aim.yaw - known.yaw), -0.9, 0.9))
        if self._waits is not None and self._resting:
            turn = 0.0
        return np.array([*velocity, turn, aim.opening], np.float32)

    def _in_bursts(self, known: Seen, dt: float) -> tuple[Aim, np.ndarray]:
        """Move as far as it is, but not for longer than a burst, then wait until the picture shows it."""
        if not self._left and not self._resting:
            self._last = self._aim(known)
            distance = float(np.linalg.norm(self._last.offset))
            needed = distance / (self._operator.speed * self._last.limit * dt)
            self._left = int(np.clip(math.ceil(needed), 1, self._operator.burst))
            self._move = self._last.offset / max(needed, self._left) / dt if needed > 0 else np.zeros(3)
            self._move = self._move * min(1.0, needed / max(1, math.ceil(needed)))
        if self._left:
            self._left -= 1
            self._resting = 0 if self._left else (self._waits or 0) + self._operator.reaction
            return self._last, self._move
        self._resting -= 1
        return self._last, np.zeros(3)

    def _blurred(self, seen: Seen) -> Seen:
        def blurred(place: np.ndarray | None) -> np.ndarray | None:
            return None if place is None else place + self._rng.normal(0, self._operator.noise, 2)

        return Seen(
            gripper=blurred(seen.gripper),
            thing=blurred(seen.thing),
            height=seen.height,
            yaw=seen.yaw,
            opening=seen.opening,
        )

    def _aim(self, seen: Seen) -> Aim:
        if seen.gripper is None or seen.thing is None:  # nothing to go by: stand still
            return Aim(offset=np.zeros(3), opening=self._last.opening, yaw=None)
        return {"push": self._push, "pick_place": self._pick_place, "obstacle": self._around}[self._brief.task](
            seen.gripper, seen.thing, seen
        )

    def _push(self, gripper: np.ndarray, thing: np.ndarray, seen: Seen) -> Aim:
        brief = self._brief
        away = brief.goal - thing
        distance = float(np.linalg.norm(away))
        along = away / max(distance, 1e-6)
        behind = thing - along * (brief.radius + 0.05)
        beside = gripper - thing
        ahead = float(beside @ along)
        aside = beside - ahead * along
        if seen.height > LOW + 0.02:
            level = behind - gripper
            if np.linalg.norm(level) > 0.02:
                return Aim(offset=np.array([*level, HIGH - seen.height]), opening=0.0, yaw=None)
            return Aim(offset=np.array([*level, LOW - 0.01 - seen.height]), opening=0.0, yaw=None)
        if ahead > 0.3 * brief.radius or np.linalg.norm(aside) > 0.03:
            return Aim(offset=np.array([0.0, 0.0, HIGH - seen.height]), opening=0.0, yaw=None)
        reach = min(0.08, distance + max(0.0, -ahead - brief.radius))
        level = along * reach - aside
        return Aim(offset=np.array([*level, LOW - 0.01 - seen.height]), opening=0.0, yaw=None, limit=0.7)

    def _pick_place(self, gripper: np.ndarray, thing: np.ndarray, seen: Seen) -> Aim:
        brief = self._brief
        over, goal = thing + brief.grasp[:2] - gripper, brief.goal + brief.grasp[:2] - gripper
        down = float(brief.grasp[2])

        def go(stage: str) -> None:
            self._stage, self._stayed = stage, 0

        lost = np.linalg.norm(thing - gripper) > brief.radius + 0.05
        if self._stage in ("lift", "carry", "lower") and lost:
            go("over")
        match self._stage:
            case "over":
                if np.linalg.norm(over) < 0.01 and abs(seen.height - HIGH) < 0.03 and self._turned(seen):
                    go("down")
                return Aim(offset=np.array([*over, HIGH - seen.height]), opening=1.0, yaw=brief.yaw)
            case "down":
                if np.linalg.norm(over) > 0.03:
                    go("over")
                if abs(seen.height - down) < 0.008:
                    go("close")
                return Aim(offset=np.array([*over, down - seen.height]), opening=1.0, yaw=brief.yaw, limit=0.6)
            case "close":
                if self._stayed > 6:
                    go("lift")
                return Aim(offset=np.zeros(3), opening=0.0, yaw=None)
            case "lift":
                if seen.height > CARRY - 0.03:
                    go("carry")
                return Aim(offset=np.array([0.0, 0.0, CARRY - seen.height]), opening=0.0, yaw=None, limit=0.7)
            case "carry":
                if np.linalg.norm(goal) < 0.012:
                    go("lower")
                return Aim(offset=np.array([*goal, CARRY - seen.height]), opening=0.0, yaw=None)
            case "lower":
                if abs(seen.height - down) < 0.012:
                    go("open")
                return Aim(offset=np.array([*goal, down + 0.004 - seen.height]), opening=0.0, yaw=None, limit=0.6)
            case "open":
                if self._stayed > 5:
                    go("leave")
                return Aim(offset=np.zeros(3), opening=1.0, yaw=None)
            case _:
                if self._stayed > 25:  # it is not where it should be: once more
                    go("over")
                return Aim(offset=np.array([0.0, 0.0, HIGH - seen.height]), opening=1.0, yaw=None)

    def _turned(self, seen: Seen) -> bool:
        return self._brief.yaw is None or abs(_wrap(self._brief.yaw - seen.yaw)) < 0.12

    def _around(self, gripper: np.ndarray, thing: np.ndarray, seen: Seen) -> Aim:
        """Low over the table, past the obstacle on the nearer side, to the goal."""
        brief = self._brief
        way = brief.goal - gripper
        distance = float(np.linalg.norm(way))
        along = way / max(distance, 1e-6)
        side = np.array([-along[1], along[0]])
        to = thing - gripper
        ahead, aside = float(to @ along), float(to @ side)
        room = brief.radius + 0.065
        if 0 < ahead < distance and abs(aside) < room:
            past = -math.copysign(1.0, aside) * side
            near = float(np.linalg.norm(to)) < room + 0.03
            way = past * (room - abs(aside) + 0.02) + (0.0 if near else 1.0) * along * 0.06
        return Aim(offset=np.array([*way, LOW - seen.height]), opening=0.0, yaw=None)


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
