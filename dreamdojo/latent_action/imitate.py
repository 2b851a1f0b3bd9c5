"""A robot repeats what it is shown: video of a robot of its own kind, actions hidden -> latent actions -> commands.

It acts in the scene of the demonstration, from the same start. At every step it compares what it sees with what it is
shown, so that its next command makes up for what the last one missed; within a chunk of `k` actions the demonstration's
own motion follows:

    latent_action = mean of encode([o_t, d_t+1, ..., d_t+k])        o: its own camera, d: the demonstration
    commands      = alignment(latent_action), from the state it is in

It succeeds where the object that the demonstration moved most ends within `NEAR` of where the demonstration left it.
Nothing of the truth is used to act.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.align import Alignment
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.retarget import MEAN, MOVED, Commander, acted, follow
from dreamdojo.latent_action.train import infer_latent_actions
from dreamdojo.metrics import Interval, mean_interval, paired_interval, wilson_interval
from dreamdojo.training.device import Compute
from dreamdojo.video.resize import resize

NEAR = 0.03
"""How far from the demonstration's the object may end, on the table, metres. Not more than `MOVED`, or a robot that
does nothing would succeed."""

_SAME = 0.001  # metres: scenes whose objects differ by more are not the same

CLOSED_LOOP, OPEN_LOOP, OTHER_VIDEO, TRUE_ACTIONS = (
    "closed loop",
    "open loop",
    "another demonstration's video",
    "true actions",
)


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A robot's episode in which an object is moved."""

    episode: int
    """Number of the episode in its dataset."""
    seed: int
    """The scene."""
    embodiment: Embodiment
    """Who demonstrates."""
    frames: np.ndarray
    """`(t, h, w, 3)` uint8: what is shown, at the size that the latent action model sees."""
    recorded_size: int
    """Side of the pictures that the frames were made from, pixels."""
    target: int
    """Number of the object that is moved farthest."""
    before: np.ndarray
    """`(n, 2)` where all objects stand on the table at the start, metres; used to check the scene only."""
    goal: np.ndarray
    """`(2,)` where the target ends, metres; used to score only."""
    hand: np.ndarray
    """`(t, 3)` where the hand is, metres; used to score only."""
    actions: np.ndarray
    """`(t - 1, a)` in the robot's units; used for the bound only."""


def find_demonstration(
    dataset: Dataset, truth: GroundTruth, episode: int, frames: np.ndarray, *, camera: str | None = None
) -> Demonstration | None:
    """An episode as a demonstration, or None where no object ends at least `MOVED` from where it stood.

    Args:
        dataset: episodes of a robot in the dojo.
        truth: of the dataset.
        episode: number of the episode.
        frames: `t h w 3` uint8 of the episode at the model's size and the dataset's rate.
        camera: that the frames are of; may be left out where there is only one.

    Raises:
        DataError: if the dataset has no actions, or there is not one frame for each of the episode.
    """
    if not dataset.embodiment.action_dim:
        raise DataError(f"{dataset.root}: expected a robot dataset with an 'action' column, found none")
    places = truth.object_poses(episode)[..., :2]
    if len(frames) != len(places):
        raise DataError(
            f"{dataset.root}, episode {episode}: expected {len(places)} frames, got {len(frames)}. Give the frames at "
            f"the dataset's rate, {dataset.fps:g} Hz."
        )
    moved = np.linalg.norm(places[-1] - places[0], axis=1)
    target = int(moved.argmax())
    if moved[target] < MOVED:
        return None
    return Demonstration(
        episode=episode,
        seed=dataset.episode(episode).meta["seed"],
        embodiment=dataset.embodiment,
        frames=frames,
        recorded_size=dataset.cameras[dataset.camera(camera)].height,
        target=target,
        before=places[0],
        goal=places[-1, target],
        hand=truth.effector_position(episode),
        actions=dataset.actions(episode)[:-1],
    )


def imitate(model: LatentActionModel, shown: Demonstration, alignment: Alignment, compute: Compute) -> Commander:
    """Commands that bring what the robot sees to what is shown next: closed loop. After its end the last frame stays.

    Raises:
        ConfigError: when called with a simulation of another body or control mode than the alignment.
    """
    size = (shown.frames.shape[1], shown.frames.shape[2])
    ahead = np.arange(1, 1 + alignment.config.chunk)

    def commander(simulation: Simulation, frame: int, before: np.ndarray) -> np.ndarray:
        seen = resize(simulation.picture(shown.recorded_size).rgb, size)
        following = shown.frames[np.minimum(frame + ahead, len(shown.frames) - 1)]
        clip = np.moveaxis(np.concatenate([seen[None], following]), -1, 1)
        latent_actions = infer_latent_actions(model, clip, compute)[:-1]
        return follow(alignment, latent_actions)(simulation, 0, before)

    return commander


def true_actions(shown: Demonstration) -> Commander:
    """The demonstration's own actions: what can be reached at all."""

    def commander(simulation: Simulation, frame: int, before: np.ndarray) -> np.ndarray:
        del simulation, before
        return shown.actions[frame : frame + 1]

    return commander


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How near a robot came to a demonstration."""

    object_error: float
    """Distance on the table between where the object ended and where the demonstration's did, metres."""
    hand_error: float
    """Distance between the hands in space, mean over the frames after the first, metres."""

    @property
    def success(self) -> bool:
        """Whether the object is where it should be."""
        return self.object_error < NEAR


def attempt(demonstration: Demonstration, commander: Commander, simulation: Simulation) -> Attempt:
    """Let a robot act in the scene of a demonstration, for as long as it lasts.

    Raises:
        ConfigError: if the simulation is of another body or control mode than the demonstration.
        DataError: if the simulation builds another scene from the demonstration's seed.
        UnstablePhysics: if the physics gives up.
    """
    if simulation.embodiment != demonstration.embodiment:
        raise ConfigError(
            f"expected a simulation of {demonstration.embodiment.name}, who demonstrates, got "
            f"{simulation.embodiment.name}"
        )
    simulation.reset(demonstration.seed)
    _check_scene(demonstration, simulation)
    hand = [simulation.moment().effector_position for _ in acted(commander, simulation, len(demonstration.actions))]
    end = simulation.object_poses()[demonstration.target, :2]
    return Attempt(
        object_error=float(np.linalg.norm(end - demonstration.goal)),
        hand_error=float(np.linalg.norm(np.stack(hand) - demonstration.hand[1:], axis=1).mean()),
    )


def _check_scene(demonstration: Demonstration, simulation: Simulation) -> None:
    found = simulation.object_poses()[:, :2]
    if found.shape != demonstration.before.shape or np.abs(found - demonstration.before).max() > _SAME:
        raise DataError(
            f"episode {demonstration.episode}: expected seed {demonstration.seed} to put the objects at "
            f"{demonstration.before.round(3).tolist()}, found them at {found.round(3).tolist()}. Give the simulation "
            "the difficulty of the dataset; if it is the same, the dojo has changed: simulate the dataset again."
        )


@dataclass(frozen=True, kw_only=True)
class ImitationScore:
    """How well one way of commanding the robot repeats demonstrations."""

    success: Interval
    """Share of the demonstrations in which the object ends where it should (Wilson)."""
    object_error: Interval
    """Metres."""
    hand_error: Interval
    """Metres."""


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """Success on demonstrations that no alignment has seen."""

    scores: dict[str, ImitationScore]
    """By way of commanding the robot."""
    above: dict[str, Interval]
    """Success in closed loop minus a baseline's, paired by demonstration."""
    demonstrations: int
    """That count."""
    left_out: int
    """In which the physics gave up under one of the ways."""

    def to_json(self) -> dict[str, Any]:
        """Plain structures for a results file."""
        scores = {
            name: {
                "success": score.success.to_json(),
                "object_error": score.object_error.to_json(),
                "hand_error": score.hand_error.to_json(),
            }
            for name, score in self.scores.items()
        }
        above = {name: interval.to_json() for name, interval in self.above.items()}
        return {"demonstrations": self.demonstrations, "left_out": self.left_out, "scores": scores, "above": above}


def score_imitation(
    model: LatentActionModel,
    demonstrations: Sequence[Demonstration],
    alignment: Alignment,
    simulation: Simulation,
    compute: Compute,
) -> Imitation:
    """Let a robot repeat demonstrations in closed loop, against baselines and a bound.

    Baselines: the demonstration's latent actions replayed without looking, what the robot does on average, and the
    video of the next demonstration. Bound: the demonstration's true actions.

    Raises:
        DataError: if there are fewer than two demonstrations, or they come from other scenes than the simulation's.
        ConfigError: if the simulation is of another body or control mode than the alignment or a demonstration.
    """
    if len(demonstrations) < 2:
        raise DataError(f"expected at least 2 demonstrations, found {len(demonstrations)}. Simulate more episodes.")
    attempts: list[dict[str, Attempt]] = []
    for number, demonstration in enumerate(demonstrations):
        inferred = infer_latent_actions(model, np.moveaxis(demonstration.frames, -1, 1), compute)[:-1]
        other = demonstrations[(number + 1) % len(demonstrations)]
        commanders = {
            CLOSED_LOOP: imitate(model, demonstration, alignment, compute),
            OPEN_LOOP: follow(alignment, inferred),
            MEAN: follow(alignment, None),
            OTHER_VIDEO: imitate(model, other, alignment, compute),
            TRUE_ACTIONS: true_actions(demonstration),
        }
        try:
            attempts.append({name: attempt(demonstration, each, simulation) for name, each in commanders.items()})
        except UnstablePhysics:
            continue
    ways = (CLOSED_LOOP, OPEN_LOOP, MEAN, OTHER_VIDEO, TRUE_ACTIONS)
    succeeded = {name: torch.tensor([float(each[name].success) for each in attempts]) for name in ways}
    return Imitation(
        scores={name: _score([each[name] for each in attempts]) for name in ways},
        above={
            name: paired_interval(succeeded[CLOSED_LOOP], succeeded[name]) for name in (OPEN_LOOP, MEAN, OTHER_VIDEO)
        },
        demonstrations=len(attempts),
        left_out=len(demonstrations) - len(attempts),
    )


def _score(attempts: Sequence[Attempt]) -> ImitationScore:
    return ImitationScore(
        success=wilson_interval(sum(each.success for each in attempts), len(attempts)),
        object_error=mean_interval(torch.tensor([each.object_error for each in attempts])),
        hand_error=mean_interval(torch.tensor([each.hand_error for each in attempts])),
    )
