"""The MuJoCo model of a layout: a table, a body, the objects, a camera and a lamp.

A model compiles in a few milliseconds and is never changed afterwards, so scenes can be forked by copying their data
alone. What takes tenths of a second is an OpenGL context, and one context draws every scene of a body: all of them
declare the same materials and textures in the same order.
"""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np

from dreamdojo.dojo.appearance import TEXTURE_SIZE
from dreamdojo.dojo.body import EFFECTOR, Body
from dreamdojo.dojo.geometry import look_at
from dreamdojo.dojo.layout import CAMERA, CAMERA_FOV, Errand, Layout, PlacedObject

TIMESTEP = 0.005
"""Of the physics, seconds."""

BACKGROUND, TABLE, BODY, FIRST_OBJECT = 0, 1, 2, 3
"""Values in a segmentation; object number `i` has the value `FIRST_OBJECT + i`."""

HAND = 255
"""Stands for `BODY` where the hand is told apart from the rest of the body."""

GOAL, GOAL_RADIUS = "goal", 0.045
"""Name and radius (metres) of the disc on the table that marks where an object is to go."""

TABLE_LOW, TABLE_HIGH = (-0.36, -0.60), (0.36, 0.50)
"""Edges of the table, x and y, metres; its top is z = 0."""

_KIND = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
}


def build_model(body: Body, layout: Layout) -> mujoco.MjModel:
    """The compiled scene; its default state has every object in place and the body in its zero posture."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 5
    spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_AUTORESET  # it would hide instability
    quality, scale = spec.visual.quality, spec.visual.map
    quality.numslices, quality.numstacks, quality.numquads = 12, 8, 1
    quality.offsamples, quality.shadowsize = 0, 512
    spec.stat.extent = 1.0
    scale.znear, scale.zfar = 0.05, 4.0
    _add_table(spec, layout)
    body.build(spec)
    for name, colour in layout.look.materials.items():
        spec.add_material(name=name, rgba=[*colour, 1], specular=0.15, shininess=0.3)
    for index, placed in enumerate(layout.objects):
        _add_object(spec, index, placed)
    _add_camera_and_lamp(spec, layout)
    if layout.errand is not None:
        _add_goal(spec, layout, layout.errand)
    model = spec.compile()
    start = int(model.texture("table").adr[0])
    model.tex_data[start : start + layout.look.texture.size] = layout.look.texture.ravel()
    return model


def labels(model: mujoco.MjModel) -> np.ndarray:
    """`(ngeom,)` uint8: what each geom is in a segmentation, with `HAND` for the part of the body that grasps."""
    result = np.full(model.ngeom, BODY, dtype=np.uint8)
    hand = int(model.site_bodyid[model.site(EFFECTOR).id])
    result[_is_below(model, hand)[model.geom_bodyid]] = HAND
    result[model.geom("floor").id] = BACKGROUND
    result[[geom for geom in range(model.ngeom) if model.geom(geom).name in ("table", GOAL)]] = TABLE
    for index in range(num_objects(model)):
        result[model.geom_bodyid == model.body(f"object_{index}").id] = FIRST_OBJECT + index
    return result


def _is_below(model: mujoco.MjModel, root: int) -> np.ndarray:
    """`(nbody,)` bool: the body `root` and everything that it carries."""
    below = np.zeros(model.nbody, dtype=bool)
    below[root] = True
    for body in range(root + 1, model.nbody):  # MuJoCo numbers parents before their children
        below[body] |= below[model.body_parentid[body]]
    return below


def num_objects(model: mujoco.MjModel) -> int:
    """Free objects in a scene."""
    return int(np.sum(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE))


def _add_table(spec: mujoco.MjSpec, layout: Layout) -> None:
    spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        width=TEXTURE_SIZE,
        height=TEXTURE_SIZE,
        nchannel=3,
    )
    table = spec.add_material(name="table", specular=0.05, shininess=0.1)
    textures = list(table.textures)
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    table.textures = textures
    spec.add_material(name="floor", rgba=[*layout.look.floor, 1], specular=0.0)
    low, high = np.array(TABLE_LOW), np.array(TABLE_HIGH)
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[*(high - low) / 2, 0.02],
        pos=[*(high + low) / 2, -0.02],
        material="table",
        friction=[0.9, 0.01, 0.0005],
        condim=4,
    )
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[3, 3, 0.1],
        pos=[0, 0, -0.7],
        material="floor",
    )


def _add_object(spec: mujoco.MjSpec, index: int, placed: PlacedObject) -> None:
    body = spec.worldbody.add_body(name=f"object_{index}", pos=placed.position, quat=placed.quaternion)
    body.add_freejoint(name=f"object_{index}")
    for part in placed.shape.parts:
        body.add_geom(
            type=_KIND[part.kind],
            size=part.size,
            pos=part.position,
            quat=part.quaternion,
            rgba=[*np.clip(np.multiply(placed.colour, part.shade), 0, 1), 1],
            density=placed.density,
            friction=[placed.friction, 0.01, 0.001],
            condim=6 if placed.shape.round else 4,
        )


def _add_goal(spec: mujoco.MjSpec, layout: Layout, errand: Errand) -> None:
    spec.worldbody.add_geom(
        name=GOAL,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[GOAL_RADIUS, 0.0005, 0],
        pos=[*errand.goal, 0.0005],
        rgba=[*layout.objects[errand.target].colour, 1],
        contype=0,
        conaffinity=0,
    )


def _add_camera_and_lamp(spec: mujoco.MjSpec, layout: Layout) -> None:
    look, lamp = layout.look, layout.look.lighting
    spec.worldbody.add_camera(
        name=CAMERA,
        fovy=CAMERA_FOV,
        pos=look.camera_position,
        quat=look_at(look.camera_position, look.camera_target, look.camera_roll),
    )
    direction = np.array(lamp.direction) / np.linalg.norm(lamp.direction)
    spec.worldbody.add_light(
        name="lamp",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=-1.5 * direction,
        dir=direction,
        diffuse=lamp.colour,
        ambient=[0, 0, 0],
        specular=[0.2, 0.2, 0.2],
        castshadow=True,
    )
    head = spec.visual.headlight
    head.ambient, head.diffuse, head.specular = [lamp.ambient] * 3, [0.1] * 3, [0.0] * 3
