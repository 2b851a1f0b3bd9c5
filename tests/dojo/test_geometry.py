from __future__ import annotations

import mujoco
import numpy as np
import pytest

from dreamdojo.dojo.geometry import (
    Primitive,
    axis_angle,
    from_matrix,
    look_at,
    lowest_point,
    matrix,
    multiply,
    wrap,
    yaw_of,
)

RNG = np.random.default_rng(0)
TURNS = [(RNG.normal(size=3), angle) for angle in (-3.14, -1.5, -1e-4, 0.0, 0.3, 2.0, 3.1)]


def turn(axis, angle):
    x, y, z = (float(value) for value in np.array(axis) / np.linalg.norm(axis))
    return axis_angle((x, y, z), angle)


@pytest.mark.parametrize(("axis", "angle"), TURNS)
def test_a_quaternion_comes_back_from_its_matrix(axis, angle):
    quaternion = np.array(turn(axis, angle))
    found = np.array(from_matrix(matrix(quaternion)))
    np.testing.assert_allclose(found * np.sign(found @ quaternion), quaternion, atol=1e-7)


@pytest.mark.parametrize(("axis", "angle"), TURNS)
def test_multiplying_quaternions_multiplies_matrices(axis, angle):
    one, two = turn(axis, angle), turn(axis[::-1], 1.0)
    np.testing.assert_allclose(matrix(multiply(one, two)), matrix(one) @ matrix(two), atol=1e-9)


@pytest.mark.parametrize("angle", [-3.1, -0.4, 0.0, 1.0, 3.1])
def test_the_yaw_of_a_turn_about_the_vertical_is_its_angle(angle):
    assert abs(wrap(yaw_of(matrix(axis_angle((0, 0, 1), angle))) - angle)) < 1e-9


def test_a_camera_looks_at_its_target_with_its_top_up():
    turned = matrix(look_at((-1.0, 0.5, 2.0), (0.2, 0.0, 0.1)))
    ahead = np.subtract((0.2, 0.0, 0.1), (-1.0, 0.5, 2.0))
    np.testing.assert_allclose(-turned[:, 2], ahead / np.linalg.norm(ahead), atol=1e-9)
    assert abs(turned[2, 0]) < 1e-9
    assert turned[2, 1] > 0


KINDS = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_lowest_point_is_where_mujoco_meets_a_floor(kind):
    part = Primitive(kind=kind, size=(0.03, 0.02, 0.05), quaternion=turn((1, 2, 3), 0.7))
    whole = turn((3, -1, 0.5), 1.1)
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
    body = spec.worldbody.add_body(pos=[0, 0, 0.5], quat=whole)
    body.add_freejoint()
    body.add_geom(name="part", type=KINDS[kind], size=part.size, quat=part.quaternion)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    distance = mujoco.mj_geomDistance(model, data, model.geom("floor").id, model.geom("part").id, 1.0, None)
    assert distance == pytest.approx(0.5 + lowest_point(part, whole), abs=1e-4)
