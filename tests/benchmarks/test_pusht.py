"""Push-T: the table can be put anywhere, errands can be done and are judged as published, and the queue goes on."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import pusht
from benchmarks.pusht import (
    MODEL,
    MODEL_PIXELS,
    QUICK,
    RANDOM,
    STAY,
    TRUE,
    TRUE_PIXELS,
    Bench,
    Soonest,
    goals,
    summarise,
)
from benchmarks.results_page import results_page
from dreamdojo.apps.planning.execute import RealWorld
from dreamdojo.apps.planning.objectives import latents
from dreamdojo.errors import ConfigError
from dreamdojo.rollout.session import Session
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, awake, tiny_tokenizer, tiny_world_model

pytest.importorskip("gym_pusht", reason='Push-T needs gym-pusht: pip install "dreamdojo[pusht]"')

from benchmarks.pusht_play import (
    AHEAD,
    BODY,
    EPISODE,
    HELD_OUT,
    PIXEL,
    Moment,
    Table,
    apart,
    errand_of,
    play,
    record,
)
from benchmarks.pusht_world import PushTWorld


def offsets(episode, start):
    """Actions `1 25 2` in metres from a moment of play on."""
    return torch.from_numpy(episode.offsets[start : start + AHEAD] * PIXEL)[None]


def start_of(errand, episode):
    return next(i for i, m in enumerate(episode.moments) if np.array_equal(m.pose, errand.start.pose))


def test_the_script_plays_the_same_again_and_pushes_the_block():
    first, again, other = play(0), play(0), play(1)
    assert all(np.array_equal(a.pose, b.pose) for a, b in zip(first.moments, again.moments, strict=True))
    assert not np.array_equal(first.offsets, other.offsets)
    for episode in (first, other):
        assert np.linalg.norm(episode.moments[-1].block[:2] - episode.moments[0].block[:2]) > 20
        assert np.abs(episode.offsets).max() <= 100


@pytest.mark.parametrize("number", range(4))
def test_what_the_script_did_does_the_errand_and_ends_as_in_the_goal_picture(number):
    world = PushTWorld()
    world.reset(seed=number)
    episode = play(HELD_OUT + number)
    assert not world.outcomes[0].success
    shown = [world.step(action[:, None]) for action in offsets(episode, start_of(world.errand, episode)).unbind(1)]
    assert world.outcomes[0].success
    seen = shown[-1].frames["head"][0, 0]
    assert (seen.float() - world.errand.picture.float()).abs().mean() < 3


def test_a_table_can_be_put_into_any_moment():
    moment = Moment(pusher=np.array([100.0, 400, 20, -30]), block=np.array([300.0, 200, 1.2, 0, 0, 0]))
    table = Table(3)
    before = table.picture()
    table.put(moment)
    np.testing.assert_allclose(table.moment.pusher, moment.pusher)
    np.testing.assert_allclose(table.moment.block, moment.block)
    other = Table(4)
    other.put(moment)
    assert np.array_equal(table.picture(), other.picture()) and not np.array_equal(table.picture(), before)
    for _ in range(20):
        table.act(np.array([100.0, -3.0]))
    assert table.pusher.min() >= 0 and table.pusher.max() <= 512  # no target lies off the table


def test_branches_start_where_the_world_is_and_leave_it_there():
    world = PushTWorld()
    assert isinstance(world, RealWorld)
    world.reset(seed=2)
    there = world.moments[0]
    branch = world.rehearsal().fork(3)
    actions = torch.tensor([[0.05, 0.0], [0.05, 0.0], [-0.05, 0.02]], dtype=torch.float64)[:, None]
    for _ in range(4):
        prediction = branch.step(actions)
    assert not prediction.frames and prediction.state_source == "simulator"
    assert torch.equal(prediction.state[0], prediction.state[1]) and not torch.equal(*prediction.state[1:])
    assert np.array_equal(world.moments[0].object_poses, there.object_poses)
    drawn = world.rehearsal(pictures=True).step(torch.zeros(1, 5, 2))
    assert drawn.frames["head"].shape == (1, 5, 3, 128, 128)


def test_success_is_judged_by_place_and_turn():
    pose = np.array([100.0, 100, 200, 200, 3.1])
    assert apart(pose, pose + np.array([12, 0, 0, 16, 0]))[0] == pytest.approx(20)  # pusher and block count together
    assert apart(pose, pose + np.array([0, 0, 0, 0, 0.3 - 2 * np.pi]))[1] == pytest.approx(0.3)
    errand = errand_of(0)
    for change, done in (([0] * 5, True), ([21, 0, 0, 0, 0], False), ([0, 0, 0, 0, 0.4], False)):
        world = PushTWorld()
        world.reset(seed=0)
        pusher, block = errand.goal.pusher.copy(), errand.goal.block.copy()
        pusher[:2] += change[:2]
        block[:3] += change[2:]
        world._tables[0].put(Moment(pusher=pusher, block=block))
        assert world.outcomes[0].success == done


def test_the_best_frame_within_the_budget_counts_and_sooner_is_better():
    far = torch.tensor([[5.0, 1, 4, 4], [1.0, 5, 4, 4], [5.0, 5, 5, 0]])
    objective = Soonest(distances=lambda imagined: far)
    costs = objective(None)
    assert costs[2] < costs[1] < costs[0]
    objective.left = 15
    assert objective(None).argmin() == 1 and objective(None)[2] == 5


def test_recorded_play_is_a_dataset_of_its_actions_and_places(tmp_path):
    dataset, episode = record(tmp_path / "data", episodes=1), play(0)
    np.testing.assert_allclose(dataset.actions(0), episode.offsets * PIXEL, atol=1e-6)
    places = np.stack([moment.pusher[:2] for moment in episode.moments])
    np.testing.assert_allclose(dataset.states(0), places * PIXEL, atol=1e-6)
    assert dataset.frames(0, [0], None).shape == (1, 128, 128, 3) and dataset.episodes[0].length == EPISODE


def test_the_planner_acts_in_the_simulator_and_in_a_model(tmp_path):
    bench = Bench(tmp_path, replace(QUICK, execute=10))
    model = awake(tiny_world_model().with_embodiments(BODY))
    tokenizer = tiny_tokenizer()
    bench.session = Session(model, tokenizer, SamplerConfig(steps=1), embodiment=BODY, compute=CPU)
    bench.embed = latents(tokenizer)
    rows = {arm: bench.episode(arm, 0) for arm in (STAY, RANDOM, TRUE, TRUE_PIXELS, MODEL, MODEL_PIXELS)}
    assert all(row["actions"] == 50 or row["success"] for row in rows.values())
    start = errand_of(0)
    still, _ = apart(start.start.pose, start.goal.pose)
    assert rows[STAY]["distance"] == pytest.approx(still * PIXEL, abs=0.02)
    assert rows[TRUE]["distance"] < rows[STAY]["distance"]
    assert len({row["distance"] for row in rows.values()}) == len(rows)


def made(wins, count=40):
    row = {"distance": 0.1, "turn": 0.2, "seconds": 1.0, "actions": 50, "decisions": [{"seconds": 0.5}]}
    return [{**row, "success": index < wins, "block moves": index % 2 == 0} for index in range(count)]


def test_the_better_of_the_models_arms_is_set_against_the_published_figure():
    summary = summarise({MODEL: made(10), MODEL_PIXELS: made(20), TRUE: made(38)})
    assert summary[MODEL_PIXELS]["success where the block has to move"]["count"] == 20
    assert summary["simulator minus model, pixels"]["mean"] == pytest.approx(18 / 40)
    assert goals(summary)[pusht.GOAL] == {"value": 0.5, "bound": 0.96, "op": ">="}
    assert goals({})[pusht.GOAL]["reason"]


def test_an_errand_that_was_tried_is_not_tried_again(tmp_path, monkeypatch):
    calls = []

    def episode(self, arm, number):
        calls.append((arm, number))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return made(1, 1)[0]

    monkeypatch.setattr(Bench, "episode", episode)
    monkeypatch.setattr(pusht, "PUSHT", tmp_path / "pusht.json")
    given = argparse.Namespace(only=[STAY, RANDOM], threads=1)
    bench = Bench(tmp_path, replace(QUICK, episodes=2))
    with pytest.raises(KeyboardInterrupt):
        pusht.run_queue(bench, given, keep=False)
    assert not (tmp_path / "pusht.json").exists()
    summary = pusht.run_queue(bench, given, keep=True)
    assert calls == [(STAY, 0), (STAY, 1), (RANDOM, 0), (RANDOM, 0), (RANDOM, 1)]
    assert summary[RANDOM]["success"]["mean"] == 1.0
    written = json.loads((tmp_path / "pusht.json").read_text())
    assert written["metrics"].keys() == {STAY, RANDOM} and written["conditions"]["sizes"]["horizon"] == QUICK.horizon
    assert "| random | 2 | 1.00 [" in results_page({"pusht": written})
    with pytest.raises(ConfigError, match="another --run folder"):
        pusht.run_queue(Bench(tmp_path, replace(QUICK, horizon=5)), given, keep=False)
