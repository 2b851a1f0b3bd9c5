"""A planner as a policy: it looks at a frame, plans in a world of its own, and carries the plan out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.planning.planner import Decider
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.world import Observation, World


class PlannedPolicy:
    """Satisfies `dreamdojo.world.Policy`; row by row, as every row has a plan of its own.

    It may act in any world, a dream included, and is told what every policy is: the latest observation. Where it is to
    be judged in a dream, give it another world to plan in than the one that judges.

    Args:
        world: to plan in, reset to the latest frame whenever a plan is made.
        decider_of: first observation of a plan, of batch 1 -> what decides there.
        length: actions to go by before it looks and plans again, at least; shorter plans are followed by rest.
    """

    def __init__(self, world: World, decider_of: Callable[[Observation], Decider], *, length: int = 1) -> None:
        self._world, self._decider_of, self._length = world, decider_of, length
        self._made: tuple[int, Observation, Tensor] | None = None
        self.reset()

    def reset(self, *, seed: int = 0) -> None:
        """Begin an episode; row `i` draws from `seed + i`."""
        self._seed, self._plans = seed, 0

    def act(self, observation: Observation) -> Float[Tensor, "b n a"]:
        """The plan of each row, all as long as the longest.

        The last plans are kept: asked again for the same frames with the same seed, in another world, it knows them.
        """
        seed = self._seed + 1_000_003 * self._plans
        self._plans += 1
        if self._made is not None and self._made[0] == seed and _alike(self._made[1], observation):
            return self._made[2]
        rows = [self._plan(_row(observation, row), seed + row) for row in range(_batch(observation))]
        longest = max(self._length, *map(len, rows))
        actions = torch.stack([rested(row, longest, self._world.embodiment) for row in rows])
        self._made = (seed, observation, actions)
        return actions

    def _plan(self, observation: Observation, seed: int) -> Tensor:
        self._world.reset(observation, seed=seed)
        decider = self._decider_of(observation)
        decider.reset(seed=seed)
        decision = decider.decide(self._world, observation)
        return decision.actions[: decision.execute]


def rested(actions: Float[Tensor, "t a"], length: int, embodiment: Embodiment) -> Float[Tensor, "n a"]:
    """Actions made up to `length`: no further motion, everything else as it is."""
    still = actions[-1:].clone()
    for each in embodiment.action:
        if each.integrates:
            still[:, embodiment.columns(each.name, of="action")] = 0
    return torch.cat([actions, still.repeat(length - len(actions), 1)])


def _batch(observation: Observation) -> int:
    return len(next(iter(observation.frames.values())))


def _row(observation: Observation, row: int) -> Observation:
    """One row's latest frame."""
    part = slice(row, row + 1)
    return Observation(
        frames={name: frames[part, -1:] for name, frames in observation.frames.items()},
        state=None if observation.state is None else observation.state[part, -1:],
        depth=None
        if observation.depth is None
        else {name: metres[part, -1:] for name, metres in observation.depth.items()},
    )


def _alike(first: Observation, second: Observation) -> bool:
    """Whether two observations show the same."""
    if first.frames.keys() != second.frames.keys() or (first.state is None) != (second.state is None):
        return False
    if first.state is not None and second.state is not None and not torch.equal(first.state, second.state):
        return False
    return all(torch.equal(first.frames[name], second.frames[name]) for name in first.frames)
