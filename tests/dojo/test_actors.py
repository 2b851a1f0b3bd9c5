from __future__ import annotations

import numpy as np
import pytest

from dreamdojo.dojo.actors import Actor
from dreamdojo.dojo.plans import EXPERT
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.errors import ConfigError


def try_once(body, seed, task):
    """Carry out one plan of an expert; the objects' poses `(t, n, 7)` and the plan, or None for another task."""
    simulation = Simulation(body)
    simulation.reset(seed)
    actor = Actor(simulation, np.random.default_rng(seed), skill=EXPERT, tasks={task: 1.0})
    poses = []
    while not (poses and actor.idle) and len(poses) < 120:
        simulation.step(actor.act())
        poses.append(simulation.object_poses())
    return np.stack(poses), actor.plans[0]


def success_rate(body, task, succeeded, seeds):
    results = []
    for seed in seeds:
        poses, plan = try_once(body, seed, task)
        if plan.task == task:
            results.append(succeeded(poses[:, plan.target]))
    assert len(results) > len(seeds) / 2
    return np.mean(results)


def was_lifted(poses):
    return poses[:, 2].max() > poses[0, 2] + 0.03


def was_moved(poses):
    return np.linalg.norm(poses[-1, :2] - poses[0, :2]) > 0.03


@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
def test_an_expert_robot_lifts_what_it_grasps(body):
    assert success_rate(body, "pick_place", was_lifted, range(100, 120)) >= 0.9


def test_an_expert_hand_lifts_most_of_what_it_grasps():
    assert success_rate("human", "pick_place", was_lifted, range(100, 120)) >= 0.6


@pytest.mark.parametrize("body", ["arm", "mobile_arm", "human"])
def test_an_expert_moves_what_it_pushes(body):
    assert success_rate(body, "push", was_moved, range(200, 212)) >= 0.9


@pytest.mark.parametrize("body", ["arm", "mobile_arm", "human"])
def test_gentle_motion_is_a_few_pixels_a_frame(body):
    speeds = []
    for seed in range(300, 306):
        simulation = Simulation(body)
        simulation.reset(seed)
        actor = Actor(simulation, np.random.default_rng(seed))
        pixels = []
        for _ in range(48):
            pixels.append(simulation.moment().effector_pixel * 64)
            simulation.step(actor.act())
        speeds.append(np.linalg.norm(np.diff(pixels, axis=0), axis=1))
    speed = np.concatenate(speeds)
    assert 1.8 < np.median(speed[speed > 0.5]) < 3
    assert speed.max() < 6


def test_ordinary_actors_mix_tasks_and_sometimes_fail():
    tasks, lifts, grasps = set(), 0, 0
    for seed in range(400, 412):
        simulation = Simulation("arm")
        simulation.reset(seed)
        actor = Actor(simulation, np.random.default_rng(seed))
        heights = []
        while len(actor.plans) < 2 and len(heights) < 100:
            simulation.step(actor.act())
            heights.append(simulation.object_poses()[:, 2])
        tasks |= {plan.task for plan in actor.plans}
        if actor.plans[0].task == "pick_place":
            grasps += 1
            lifts += bool((np.max(heights, axis=0) - heights[0]).max() > 0.03)
    assert {"pick_place", "push", "wander"} <= tasks
    assert 0 < lifts < grasps


def test_unknown_tasks_are_refused():
    simulation = Simulation("arm")
    simulation.reset(0)
    with pytest.raises(ConfigError, match="pick_place, push, push_away, topple, wander"):
        Actor(simulation, np.random.default_rng(0), tasks={"juggle": 1.0})
