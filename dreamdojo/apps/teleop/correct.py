"""A motion that avoids what is about to go wrong: a short search through branches of the world model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.play.controls import Controls
from dreamdojo.rollout.session import CAMERA
from dreamdojo.world import Prediction, World

Cost = Callable[[Prediction], Tensor]
"""A prediction of batch n -> `(n,)`, larger is worse."""

_OBEDIENCE = 0.02  # cost of leaving the operator's command by its whole range


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to do instead."""

    command: np.ndarray
    """`(a,)` normalised."""
    cost: float
    """What it is predicted to cost."""
    of_staying: float
    """What going on as now is predicted to cost."""

    @property
    def helps(self) -> bool:
        """Whether it is better than going on."""
        return self.cost < self.of_staying


def suggest(
    world: World,
    command: np.ndarray,
    controls: Controls,
    cost: Cost,
    *,
    gain: float = 1.0,
    candidates: int = 8,
    horizon: int = 4,
    seed: int = 0,
) -> Suggestion:
    """The best of going on, standing still, turning back, and a few random directions, each held for `horizon` frames.

    Args:
        world: where the robot is predicted to be, one action a step; it is forked and stays where it is.
        command: `(a,)` normalised, what the operator does.
        controls: which of its numbers are velocities; only these are changed.
        cost: judges what is predicted.
        gain: share of a velocity's range that a full command asks for, as where the command is carried out.
        candidates: how many motions are tried, the first three included.
        horizon: frames ahead.
        seed: of the random directions.
    """
    rest = controls.relaxed(command)
    moves = np.array([column.mode == "rate" for column in controls.columns], dtype=bool)
    random = np.random.default_rng(seed).uniform(-0.6, 0.6, (max(0, candidates - 3), len(command)))
    tried = np.stack([command, rest, 2 * rest - command, *np.where(moves, rest + random, command)])
    tried = np.clip(tried, -1, 1).astype(np.float32)[:candidates]
    actions = torch.from_numpy(np.stack([controls.action(each, gain=gain) for each in tried]))[:, None]
    branch = world.fork(len(tried))
    steps = [branch.step(actions) for _ in range(horizon)]
    depths = [step.depth[CAMERA] for step in steps if step.depth is not None]
    told = Prediction(
        frames={CAMERA: torch.cat([step.frames[CAMERA] for step in steps], dim=1)},
        depth={CAMERA: torch.cat(depths, dim=1)} if depths else None,
    )
    costs = cost(told) + _obedience(tried, command)
    best = int(costs.argmin())
    return Suggestion(command=tried[best], cost=float(costs[best]), of_staying=float(costs[0]))


def _obedience(tried: np.ndarray, command: np.ndarray) -> Float[Tensor, " n"]:
    return torch.from_numpy(_OBEDIENCE * np.abs(tried - command).mean(axis=1)).float()
