"""The robot: seven hinges from a pedestal on the right of the table to a gripper with two sliding jaws."""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

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
from dreamdojo.dojo.geometry import axis_angle

_MOUNT = (-0.06, -0.40, 0.20)
_TOOL = 0.158  # from the last hinge to the grasp, a finger's breadth above the jaws' tips
_STROKE = 0.045

TURN = math.pi / 2
"""Of the arm's mount about the vertical: it looks from the right of the table to the left."""

ARM_LINKS = (
    Link(joint="base_yaw", axis=(0, 0, 1), limit=(-2.9, 2.9), length=0.0, stiffness=600),
    Link(joint="shoulder", axis=(0, 1, 0), limit=(-2.0, 2.0), length=0.33, stiffness=600),
    Link(joint="upper_arm_roll", axis=(0, 0, 1), limit=(-2.9, 2.9), length=0.0, stiffness=400),
    Link(joint="elbow", axis=(0, 1, 0), limit=(0.1, 2.8), length=0.34, stiffness=400),
    Link(joint="forearm_roll", axis=(0, 0, 1), limit=(-2.9, 2.9), length=0.0, stiffness=300),
    Link(joint="wrist", axis=(0, 1, 0), limit=(-2.2, 2.2), length=0.0, stiffness=300),
    Link(joint="tool_roll", axis=(0, 0, 1), limit=(-3.0, 3.0), length=_TOOL, stiffness=200),
)
"""From the mount to the gripper."""


def _build(spec: mujoco.MjSpec) -> None:
    x, y, z = _MOUNT
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    add_solid(spec.worldbody, cylinder, (0.055, z / 2), "shell", at=(x, y, z / 2), touches=False)
    add_arm(spec, add_chain(spec, _MOUNT, about_z(TURN), ARM_LINKS))


def add_arm(spec: mujoco.MjSpec, chain: Sequence[mujoco.MjsBody]) -> None:
    """Add the solids of the arm and its gripper to the seven bodies that `ARM_LINKS` move."""
    cylinder, box, sphere = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
    _, shoulder, _, elbow, _, wrist, flange = chain
    add_solid(shoulder, sphere, (0.055,), "joint")
    add_rod(shoulder, (0, 0, 0.03), (0, 0, 0.30), 0.040, "shell")
    add_solid(elbow, sphere, (0.046,), "joint")
    add_rod(elbow, (0, 0, 0.03), (0, 0, 0.31), 0.029, "shell")
    add_solid(wrist, sphere, (0.033,), "joint")
    tool = flange.add_body(name="gripper", quat=about_z(-math.pi / 2), gravcomp=1)  # hinges at zero, yaw at zero
    add_solid(tool, cylinder, (0.022, 0.025), "shell", at=(0, 0, 0.045))
    add_solid(tool, box, (0.016, 0.056, 0.014), "joint", at=(0, 0, 0.080))
    for side, name in ((1.0, "left_jaw"), (-1.0, "right_jaw")):
        jaw = tool.add_body(name=name, pos=(0, 0, 0.080), gravcomp=1)
        jaw.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(0, side, 0),
            range=(-0.002, _STROKE),
            limited=True,
            armature=0.05,
        )
        add_servo(spec, name, stiffness=900, damping=30, force=12)
        # The jaw's inner face lies in the middle plane when the gripper is closed.
        add_solid(jaw, box, (0.012, 0.008, 0.042), "jaw", name=f"{name}_pad", at=(0, side * 0.008, 0.048), friction=1.6)
    tool.add_site(name=EFFECTOR, pos=(0, 0, _TOOL), quat=axis_angle((1, 0, 0), math.pi), group=5)


def _materials(rng: np.random.Generator) -> dict[str, Colour]:
    shell = colorsys.hsv_to_rgb(0.6, 0.03, float(rng.uniform(0.78, 0.92)))
    joint = colorsys.hsv_to_rgb(0.6, 0.1, float(rng.uniform(0.22, 0.34)))
    return {"shell": shell, "joint": joint, "jaw": (0.13, 0.13, 0.15)}


ROBOT_ARM = Body(
    name="arm",
    build=_build,
    materials=_materials,
    links=ARM_LINKS,
    rest=(-0.11, 0.57, -0.12, 1.82, 0.10, 0.76, -0.28),
    fingers=tuple(Finger(joint=name, open=_STROKE, closed=-0.002) for name in ("left_jaw", "right_jaw")),
    pads=(frozenset({"left_jaw_pad"}), frozenset({"right_jaw_pad"})),
    workspace_low=(-0.13, -0.17, 0.014),
    workspace_high=(0.18, 0.17, 0.20),
    yaw_range=(-1.7, 1.7),
    approach=(0.0, 0.0, 0.10),
    from_above=True,
    grasp_width=0.075,
    push_height=0.020,
)
"""Seven hinges and a parallel gripper that points down."""
