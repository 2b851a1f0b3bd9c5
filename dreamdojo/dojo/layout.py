"""What stands on the table at the start of an episode: a seed becomes objects, their places and the look of the scene.

The split that a seed belongs to decides what may appear: held-out shapes, colours, layouts and lighting are each drawn
for their own `ood` split and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from dreamdojo.dojo.appearance import Colour, Look, lighting, object_colour, table_texture
from dreamdojo.dojo.body import Body
from dreamdojo.dojo.difficulty import Difficulty
from dreamdojo.dojo.geometry import Quaternion, Vector, axis_angle, multiply
from dreamdojo.dojo.objects import HELD_OUT_SHAPES, TRAIN_SHAPES, Shape
from dreamdojo.dojo.splits import Split, split_of

CAMERA = "head"
"""Name of the camera."""
CAMERA_POSITION: Vector = (-0.37, 0.0, 0.58)
CAMERA_TARGET: Vector = (0.045, 0.0, 0.05)
CAMERA_FOV = 37.0
"""Vertical field of view, degrees."""

AREA_LOW, AREA_HIGH = (-0.09, -0.13), (0.15, 0.14)
"""Where objects are put, x and y, metres."""


@dataclass(frozen=True, kw_only=True)
class PlacedObject:
    """An object and where it is at the start."""

    shape: Shape
    """Its form."""
    name: str
    """Colour and form in words, e.g. `red mug`."""
    colour: Colour
    """RGB in [0, 1]."""
    density: float
    """Kilograms per cubic metre."""
    friction: float
    """Coefficient of sliding friction."""
    position: Vector
    """Of its origin, metres."""
    quaternion: Quaternion
    """Of its frame."""

    @property
    def standing(self) -> bool:
        """Whether it stands upright, so that its grasps are where its shape says."""
        _, x, y, _ = self.quaternion
        return x * x + y * y < 0.01


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Something to be brought to a place."""

    target: int
    """Number of the object."""
    goal: tuple[float, float]
    """Where its centre should be, x and y, metres."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The start of an episode."""

    seed: int
    """That it was drawn from."""
    split: Split
    """That the seed belongs to."""
    objects: tuple[PlacedObject, ...]
    """What stands on the table."""
    look: Look
    """Light, table, camera and colours."""
    start: Vector
    """Where the effector begins, metres."""
    start_yaw: float
    """Its turn about the vertical, radians."""
    start_opening: float = 1.0
    """How far the hand is open, 0 to 1."""
    errand: Errand | None = None
    """Which object is to go where, marked on the table in the object's colour; None for free play."""


def draw_layout(seed: int, difficulty: Difficulty, body: Body) -> Layout:
    """The layout of a seed. Objects and looks do not depend on the body, except for its own colours and start."""
    split = split_of(seed)
    rng = np.random.default_rng([seed, 0])
    count = int(rng.integers(difficulty.objects[0], difficulty.objects[1] + 1))
    if split == "ood_layout":
        count = max(count, 2)
    makers = HELD_OUT_SHAPES if split == "ood_shape" else TRAIN_SHAPES
    shapes = [makers[str(rng.choice(list(makers)))](rng) for _ in range(count)]
    places = _row_and_stack(rng, shapes) if split == "ood_layout" else _scatter(rng, shapes, difficulty.gap)
    objects = []
    for shape, (position, quaternion) in zip(shapes, places, strict=True):
        word, colour = object_colour(rng, held_out=split == "ood_colour")
        objects.append(
            PlacedObject(
                shape=shape,
                name=f"{word} {shape.name}",
                colour=colour,
                density=float(rng.uniform(400, 1000)),
                friction=float(rng.uniform(0.6, 1.1)),
                position=position,
                quaternion=quaternion,
            )
        )
    look = _draw_look(rng, split, difficulty, body)
    start, yaw = _draw_start(rng, body)
    return Layout(seed=seed, split=split, objects=tuple(objects), look=look, start=start, start_yaw=yaw)


def rearranged(layout: Layout, rng: np.random.Generator, body: Body, *, gap: float = 0.01) -> Layout:
    """The same objects in the same light, each at another place and turned about the vertical, and another start."""
    taken: list[tuple[tuple[float, float], float]] = []
    objects = []
    for placed in layout.objects:
        spot = _free_spot(rng, taken, placed.shape.footprint, gap)
        taken.append((spot, placed.shape.footprint))
        turn = multiply(axis_angle((0, 0, 1), float(rng.uniform(-math.pi, math.pi))), placed.quaternion)
        objects.append(replace(placed, position=(*spot, placed.shape.rest_height(turn)), quaternion=turn))
    start, yaw = _draw_start(rng, body)
    return replace(layout, objects=tuple(objects), start=start, start_yaw=yaw)


def with_errand(layout: Layout, body: Body, *, grasp: bool) -> Layout | None:
    """The layout with something to be done in it, or None where nothing suits.

    Args:
        layout: a scene.
        body: who does it.
        grasp: whether the object must be one that the body can take hold of; otherwise any will do.
    """
    rng = np.random.default_rng([layout.seed, 2])
    targets = [index for index, placed in enumerate(layout.objects) if not grasp or _can_grasp(body, placed)]
    for _ in range(100 * bool(targets)):
        target = targets[int(rng.integers(len(targets)))]
        x, y = (float(value) for value in rng.uniform(AREA_LOW, AREA_HIGH))
        others = [placed for index, placed in enumerate(layout.objects) if index != target]
        far = math.dist((x, y), layout.objects[target].position[:2]) > 0.09
        room = layout.objects[target].shape.footprint + 0.01
        if far and all(math.dist((x, y), o.position[:2]) > o.shape.footprint + room for o in others):
            return replace(layout, errand=Errand(target=target, goal=(x, y)))
    return None


def _draw_start(rng: np.random.Generator, body: Body) -> tuple[Vector, float]:
    """Where the effector begins, and its turn."""
    low, high = np.array(body.workspace_low), np.array(body.workspace_high)
    start = rng.uniform((-0.08, -0.15, 0.11), (0.12, 0.12, 0.17))
    x, y, z = (float(value) for value in np.clip(start, low, high))
    return (x, y, z), float(rng.uniform(-0.4, 0.4)) + sum(body.yaw_range) / 2


def _can_grasp(body: Body, placed: PlacedObject) -> bool:
    return placed.standing and any(body.can_take(grasp.width, edge=grasp.edge) for grasp in placed.shape.grasps)


def _draw_look(rng: np.random.Generator, split: Split, difficulty: Difficulty, body: Body) -> Look:
    shift = rng.normal(0, difficulty.camera_shift, 3)
    aim = rng.normal(0, difficulty.camera_turn, 3)
    distance = math.dist(CAMERA_POSITION, CAMERA_TARGET)
    px, py, pz = (float(value) for value in np.add(CAMERA_POSITION, shift))
    tx, ty = (float(value) for value in np.add(CAMERA_TARGET[:2], aim[:2] * distance))
    level = float(rng.uniform(0.18, 0.5))
    return Look(
        texture=table_texture(rng, contrast=difficulty.texture_contrast, held_out=split == "ood_colour"),
        floor=(level, level * float(rng.uniform(0.95, 1.05)), level * float(rng.uniform(0.95, 1.1))),
        lighting=lighting(rng, held_out=split == "ood_lighting"),
        camera_position=(px, py, pz),
        camera_target=(tx, ty, CAMERA_TARGET[2]),
        camera_roll=float(aim[2]),
        materials=body.materials(rng),
    )


def _scatter(rng: np.random.Generator, shapes: list[Shape], gap: float) -> list[tuple[Vector, Quaternion]]:
    """Places for objects side by side, at least `gap` metres apart; the gap gives way where there is no room."""
    places: list[tuple[Vector, Quaternion]] = []
    taken: list[tuple[tuple[float, float], float]] = []
    for shape in shapes:
        spot = _free_spot(rng, taken, shape.footprint, gap)
        turn = axis_angle((0, 0, 1), float(rng.uniform(-math.pi, math.pi)))
        if shape.name in ("cylinder", "bottle") and rng.random() < 0.15:
            turn = multiply(turn, axis_angle((0, 1, 0), math.pi / 2))  # lying
        taken.append((spot, shape.footprint))
        places.append(((*spot, shape.rest_height(turn)), turn))
    return places


def _free_spot(
    rng: np.random.Generator, taken: list[tuple[tuple[float, float], float]], radius: float, gap: float
) -> tuple[float, float]:
    """A random spot on the table for a circle, apart from the circles that are `taken`."""
    room = gap
    while True:
        x, y = (float(value) for value in rng.uniform(AREA_LOW, AREA_HIGH))
        if all(math.dist((x, y), spot) > radius + other + room for spot, other in taken):
            return x, y
        room -= gap / 500 + 1e-5  # below zero circles overlap, which are wider than what stands in them


def _row_and_stack(rng: np.random.Generator, shapes: list[Shape]) -> list[tuple[Vector, Quaternion]]:
    """Objects in touching rows, and upon one another where one has a flat top: never so in training."""
    flat = {"box", "cylinder"}
    places: list[tuple[Vector, Quaternion]] = []
    direction = float(rng.uniform(-math.pi / 2, math.pi / 2))
    centre = rng.uniform(np.add(AREA_LOW, 0.05), np.subtract(AREA_HIGH, 0.05))
    along = -sum(shape.footprint for shape in shapes)
    below: tuple[Shape, Vector] | None = None
    for shape in shapes:
        turn = axis_angle((0, 0, 1), direction)
        if below is not None and below[0].name in flat and shape.name != "ball" and rng.random() < 0.7:
            (under, (x, y, _)), below = below, None
            places.append(((x, y, under.height + shape.rest_height(turn) + 0.0005), turn))
            continue
        along += shape.footprint
        x, y = (float(v) for v in centre + along * np.array([math.cos(direction), math.sin(direction)]))
        along += shape.footprint + 0.002
        position = (x, y, shape.rest_height(turn))
        below = (shape, position)
        places.append((position, turn))
    return places
