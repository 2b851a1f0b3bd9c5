"""Scripted actors: what a person or a robot tries to do on the table, with noise, clumsiness and mistakes.

A plan is a list of waypoints; the actor moves the effector through them at its own speed. Aims are wrong by a few
millimetres, hands tremble, some grasps close too early and some are let go on the way: a world model must see failures
too. The same actor drives every body, and through `Simulation.explain` every control mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dreamdojo.dojo.control import Command, effector_command, held_back
from dreamdojo.dojo.difficulty import Difficulty
from dreamdojo.dojo.geometry import matrix, wrap, yaw_of
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.errors import ConfigError

Task = Literal["pick_place", "push", "topple", "wander"]
TASKS: tuple[Task, ...] = get_args(Task)
TASK_WEIGHTS = {"pick_place": 0.4, "push": 0.35, "topple": 0.1, "wander": 0.15}
"""How often each task is attempted."""

_ARRIVED = 0.008  # metres
_TURNED = 0.08  # radians
_PATIENCE = 25  # frames that a waypoint is tried for
_TREMOR_MEMORY = 0.7  # share of the tremor that is kept from frame to frame


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How well an actor does what it tries."""

    aim_error: float
    """Standard deviation of its aim, metres."""
    tremor: float
    """Standard deviation of velocity noise, m/s."""
    slip: float
    """Probability that it lets go too early or closes too soon."""

    @classmethod
    def of(cls, difficulty: Difficulty) -> Skill:
        """The ordinary actor of a difficulty."""
        return cls(aim_error=difficulty.clumsiness, tremor=difficulty.tremor, slip=0.15)


EXPERT = Skill(aim_error=0.0, tremor=0.0, slip=0.0)
"""An actor that makes no mistakes."""


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """A place to move to, and what the hand does on the way."""

    position: np.ndarray
    """`(3,)` of the effector, metres."""
    yaw: float | None = None
    """Turn about the vertical to reach, radians; None keeps it."""
    opening: float = 1.0
    """Of the hand, 0 to 1."""
    wait: int = 0
    """Frames to stay after arriving, e.g. for fingers to close."""
    slow: float = 1.0
    """Factor on the actor's speed."""


class Actor:
    """Someone who tries one task after another until the episode ends.

    Args:
        simulation: the scene, just reset.
        rng: decides tasks, aims and mistakes.
        skill: how well it does.
        tasks: how often each task is attempted.
    """

    def __init__(
        self,
        simulation: Simulation,
        rng: np.random.Generator,
        *,
        skill: Skill | None = None,
        tasks: dict[Task, float] | None = None,
    ) -> None:
        weights = TASK_WEIGHTS if tasks is None else tasks
        if unknown := set(weights) - set(TASKS):
            raise ConfigError(f"expected tasks of {', '.join(TASKS)}, got {', '.join(sorted(unknown))}")
        self.simulation, self.rng = simulation, rng
        self.skill = skill or Skill.of(simulation.difficulty)
        self.speed = float(rng.uniform(*simulation.difficulty.speed))
        self._tasks, self._weights = list(weights), np.array(list(weights.values())) / sum(weights.values())
        self._tremor = np.zeros(3)
        self._plan: list[Waypoint] = []
        self._tried = self._waited = 0
        self.task_name = ""
        """What is being tried first, in words."""

    def act(self) -> np.ndarray:
        """The next action `(a,)` of the simulation's control mode."""
        return self.simulation.explain(self._command())

    def _command(self) -> Command:
        simulation = self.simulation
        if not self._plan:
            self._plan = self._new_plan()
            self._tried = self._waited = 0
        goal = self._plan[0]
        command = held_back(simulation.command, simulation.data.site_xpos[simulation.model.site("effector").id])
        dt = 1 / simulation.fps
        away = goal.position - command.position
        distance = float(np.linalg.norm(away))
        turn = 0.0 if goal.yaw is None else wrap(goal.yaw - command.yaw)
        self._tried += 1
        if (distance < _ARRIVED and abs(turn) < _TURNED) or self._tried > _PATIENCE:
            self._waited += 1
            if self._waited > goal.wait:
                self._plan.pop(0)
                self._tried = self._waited = 0
        speed = self.speed * goal.slow
        velocity = away * min(1 / dt, speed / max(distance, 1e-9))
        noise = self.rng.normal(0, self.skill.tremor, 3) * math.sqrt(1 - _TREMOR_MEMORY**2)
        self._tremor = _TREMOR_MEMORY * self._tremor + noise
        velocity = velocity + self._tremor * min(1.0, distance / 0.03)
        top = simulation.difficulty.top_speed
        velocity *= min(1.0, top / max(float(np.linalg.norm(velocity)), 1e-9))
        rate = float(np.clip(turn / dt, -simulation.difficulty.turn_rate, simulation.difficulty.turn_rate))
        return effector_command(command, velocity, rate, goal.opening, dt, simulation.kinematics, simulation.body)

    def _new_plan(self) -> list[Waypoint]:
        makers: dict[Task, Callable[[], list[Waypoint] | None]] = {
            "pick_place": self._pick_place,
            "push": self._push,
            "topple": self._topple,
            "wander": self._wander,
        }
        task: Task = self._tasks[int(self.rng.choice(len(self._tasks), p=self._weights))]
        plan = makers[task]() or self._push() or self._wander()
        return [self._reachable(waypoint) for waypoint in plan]

    def _reachable(self, waypoint: Waypoint) -> Waypoint:
        body = self.simulation.body
        yaw = waypoint.yaw if waypoint.yaw is None else float(np.clip(waypoint.yaw, *body.yaw_range))
        return Waypoint(
            position=np.clip(waypoint.position, body.workspace_low, body.workspace_high),
            yaw=yaw,
            opening=waypoint.opening,
            wait=waypoint.wait,
            slow=waypoint.slow,
        )

    def _aim(self) -> np.ndarray:
        return np.array([*self.rng.normal(0, self.skill.aim_error, 2), 0.0])

    def _pose(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pose = self.simulation.moment().object_poses[index]
        return pose[:3].copy(), matrix(pose[3:])

    def _pick_place(self) -> list[Waypoint] | None:
        body = self.simulation.body
        options = []
        for index, thing in enumerate(self.simulation.layout.objects):
            position, rotation = self._pose(index)
            for grasp in thing.shape.grasps:
                if rotation[2, 2] > 0.9 and grasp.width < body.grasp_width:
                    where = position + rotation @ np.array(grasp.position)
                    yaw = self._reachable_yaw(None if grasp.yaw is None else yaw_of(rotation) + grasp.yaw)
                    if yaw is not None:
                        options.append((index, where, yaw))
        if not options:
            return None
        index, where, yaw = options[int(self.rng.integers(len(options)))]
        self._name(f"pick up the {self.simulation.layout.objects[index].name} and put it down")
        where = where + self._aim()
        where[2] = max(where[2], body.workspace_low[2])
        cos, sin = math.cos(yaw), math.sin(yaw)
        approach = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array(body.approach)
        low, high = np.array(body.workspace_low[:2]) + 0.03, np.array(body.workspace_high[:2]) - 0.03
        target = np.array([*self.rng.uniform(low, high), where[2] + 0.006])
        height = where[2] + float(self.rng.uniform(0.05, 0.10))
        early = self.rng.random() < self.skill.slip
        drops = self.rng.random() < self.skill.slip
        before = where + approach
        above = np.array([*before[:2], max(before[2], where[2] + 0.06)])
        over_target = np.array([*target[:2], height])
        plan = [Waypoint(position=above, yaw=yaw)]
        if not np.allclose(above, before):
            plan.append(Waypoint(position=before, yaw=yaw))
        if early:
            plan.append(Waypoint(position=(before + where) / 2, yaw=yaw, opening=0.0, wait=5))
        return [
            *plan,
            Waypoint(position=where, yaw=yaw, opening=0.0 if early else 1.0, slow=0.7),
            Waypoint(position=where, yaw=yaw, opening=0.0, wait=6),
            Waypoint(position=np.array([*where[:2], height]), yaw=yaw, opening=0.0, slow=0.7),
            Waypoint(position=over_target, yaw=yaw, opening=0.0),
            Waypoint(position=over_target if drops else target, yaw=yaw, opening=0.0, slow=0.7),
            Waypoint(position=over_target if drops else target, yaw=yaw, opening=1.0, wait=6),
            Waypoint(position=(over_target if drops else target) + approach, yaw=yaw, slow=0.7),
        ]

    def _reachable_yaw(self, yaw: float | None) -> float | None:
        """`yaw`, or its opposite, whichever the body can turn to; any yaw is a small random one."""
        low, high = self.simulation.body.yaw_range
        if yaw is None:
            middle = (low + high) / 2
            return float(np.clip(middle + self.rng.normal(0, 0.3), low, high))
        for candidate in (wrap(yaw), wrap(yaw + math.pi)):
            if low <= candidate <= high:
                return candidate
        return None

    def _push(self) -> list[Waypoint] | None:
        index = int(self.rng.integers(len(self.simulation.layout.objects)))
        thing = self.simulation.layout.objects[index]
        self._name(f"push the {thing.name}")
        return self._through(index, height=self.simulation.body.push_height, distance=self.rng.uniform(0.06, 0.16))

    def _topple(self) -> list[Waypoint] | None:
        tall = [
            (index, thing)
            for index, thing in enumerate(self.simulation.layout.objects)
            if thing.shape.height > 2.2 * thing.shape.footprint and self._pose(index)[1][2, 2] > 0.9
        ]
        if not tall:
            return None
        index, thing = tall[int(self.rng.integers(len(tall)))]
        self._name(f"topple the {thing.name}")
        return self._through(index, height=0.85 * thing.shape.height, distance=0.08)

    def _through(self, index: int, *, height: float, distance: float) -> list[Waypoint]:
        """Close the hand, go down beside an object and move through it along a line."""
        position, _ = self._pose(index)
        thing = self.simulation.layout.objects[index]
        centre = np.array([0.03, 0.0])
        inward = math.atan2(*(centre - position[:2])[::-1])
        direction = inward + float(self.rng.uniform(-1.3, 1.3))
        along = np.array([math.cos(direction), math.sin(direction), 0.0])
        level = np.array([position[0], position[1], max(height, self.simulation.body.workspace_low[2])]) + self._aim()
        start = level - along * (thing.shape.footprint + 0.055)
        above = start + np.array([0, 0, 0.07])
        end = level + along * distance
        opening = float(self.rng.choice([0.0, 0.0, 0.4]))
        return [
            Waypoint(position=above, opening=opening),
            Waypoint(position=start, opening=opening),
            Waypoint(position=end, opening=opening, slow=0.8),
            Waypoint(position=end + np.array([0, 0, 0.06]), opening=opening),
        ]

    def _wander(self) -> list[Waypoint]:
        self._name("move about")
        body = self.simulation.body
        low, high = np.array(body.workspace_low), np.array(body.workspace_high)
        return [
            Waypoint(
                position=self.rng.uniform(low, high),
                yaw=float(self.rng.uniform(*body.yaw_range)),
                opening=float(self.rng.choice([0.0, 0.5, 1.0])),
                wait=int(self.rng.integers(0, 4)),
            )
            for _ in range(int(self.rng.integers(2, 5)))
        ]

    def _name(self, words: str) -> None:
        self.task_name = self.task_name or words
