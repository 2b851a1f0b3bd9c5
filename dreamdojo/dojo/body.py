"""What a body is: a chain of joints that ends in fingers, described by data, so that control is written once."""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dreamdojo.dojo.appearance import Colour
from dreamdojo.dojo.geometry import IDENTITY, Quaternion, Vector, axis_angle

EFFECTOR = "effector"
"""Name of the site between the fingers; its x axis is the hand's forward, z up when the hand is held as intended."""

HIDDEN = 5
"""Geom group that is not drawn."""

BODY_CONTACT = 2
"""Contact bit of bodies: they meet objects and the table, never themselves."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """One joint and the rigid piece that it moves, along z in its own frame."""

    joint: str
    """Name of the joint."""
    axis: Vector
    """Its axis."""
    limit: tuple[float, float]
    """Range, radians; metres for a slide."""
    length: float
    """Distance to the next joint, metres."""
    stiffness: float
    """Gain of the position servo, N m / rad; N / m for a slide."""
    slide: bool = False
    """Whether the joint slides along its axis, as a mobile base does, instead of turning about it."""
    inertia: float = 0.12
    """Typical inertia that the servo moves, kg m^2; kg for a slide."""

    @property
    def damping(self) -> float:
        """Velocity gain of the servo that lets a joint of typical inertia settle without ringing, N m s / rad."""
        return 2 * math.sqrt(self.stiffness * self.inertia)


@dataclass(frozen=True, kw_only=True)
class Finger:
    """A joint that the opening drives."""

    joint: str
    """Its name."""
    open: float
    """Its position at opening 1, radians or metres."""
    closed: float
    """Its position at opening 0."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body that reaches over the table."""

    name: str
    """`arm`, `mobile_arm` or `human`."""
    build: Callable[[mujoco.MjSpec], None]
    """Adds the body to a scene."""
    materials: Callable[[np.random.Generator], dict[str, Colour]]
    """Random colours of its materials."""
    links: tuple[Link, ...]
    """Joints of the chain, from the table to the hand: the slides of a mobile base, then hinges."""
    rest: tuple[float, ...]
    """Their positions in the posture that the body prefers, radians; metres for slides."""
    fingers: tuple[Finger, ...]
    """Joints that open and close."""
    pads: tuple[frozenset[str], frozenset[str]]
    """Geoms on the two sides of what is grasped."""
    workspace_low: Vector
    """Lowest x, y, z that the effector is sent to, metres."""
    workspace_high: Vector
    """Highest x, y, z, metres."""
    yaw_range: tuple[float, float]
    """Turn about the vertical that the effector is sent to, radians."""
    approach: Vector
    """Where the open hand comes from before it closes, in the effector's frame, metres."""
    from_above: bool
    """Whether it takes things from above, and so can take a rim."""
    grasp_width: float
    """Widest thing the fingers close on, metres."""
    push_height: float
    """Height of the effector that pushes things of ordinary size, metres."""

    def can_take(self, width: float, *, edge: bool) -> bool:
        """Whether its fingers fit around something `width` metres wide; an edge only from above."""
        return width <= self.grasp_width and (self.from_above or not edge)

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of all joints of the chain."""
        return tuple(link.joint for link in self.links)

    @property
    def base(self) -> tuple[Link, ...]:
        """Slides of the mobile base; none where the body is mounted."""
        return tuple(link for link in self.links if link.slide)

    @property
    def hinges(self) -> tuple[Link, ...]:
        """What comes after the base."""
        return self.links[len(self.base) :]


def add_chain(spec: mujoco.MjSpec, mount: Vector, turn: Quaternion, links: Sequence[Link]) -> list[mujoco.MjsBody]:
    """Add the joints with their servos to a scene, and return the body that each of them moves."""
    parent, place, bodies = spec.worldbody, mount, []
    for link in links:
        child = parent.add_body(name=link.joint, pos=place, quat=turn, gravcomp=1)
        child.add_joint(
            name=link.joint,
            type=mujoco.mjtJoint.mjJNT_SLIDE if link.slide else mujoco.mjtJoint.mjJNT_HINGE,
            axis=link.axis,
            range=link.limit,
            limited=True,
            armature=0.08,
        )
        # A joint weighs something even where no solid is drawn on it.
        child.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.02, 0, 0], mass=0.05, group=HIDDEN, contype=0, conaffinity=0
        )
        add_servo(spec, link.joint, stiffness=link.stiffness, damping=link.damping, force=90)
        bodies.append(child)
        parent, place, turn = child, (0.0, 0.0, link.length), IDENTITY
    return bodies


def add_servo(spec: mujoco.MjSpec, joint: str, *, stiffness: float, damping: float, force: float) -> None:
    """Add a position servo with velocity feedback, limited to `force`."""
    spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[stiffness] + [0] * 9,
        biasprm=[0, -stiffness, -damping] + [0] * 7,
        forcerange=[-force, force],
        forcelimited=True,
    )


def add_solid(
    parent: mujoco.MjsBody,
    kind: mujoco.mjtGeom,
    size: Sequence[float],
    material: str,
    *,
    name: str = "",
    at: Vector = (0.0, 0.0, 0.0),
    quaternion: Quaternion = IDENTITY,
    density: float = 500.0,
    friction: float = 1.0,
    touches: bool = True,
) -> None:
    """Add a solid of a body; solids that do not touch are only seen."""
    parent.add_geom(
        name=name,
        type=kind,
        size=[*size, 0, 0][:3],
        pos=at,
        quat=quaternion,
        material=material,
        density=density,
        friction=[friction, 0.01, 0.0005],
        condim=4,
        contype=BODY_CONTACT if touches else 0,
        conaffinity=1 if touches else 0,
    )


def add_rod(
    parent: mujoco.MjsBody,
    start: Vector,
    end: Vector,
    radius: float,
    material: str,
    *,
    name: str = "",
    friction: float = 1.0,
    touches: bool = True,
) -> None:
    """Add a capsule from `start` to `end`."""
    parent.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        material=material,
        density=500.0,
        friction=[friction, 0.01, 0.0005],
        condim=4,
        contype=BODY_CONTACT if touches else 0,
        conaffinity=1 if touches else 0,
    )


def about_z(angle: float) -> Quaternion:
    """A turn about the vertical."""
    return axis_angle((0, 0, 1), angle)
