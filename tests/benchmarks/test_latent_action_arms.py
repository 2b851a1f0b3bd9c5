"""The arithmetic of the latent action benchmark, on results whose answer is known."""

import numpy as np
import pytest

from benchmarks import latent_action
from benchmarks.latent_action import ARMS, goals, with_labels
from dreamdojo.dataset.windows import Source
from dreamdojo.latent_action.train import LatentActionTraining
from dreamdojo.presets import NANO


def told(target, standardised=False, *, r2, drop=0.0):
    values = {name: {"mean": r2} for name in ("x", "y", "z", "opening")}
    return {"target": target, "standardised": standardised, "r2": values, "drop": dict.fromkeys(values, drop)}


def test_goals_take_the_model_that_ships_or_the_latest_and_the_worst_of_what_is_lost():
    line = {"r2": {name: {"mean": 0.9} for name in ("x", "y", "z", "opening")}}
    health = {
        "sets": [{"motion": {"linear": line}, "spread": {"effective_rank": 7.0}}],
        "out_of_distribution": [told("colours", r2=0.85), told("lamps", r2=0.3)],
        "transfer": [told("robot", r2=0.1, drop=0.8), told("robot", standardised=True, r2=0.7, drop=0.2)],
        "utilisation": {"share": {"mean": 0.75}},
        "degrees_of_freedom": 5,
    }
    found = goals({"health, model a": {}, "base, 500 steps, seed 0": {}, "health, model b": health})
    assert found["R2 z"]["value"] == 0.9 and found["R2 z"]["reason"] == "health, model b"
    assert found["most R2 lost out of distribution"]["value"] == pytest.approx(0.6)
    assert "lamps" in found["most R2 lost out of distribution"]["reason"]
    assert found["most R2 lost by the human's line on the robot"]["value"] == 0.2
    assert found["effective rank"]["bound"] == 5
    both = {"health, model a": health, "health, model b": {}}
    assert goals(both, "a")["R2 z"]["reason"] == "health, model a"


def test_without_a_report_no_goal_has_a_value():
    assert all(goal["value"] is None and goal["reason"] for goal in goals({"base": {}}).values())


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_changes_settings_that_exist(name):
    arm = ARMS[name]
    assert set(arm.model) <= set(NANO.latent_action.__dataclass_fields__)
    assert set(arm.training) <= set(LatentActionTraining.__dataclass_fields__)
    assert name == "base" or arm != ARMS["base"]


def test_only_the_first_share_of_the_episodes_carries_labels(monkeypatch):
    motion = {0: np.array([[1.0], [3.0]]), 1: np.array([[5.0], [7.0]]), 2: np.array([[5.0], [7.0]])}
    monkeypatch.setattr(latent_action, "true_motion", lambda truth, index: motion[index])
    monkeypatch.setattr(latent_action.GroundTruth, "open", lambda root: None)

    class Dataset:
        root = None

    class Some:
        dataset, indices = Dataset(), (0, 1, 2)

    source = Source(embodiment="human", episodes=[{"frames": np.zeros((3, 3, 8, 8), np.uint8)}] * 3)
    known, *unknown = with_labels(source, Some(), 0.34).episodes  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(known["travelled"][:, 0], [0, 1, 4])
    assert all(np.isnan(each["travelled"]).all() and len(each["travelled"]) == 3 for each in unknown)
