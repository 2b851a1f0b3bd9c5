from __future__ import annotations

import math

import numpy as np
import pytest

from dreamdojo.dojo.control import CONTROL_MODES, SPEED_LIMIT, Wish
from dreamdojo.dojo.scene import BODY, FIRST_OBJECT, TABLE
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.errors import ConfigError, DataError

BODIES = ("arm", "mobile_arm", "human")


def started(body="arm", seed=3, **settings):
    simulation = Simulation(body, **settings)
    simulation.reset(seed)
    return simulation


def wave(step, width=5):
    """A gentle motion that goes somewhere and comes back."""
    action = np.zeros(width, np.float32)
    action[:5] = 0.1 * math.sin(step), 0.1 * math.cos(step), -0.05, 0.3, step % 2
    return action


@pytest.mark.parametrize("body", BODIES)
def test_the_same_seed_and_actions_give_the_same_physics_and_pixels(body):
    first, second = started(body), started(body, seed=4)
    second.reset(3)  # what came before does not matter
    for step in range(5):
        first.step(wave(step, first.embodiment.action_dim))
        second.step(wave(step, first.embodiment.action_dim))
    np.testing.assert_array_equal(first.data.qpos, second.data.qpos)
    np.testing.assert_array_equal(first.picture(64).rgb, second.picture(64).rgb)


@pytest.mark.parametrize("control", ["end_effector_velocity", "joint_torque"])
def test_a_fork_continues_exactly_as_its_parent_would_and_does_not_disturb_it(control):
    alone, parent = started(control=control), started(control=control)
    wish = Wish(velocity=np.array([0.1, 0.1, -0.05]), turn=0.3, opening=0.0)

    def wave(step):
        return 0.9**step * alone.demonstrate(wish)

    for step in range(4):
        action = wave(step)
        alone.step(action)
        parent.step(action)
    fork = parent.fork()
    for _ in range(4):
        fork.step(fork.demonstrate(Wish(velocity=np.array([0.3, 0.3, -0.3]), turn=1.0, opening=0.0)))
    twin = parent.fork()
    for step in range(4, 8):
        action = wave(step)
        for each in (alone, parent, twin):
            each.step(action)
    np.testing.assert_array_equal(parent.data.qpos, alone.data.qpos)
    np.testing.assert_array_equal(parent.data.qvel, alone.data.qvel)
    np.testing.assert_array_equal(twin.data.qpos, alone.data.qpos)
    assert not np.array_equal(fork.data.qpos, alone.data.qpos)


@pytest.mark.parametrize("body", BODIES)
def test_integrating_the_actions_predicts_the_state_where_nothing_is_touched(body):
    simulation = started(body)
    embodiment, before = simulation.embodiment, simulation.state()
    where = np.concatenate(
        [np.r_[embodiment.columns(name, of="state")] for name in ("effector_position", "effector_yaw")]
    )
    for step in range(6):
        action = np.zeros(embodiment.action_dim, np.float32)
        action[:5] = -0.1, -0.05, 0.02 * math.sin(step), 0.3, 1.0
        predicted = embodiment.integrate(before, action, 1 / simulation.fps)
        simulation.step(action)
        before = simulation.state()
        assert predicted is not None
        np.testing.assert_allclose(before[where], predicted[where], atol=2e-3)
    assert set(where) <= set(np.flatnonzero(embodiment.integrated())), "and it says which those are"
    assert not embodiment.integrated()[embodiment.columns("gripper_opening", of="state")].any()


@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
@pytest.mark.parametrize("control", CONTROL_MODES)
def test_the_same_wish_moves_the_effector_alike_in_every_control_mode(body, control):
    simulation = started(body, control=control)
    start = simulation.moment().effector_position
    wish = Wish(velocity=np.array([0.1, -0.1, 0.02]), turn=0.2, opening=0.5)
    for _ in range(5):
        simulation.step(simulation.demonstrate(wish))
    moved = simulation.moment().effector_position - start
    np.testing.assert_allclose(moved, wish.velocity * 5 / simulation.fps, atol=4e-3)
    assert simulation.opening() == pytest.approx(0.5, abs=0.05)


def test_actions_beyond_the_declared_range_saturate():
    fast, limit = started(), started()
    fast.step(np.array([9.0, 0, 0, 0, 1], np.float32))
    limit.step(np.array([SPEED_LIMIT, 0, 0, 0, 1], np.float32))
    np.testing.assert_array_equal(fast.data.qpos, limit.data.qpos)


def test_a_blocked_effector_does_not_wind_up():
    simulation = started()
    for _ in range(60):  # into the table's edge of the workspace and beyond
        simulation.step(np.array([0, 0, -0.4, 0, 0], np.float32))
    low = simulation.moment().effector_position[2]
    for _ in range(2):
        simulation.step(np.array([0, 0, 0.3, 0, 0], np.float32))
    assert simulation.moment().effector_position[2] > low + 0.03


@pytest.mark.parametrize("action", [np.zeros(4), np.array([0, 0, np.nan, 0, 0])])
def test_an_action_that_is_no_action_is_refused(action):
    with pytest.raises(DataError, match=r"effector_velocity\.x"):
        started().step(action)


def test_settings_that_do_not_exist_are_refused_by_name():
    with pytest.raises(ConfigError, match="human, arm"):
        Simulation("octopus")
    with pytest.raises(ConfigError, match="joint_velocity"):
        Simulation("arm", control="telepathy")
    with pytest.raises(ConfigError, match="fps"):
        Simulation("arm", fps=30)


def test_depth_is_the_metric_distance_to_the_table():
    simulation = started()
    picture = simulation.picture(128, depth=True, segmentation=True)
    assert picture.depth is not None
    assert picture.segmentation is not None
    camera = simulation.model.camera("head").id
    place, axes = simulation.data.cam_xpos[camera], simulation.data.cam_xmat[camera].reshape(3, 3)
    focal = 0.5 / math.tan(math.radians(simulation.model.cam_fovy[camera]) / 2)
    v, u = np.mgrid[:128, :128]
    rays = np.stack([(u + 0.5) / 128 - 0.5, 0.5 - (v + 0.5) / 128, np.full(u.shape, -focal)], axis=-1) / focal
    plane = -place[2] / (rays @ axes.T)[..., 2]  # where the ray meets z = 0, along the line of sight
    table = picture.segmentation == TABLE
    assert table.mean() > 0.3
    np.testing.assert_allclose(picture.depth[table], plane[table], atol=2e-3)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("seed", [1, 5])
def test_segmentation_and_pixel_positions_name_the_same_things(body, seed):
    simulation = started(body, seed)
    moment, picture = simulation.moment(), simulation.picture(128, segmentation=True)
    labels = picture.segmentation
    assert labels is not None
    seen = 0
    for index, (u, v) in enumerate(moment.object_pixels):
        rows, columns = np.nonzero(labels == FIRST_OBJECT + index)
        if len(rows) < 40:
            continue  # behind the body
        seen += 1
        assert abs(columns.mean() / 128 - u) < 0.05
        assert abs(rows.mean() / 128 - v) < 0.05
    assert seen
    assert picture.hand_pixels is not None
    assert 0 < picture.hand_pixels <= (labels == BODY).sum()
    rows, columns = np.nonzero(labels == BODY)
    u, v = moment.effector_pixel
    assert np.hypot(columns / 128 - u, rows / 128 - v).min() < 0.12  # between open jaws there is nothing to see


def test_objects_begin_at_rest_where_the_layout_put_them():
    for seed in range(8):
        simulation = started(seed=seed)
        for pose, placed in zip(simulation.object_poses(), simulation.layout.objects, strict=True):
            assert np.linalg.norm(pose[:3] - placed.position) < 0.004


def test_unstable_physics_is_reported_with_its_seed_and_leaves_no_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulation = started()
    simulation.data.qvel[-6] = np.nan
    with pytest.raises(UnstablePhysics, match="seed 3"):
        simulation.step(wave(0))
    assert not list(tmp_path.iterdir())


def test_a_thrown_object_is_unstable_and_one_over_the_edge_is_lost():
    simulation = started()
    simulation.data.qvel[-4] = 9.0
    with pytest.raises(UnstablePhysics, match="faster"):
        simulation.step(wave(0))
    simulation = started()
    simulation.data.qpos[-7] = 1.0
    simulation.step(wave(0))
    assert simulation.has_lost_object()
