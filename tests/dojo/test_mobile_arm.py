from __future__ import annotations

import numpy as np
import pytest

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.actors import Actor
from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.control import BASE_LIMIT, CONTROL_MODES, Wish, embodiment_of
from dreamdojo.dojo.plans import EXPERT
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation

MOBILE, ARM = BODIES["mobile_arm"], BODIES["arm"]


def started(control="end_effector_velocity", body="mobile_arm"):
    simulation = Simulation(body, control=control)
    simulation.reset(3)
    return simulation


def base_of(simulation):
    return simulation.state()[simulation.embodiment.columns("base_position", of="state")]


@pytest.mark.parametrize("control", CONTROL_MODES)
def test_its_action_is_that_of_the_arm_and_the_velocity_of_the_base(control):
    mobile, arm = embodiment_of(MOBILE, control), embodiment_of(ARM, control)
    assert mobile.action_names() == [*arm.action_names(), "base_velocity.base_x", "base_velocity.base_y"]
    assert mobile.action[-1].integrates == "base_position"
    assert set(arm.state_names()) < set(mobile.state_names())


@pytest.mark.parametrize("control", CONTROL_MODES)
def test_the_base_goes_where_its_velocity_says_and_stops_at_its_limits(control):
    simulation = started(control)
    still = Wish(velocity=np.zeros(3), turn=0.0, opening=1.0)
    before = base_of(simulation)
    for _ in range(4):
        action = simulation.demonstrate(still)
        action[-2:] = 0.1, -0.05
        simulation.step(action)
    np.testing.assert_allclose(base_of(simulation) - before, [0.04, -0.02], atol=4e-3)
    for _ in range(12):
        action[-2:] = BASE_LIMIT
        simulation.step(action)
    np.testing.assert_allclose(base_of(simulation), [link.limit[1] for link in MOBILE.base], atol=4e-3)


def test_the_effector_stays_where_it_is_while_the_base_drives_under_it():
    simulation = started()
    before = simulation.moment().effector_position
    for _ in range(6):
        simulation.step(np.array([0, 0, 0, 0, 1, 0.1, 0.05], np.float32))
    assert np.abs(base_of(simulation)).max() > 0.05
    np.testing.assert_allclose(simulation.moment().effector_position, before, atol=3e-3)


def test_a_scripted_actor_drives_the_base_too():
    simulation = started()
    actor = Actor(simulation, np.random.default_rng(0), skill=EXPERT)
    actions = []
    for _ in range(40):
        actions.append(actor.act())
        simulation.step(actions[-1])
    assert np.stack(actions)[:, -2:].std(axis=0).min() > 0.01


@pytest.mark.parametrize("control", CONTROL_MODES)
@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
def test_every_control_mode_is_recorded_and_replays(tmp_path, body, control):
    settings = SimulateSettings(body=body, control=control, episodes=1, frames=8, size=32, truth="poses")
    simulate(settings, tmp_path / body, workers=1)
    dataset = open_dataset(tmp_path / body)
    actions, states = dataset.actions(0), dataset.states(0)
    declared = embodiment_of(BODIES[body], control)
    assert dataset.embodiment == declared
    assert np.abs(declared.normalize_action(actions)).max() <= 1 + 1e-5
    simulation = Simulation(body, control=control)
    simulation.reset(0)
    for frame in range(len(actions)):
        if frame:
            simulation.step(actions[frame - 1])
        np.testing.assert_allclose(simulation.state(), states[frame], atol=1e-6)


@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
def test_a_torque_is_what_the_drives_give_besides_their_damping(body):
    simulation = started("joint_torque", body)
    hinges = simulation.body.hinges
    action = simulation.demonstrate(Wish(velocity=np.array([0.1, 0.0, 0.0]), turn=0.0, opening=1.0))
    simulation.step(action)
    ids = [simulation.model.actuator(link.joint).id for link in hinges]
    dofs = [simulation.model.joint(link.joint).dofadr[0] for link in hinges]
    damping = np.array([link.damping for link in hinges])
    # The servo's target was set from the positions before the last substep, which was a two-hundredth of a second.
    given = simulation.data.actuator_force[ids] + damping * simulation.data.qvel[dofs]
    stiffness = np.array([link.stiffness for link in hinges])
    slack = stiffness * np.abs(simulation.data.qvel[dofs]) * simulation.model.opt.timestep
    np.testing.assert_allclose(given, action[: len(hinges)], atol=float(slack.max()) + 1e-3)


def test_without_torque_a_moving_arm_comes_to_rest():
    simulation = started("joint_torque", "arm")
    for _ in range(3):
        simulation.step(simulation.demonstrate(Wish(velocity=np.array([0.2, 0.1, 0.0]), turn=0.0, opening=1.0)))
    free = np.zeros(simulation.embodiment.action_dim, np.float32)
    for _ in range(4):
        simulation.step(free)
    before = simulation.moment().effector_position
    simulation.step(free)
    np.testing.assert_allclose(simulation.moment().effector_position, before, atol=5e-4)
