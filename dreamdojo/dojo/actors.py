"""Scripted actors: someone who tries one task after another, at their own pace, with a not quite steady hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dreamdojo.dojo.control import Wish
from dreamdojo.dojo.geometry import wrap
from dreamdojo.dojo.plans import TASKS, Plan, Skill, Waypoint, make_plan
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.errors import ConfigError

TASK_WEIGHTS: Mapping[str, float] = {"pick_place": 0.45, "push": 0.3, "topple": 0.1, "wander": 0.15}
"""How often each task is tried."""

_ARRIVED = 0.008  # metres
_TURNED = 0.06  # radians
_PATIENCE = 30  # frames that a waypoint is tried for
_TREMOR_MEMORY = 0.7  # share of the tremor that is kept from frame to frame


def check_tasks(tasks: Mapping[str, float]) -> None:
    """Check that tasks exist and can be drawn by weight.

    Raises:
        ConfigError: if one is unknown, or none has a positive weight.
    """
    if set(tasks) - set(TASKS) or min(tasks.values(), default=0) < 0 or sum(tasks.values()) <= 0:
        raise ConfigError(f"expected weights, not all zero, for tasks of {', '.join(TASKS)}, got {dict(tasks)}")


class Actor:
    """Moves the effector through plans until the episode ends; drives every body in every control mode.

    Args:
        simulation: the scene, just reset.
        rng: decides tasks, aims and mistakes.
        skill: how well it does; ordinary for the scene's difficulty where not given.
        tasks: how often each task is tried.

    Raises:
        ConfigError: if a task is unknown, or none has a positive weight.
    """

    def __init__(
        self,
        simulation: Simulation,
        rng: np.random.Generator,
        *,
        skill: Skill | None = None,
        tasks: Mapping[str, float] = TASK_WEIGHTS,
    ) -> None:
        check_tasks(tasks)
        self._simulation, self._rng = simulation, rng
        self._skill = skill or Skill.of(simulation.difficulty)
        self._speed = float(rng.uniform(*simulation.difficulty.speed))
        self._tasks = list(tasks)
        self._weights = np.array(list(tasks.values())) / sum(tasks.values())
        self._tremor = np.zeros(3)
        self._ahead: list[Waypoint] = []
        self._tried = self._waited = 0
        self.plans: list[Plan] = []
        """Everything tried so far."""

    def act(self) -> np.ndarray:
        """The next action `(a,)` float32."""
        if not self._ahead:
            task = self._tasks[int(self._rng.choice(len(self._tasks), p=self._weights))]
            self.plans.append(make_plan(task, self._simulation, self._rng, self._skill))
            self._ahead = list(self.plans[-1].waypoints)
        goal = self._ahead[0]
        limits, dt = self._simulation.difficulty, 1 / self._simulation.fps
        command = self._simulation.commanded()
        away = goal.position - command.position
        distance = float(np.linalg.norm(away))
        turn = 0.0 if goal.yaw is None else wrap(goal.yaw - command.yaw)
        self._pass(distance < _ARRIVED and abs(turn) < _TURNED, goal.wait)
        velocity = away * min(1 / dt, self._speed * goal.slow / max(distance, 1e-9))
        velocity = velocity + self._shake() * min(1.0, distance / 0.03)  # hands are steadier near a target
        velocity = velocity * min(1.0, limits.top_speed / max(float(np.linalg.norm(velocity)), 1e-9))
        rate = float(np.clip(turn / dt, -limits.turn_rate, limits.turn_rate))
        return self._simulation.demonstrate(Wish(velocity=velocity, turn=rate, opening=goal.opening))

    @property
    def idle(self) -> bool:
        """Whether the last plan has been carried out."""
        return not self._ahead

    def _pass(self, arrived: bool, wait: int) -> None:
        """Go on to the next waypoint once this one is reached and waited at, or has been tried for long enough."""
        self._tried += 1
        self._waited += arrived
        if self._waited > wait or self._tried > _PATIENCE + wait:
            self._ahead.pop(0)
            self._tried = self._waited = 0

    def _shake(self) -> np.ndarray:
        noise = self._rng.normal(0, self._skill.tremor, 3) * math.sqrt(1 - _TREMOR_MEMORY**2)
        self._tremor = _TREMOR_MEMORY * self._tremor + noise
        return self._tremor
