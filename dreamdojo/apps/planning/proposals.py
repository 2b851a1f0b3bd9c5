"""Scripted policies of the dojo as proposals: plans made from where things are, with mistakes of their own kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.planning.space import Stroke, Waypoints
from dreamdojo.dojo.errands import ErrandTask
from dreamdojo.dojo.plans import Plan, Skill, make_plan
from dreamdojo.dojo.world import DojoWorld
from dreamdojo.errors import DataError
from dreamdojo.world import Observation


@dataclass(kw_only=True)
class ScriptedProposal:
    """A `Policy` that plans in the real scene as a scripted actor does, and answers with all actions of its plan.

    It acts from the state alone, so it can act in a dream of the scene; every row of a batch makes its own mistakes.
    """

    world: DojoWorld
    """The real scene, which it may look into."""
    task: ErrandTask
    """What it tries."""
    skill: Skill
    """How well."""
    stroke: Stroke
    """Body, speed and rate of its motion."""
    offset: tuple[float, float] = (0.0, 0.0)
    """A mistake that it always makes: its aim is off by so many metres."""
    _rng: np.random.Generator | None = None

    def reset(self, *, seed: int = 0) -> None:
        """Its mistakes are drawn from `seed`."""
        self._rng = np.random.default_rng([seed, 7])

    def act(self, observation: Observation) -> Float[Tensor, "b k a"]:
        """A whole plan for each row, made up to the longest by resting.

        Raises:
            DataError: if the observation has no state.
        """
        if observation.state is None or self._rng is None:
            raise DataError("a scripted proposal needs a reset and the body's state; the observation has none")
        rows = []
        for state in observation.state[:, -1]:
            plan = make_plan(self.task, self.world.simulations[0], self._rng, self.skill)
            rows.append(self.stroke.follow(self._waypoints(plan, state), state.double().numpy())[0])
        longest = max(len(row) for row in rows)
        return torch.from_numpy(np.stack([np.concatenate([row, self._rest(row, longest - len(row))]) for row in rows]))

    def _waypoints(self, plan: Plan, state: Tensor) -> Waypoints:
        yaw = float(state[self.stroke.embodiment.columns("effector_yaw", of="state")][0])
        yaws = []
        for point in plan.waypoints:
            yaw = yaw if point.yaw is None else point.yaw
            yaws.append(yaw)
        shift = np.array([*self.offset, 0.0])
        return Waypoints(
            position=np.stack([point.position + shift for point in plan.waypoints])[None],
            yaw=np.array(yaws)[None],
            opening=np.array([[point.opening for point in plan.waypoints]]),
            wait=tuple(point.wait for point in plan.waypoints),
        )

    def _rest(self, row: np.ndarray, count: int) -> np.ndarray:
        """`count` actions of standing still with the hand as it is after `row`, `t a`."""
        opening = self.stroke.embodiment.columns("gripper_opening", of="action")
        still = np.zeros((count, row.shape[1]), row.dtype)
        still[:, opening] = row[-1, opening]
        return still
