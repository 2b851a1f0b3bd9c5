"""How objects are turned about the vertical, and pictures of many turns to learn it from.

views = draw_views("arm", seed=seed_of("train", 7), count=6, size=128)
views.headings                                    # t n, radians, NaN where it cannot be seen
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamdojo.dojo.difficulty import GENTLE, Difficulty
from dreamdojo.dojo.geometry import matrix
from dreamdojo.dojo.layout import rearranged
from dreamdojo.dojo.objects import Shape
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.errors import SimulationError

STEEPEST = 0.6
"""Vertical part of a unit axis above which its direction on the table is not asked for: it stands rather than lies."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Pictures of one scene whose objects lie elsewhere in each."""

    frames: np.ndarray
    """`t h w 3` uint8."""
    labels: np.ndarray
    """`t h w` uint8 segmentation."""
    pixels: np.ndarray
    """`t n 2` u and v of the objects' centres."""
    headings: np.ndarray
    """`t n` radians, NaN where it cannot be seen."""
    folds: np.ndarray
    """`n` whole numbers: turns by a full circle over `fold` look alike; 0 where no turn can be seen at all."""


def heading(shape: Shape, quaternion: Sequence[float] | np.ndarray) -> float:
    """Direction on the table of the mark of a shape, radians; NaN where it has none or it stands upright."""
    if shape.mark is None:
        return math.nan
    x, y, z = matrix(quaternion) @ shape.mark.axis
    return math.nan if abs(z) > STEEPEST else math.atan2(y, x)


def headings(shapes: Sequence[Shape], poses: np.ndarray) -> np.ndarray:
    """The heading of every object `t n` from its poses `t n 7`."""
    return np.array([[heading(shape, pose[3:]) for shape, pose in zip(shapes, row, strict=True)] for row in poses])


def folds(shapes: Sequence[Shape]) -> np.ndarray:
    """How often a full turn of each shape looks alike `n`; 0 where no turn can be seen."""
    return np.array([0 if shape.mark is None else shape.mark.fold for shape in shapes])


def draw_views(body: str, *, seed: int, count: int, size: int, difficulty: Difficulty = GENTLE) -> Views:
    """Pictures of the scene of a seed with its objects rearranged and the body elsewhere in each.

    Raises:
        SimulationError: if most arrangements do not come to rest.
    """
    simulation = Simulation(body, difficulty=difficulty)
    simulation.reset(seed)
    first, rng = simulation.layout, np.random.default_rng([seed, 3])
    shapes = [placed.shape for placed in first.objects]
    frames, labels, pixels, turned = [], [], [], []
    for _ in range(3 * count):
        try:
            simulation.reset_to(rearranged(first, rng, simulation.body))
        except UnstablePhysics:
            continue
        picture, moment = simulation.picture(size, segmentation=True), simulation.moment()
        frames.append(picture.rgb)
        labels.append(picture.segmentation)
        pixels.append(moment.object_pixels)
        turned.append(moment.object_poses)
        if len(frames) == count:
            break
    else:
        raise SimulationError(f"seed {seed}: {len(frames)} of {3 * count} arrangements came to rest. Use another seed.")
    return Views(
        frames=np.stack(frames),
        labels=np.stack(labels),
        pixels=np.stack(pixels),
        headings=headings(shapes, np.stack(turned)),
        folds=folds(shapes),
    )
