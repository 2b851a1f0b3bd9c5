"""Errands: bring the object in the colour of the disc to the disc, by pushing or by carrying, and how far that has got.

The Gymnasium environments and `DojoWorld(task=...)` start and judge errands by these functions alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args

import numpy as np

from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.layout import Errand, draw_layout, with_errand
from dreamdojo.dojo.scene import GOAL_RADIUS
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import seed_of
from dreamdojo.errors import ConfigError

ErrandTask = Literal["push", "pick_place"]
ERRAND_TASKS: tuple[ErrandTask, ...] = get_args(ErrandTask)

LIFTED = 0.03
"""An object is lifted once it is so many metres above where it stood."""
RESTING = 0.01
"""It stands again when it is less than so many metres above where it stood."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an errand stands."""

    success: bool
    """Push: the object's centre is on the disc. Pick-place: it was lifted, stands on the disc, and the hand is off."""
    distance: float
    """Of the object's centre from the disc's, metres."""
    lifted: bool
    """Whether the object has been in the air."""
    lost: bool
    """Whether an object has left the table: the errand can no longer be done."""


class Trial:
    """An errand that is being tried in a running simulation; `look` at it after every step."""

    def __init__(self, simulation: Simulation, task: ErrandTask) -> None:
        self.simulation = simulation
        self.task: ErrandTask = task
        self._stood_at, self._lifted = float(self.target_pose()[2]), False

    @property
    def errand(self) -> Errand:
        """What is to be done in this scene."""
        errand = self.simulation.layout.errand
        assert errand is not None  # every trial is started with one
        return errand

    def target_pose(self) -> np.ndarray:
        """`(7,)` of the object that is to be brought."""
        return self.simulation.object_poses()[self.errand.target]

    def look(self) -> Outcome:
        """How it stands now."""
        pose = self.target_pose()
        rise = float(pose[2] - self._stood_at)
        self._lifted |= rise > LIFTED
        distance = float(np.linalg.norm(pose[:2] - self.errand.goal))
        success = distance < GOAL_RADIUS
        if success and self.task == "pick_place":
            held = self.simulation.moment().touched[self.errand.target]
            success = bool(self._lifted and rise < RESTING and not held)
        lost = self.simulation.has_lost_object()
        return Outcome(success=success, distance=distance, lifted=self._lifted, lost=lost)

    def fork(self, simulation: Simulation) -> Trial:
        """The same trial in a fork of its simulation."""
        other = copy.copy(self)
        other.simulation = simulation
        return other


def start_errand(simulation: Simulation, seed: int, task: ErrandTask) -> Trial | None:
    """Build the scene of a seed with its errand; None where there is nothing to do, or the scene does not come to rest.

    Raises:
        ConfigError: if there is no such task.
    """
    if task not in ERRAND_TASKS:
        raise ConfigError(f"expected a task of {', '.join(ERRAND_TASKS)}, got {task!r}")
    body = simulation.body
    layout = with_errand(draw_layout(seed, simulation.difficulty, body), body, grasp=task == "pick_place")
    if layout is None:
        return None
    try:
        simulation.reset_to(layout)
    except UnstablePhysics:
        return None
    trial = Trial(simulation, task)
    return None if trial.look().success else trial


def errand_seeds(
    task: ErrandTask, split: str, *, first_index: int = 0, body: str = "arm", difficulty: Difficulty | str = GENTLE
) -> Iterator[int]:
    """Seeds of a split whose scenes have something to do in them, in order from number `first_index` on."""
    simulation = Simulation(body, difficulty=find_difficulty(difficulty))
    for index in count(first_index):
        seed = seed_of(split, index)
        if start_errand(simulation, seed, task) is not None:
            yield seed
