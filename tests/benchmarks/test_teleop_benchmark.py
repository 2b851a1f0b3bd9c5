"""The arithmetic of `benchmarks/teleop.py`, and operators who can do their tasks when they see the truth."""

import numpy as np
import pytest
import torch

from benchmarks.teleop import cells, compared, goals, summary
from benchmarks.teleop_operators import OPERATORS, Brief, Mind, Seen


def cell(seconds, collisions=0):
    trials = [{"seconds": float(s), "success": s < 30, "collisions": collisions} for s in seconds]
    return {"trials": trials, "summary": summary(trials)}


def test_time_is_saved_against_the_late_picture_at_its_best_paired_by_trial():
    metrics = {}
    for task in ("push", "pick_place", "obstacle"):
        metrics |= {
            f"{task}-500-late": cell([30, 30]),
            f"{task}-500-move_and_wait": cell([20, 10]),
            f"{task}-500-model": cell([15, 7.5], collisions=1),
        }
    found = compared(metrics, 500, "model")
    assert found["time saved"] == pytest.approx(0.25) and found["trials"] == 6
    assert found["collisions more"]["mean"] == 1
    assert compared(metrics, 500, "ghost") is None
    told = goals(metrics)
    assert told["time saved at 500 ms"]["value"] == pytest.approx(0.25)
    assert told["time saved by the oracle"]["value"] is None and told["time saved by the oracle"]["reason"]


def test_without_delay_there_is_one_display():
    assert sum(name.split("-")[1] == "0" for name in cells()) == 3 and len(cells()) == 48


@pytest.mark.parametrize("waits", [None, 6])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_goes_around_the_obstacle_to_the_goal(name, waits):
    goal, thing = np.array([0.03, 0.12]), np.array([0.035, 0.0])
    brief = Brief(task="obstacle", goal=goal, radius=0.03, grasp=np.zeros(3), yaw=None)
    mind, place, nearest = Mind(OPERATORS[name], brief, waits=waits, seed=0), np.array([0.02, -0.12, 0.03]), 1.0
    for _ in range(300):
        seen = Seen(gripper=place[:2].copy(), thing=thing, height=place[2], yaw=0.0, opening=0.0)
        action = mind.act(seen, 0.1)
        assert action.shape == (5,) and np.linalg.norm(action[:3]) < 0.4
        place = place + 0.1 * action[:3]
        nearest = min(nearest, float(np.linalg.norm(place[:2] - thing)))
        if np.linalg.norm(place[:2] - goal) < 0.025:
            break
    assert np.linalg.norm(place[:2] - goal) < 0.025 and nearest > 0.03


def test_a_thing_that_is_not_found_makes_an_operator_stand_still():
    brief = Brief(task="push", goal=np.zeros(2), radius=0.03, grasp=np.zeros(3), yaw=None)
    mind = Mind(OPERATORS["quick"], brief, waits=None, seed=0)
    seen = Seen(gripper=None, thing=torch.zeros(2).numpy(), height=0.1, yaw=0.0, opening=1.0)
    assert all((mind.act(seen, 0.1)[:4] == 0).all() for _ in range(5))
