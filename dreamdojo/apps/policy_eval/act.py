"""Let a policy act in a world, from many starts at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dreamdojo.policies.chunk import next_chunk
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation, Policy, World


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What happened from each start."""

    frames: UInt8[Tensor, "b t c h w"]
    """The first frame, and one after each action."""
    actions: Float[Tensor, "b n a"]
    """What the policy did, in the embodiment's units."""
    state: Float[Tensor, "b t s"] | None
    """Proprioception at each frame, where the world knows it."""
    world_seconds: float
    """Spent in the world, all starts together."""
    policy_seconds: float
    """Spent in the policy."""


def act(
    world: World,
    policy: Policy,
    start: Observation | None,
    *,
    steps: int,
    seed: int = 0,
    report: Report = silent,
) -> Trials:
    """Reset world and policy, and let the policy act for `steps` actions.

    A policy's chunk is carried out whole before it is asked again, in portions of the world's `k` actions.

    Args:
        world: Where.
        policy: Who.
        start: First frames `b 1 ...` for a world that is told where to start; None for one that knows.
        steps: Actions of an episode, rounded up to whole steps of the world.
        seed: Of the world's noise and of what is random about the policy.
        report: Progress, in actions.

    Raises:
        DataError: if the policy's actions have another shape than the world takes, or are not finite.
    """
    camera, k = world.cameras[0], world.actions_per_step
    seen = world.reset(start, seed=seed)
    policy.reset(seed=seed)
    batch = len(seen.frames[camera])
    frames, states, done = [seen.frames[camera]], [seen.state], []
    ahead: list[Tensor] = []
    spent = {"world": 0.0, "policy": 0.0}
    while k * len(done) < steps:
        began = time.monotonic()
        if not ahead:
            chunk = next_chunk(policy, seen, world.embodiment, batch=batch, at_least=k)
            ahead = [part for part in chunk.split(k, dim=1) if part.shape[1] == k]
        decided = time.monotonic()
        prediction = world.step(ahead[0])
        done.append(ahead.pop(0))
        spent["policy"] += decided - began
        spent["world"] += time.monotonic() - decided
        frames.append(prediction.frames[camera])
        states.append(prediction.state)
        seen = Observation(frames=prediction.frames, state=prediction.state, depth=prediction.depth)
        report(k * len(done), steps, "actions")
    known = [state for state in states if state is not None]
    return Trials(
        frames=torch.cat(frames, dim=1),
        actions=torch.cat(done, dim=1),
        state=torch.cat(known, dim=1) if len(known) == len(states) else None,
        world_seconds=spent["world"],
        policy_seconds=spent["policy"],
    )
