"""What a task asks for, read off the true poses of the objects: done or not, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dreamdojo.dojo.errands import LIFTED
from dreamdojo.errors import ConfigError

PUSHED = 0.04
"""An object is pushed once its centre is so many metres along the table from where it stood."""

Goal = Callable[[np.ndarray], np.ndarray]
"""Poses `t n 7` of the objects from the start of an episode on -> `t` bool, whether the task is done at each frame."""


def pushed(poses: np.ndarray) -> np.ndarray:
    """Whether any object has been pushed by `PUSHED`."""
    return np.asarray(np.linalg.norm(poses[..., :2] - poses[0, :, :2], axis=-1).max(axis=-1) >= PUSHED)


def lifted(poses: np.ndarray) -> np.ndarray:
    """Whether any object is held up by `LIFTED`."""
    return np.asarray((poses[..., 2] - poses[0, :, 2]).max(axis=-1) >= LIFTED)


GOALS: Mapping[str, Goal] = {"push": pushed, "lift": lifted}
"""The tasks by name."""


def find_goal(name: str) -> Goal:
    """A task's goal by its name.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in GOALS:
        raise ConfigError(f"expected a task of {', '.join(GOALS)}, got {name!r}")
    return GOALS[name]
