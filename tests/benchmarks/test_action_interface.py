"""What each arm of the comparison of action interfaces is told, and the comparison itself at toy size."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import action_interface, pretraining_ablation
from benchmarks.action_interface import (
    ARMS,
    JOINTS,
    compare,
    moved_like,
    plan_told,
    plan_with_history,
    prepare,
    quick_sets,
    recent_commands,
    summarise,
)
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.predict import ClipPlan, Recording
from dreamdojo.evaluation.rollouts import COPY
from dreamdojo.training.checkpoint import save_model
from tests.tiny import tiny_tokenizer, tiny_world_model

WINDOW = 3
BODY = Embodiment(
    name="toy",
    action=(
        Field(name=JOINTS, axes=("shoulder",), unit="rad", low=(-2.0,), high=(2.0,)),
        Field(name="gripper_opening", axes=("target",), unit="1", low=(0.0,), high=(1.0,)),
    ),
)
COMMANDS = np.array([[0.5, 1.0], [0.6, 1.0], [0.8, 0.0], [0.7, 0.0]], np.float32)
TOLD = {
    "none": [
        [0.5, 1, 0.5, 1, 0.5, 1],
        [0.5, 1, 0.5, 1, 0.6, 1],
        [0.5, 1, 0.6, 1, 0.8, 0],
        [0.6, 1, 0.8, 0, 0.7, 0],
    ],
    "+ relative": [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0.1, 0],
        [0, 0, 0.1, 0, 0.2, -1],
        [0.1, 0, 0.2, -1, -0.1, 0],
    ],
    "+ chunked": [[0, 0], [0.1, 0], [0.2, -1], [-0.1, 0]],
    "+ temporal loss": [[0, 0], [0.1, 0], [0.2, -1], [-0.1, 0]],
}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_told_what_it_should_be(arm):
    told = ARMS[arm].tell(recent_commands(COMMANDS, WINDOW))
    np.testing.assert_allclose(told, TOLD[arm], atol=1e-6)
    assert told.dtype == np.float32 and ARMS[arm].body(BODY, window=WINDOW, rate=10).action_dim == told.shape[1]


def test_arms_differ_in_what_they_say():
    assert [arm.motion_weight for arm in ARMS.values()] == [0, 0, 0, 0.1]
    bodies = [arm.body(BODY, window=WINDOW, rate=10) for arm in ARMS.values()]
    assert bodies[2] == bodies[3] and len({body.name for body in bodies}) == 3
    assert bodies[0].action_names() == [
        "joint_position_2_before.shoulder",
        "gripper_opening_2_before.target",
        "joint_position_1_before.shoulder",
        "gripper_opening_1_before.target",
        "joint_position.shoulder",
        "gripper_opening.target",
    ]
    assert bodies[2].action_names() == ["joint_position_change.shoulder", "gripper_opening_change.target"]


def test_targets_are_normalised_by_their_range_and_changes_by_what_a_step_allows():
    none, _, chunked, _ = (arm.body(BODY, window=WINDOW, rate=10) for arm in ARMS.values())
    np.testing.assert_allclose(none.normalize_action(np.array(TOLD["none"][1]))[-2:], [0.3, 1.0], atol=1e-6)
    np.testing.assert_allclose(chunked.normalize_action(np.array([0.1, -1.0])), [0.5, -1.0], atol=1e-6)


def test_known_commands_before_the_first_are_told():
    before = np.array([[0.1, 0.0], [0.2, 0.0], [0.4, 1.0]], np.float32)
    recent = recent_commands(COMMANDS, WINDOW, before)
    np.testing.assert_allclose(ARMS["none"].tell(recent)[0], [0.2, 0, 0.4, 1, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(ARMS["+ relative"].tell(recent)[0], [0.1, 0, 0.2, 1, 0.1, 0], atol=1e-6)


def test_other_actions_move_the_joints_as_elsewhere_from_where_they_are():
    own = np.array([[[0.0, 1], [0.1, 1], [0.2, 1], [9, 9]]], np.float32)
    other = np.array([[[9, 9], [-1.0, 0], [-0.5, 1], [1.5, 0]]], np.float32)
    recent = moved_like(recent_commands(own, WINDOW), recent_commands(other, WINDOW), 3, BODY)
    expected = [[0.0, 1], [0.1, 1], [0.6, 1], [2.0, 0]]  # the last would be 2.6, beyond the joint's limit
    np.testing.assert_allclose(recent[0, :, -1], expected, atol=1e-6)
    np.testing.assert_allclose(recent[0, 3, :, 0], [0.0, 0.1, 0.6, 2.0], atol=1e-6)


def test_clips_know_what_was_commanded_before_they_begin(monkeypatch):
    lengths = (30, 40)
    made = [np.stack([np.linspace(0, 1, n), np.zeros(n)], axis=1).astype(np.float32) for n in lengths]
    made = [
        Recording(frames=np.zeros((n + 1, 3, 8, 8), np.uint8), actions=a) for n, a in zip(lengths, made, strict=True)
    ]
    monkeypatch.setattr(action_interface, "recordings", lambda run, episodes: made)
    plan = plan_with_history(None, None, WINDOW)  # pyright: ignore[reportArgumentType]
    told = plan_told(ARMS["none"], plan, BODY, WINDOW)
    assert isinstance(told, ClipPlan) and max(plan.start) >= WINDOW
    for clip, (number, start) in enumerate(zip(plan.recording, plan.start, strict=True)):
        given = made[number].actions[np.maximum(np.arange(start - WINDOW + 1, start + 1), 0)]
        np.testing.assert_allclose(told.actions[clip, 0], given.reshape(-1), atol=1e-6)
        torch.testing.assert_close(told.other_actions[clip, : plan.context - 1], told.actions[clip, : plan.context - 1])
        assert not torch.allclose(told.other_actions[clip], told.actions[clip])


@pytest.fixture
def models(tmp_path):
    sampler = {"sampler": {"steps": 1, "shift": 5.0, "solver": "euler"}}
    save_model(tmp_path / "models" / "pretrained", tiny_world_model(), about=sampler)
    save_model(tmp_path / "models" / "tokenizer", tiny_tokenizer())
    return tmp_path / "models"


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_ablation, "RESULTS", tmp_path / "results.json")
    return tmp_path / "results.json"


def cell(arm, offset):
    """Six clips that differ much from each other, one of them without a number."""

    def table(methods, offset):
        values = [None, *(10.0 * clip + offset for clip in range(5))]
        return {"psnr": {method: {str(h): values for h in pretraining_ablation.HORIZONS} for method in methods}}

    return {"true": table((arm, COPY), offset), "other": table((arm,), -1.0)}


def test_arms_are_compared_with_the_one_before_clip_by_clip():
    cells = {
        "none": {"0": cell("none", 1.0), "1": cell("none", 2.0)},
        "+ chunked": {"0": cell("+ chunked", 3.0)},
        "+ temporal loss": {"1": cell("+ temporal loss", 3.0), "0": cell("+ temporal loss", 5.0)},
    }
    summary = summarise(cells)["psnr"]
    assert list(summary) == ["none", COPY, "+ chunked", "+ temporal loss"]
    assert summary["none"]["8"]["mean"]["mean"] == 21.5 and summary["none"]["8"]["mean"]["count"] == 5
    assert summary["none"]["8"]["true minus other actions"]["mean"] == 2.5
    assert not any("minus " in what and "other" not in what for what in summary["+ chunked"]["8"])
    gap = summary["+ temporal loss"]["8"]["minus + chunked"]
    assert gap["mean"] == 2.0 and gap["low"] == gap["high"] == 2.0 and gap["by seed"] == {"0": 2.0}


def test_two_comparisons_keep_each_others_figures(results):
    pretraining_ablation.keep({"action interface": {"a": 1}})
    assert json.loads(results.read_text())["goals"]
    pretraining_ablation.keep({"test": {"b": 1}}, conditions={"preset": "nano"})
    pretraining_ablation.keep({"action interface": {"a": 2}})
    stored = json.loads(results.read_text())
    assert stored["metrics"] == {"action interface": {"a": 2}, "test": {"b": 1}}
    assert stored["name"] == "pretraining_ablation" and stored["conditions"] == {"preset": "nano"}


@pytest.mark.slow
def test_the_quick_run_prints_every_arm_and_writes_nothing(tmp_path, models, results, monkeypatch, capsys):
    run = tmp_path / "run"
    options = ["--quick", "--models", str(models), "--run", str(run), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["action_interface.py", *options])
    action_interface.main()
    printed = capsys.readouterr().out
    assert all(f"{arm}, 8 frames ahead, PSNR" in printed for arm in ARMS)
    assert not results.exists() and not run.exists()


def test_what_is_there_is_not_run_again(tmp_path, models, results, monkeypatch):
    ran = []

    def run_arm(arm, seed, ground):
        ran.append((arm, seed))
        return cell(arm, float(seed))

    monkeypatch.setattr(action_interface, "run_arm", run_arm)
    ground = prepare(tmp_path / "run", models, quick_sets(models), steps=1, quick=True)
    compare(ground, ["none"], [0, 1], machine="a test", write=True)
    assert ran == [("none", 0), ("none", 1)]
    compare(ground, ["none", "+ relative"], [0, 1], machine="a test", write=True)
    assert ran[2:] == [("+ relative", 0), ("+ relative", 1)]
    kept = json.loads(results.read_text())["metrics"]["action interface"]
    assert kept["conditions"]["seeds"] == {"none": ["0", "1"], "+ relative": ["0", "1"]}
    assert kept["conditions"]["robot"].startswith("2 episodes") and kept["conditions"]["made_of"]["steps"] == 1
    assert kept["psnr"]["+ relative"]["8"]["minus none"]["by seed"] == {"0": 0.0, "1": 0.0}
    again = prepare(tmp_path / "run", models, quick_sets(models), steps=2, quick=True)
    with pytest.raises(ConfigError, match="another --run"):
        compare(again, ["none"], [0], machine="a test", write=True)
