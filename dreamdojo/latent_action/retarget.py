"""A person's push becomes a robot's: human clip -> latent actions -> robot commands, replayed in the dojo.

The robot acts in the scene of the clip: the same objects, at the poses they had when the clip began. Its hand starts
where a person's hand is seen: the ray through the hand's pixel is met with the plane at which people push, and the
robot's closed gripper is put there, at the height at which it pushes itself. Where that would be inside an object, it
is moved straight away from the object's middle until it stands clear. Nothing else of the truth is used to act.

    agreement = person . robot / max(|person|^2, |robot|^2)

of the displacements of the object that the person pushed, on the table: 1 where they are equal, 0 where the robot moves
nothing or sideways, negative where it pushes the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.control import Wish
from dreamdojo.dojo.layout import Layout, draw_layout
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.align import Alignment
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions
from dreamdojo.metrics import Interval, mean_interval, paired_interval
from dreamdojo.training.device import Compute

FRAMES = 21
"""Of a push: two seconds at 10 Hz."""
LEAD = 4
"""Frames before the hand touches the object."""
MOVED = 0.03
"""How far a pushed object moves at least, metres."""

_LIFTED = 0.015  # metres: more is not a push
_LOW = 0.02  # metres above the height at which people push: a hand that comes down from higher does something else
_CLEAR = 0.022  # metres between the gripper's middle and what it stands beside
_DISTURBED = 0.008  # metres: objects that are not left alone at the start
_TOUCHED = 0.005  # metres: an object that moved less has no direction

ALIGNED, MEAN, SHUFFLED, TRUE_MOTION = (
    "aligned",
    "mean action",
    "another clip's latent actions",
    "the hand's true motion",
)


@dataclass(frozen=True, kw_only=True)
class Push:
    """A stretch of a human episode in which the hand pushes something."""

    episode: int
    """Number of the episode in its dataset."""
    seed: int
    """The scene."""
    start: int
    """First frame."""
    target: int
    """Number of the object."""
    object_poses: np.ndarray
    """`(n, 7)` of all objects at the first frame."""
    hand_pixel: np.ndarray
    """`(2,)` where the hand is seen at the first frame."""
    hand_motion: np.ndarray
    """`(FRAMES - 1, 3)` metres from frame to frame; used for the bound only."""
    displacement: np.ndarray
    """`(2,)` of the object on the table over the clip, metres."""


def find_push(truth: GroundTruth, episode: int, seed: int) -> Push | None:
    """The first push of an episode, or None where there is none that begins and ends within it."""
    poses, touched = truth.object_poses(episode), truth.touched(episode)
    for first in np.flatnonzero(touched.any(axis=1)):
        start = int(first) - LEAD
        if start < 0 or start + FRAMES > len(poses) or touched[start:first].any():
            continue
        span = poses[start : start + FRAMES]
        moved = span[-1, :, :2] - span[0, :, :2]
        target = int(np.linalg.norm(moved, axis=1).argmax())
        rise = span[:, target, 2] - span[0, target, 2]
        if np.linalg.norm(moved[target]) < MOVED or rise.max() > _LIFTED:
            continue
        hand = truth.effector_position(episode)[start : start + FRAMES]
        if hand[0, 2] > BODIES["human"].push_height + _LOW:
            continue
        return Push(
            episode=episode,
            seed=seed,
            start=start,
            target=target,
            object_poses=span[0],
            hand_pixel=truth.effector_pixel(episode)[start],
            hand_motion=np.diff(hand, axis=0),
            displacement=moved[target],
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a robot did with a push."""

    displacement: np.ndarray
    """`(2,)` of the object that the person pushed, metres."""
    commands: np.ndarray
    """`(FRAMES - 1, a)` in the robot's units."""
    frames: np.ndarray | None
    """`(FRAMES, h, w, 3)` uint8 from the head camera, where pictures were asked for."""


Commander = Callable[[Simulation, int, np.ndarray], np.ndarray]
"""The scene, the number of the frame and the last action -> actions `(k, a)` in the robot's units."""


def retarget(
    model: LatentActionModel,
    frames: np.ndarray,
    push: Push,
    alignment: Alignment,
    simulation: Simulation,
    compute: Compute,
    *,
    size: int | None = None,
) -> Replay:
    """Let a robot do what a person does in `frames`, uint8 `t c h w` of the clip at the robot's rate.

    Raises:
        ConfigError: if the simulation is of another body or control mode than the alignment.
        UnstablePhysics: if the physics gives up.
    """
    latent_actions = infer_latent_actions(model, frames, compute)[:-1]
    return replay(push, follow(alignment, latent_actions), simulation, size=size)


def follow(alignment: Alignment, latent_actions: np.ndarray | None) -> Commander:
    """Commands that look like latent actions `(t, l)`, or (None) what the robot does on average."""
    k = alignment.config.chunk

    def commander(simulation: Simulation, frame: int, before: np.ndarray) -> np.ndarray:
        if simulation.embodiment != alignment.config.embodiment:
            raise ConfigError(
                f"expected a simulation of {alignment.config.embodiment.name}, got {simulation.embodiment.name}"
            )
        state = simulation.state()
        if latent_actions is None:
            return alignment.mean_commands(state=state, before=before)
        rows = np.minimum(np.arange(frame, frame + k), len(latent_actions) - 1)  # the last chunk may reach beyond
        return alignment.commands(latent_actions[rows], state=state, before=before)

    return commander


def true_motion(push: Push) -> Commander:
    """Commands that move the robot's hand as the person's really moved: what perfect latent actions could do."""

    def commander(simulation: Simulation, frame: int, before: np.ndarray) -> np.ndarray:
        velocity = push.hand_motion[frame] * simulation.fps
        return simulation.demonstrate(Wish(velocity=velocity, turn=0.0, opening=0.0))[None]

    return commander


def start_layout(push: Push, simulation: Simulation) -> Layout:
    """The scene of a push with the robot's hand where the person's is seen."""
    layout = draw_layout(push.seed, simulation.difficulty, simulation.body)
    placed = tuple(
        replace(thing, position=_floats(pose[:3]), quaternion=_floats(pose[3:]))
        for thing, pose in zip(layout.objects, push.object_poses, strict=True)
    )
    body = simulation.body
    simulation.reset_to(replace(layout, objects=placed))  # for its camera
    place = simulation.on_plane(push.hand_pixel, BODIES["human"].push_height)[:2]
    for _ in range(3):  # clear of one object may be inside another
        for thing in placed:
            away = place - thing.position[:2]
            distance = max(float(np.linalg.norm(away)), 1e-6)
            room = thing.shape.footprint + _CLEAR
            if distance < room:
                place = thing.position[:2] + away / distance * room
    start = np.clip([*place, body.push_height], body.workspace_low, body.workspace_high)
    return replace(layout, objects=placed, start=_floats(start), start_opening=0.0)


def replay(push: Push, commander: Commander, simulation: Simulation, *, size: int | None = None) -> Replay:
    """Let a robot act in the scene of a push.

    Raises:
        UnstablePhysics: if the physics gives up, or the robot cannot start without disturbing the objects.
    """
    simulation.reset_to(start_layout(push, simulation))
    before = simulation.object_poses()[:, :2].copy()
    if np.abs(before - push.object_poses[:, :2]).max() > _DISTURBED:
        raise UnstablePhysics(push.seed, "the robot's start disturbs the objects")
    commands: list[np.ndarray] = []
    frames = [] if size is None else [simulation.picture(size).rgb]
    for action in acted(commander, simulation, FRAMES - 1):
        commands.append(action)
        if size is not None:
            frames.append(simulation.picture(size).rgb)
    return Replay(
        displacement=simulation.object_poses()[push.target, :2] - before[push.target],
        commands=np.stack(commands),
        frames=np.stack(frames) if frames else None,
    )


def acted(commander: Commander, simulation: Simulation, steps: int) -> Iterator[np.ndarray]:
    """Let a robot act for some steps: each action `(a,)`, once the simulation has taken it.

    Raises:
        UnstablePhysics: if the physics gives up.
    """
    last, done = np.zeros(simulation.embodiment.action_dim, np.float32), 0
    while done < steps:
        for action in commander(simulation, done, last)[: steps - done]:
            simulation.step(action)
            last, done = action, done + 1
            yield action


def agreement(person: np.ndarray, robot: np.ndarray) -> float:
    """How alike two displacements `(2,)` are: 1 where equal, 0 where unrelated, negative where opposite."""
    return float(person @ robot / max(person @ person, robot @ robot, 1e-12))


@dataclass(frozen=True, kw_only=True)
class RetargetScore:
    """How well one way of commanding the robot does what the person did, over clips."""

    agreement: Interval
    """Direction and length together (see the module)."""
    direction: Interval
    """Cosine between the displacements; 0 where the robot moves nothing."""
    length: Interval
    """The shorter displacement over the longer."""
    moved: float
    """Share of the clips in which the object is moved at all."""


@dataclass(frozen=True, kw_only=True)
class Retargeting:
    """Object displacement agreement on scenes that no alignment has seen."""

    scores: dict[str, RetargetScore]
    """By way of commanding the robot."""
    above: dict[str, Interval]
    """Agreement of the aligned robot minus a baseline's, paired by clip."""
    clips: int
    """Clips that count."""
    left_out: int
    """Clips in which the physics gave up or the robot found no place to start."""

    def to_json(self) -> dict[str, Any]:
        """Plain structures for a results file."""
        scores = {
            name: {
                "agreement": score.agreement.to_json(),
                "direction": score.direction.to_json(),
                "length": score.length.to_json(),
                "moved": score.moved,
            }
            for name, score in self.scores.items()
        }
        above = {name: interval.to_json() for name, interval in self.above.items()}
        return {"clips": self.clips, "left_out": self.left_out, "scores": scores, "above": above}


def score_retargeting(
    pushes: Sequence[Push], latent_actions: Sequence[np.ndarray], alignment: Alignment, simulation: Simulation
) -> Retargeting:
    """Replay pushes by their latent actions `(FRAMES - 1, l)`, against baselines and a bound.

    Baselines: what the robot does on average, and the latent actions of the next clip. Bound: the hand's true motion.

    Raises:
        DataError: if there are fewer than two pushes, or not as many latent actions.
        ConfigError: if the simulation is of another body or control mode than the alignment.
    """
    if len(pushes) < 2 or len(latent_actions) != len(pushes):
        raise DataError(
            f"expected at least 2 pushes with their latent actions, found {len(pushes)} and {len(latent_actions)}. "
            "Simulate more human episodes."
        )
    found: dict[str, list[np.ndarray]] = {name: [] for name in (ALIGNED, MEAN, SHUFFLED, TRUE_MOTION)}
    persons = []
    for number, push in enumerate(pushes):
        commanders = {
            ALIGNED: follow(alignment, latent_actions[number]),
            MEAN: follow(alignment, None),
            SHUFFLED: follow(alignment, latent_actions[(number + 1) % len(pushes)]),
            TRUE_MOTION: true_motion(push),
        }
        try:
            moved = {name: replay(push, each, simulation).displacement for name, each in commanders.items()}
        except UnstablePhysics:
            continue
        persons.append(push.displacement)
        for name, displacement in moved.items():
            found[name].append(displacement)
    agreements = {
        name: torch.tensor([agreement(person, robot) for person, robot in zip(persons, robots, strict=True)])
        for name, robots in found.items()
    }
    return Retargeting(
        scores={name: _score(persons, robots, agreements[name]) for name, robots in found.items()},
        above={name: paired_interval(agreements[ALIGNED], agreements[name]) for name in (MEAN, SHUFFLED)},
        clips=len(persons),
        left_out=len(pushes) - len(persons),
    )


def _score(persons: list[np.ndarray], robots: list[np.ndarray], agreements: torch.Tensor) -> RetargetScore:
    directions, lengths, moved = [], [], []
    for person, robot in zip(persons, robots, strict=True):
        here, there = float(np.linalg.norm(person)), float(np.linalg.norm(robot))
        moved.append(there > _TOUCHED)
        directions.append(float(person @ robot) / (here * there) if there > _TOUCHED else 0.0)
        lengths.append(min(here, there) / max(here, there))
    return RetargetScore(
        agreement=mean_interval(agreements),
        direction=mean_interval(torch.tensor(directions)),
        length=mean_interval(torch.tensor(lengths)),
        moved=float(np.mean(moved)) if moved else 0.0,
    )


def _floats(values: np.ndarray | Sequence[float]) -> Any:
    return tuple(float(value) for value in values)
