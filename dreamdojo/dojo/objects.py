"""The things on the table: eight kinds for training, four that are held out, each of random proportions.

An object is a tuple of primitives in a frame whose z axis is up when the object stands. It says where a gripper may
take hold of it, so that a scripted expert needs no search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dreamdojo.dojo.geometry import IDENTITY, Primitive, Quaternion, Vector, axis_angle, lowest_point, multiply

MAX_PARTS = 12
"""Primitives that one object may have."""


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """A place to close a gripper on, in the object's frame."""

    position: Vector
    """Middle between the fingers, metres."""
    width: float
    """What the fingers close on, metres."""
    yaw: float | None = None
    """Turn of the hand about the vertical relative to the object, radians; None where any will do."""
    edge: bool = False
    """Whether this is a rim, which only a hand that comes from above can take."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What shows how an object is turned: an axis of it that can be seen, and how often a full turn looks alike."""

    axis: Vector
    """In the object's frame, a unit vector."""
    fold: int
    """Turns by a full circle over `fold` look alike."""


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_SQUARE = 0.75  # of the longer side: a box whose sides are closer than this looks the same after a quarter turn


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A form without place, colour or weight."""

    name: str
    """What a person would call it."""
    parts: tuple[Primitive, ...]
    """The solids it is made of, at most `MAX_PARTS`."""
    grasps: tuple[Grasp, ...]
    """Where to take hold of it when it stands; empty when it is too wide."""
    round: bool = False
    """Whether it can roll."""
    footprint: float
    """Radius of the circle it stands in, metres."""
    mark: Mark | None = None
    """What shows its turn; None where it looks the same however it turns. What stands on its axis does, too."""

    @property
    def height(self) -> float:
        """From the lowest to the highest point when it stands, metres."""
        upside_down = axis_angle((1, 0, 0), math.pi)
        top = -min(lowest_point(part, upside_down) for part in self.parts)
        return top - min(lowest_point(part, IDENTITY) for part in self.parts)

    def rest_height(self, quaternion: Quaternion) -> float:
        """Height of the origin above the table when it lies in this orientation, metres."""
        return -min(lowest_point(part, quaternion) for part in self.parts)


def _box(rng: np.random.Generator) -> Shape:
    x, y, z = (float(v) for v in rng.uniform((0.018, 0.018, 0.020), (0.030, 0.030, 0.042)))
    grasps = (
        Grasp(position=(0, 0, 0), width=2 * y, yaw=0.0),
        Grasp(position=(0, 0, 0), width=2 * x, yaw=math.pi / 2),
    )
    return Shape(
        name="box",
        parts=(Primitive(kind="box", size=(x, y, z)),),
        grasps=grasps,
        mark=Mark(axis=_X if x >= y else _Y, fold=4 if min(x, y) > _SQUARE * max(x, y) else 2),
        footprint=math.hypot(x, y),
    )


def _cylinder(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.018, 0.020), (0.028, 0.045)))
    return Shape(
        name="cylinder",
        parts=(Primitive(kind="cylinder", size=(radius, half, 0)),),
        grasps=(Grasp(position=(0, 0, 0), width=2 * radius),),
        round=True,
        mark=Mark(axis=_Z, fold=2),
        footprint=radius,
    )


def _sphere(rng: np.random.Generator) -> Shape:
    radius = float(rng.uniform(0.021, 0.030))
    return Shape(
        name="ball",
        parts=(Primitive(kind="sphere", size=(radius, 0, 0)),),
        grasps=(Grasp(position=(0, 0, 0), width=2 * radius),),
        round=True,
        footprint=radius,
    )


def _capsule(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.018, 0.020), (0.025, 0.036)))
    lying = Primitive(kind="capsule", size=(radius, half, 0), quaternion=axis_angle((0, 1, 0), math.pi / 2))
    return Shape(
        name="capsule",
        parts=(lying,),
        grasps=(Grasp(position=(0, 0, 0), width=2 * radius, yaw=0.0),),
        round=True,
        mark=Mark(axis=_X, fold=2),
        footprint=radius + half,
    )


def _ellipsoid(rng: np.random.Generator) -> Shape:
    x, y, z = (float(v) for v in rng.uniform((0.028, 0.020, 0.019), (0.040, 0.027, 0.026)))
    return Shape(
        name="egg",
        parts=(Primitive(kind="ellipsoid", size=(x, y, z)),),
        grasps=(Grasp(position=(0, 0, 0), width=2 * y, yaw=0.0),),
        round=True,
        mark=Mark(axis=_X, fold=2),
        footprint=x,
    )


def _mug(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.025, 0.028), (0.031, 0.038)))
    wall = 0.003
    handle = tuple(
        Primitive(kind="capsule", size=(0.0045, length, 0), position=(x, 0, z), quaternion=turn, shade=0.85)
        for length, x, z, turn in (
            (half * 0.45, radius + 0.017, 0.0, IDENTITY),
            (0.008, radius + 0.008, half * 0.5, axis_angle((0, 1, 0), math.pi / 2)),
            (0.008, radius + 0.008, -half * 0.5, axis_angle((0, 1, 0), math.pi / 2)),
        )
    )
    base = Primitive(kind="cylinder", size=(radius, 0.004, 0), position=(0, 0, 0.004 - half), shade=0.55)
    return Shape(
        name="mug",
        parts=(*_ring(8, radius, radius, wall, half), base, *handle),
        grasps=(Grasp(position=(0, 0, 0.008), width=2 * radius, yaw=0.0),),
        mark=Mark(axis=_X, fold=1),
        footprint=radius + 0.018,
    )


def _bowl(rng: np.random.Generator) -> Shape:
    top, half = (float(v) for v in rng.uniform((0.040, 0.015), (0.046, 0.020)))
    bottom, wall = top * 0.62, 0.0035
    base = Primitive(kind="cylinder", size=(bottom, 0.004, 0), position=(0, 0, 0.004 - half), shade=0.6)
    rim = tuple(
        Grasp(
            position=(math.cos(angle) * top * 0.95, math.sin(angle) * top * 0.95, half - 0.012),
            width=0.02,
            yaw=angle - math.pi / 2,
            edge=True,
        )
        for angle in (np.arange(8) + 0.5) * math.pi / 4
    )
    return Shape(name="bowl", parts=(*_ring(8, bottom, top, wall, half), base), grasps=rim, footprint=top + wall)


def _bottle(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.020, 0.034), (0.026, 0.044)))
    neck = radius * 0.45
    parts = (
        Primitive(kind="cylinder", size=(radius, half, 0)),
        Primitive(kind="ellipsoid", size=(radius, radius, 0.016), position=(0, 0, half)),
        Primitive(kind="cylinder", size=(neck, 0.014, 0), position=(0, 0, half + 0.022), shade=0.9),
        Primitive(kind="cylinder", size=(neck * 1.25, 0.006, 0), position=(0, 0, half + 0.038), shade=0.45),
    )
    return Shape(
        name="bottle",
        parts=parts,
        grasps=(Grasp(position=(0, 0, half - 0.012), width=2 * radius),),
        round=True,
        mark=Mark(axis=_Z, fold=1),
        footprint=radius,
    )


def _cross(rng: np.random.Generator) -> Shape:
    arm, half = (float(v) for v in rng.uniform((0.034, 0.014), (0.044, 0.022)))
    thick = 0.014
    parts = (
        Primitive(kind="box", size=(arm, thick, half)),
        Primitive(kind="box", size=(thick, arm, half), shade=0.9),
    )
    grasps = (Grasp(position=(arm * 0.6, 0, 0), width=2 * thick, yaw=0.0),)
    return Shape(name="cross", parts=parts, grasps=grasps, mark=Mark(axis=_X, fold=4), footprint=arm)


def _dumbbell(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.018, 0.026), (0.024, 0.034)))
    parts = (
        Primitive(kind="sphere", size=(radius, 0, 0), position=(half, 0, 0)),
        Primitive(kind="sphere", size=(radius, 0, 0), position=(-half, 0, 0)),
        Primitive(kind="capsule", size=(0.009, half, 0), quaternion=axis_angle((0, 1, 0), math.pi / 2), shade=0.7),
    )
    grasps = (Grasp(position=(0, 0, 0), width=0.018, yaw=0.0),)
    return Shape(
        name="dumbbell", parts=parts, grasps=grasps, round=True, mark=Mark(axis=_X, fold=2), footprint=half + radius
    )


def _bracket(rng: np.random.Generator) -> Shape:
    length, height = (float(v) for v in rng.uniform((0.032, 0.030), (0.042, 0.042)))
    thick, width = 0.013, 0.022
    parts = (
        Primitive(kind="box", size=(length, width, thick), position=(0, 0, thick)),
        Primitive(kind="box", size=(thick, width, height - thick), position=(thick - length, 0, height + thick)),
    )
    grasps = (Grasp(position=(thick - length, 0, height), width=2 * width, yaw=0.0),)
    return Shape(
        name="bracket", parts=parts, grasps=grasps, mark=Mark(axis=_X, fold=1), footprint=math.hypot(length, width)
    )


def _tower(rng: np.random.Generator) -> Shape:
    radius, half = (float(v) for v in rng.uniform((0.013, 0.026), (0.018, 0.036)))
    base = radius * 1.7
    parts = (
        Primitive(kind="box", size=(base, base, 0.011), position=(0, 0, 0.011), shade=0.75),
        Primitive(kind="cylinder", size=(radius, half, 0), position=(0, 0, 0.022 + half)),
        Primitive(kind="sphere", size=(radius * 1.25, 0, 0), position=(0, 0, 0.022 + 2 * half), shade=1.1),
    )
    grasps = (Grasp(position=(0, 0, 0.022 + half * 0.8), width=2 * radius, yaw=0.0),)
    return Shape(name="tower", parts=parts, grasps=grasps, mark=Mark(axis=_Z, fold=1), footprint=base * math.sqrt(2))


Maker = Callable[[np.random.Generator], Shape]

TRAIN_SHAPES: dict[str, Maker] = {
    "box": _box,
    "cylinder": _cylinder,
    "ball": _sphere,
    "capsule": _capsule,
    "egg": _ellipsoid,
    "mug": _mug,
    "bowl": _bowl,
    "bottle": _bottle,
}
"""Shapes of every split but `ood_shape`."""

HELD_OUT_SHAPES: dict[str, Maker] = {"cross": _cross, "dumbbell": _dumbbell, "bracket": _bracket, "tower": _tower}
"""Shapes of the split `ood_shape` only."""


def _ring(count: int, bottom: float, top: float, wall: float, half: float) -> tuple[Primitive, ...]:
    """A wall of flat staves around z, of outer radius `bottom` below and `top` above, `2 * half` high."""
    lean = math.atan2(top - bottom, 2 * half)
    radius = (top + bottom) / 2 - wall
    stave = math.tan(math.pi / count) * ((top + bottom) / 2)
    parts = []
    for index in range(count):
        angle = 2 * math.pi * (index + 0.5) / count
        leaning = multiply(axis_angle((0, 0, 1), angle), axis_angle((0, 1, 0), lean))
        parts.append(
            Primitive(
                kind="box",
                size=(wall, stave, half / math.cos(lean)),
                position=(math.cos(angle) * radius, math.sin(angle) * radius, 0.0),
                quaternion=leaning,
                shade=0.92 + 0.08 * (index % 2),
            )
        )
    return tuple(parts)
