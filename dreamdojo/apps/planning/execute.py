"""Plan, act, look, plan again: an errand carried out by a decider that imagines in some world."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dreamdojo.apps.planning.imagine import imagine
from dreamdojo.apps.planning.planner import Decider, Decision
from dreamdojo.dojo.errands import Outcome
from dreamdojo.dojo.simulation import UnstablePhysics
from dreamdojo.files import write_json
from dreamdojo.rollout.session import CAMERA, Session
from dreamdojo.rollout.starts import fitted
from dreamdojo.training.progress import Report, silent
from dreamdojo.video import encode, resize
from dreamdojo.world import Observation, World

BUDGET = 150
"""Actions of an errand, as in its Gymnasium environment."""


@runtime_checkable
class Mind(Protocol):
    """Where a decider imagines, kept in step with what really happens."""

    def begin(self, observation: Observation, *, seed: int) -> None:
        """The real world was reset to this."""
        ...

    def observe(self, observation: Observation, actions: Float[Tensor, "1 t a"]) -> None:
        """These frames followed from these actions."""
        ...

    def now(self) -> World:
        """A world of batch 1 that stands where the real one does."""
        ...


@runtime_checkable
class RealWorld(World, Protocol):
    """A world in which something is to be done: the dojo with a task, or another simulator behind the same protocol."""

    @property
    def seed(self) -> int:
        """Of the scene."""
        ...

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """How the errand of each scene stands."""
        ...

    def rehearsal(self, *, pictures: bool = False) -> World:
        """This very moment for trying things out, drawn only where asked to."""
        ...


class SessionMind:
    """A model: it is shown every real frame."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, observation: Observation, *, seed: int) -> None:
        """Start from the first frame."""
        self._session.reset(fitted(observation, self._session.size), seed=seed)

    def observe(self, observation: Observation, actions: Float[Tensor, "1 t a"]) -> None:
        """Re-anchor."""
        self._session.observe(fitted(observation, self._session.size), actions)

    def now(self) -> World:
        """The session."""
        return self._session


class SimulatorMind:
    """The true simulator, which stands where the real world does by being a copy of it: what regret is measured by.

    With `pictures` its branches are drawn, for objectives that look at frames; that is several times slower.
    """

    def __init__(self, real: RealWorld, *, pictures: bool = False) -> None:
        self._real, self._pictures = real, pictures

    def begin(self, observation: Observation, *, seed: int) -> None:
        """Nothing to do."""

    def observe(self, observation: Observation, actions: Float[Tensor, "1 t a"]) -> None:
        """Nothing to do."""

    def now(self) -> World:
        """A rehearsal of this very moment."""
        return self._real.rehearsal(pictures=self._pictures)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """How an errand went."""

    seed: int
    """Of the scene."""
    outcome: Outcome
    """At the end."""
    actions: int
    """That were executed."""
    decisions: tuple[Decision, ...]
    """In order."""
    seconds: float
    """In all."""
    fault: str | None
    """Why it ended early, where it did: the physics broke, or an object was lost."""
    frames: UInt8[Tensor, "t c h w"]
    """What really happened, with the first frame."""
    predicted: UInt8[Tensor, "t c h w"] | None
    """What was expected at the same times, by the latest decision; None where nothing was drawn."""

    def to_json(self) -> dict[str, Any]:
        """Plain structures for a results file."""
        decisions = [
            {key: value for key, value in asdict(decision).items() if key != "actions"} for decision in self.decisions
        ]
        for decision in decisions:
            decision["costs"] = [cost if math.isfinite(cost) else None for cost in decision["costs"]]
        return {
            "seed": self.seed,
            **asdict(self.outcome),
            "actions": self.actions,
            "seconds": self.seconds,
            "fault": self.fault,
            "decisions": decisions,
        }


def carry_out(
    real: RealWorld,
    first: Observation,
    mind: Mind,
    decider: Decider,
    *,
    seed: int,
    budget: int = BUDGET,
    film: bool = False,
    report: Report = silent,
) -> Episode:
    """Carry out the errand of a world that was just reset, until it is done, or nothing more can be.

    Args:
        real: where actions are executed; it has a task.
        first: what its reset returned.
        mind: where the decider imagines.
        decider: what decides.
        seed: of the decider's draws and the mind's noise.
        budget: actions that may be executed in all.
        film: also draw what each decision expects.
        report: progress.
    """
    began, seen, k = time.monotonic(), first, real.actions_per_step
    mind.begin(first, seed=seed)
    decider.reset(seed=seed)
    frames, predicted = [first.frames[CAMERA][0, 0]], [first.frames[CAMERA][0, 0]]
    decisions: list[Decision] = []
    count, outcome, fault = 0, real.outcomes[0], None
    while count < budget and not outcome.success and fault is None:
        decision = decider.decide(mind.now(), seen)
        decisions.append(decision)
        if film:
            expected = imagine(_drawn(mind, real), decision.actions[None]).frames[CAMERA][0]
        parts, taken = [], 0
        planned = decision.actions[: decision.execute]
        while taken + k <= len(planned) and count < budget and not outcome.success and fault is None:
            chunk = planned[taken : taken + k][None]
            try:
                parts.append(real.step(chunk))
            except UnstablePhysics as error:
                fault = error.reason
                break
            frames += list(parts[-1].frames[CAMERA][0])
            if film:
                predicted += [expected[min(taken + i, len(expected) - 1)] for i in range(k)]  # pyright: ignore
            count, taken, outcome = count + k, taken + k, real.outcomes[0]
            fault = "an object left the table" if outcome.lost else None
            report(count, budget, f"{100 * outcome.distance:.1f} cm from the goal")
        if not parts or count >= budget or outcome.success or fault is not None:
            break  # a model takes whole steps only, and this may have ended within one
        seen = _joined(parts)
        mind.observe(seen, planned[None, :taken])
    return Episode(
        seed=real.seed,
        outcome=outcome,
        actions=count,
        decisions=tuple(decisions),
        seconds=time.monotonic() - began,
        fault=fault,
        frames=torch.stack(frames),
        predicted=_fit(predicted, first.frames[CAMERA].shape[-1]) if film else None,
    )


def write_episode(folder: Path, episode: Episode, fps: float, facts: dict[str, Any]) -> None:
    """`plan.mp4`, the executed frames with the plan's beside them where there are any, and `plan.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [episode.frames] if episode.predicted is None else [episode.frames, episode.predicted]
    encode(folder / "plan.mp4", torch.cat(shown, dim=3).permute(0, 2, 3, 1).contiguous().numpy(), fps)
    write_json(folder / "plan.json", {**facts, **episode.to_json()})


def _drawn(mind: Mind, real: RealWorld) -> World:
    world = mind.now()
    return world if world.cameras else real.rehearsal(pictures=True)


def _joined(parts: Sequence[Any]) -> Observation:
    """What was seen during several steps, as one observation."""
    states = [part.state for part in parts if part.state is not None]
    depths = [part.depth[CAMERA] for part in parts if part.depth is not None]
    return Observation(
        frames={CAMERA: torch.cat([part.frames[CAMERA] for part in parts], dim=1)},
        state=torch.cat(states, dim=1) if states else None,
        depth={CAMERA: torch.cat(depths, dim=1)} if depths else None,
    )


def _fit(pictures: Sequence[Tensor], size: int) -> Tensor:
    """Pictures at the size of the real ones, which are square."""
    rows = [resize(picture.permute(1, 2, 0).contiguous().numpy(), size) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
