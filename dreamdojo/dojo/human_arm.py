"""The human: a sleeve, a forearm and a right hand whose four fingers and thumb curl around things."""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import colorsys
import math

import mujoco
import numpy as np

from dreamdojo.dojo.appearance import Colour
from dreamdojo.dojo.body import (
    EFFECTOR,
    Body,
    Finger,
    Link,
    about_z,
    add_chain,
    add_rod,
    add_servo,
    add_solid,
)
from dreamdojo.dojo.geometry import Vector, axis_angle, multiply

_SHOULDER = (-0.36, -0.32, 0.26)
_ROLL = math.radians(78)  # the palm faces left and a little down, as a hand that reaches for a cup
_PITCH = math.radians(6)  # the fingers point a little down

_LINKS = (
    Link(joint="shoulder_yaw", axis=(0, 0, 1), limit=(-2.9, 2.9), length=0.0, stiffness=500),
    Link(joint="shoulder_pitch", axis=(0, 1, 0), limit=(-3.0, 3.0), length=0.0, stiffness=500),
    Link(joint="shoulder_roll", axis=(0, 0, 1), limit=(-3.0, 3.0), length=0.35, stiffness=400),
    Link(joint="elbow", axis=(0, 1, 0), limit=(-2.6, -0.05), length=0.0, stiffness=400),
    Link(joint="forearm_roll", axis=(0, 0, 1), limit=(-3.0, 3.0), length=0.33, stiffness=250),
    Link(joint="wrist_pitch", axis=(0, 1, 0), limit=(-1.5, 1.5), length=0.0, stiffness=250),
    Link(joint="wrist_yaw", axis=(1, 0, 0), limit=(-1.3, 1.3), length=0.0, stiffness=250),
)

_GRASP = (0.102, 0.002, -0.040)  # between thumb and fingers, in the hand's frame: x along it, -z out of the palm
_KNUCKLES = {"index": 0.024, "middle": 0.008, "ring": -0.008, "little": -0.023}
_LENGTHS = {"index": (0.043, 0.036), "middle": (0.047, 0.039), "ring": (0.044, 0.036), "little": (0.035, 0.030)}


def _build(spec: mujoco.MjSpec) -> None:
    chain = add_chain(spec, _SHOULDER, about_z(0.0), _LINKS)
    upper, forearm, wrist = chain[2], chain[4], chain[6]
    add_rod(upper, (0, 0, 0.02), (0, 0, 0.32), 0.045, "sleeve", touches=False)
    add_rod(forearm, (0, 0, 0.0), (0, 0, 0.20), 0.037, "sleeve")
    add_rod(forearm, (0, 0, 0.18), (0, 0, 0.31), 0.027, "skin")
    # From here on x runs along the hand: the chain's z becomes x.
    hand = wrist.add_body(name="hand", quat=axis_angle((0, 1, 0), -math.pi / 2), gravcomp=1)
    add_rod(hand, (0.0, 0, 0), (0.02, 0, 0), 0.026, "skin")
    add_solid(hand, mujoco.mjtGeom.mjGEOM_BOX, (0.038, 0.031, 0.011), "skin", at=(0.050, 0, 0), name="palm")
    add_rod(hand, (0.088, 0.025, 0), (0.088, -0.024, 0), 0.0115, "skin")
    for finger, y in _KNUCKLES.items():
        first, second = _LENGTHS[finger]
        _add_finger(spec, hand, finger, root=(0.092, y, 0), axis=(0, 1, 0), lengths=(first, second), radius=0.0088)
    _add_thumb(spec, hand)
    upright = multiply(axis_angle((0, 1, 0), _PITCH), axis_angle((1, 0, 0), _ROLL))
    w, x, y, z = upright
    hand.add_site(name=EFFECTOR, pos=_GRASP, quat=(w, -x, -y, -z), group=5)


def _add_finger(
    spec: mujoco.MjSpec,
    hand: mujoco.MjsBody,
    name: str,
    *,
    root: Vector,
    axis: Vector,
    lengths: tuple[float, float],
    radius: float,
) -> None:
    parent, place = hand, root
    for number, length in enumerate(lengths):
        joint = f"{name}_{number}"
        parent = parent.add_body(name=joint, pos=place, gravcomp=1)
        parent.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=axis,
            range=(-0.3, 1.9),
            limited=True,
            armature=0.002,
        )
        add_servo(spec, joint, stiffness=3.0, damping=0.12, force=0.8)
        thickness = radius * (1 - 0.1 * number)
        add_rod(parent, (0, 0, 0), (length, 0, 0), thickness, "skin", name=f"{joint}_pad", friction=1.6)
        place = (length, 0.0, 0.0)


def _add_thumb(spec: mujoco.MjSpec, hand: mujoco.MjsBody) -> None:
    # The thumb leaves the palm's upper edge, stands off it, and closes towards the fingers.
    base = hand.add_body(name="thumb_base", pos=(0.022, 0.026, -0.012), quat=axis_angle((0, 1, 0), 0.95), gravcomp=1)
    add_rod(base, (0, 0, 0), (0.042, -0.006, 0), 0.0125, "skin")
    _add_finger(spec, base, "thumb", root=(0.042, -0.006, 0), axis=(0, -1, 0), lengths=(0.036, 0.030), radius=0.0105)


def _materials(rng: np.random.Generator) -> dict[str, Colour]:
    tone = float(rng.uniform(0, 1))
    light, dark = np.array((0.96, 0.78, 0.66)), np.array((0.40, 0.25, 0.17))
    red, green, blue = (float(channel) for channel in light + (dark - light) * tone)
    hue, saturation, value = (float(v) for v in rng.uniform((0, 0.05, 0.25), (1, 0.6, 0.75)))
    return {"skin": (red, green, blue), "sleeve": colorsys.hsv_to_rgb(hue, saturation, value)}


_FINGERS = ("index", "middle", "ring", "little")

HUMAN = Body(
    name="human",
    build=_build,
    materials=_materials,
    links=_LINKS,
    rest=(-0.32, 1.98, -1.62, -1.74, 2.49, -0.43, 0.23),
    fingers=(
        *(Finger(joint=f"{name}_0", open=-0.05, closed=1.15) for name in _FINGERS),
        *(Finger(joint=f"{name}_1", open=0.25, closed=1.45) for name in _FINGERS),
        Finger(joint="thumb_0", open=-0.12, closed=0.78),
        Finger(joint="thumb_1", open=0.0, closed=0.9),
    ),
    pads=(
        frozenset(f"{name}_{number}_pad" for name in _FINGERS for number in (0, 1)) | {"palm"},
        frozenset({"thumb_0_pad", "thumb_1_pad"}),
    ),
    workspace_low=(-0.12, -0.15, 0.034),
    workspace_high=(0.16, 0.17, 0.19),
    yaw_range=(0.4, 1.5),
    approach=(-0.12, 0.0, 0.0),
    from_above=False,
    grasp_width=0.062,
    push_height=0.036,
)
"""A right arm in a sleeve; it reaches with the palm to the left, as for a cup."""
