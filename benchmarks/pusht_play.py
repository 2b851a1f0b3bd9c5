"""gym-pusht's table, a script that plays on it, and what is recorded and asked for from its play.

A pusher (a disc) pushes a T about a table of 512 pixels, 10 actions a second. An action is where the pusher should go,
from where it is: up to 100 pixels along x and y, as stable-worldmodel has it, and never off the table. One pixel counts
as a millimetre, so that poses are in metres like everywhere else.

An errand is two moments of one scripted episode, 25 actions apart: start in the first, look like the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gym_pusht  # noqa: F401  (its import registers the environment)
import gymnasium
import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, encode_episode
from dreamdojo.rollout.session import CAMERA
from dreamdojo.training.progress import Report, silent

PIXEL = 0.001
"""Metres."""
TABLE = 512.0
REACH = 100.0
"""Pixels that the target may be from the pusher, along x and along y."""
DRAWN = 128
"""Side of a picture; a model shrinks it to its own."""
FPS = 10.0
AHEAD = 25
"""Actions from an errand's start to its goal."""
NEAR, TURNED = 20.0, np.pi / 9
"""An errand is done when pusher and block, four numbers, are less than so many pixels off, and the block is turned by
less than so much."""
EPISODE = 100
"""Frames of an episode of play."""
HELD_OUT = 1_000_000
"""Seeds of errands begin here, those of recordings at 0."""

BODY = Embodiment(
    name="pusht/target_offset",
    action=(
        Field(
            name="target_offset",
            axes=("x", "y"),
            unit="m",
            low=(-REACH * PIXEL,) * 2,
            high=(REACH * PIXEL,) * 2,
            resampling="mean",
        ),
    ),
    state=(Field(name="pusher_position", axes=("x", "y"), unit="m", low=(0.0, 0.0), high=(TABLE * PIXEL,) * 2),),
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All that moves on the table, in pixels, radians and seconds."""

    pusher: np.ndarray
    """`(4,)` its place and its velocity."""
    block: np.ndarray
    """`(6,)` the T's place and angle, and their rates."""

    @property
    def pose(self) -> np.ndarray:
        """`(5,)` place of the pusher, place and angle of the block."""
        return np.concatenate([self.pusher[:2], self.block[:3]])


def apart(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Pixels between the places of two poses `(5,)`, pusher and block together, and radians between the blocks."""
    turn = abs(first[4] - second[4]) % (2 * np.pi)
    return float(np.linalg.norm(first[:4] - second[:4])), float(min(turn, 2 * np.pi - turn))


class Table:
    """One gym-pusht simulation that can be put into any moment."""

    def __init__(self, seed: int = 0) -> None:
        made = gymnasium.make(
            "gym_pusht/PushT-v0",
            obs_type="state",
            observation_width=DRAWN,
            observation_height=DRAWN,
            disable_env_checker=True,
        )
        self._env: Any = made.unwrapped
        self._env._get_coverage = lambda: 0.0  # the reward takes most of a step's time, and nobody asks for it
        self._env.reset(seed=seed)

    @property
    def pusher(self) -> np.ndarray:
        """`(2,)` pixels."""
        return np.array(self._env.agent.position)

    @property
    def moment(self) -> Moment:
        """How it stands."""
        pusher, block = self._env.agent, self._env.block
        return Moment(
            pusher=np.array([*pusher.position, *pusher.velocity]),
            block=np.array([*block.position, block.angle, *block.velocity, block.angular_velocity]),
        )

    def put(self, moment: Moment) -> None:
        """Let it stand so. What presses on what is not known from a moment, so it goes on a hair's breadth apart."""
        pusher, block = self._env.agent, self._env.block
        block.angle = float(moment.block[2])  # first: turning about the centre of mass moves the T's own origin
        block.position, block.velocity = tuple(moment.block[:2]), tuple(moment.block[3:5])
        block.angular_velocity = float(moment.block[5])
        pusher.position, pusher.velocity = tuple(moment.pusher[:2]), tuple(moment.pusher[2:])
        for body in (pusher, block):
            self._env.space.reindex_shapes_for_body(body)

    def act(self, offset: np.ndarray) -> None:
        """A tenth of a second with the target `offset` (2,) pixels from where the pusher is."""
        self._env.step(np.clip(self.pusher + np.clip(offset, -REACH, REACH), 0, TABLE))

    def picture(self) -> np.ndarray:
        """`h w 3` uint8, without the mark that `render` puts at the target."""
        return self._env._render()


class Script:
    """Goes beside the block and pushes through it, again and again, by a straight way and with a trembling hand."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._tremor = rng.uniform(3, 30)
        self._way: list[np.ndarray] = []
        self._speed = self._patience = 0.0

    def act(self, pose: np.ndarray) -> np.ndarray:
        """The offset `(2,)` to aim at from a pose `(5,)`."""
        if not self._way:
            self._way, self._speed = self._stroke(pose[2:4]), self._rng.uniform(15, 70)
            self._patience = 30
        away = self._way[0] - pose[:2]
        self._patience -= 1
        if np.linalg.norm(away) < 15 or self._patience <= 0:
            self._way.pop(0)
            self._patience = 30
        step = away * min(1.0, self._speed / max(float(np.linalg.norm(away)), 1e-6))
        return np.clip(step + self._rng.normal(0, self._tremor, 2), -REACH, REACH)

    def _stroke(self, block: np.ndarray) -> list[np.ndarray]:
        """Where to go: to one side of the block and through some point of it, or for a fifth of the time anywhere."""
        if self._rng.random() < 0.2:
            return [np.clip(block + self._rng.uniform(-REACH, REACH, 2), 20, TABLE - 20)]
        inwards = (TABLE / 2 - block) / (TABLE / 2)
        along = self._rng.normal(0, 1, 2) + 4 * inwards * np.abs(inwards)  # rarely into a wall
        along /= np.linalg.norm(along)
        through = block + self._rng.uniform(-55, 55, 2)
        ends = [through - self._rng.uniform(70, 120) * along, through + self._rng.uniform(0, 100) * along]
        return [np.clip(ends[0], 20, TABLE - 20), np.clip(ends[1], 90, TABLE - 90)]


@dataclass(frozen=True, kw_only=True)
class Play:
    """An episode of the script."""

    moments: tuple[Moment, ...]
    """At each frame."""
    offsets: np.ndarray
    """`t 2` pixels; row i leads to moment i + 1, the last is rest."""
    pictures: np.ndarray | None
    """`t h w 3` uint8, where they were asked for."""


def play(seed: int, *, frames: int = EPISODE, drawn: bool = False) -> Play:
    """Let the script play from where gym-pusht's own reset puts everything; the same seed gives the same."""
    table, script = Table(seed), Script(np.random.default_rng([seed, 1]))
    moments, offsets, pictures = [], [], []
    for index in range(frames):
        moments.append(table.moment)
        if drawn:
            pictures.append(table.picture())
        offsets.append(script.act(moments[-1].pose) if index < frames - 1 else np.zeros(2))
        table.act(offsets[-1])
    return Play(moments=tuple(moments), offsets=np.stack(offsets), pictures=np.stack(pictures) if drawn else None)


def record(root: Path, *, episodes: int, report: Report = silent) -> Dataset:
    """Episodes of play as a LeRobot dataset; one that is there is opened."""
    if not root.exists():
        cameras = {CAMERA: CameraSpec(height=DRAWN, width=DRAWN)}
        with DatasetWriter(root, fps=FPS, embodiment=BODY, cameras=cameras) as writer:
            for index in range(episodes):
                episode = play(index, drawn=True)
                assert episode.pictures is not None
                places = np.stack([moment.pusher[:2] for moment in episode.moments])
                columns = {"action": episode.offsets * PIXEL, "observation.state": places * PIXEL}
                writer.add(
                    encode_episode(
                        scratch=writer.scratch,
                        index=index,
                        fps=FPS,
                        cameras=cameras,
                        frames={CAMERA: episode.pictures},
                        columns={name: rows.astype(np.float32) for name, rows in columns.items()},
                        task="push the T about",
                    )
                )
                report(index + 1, episodes, "episodes")
    return open_dataset(root)


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Be in `goal` some time, starting from `start`."""

    start: Moment
    goal: Moment
    picture: Tensor
    """`c h w` uint8 of the goal: all that a planner is told."""

    @property
    def block_moves(self) -> bool:
        """Whether the block stands elsewhere in the goal by more than what counts as done."""
        places = [np.concatenate([np.zeros(2), moment.block[:3]]) for moment in (self.start, self.goal)]
        distance, turn = apart(*places)
        return distance >= NEAR or turn >= TURNED


def errand_of(number: int) -> Errand:
    """Errand `number`: a random moment of an episode that no recording holds, and the one 25 actions later.

    Where the script has squeezed the block into a wall, another moment of the episode is taken if there is one.
    """
    seed = HELD_OUT + number
    episode = play(seed)
    free = [bool((np.abs(moment.block[:2] - TABLE / 2) < TABLE / 2 - 50).all()) for moment in episode.moments]
    starts = [i for i in range(EPISODE - AHEAD) if free[i] and free[i + AHEAD]] or range(EPISODE - AHEAD)
    first = int(np.random.default_rng([seed, 2]).choice(starts))
    goal, table = episode.moments[first + AHEAD], Table()
    table.put(goal)
    picture = torch.from_numpy(table.picture()).permute(2, 0, 1).contiguous()
    return Errand(start=episode.moments[first], goal=goal, picture=picture)
