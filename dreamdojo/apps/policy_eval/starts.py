"""Where episodes begin: real first frames, of the dojo's scenes or of recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.dataset.read import Dataset
from dreamdojo.dojo.splits import seed_of
from dreamdojo.errors import DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.training.progress import Report, silent
from dreamdojo.video import Size, resize
from dreamdojo.world import Observation

if TYPE_CHECKING:
    from dreamdojo.dojo.simulation import Simulation

RECORDED = 128
"""Side of the dojo's pictures in pixels before they are resized to the model's, as in its datasets."""

_TABLE = np.array([[0.0, 0.12], [0.0, -0.12], [0.16, 0.12], [0.16, -0.12]])  # four points that fix the plane


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One object of each start and where it is: what a probe of object positions needs to look for it later."""

    mask: Bool[Tensor, "b h w"]
    """Its pixels in the first frame."""
    place: Float[Tensor, "b 2"]
    """Where it stands on the table, metres."""
    to_table: Float[Tensor, "b 3 3"]
    """Homography from the picture (u, v, 1) to the table at half the object's height (x, y, 1), metres."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Real first frames, and what is known about them."""

    names: tuple[int, ...]
    """Seeds of the dojo, or numbers of recorded episodes."""
    observation: Observation
    """One frame (and state) of each: `b 1 ...`."""
    marked: Marked | None = None
    """The object in question, where it is known."""

    def __len__(self) -> int:
        return len(self.names)

    def part(self, first: int, last: int) -> Starts:
        """Starts `first` to `last - 1`."""
        rows, seen, marked = slice(first, last), self.observation, self.marked
        return Starts(
            names=self.names[rows],
            observation=Observation(
                frames={name: frames[rows] for name, frames in seen.frames.items()},
                state=None if seen.state is None else seen.state[rows],
                depth=None if seen.depth is None else {name: depth[rows] for name, depth in seen.depth.items()},
            ),
            marked=None
            if marked is None
            else Marked(mask=marked.mask[rows], place=marked.place[rows], to_table=marked.to_table[rows]),
        )


def dojo_starts(
    new: Callable[[], Simulation],
    *,
    split: str,
    count: int,
    size: Size,
    first_index: int = 0,
    report: Report = silent,
) -> Starts:
    """The first `count` scenes of a split that come to rest and have an object in view.

    The marked object is the one that shows most of itself.

    Args:
        new: makes a simulation of the body, control mode and difficulty in question.
        split: which seeds; policies and models must not have learned from it.
        count: how many.
        size: height and width of the world model's frames.
        first_index: number of the first seed within the split.
        report: progress.
    """
    from dreamdojo.dojo.scene import FIRST_OBJECT
    from dreamdojo.dojo.simulation import UnstablePhysics

    names, frames, states, masks, places, tables = [], [], [], [], [], []
    index = first_index
    while len(names) < count:
        seed, index = seed_of(split, index), index + 1
        simulation = new()
        try:
            simulation.reset(seed)
        except UnstablePhysics:
            continue
        picture = simulation.picture(RECORDED, segmentation=True)
        assert picture.segmentation is not None
        labels = resize(picture.segmentation[None], size, nearest=True)[0]
        poses = simulation.object_poses()
        areas = [(labels == FIRST_OBJECT + number).sum() for number in range(len(poses))]
        target = int(np.argmax(areas))
        if not areas[target]:
            continue
        names.append(seed)
        frames.append(resize(picture.rgb[None], size))
        states.append(simulation.state())
        masks.append(labels == FIRST_OBJECT + target)
        places.append(poses[target, :2].copy())
        tables.append(_homography(simulation, height=float(poses[target, 2])))
        report(len(names), count, f"first frames, {split}")
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).contiguous()
    return Starts(
        names=tuple(names),
        observation=Observation(frames={CAMERA: pictures}, state=torch.from_numpy(np.stack(states))[:, None]),
        marked=Marked(
            mask=torch.from_numpy(np.stack(masks)),
            place=torch.from_numpy(np.stack(places)).float(),
            to_table=torch.from_numpy(np.stack(tables)).float(),
        ),
    )


def recorded_starts(dataset: Dataset, indices: Sequence[int], *, size: Size, camera: str | None = None) -> Starts:
    """The first frames of recorded episodes.

    Raises:
        DataError: if there is no episode, or the camera must be named.
    """
    if not indices:
        raise DataError(f"{dataset.root}: expected at least one episode to start from, got none")
    frames = np.stack([dataset.frames(index, [0], camera, size=size) for index in indices])
    state = None
    if dataset.embodiment.state_dim:
        state = torch.from_numpy(np.stack([dataset.states(index)[:1] for index in indices]))
    pictures = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).contiguous()
    return Starts(names=tuple(indices), observation=Observation(frames={CAMERA: pictures}, state=state))


def on_table(to_table: Float[Tensor, "b 3 3"], pixel: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    """Where on the table (metres) something seen at (u, v) is."""
    x, y, w = (to_table @ torch.cat([pixel, torch.ones_like(pixel[:, :1])], dim=1)[..., None])[..., 0].unbind(1)
    return torch.stack([x / w, y / w], dim=1)


def _homography(simulation: Simulation, *, height: float) -> np.ndarray:
    """From the picture to the plane at `height` metres, by four points of it."""
    pixels = simulation.pixel(np.concatenate([_TABLE, np.full((4, 1), height)], axis=1))
    rows = []
    for (u, v), (x, y) in zip(pixels, _TABLE, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -x * u, -x * v])
        rows.append([0, 0, 0, u, v, 1, -y * u, -y * v])
    solution = np.linalg.solve(np.array(rows), _TABLE.ravel())
    return np.append(solution, 1.0).reshape(3, 3)
