"""A planner: a space of candidates, a search, an objective; and best-of-N over what policies propose."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.planning.imagine import BATCH, Imagined, imagine
from dreamdojo.apps.planning.search import Belief, Search, search
from dreamdojo.apps.planning.space import Space
from dreamdojo.errors import ConfigError, SimulationError
from dreamdojo.policies.chunk import next_chunk
from dreamdojo.world import Observation, Policy, World

Objective = Callable[[Imagined], Float[Tensor, " n"]]
"""What each candidate costs; lower is better."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a planner wants to do."""

    actions: Float[Tensor, "t a"]
    """From now on, in the embodiment's units."""
    execute: int
    """How many of them, before it wants to look and decide again."""
    cost: float
    """What it expects; 0 where nothing was looked at."""
    costs: tuple[float, ...]
    """Of a search, the least after each round; of proposals, each one's."""
    tried: int
    """Candidates."""
    seconds: float
    """It took."""
    source: str
    """Where the actions come from: `search`, or the proposal's name."""


@runtime_checkable
class Decider(Protocol):
    """Something that decides in an imagined world: a planner, or a choice among policies."""

    def reset(self, *, seed: int) -> None:
        """Forget the last episode."""
        ...

    def decide(self, world: World, observation: Observation) -> Decision:
        """What to do now, where `world` (batch 1) stands at the latest real observation."""
        ...


def always(space: Space) -> Callable[[Observation], Space]:
    """The same space whatever is seen."""
    return lambda observation: space


@dataclass(kw_only=True)
class Planner:
    """Receding-horizon planning: search for actions, execute the first few, look, search again from where it was."""

    space: Callable[[Observation], Space]
    """What candidates are, given the latest real observation: where to look may depend on it; `always(space)` does
    not."""
    method: Search
    """How they are searched."""
    objective: Objective
    """What they cost."""
    execute: int | None = None
    """Actions executed between two plans; None executes each plan to its end."""
    warm_start: bool = True
    """Whether a search begins where the last one ended, moved on by what was executed."""
    batch: int = BATCH
    """Candidates that are imagined together."""
    _generator: torch.Generator = field(default_factory=torch.Generator, repr=False)
    _belief: Belief | None = field(default=None, repr=False)

    def reset(self, *, seed: int) -> None:
        """Forget the last episode; draws depend on `seed`."""
        self._generator.manual_seed(seed)
        self._belief = None

    def decide(self, world: World, observation: Observation) -> Decision:
        """Search from where `world` stands.

        Raises:
            SimulationError: if no candidate has a finite cost.
        """
        began = time.monotonic()
        space = self.space(observation)
        state = None if observation.state is None else observation.state[0, -1]

        def cost(x: Tensor) -> Tensor:
            actions = whole_steps(space.actions(x, state), world.actions_per_step)
            return self.objective(imagine(world, actions, batch=self.batch))

        found = search(cost, self._belief or space.belief(), self.method, generator=self._generator)
        actions = whole_steps(space.actions(found.answer[None], state), world.actions_per_step)[0]
        execute = _whole(min(self.execute or len(actions), len(actions)), world.actions_per_step)
        self._belief = space.shift(found.belief, execute) if self.warm_start else None
        return Decision(
            actions=actions,
            execute=execute,
            cost=found.cost,
            costs=found.least,
            tried=found.tried,
            seconds=time.monotonic() - began,
            source="search",
        )


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What was decided before, to be executed as it is."""

    actions: Float[Tensor, "t a"]
    cost: float
    tried: int

    def reset(self, *, seed: int) -> None:
        """Nothing to forget."""

    def decide(self, world: World, observation: Observation) -> Decision:
        """The same whatever is seen."""
        del world, observation
        return Decision(
            actions=self.actions,
            execute=len(self.actions),
            cost=self.cost,
            costs=(self.cost,),
            tried=self.tried,
            seconds=0.0,
            source="before",
        )


@dataclass(kw_only=True)
class BestOf:
    """Best-of-N: every policy acts in imagination, and the cheapest future is executed.

    At each decision the policies begin afresh, with a seed of their own: what they remember is theirs within one
    imagined future only.
    """

    policies: dict[str, Policy]
    """By name."""
    objective: Objective
    """What a future costs."""
    horizon: int
    """Actions that each policy acts for in imagination."""
    samples: int = 1
    """Futures of each policy."""
    execute: int | None = None
    """Actions executed between two decisions; None executes the whole horizon."""
    choose: Literal["best", "uniform"] = "best"
    """`uniform` picks any proposal and looks at no cost: what best-of-N is measured against."""
    _generator: torch.Generator = field(default_factory=torch.Generator, repr=False)

    def reset(self, *, seed: int) -> None:
        """Forget the last episode."""
        self._generator.manual_seed(seed)

    def decide(self, world: World, observation: Observation) -> Decision:
        """Let all propose, look at the cost, take the cheapest.

        Raises:
            ConfigError: if there is no policy.
            DataError: if a policy's actions have another shape than the world takes, or are none.
            SimulationError: if no future has a finite cost.
        """
        if not self.policies:
            raise ConfigError("best-of-N needs a policy or more to choose from, got none")
        began = time.monotonic()
        seed = int(torch.randint(2**31, (), generator=self._generator))
        names = list(self.policies)
        if self.choose == "uniform":
            names = [names[seed % len(names)]]
        futures = [
            (name, row)
            for index, name in enumerate(names)
            for row in self._future(world, observation, self.policies[name], seed + index)
        ]
        costs = [0.0]
        if self.choose == "best":
            costs = self.objective(imagine(world, torch.stack([row for _, row in futures]))).tolist()
            costs = [cost if math.isfinite(cost) else math.inf for cost in costs]
        chosen = min(range(len(costs)), key=costs.__getitem__)
        if costs[chosen] == math.inf:
            raise SimulationError(f"none of {len(costs)} proposals has a finite cost. Look at the objective.")
        name, actions = futures[chosen]
        return Decision(
            actions=actions,
            execute=_whole(min(self.execute or len(actions), len(actions)), world.actions_per_step),
            cost=costs[chosen],
            costs=tuple(costs),
            tried=len(costs),
            seconds=time.monotonic() - began,
            source=name,
        )

    def _future(self, world: World, observation: Observation, policy: Policy, seed: int) -> Tensor:
        """What a policy does from here, acting on what the world predicts: `samples t a`."""
        policy.reset(seed=seed)
        branch, seen, parts, length = world.fork(self.samples), _repeated(observation, self.samples), [], 0
        k = world.actions_per_step
        while length < self.horizon:
            chunk = next_chunk(policy, seen, world.embodiment, batch=self.samples)
            chunk = whole_steps(chunk, k)[:, : _whole(self.horizon - length, k)]
            parts.append(chunk)
            length += chunk.shape[1]
            if length < self.horizon:
                for index in range(0, chunk.shape[1], k):
                    step = branch.step(chunk[:, index : index + k])
                    seen = Observation(frames=step.frames, state=step.state, depth=step.depth)
        return torch.cat(parts, dim=1)


def whole_steps(actions: Float[Tensor, "n t a"], k: int) -> Float[Tensor, "n t2 a"]:
    """Candidates made up to a multiple of the world's `k` actions per step by repeating their last action."""
    missing = -actions.shape[1] % k
    return torch.cat([actions, actions[:, -1:].expand(-1, missing, -1)], dim=1) if missing else actions


def _whole(count: int, k: int) -> int:
    return -(-count // k) * k


def _repeated(observation: Observation, n: int) -> Observation:
    def grown(tensor: Tensor) -> Tensor:
        return tensor.expand(n, *tensor.shape[1:])

    return Observation(
        frames={name: grown(frames) for name, frames in observation.frames.items()},
        state=None if observation.state is None else grown(observation.state),
        depth=None
        if observation.depth is None
        else {name: grown(metres) for name, metres in observation.depth.items()},
    )
