"""Learning in a dream: the task can be done, what is learned does not depend on stops, and every goal is stated."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from benchmarks import policy_learning
from benchmarks.policy_learning import QUICK, Bench, goals, run_queue, summarise
from benchmarks.policy_learning_report import ARMS, LEARNED, RANDOM, SCRIPT, UNTRAINED, WORLDS
from benchmarks.reaching import Hand, Reacher, Reaching, Sight, aim, reached, true_distance
from dreamdojo.apps.policy_eval.act import act
from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.splits import seed_of
from dreamdojo.rollout.session import Session
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from tests.rollout.test_env import settings
from tests.tiny import CPU, awake, tiny_dit, tiny_tokenizer

BODY = Simulation("arm").embodiment


class Blinking:
    """Eyes that take the mean colours of a picture for places."""

    class effector:  # noqa: N801
        error = "none"

    def first(self, frames):
        return Sight(self.see(frames), 1 - self.see(frames))

    def next(self, before, frames):
        return Sight(self.see(frames), before.mark)

    def follow(self, frames):
        first = self.first(frames[:, 0])
        return [first, *(self.next(first, later) for later in frames[:, 1:].unbind(1))]

    def see(self, frames):
        return frames.float().mean(dim=(2, 3))[:, :2] / 255


class Knowing(Blinking):
    """Eyes that look at the truth instead."""

    def __init__(self, world):
        self.world = world

    def first(self, frames):
        mark = [
            scene.pixel(poses[0, 0, :3]) for scene, poses in zip(self.world.simulations, self.world.poses, strict=True)
        ]
        return Sight(self.see(frames), torch.tensor(np.array(mark)).float())

    def see(self, frames):
        return torch.tensor(np.array([scene.moment().effector_pixel for scene in self.world.simulations])).float()


def tiny_bench(folder, monkeypatch, **changes):
    torch.manual_seed(0)
    config = WorldModelConfig(dit=tiny_dit(), size=(16, 16), rate=10.0, embodiments=(BODY,), adapter_hidden=8)
    session = Session(awake(WorldModel(config)), tiny_tokenizer(), SamplerConfig(steps=1), embodiment=BODY, compute=CPU)
    monkeypatch.setattr(policy_learning, "load_session", lambda *_, **__: session)
    monkeypatch.setattr(policy_learning, "model_hash", lambda _: "tiny")
    bench = Bench(folder, Path("tiny"), replace(QUICK, **changes), device="cpu")
    bench.eyes = Blinking()
    return bench


def test_who_sees_well_and_aims_at_the_mark_reaches_it():
    world = TrueWorld(lambda: Simulation("arm", difficulty=policy_learning.ONE), [], size=(16, 16))
    world._seeds = tuple(seed_of("train", 1_400_000 + number) for number in range(4))
    act(world, Reacher(Knowing(world), Hand(embodiment=BODY), aim), None, steps=policy_learning.HORIZON)
    assert reached(true_distance(world)).float().mean() >= 0.75


def test_the_hand_keeps_its_height_and_stays_open():
    action = BODY.denormalize_action(Hand(embodiment=BODY, gain=0.5).normal(np.array([[1.0, -3.0]])))[0]
    named = dict(zip(BODY.action_names(), action.tolist(), strict=True))
    assert sorted(named.values()) == pytest.approx([-0.2, 0.0, 0.0, 0.2, 1.0])
    assert action[BODY.columns("gripper_opening", of="action")] == 1


def test_the_reward_is_minus_the_distance_from_the_mark_of_the_first_frame():
    from dataclasses import dataclass

    @dataclass
    class Still:
        def normal(self, moves):
            return moves

    made = gymnasium.make_vec(
        "dreamdojo/World-v0", num_envs=2, vectorization_mode="vector_entry_point", **settings(horizon=3)
    )
    envs = Reaching(made, Blinking(), Still())
    first, _ = envs.reset(seed=0)
    for _ in range(2):
        seen, worth, *_ = envs.step(np.full((2, 2), 0.7, np.float32))
        np.testing.assert_allclose(worth, -np.linalg.norm(seen[:, 4:] / 4, axis=1), rtol=1e-5)
        np.testing.assert_array_equal(seen[:, 2:4], first[:, 2:4])
    assert seen in envs.observation_space and not np.array_equal(seen, first)


def test_learning_that_was_stopped_goes_on_to_the_same_policy(tmp_path, monkeypatch):
    sight = {world: {"success": [0], "return": [0.0]} for world in WORLDS}
    whole = tiny_bench(tmp_path / "whole", monkeypatch)
    monkeypatch.setattr(Bench, "_seen_after_round", lambda self, ppo: sight)
    wanted, rows = whole.learned(0)
    assert [row["steps"] for row in rows] == [0, 60, 120]

    calls = iter([sight, sight])
    stopped = tiny_bench(tmp_path / "stopped", monkeypatch)
    monkeypatch.setattr(Bench, "_seen_after_round", lambda self, ppo: next(calls, None) or stop())
    with pytest.raises(KeyboardInterrupt):
        stopped.learned(0)
    monkeypatch.setattr(Bench, "_seen_after_round", lambda self, ppo: sight)
    found, again = tiny_bench(tmp_path / "stopped", monkeypatch).learned(0)
    assert again == rows
    untrained = whole.untrained(0).policy.state_dict()
    for name, value in wanted.policy.state_dict().items():
        assert torch.equal(value, found.policy.state_dict()[name])
    assert not torch.equal(untrained["action_net.weight"], wanted.policy.state_dict()["action_net.weight"])


def stop():
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_whole_queue_runs_at_toy_size_and_does_nothing_twice(tmp_path, monkeypatch):
    bench = tiny_bench(tmp_path, monkeypatch, rounds=1, starts=1, curve=1, batch=1)
    value = run_queue(bench, ARMS, keep=False)
    assert set(value["metrics"]["ood_shape"]) == set(ARMS) and (tmp_path / "report.html").exists()
    assert all(goal["value"] is not None or "reason" in goal for goal in value["goals"].values())
    monkeypatch.setattr(Bench, "tried", lambda *_, **__: stop())
    again = run_queue(tiny_bench(tmp_path, monkeypatch, rounds=1, starts=1, curve=1, batch=1), ARMS, keep=False)
    assert again["metrics"] == value["metrics"]


def scores(rate, count=100):
    wins = [int(number < rate * count) for number in range(count)]
    return {world: {"success": wins, "return": [-1.0] * count, "eyes": [0.5]} for world in WORLDS}


def test_goals_compare_the_learned_policy_with_one_that_did_not_learn():
    rates = {LEARNED: 0.9, UNTRAINED: 0.1, RANDOM: 0.1, SCRIPT: 1.0}
    cells = {f"{arm}/test": {"0": scores(rate), "1": scores(rate)} for arm, rate in rates.items()}
    metrics = summarise(cells)
    assert metrics["test"][LEARNED]["minus untrained"]["mean"] == pytest.approx(0.8)
    assert metrics["test"][LEARNED]["dojo"]["success"]["count"] == 100, "seeds of a start are not independent"
    found = goals(metrics)
    assert found["test: success in the dojo"]["value"] == pytest.approx(0.9)
    assert found["test: success in the dojo minus random, lower end"]["value"] > 0.7
    assert found["ood_shape: success in the dojo"]["reason"] == "not run" and set(goals({})) == set(found)
