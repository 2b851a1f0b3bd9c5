"""The mobile robot: the arm and gripper of `robot_arm` on a small platform that drives on the table's right side."""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import colorsys
import math
from dataclasses import replace

import mujoco
import numpy as np

from dreamdojo.dojo.appearance import Colour
from dreamdojo.dojo.body import Body, Link, about_z, add_chain, add_solid
from dreamdojo.dojo.robot_arm import ARM_LINKS, ROBOT_ARM, TURN, add_arm

_MOUNT = (-0.04, -0.42, 0.06)
_PLATFORM = (0.085, 0.085, 0.022)  # half sizes
_WHEEL = 0.03

# Axes stand in the frame of the arm, which looks along the table's y.
_BASE = (
    Link(joint="base_x", axis=(0, -1, 0), limit=(-0.14, 0.14), length=0.0, stiffness=8000, slide=True, inertia=7.0),
    Link(joint="base_y", axis=(1, 0, 0), limit=(-0.08, 0.12), length=0.14, stiffness=8000, slide=True, inertia=7.0),
)


def _build(spec: mujoco.MjSpec) -> None:
    cylinder, box = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX
    _, platform, *arm = add_chain(spec, _MOUNT, about_z(TURN), (*_BASE, *ARM_LINKS))
    add_solid(platform, box, _PLATFORM, "platform", density=2500, touches=False)
    add_solid(platform, cylinder, (0.045, 0.06), "platform", at=(0, 0, 0.08), touches=False)
    on_its_side = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
    for x in (-0.055, 0.055):
        for y in (-0.085, 0.085):
            place = (x, y, _WHEEL - _MOUNT[2])
            add_solid(platform, cylinder, (_WHEEL, 0.012), "joint", at=place, quaternion=on_its_side, touches=False)
    add_arm(spec, arm)


def _materials(rng: np.random.Generator) -> dict[str, Colour]:
    shell = colorsys.hsv_to_rgb(0.1, 0.08, float(rng.uniform(0.78, 0.92)))
    joint = colorsys.hsv_to_rgb(0.6, 0.1, float(rng.uniform(0.18, 0.28)))
    platform = colorsys.hsv_to_rgb(0.55, 0.3, float(rng.uniform(0.3, 0.45)))
    return {"shell": shell, "joint": joint, "jaw": (0.13, 0.13, 0.15), "platform": platform}


MOBILE_ARM: Body = replace(
    ROBOT_ARM,
    name="mobile_arm",
    build=_build,
    materials=_materials,
    links=(*_BASE, *ARM_LINKS),
    rest=(0.0, 0.0, *ROBOT_ARM.rest),
)
"""A platform that slides along x and y, seven hinges and the parallel gripper; its actions add the base's velocity."""
