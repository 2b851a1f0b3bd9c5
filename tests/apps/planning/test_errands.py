"""Errands of the dojo: planned in the simulator itself they are done; what breaks in rehearsal does no harm."""

import json

import numpy as np
import pytest
import torch

from dreamdojo.apps.planning.ensemble import scripted_ensemble
from dreamdojo.apps.planning.errands import TrueErrand, errand_of, goal_picture, stroke_for, true_aim
from dreamdojo.apps.planning.execute import SimulatorMind, carry_out, write_episode
from dreamdojo.apps.planning.imagine import imagine
from dreamdojo.apps.planning.planner import BestOf, Fixed, Planner
from dreamdojo.apps.planning.search import icem
from dreamdojo.dojo.errands import errand_seeds
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.world import DojoWorld
from dreamdojo.errors import ConfigError
from dreamdojo.video import probe

SEED = seed_of("train", 5000)


def start(task="pick_place", **settings):
    world = DojoWorld(task=task, size=32, **settings)
    return world, world.reset(seed=SEED)


def test_the_planner_in_the_true_simulator_picks_up_and_puts_down(tmp_path):
    world, first = start()
    errand = errand_of(world, size=32)
    mind = SimulatorMind(world)
    method = icem(candidates=8, iterations=2, elites=3)
    planner = Planner(space=true_aim(errand, world), method=method, objective=TrueErrand(errand=errand))
    episode = carry_out(world, first, mind, planner, seed=0, film=True)
    assert episode.outcome.success and episode.outcome.lifted and episode.actions < 100
    write_episode(tmp_path, episode, world.fps, {"task": errand.task})
    assert json.loads((tmp_path / "plan.json").read_text())["success"] is True
    film = probe(tmp_path / "plan.mp4")
    assert (film.num_frames, film.width, film.height) == (episode.actions + 1, 64, 32)
    # the simulator foresees what it then does
    assert episode.predicted is not None
    close = (episode.frames.float() - episode.predicted.float()).abs().mean()
    assert float(close) < 1.0


def test_an_errand_may_end_within_a_step_of_the_model():
    world, first = start("push")

    class FourAtATime(SimulatorMind):
        def observe(self, observation, actions):
            assert actions.shape[1] % 4 == 0, "a model of four actions a step takes no others"

    plan = Fixed(actions=torch.zeros(4, 5), cost=0.0, tried=1)
    assert carry_out(world, first, FourAtATime(world), plan, seed=0, budget=6).actions == 6


def test_what_the_first_frame_shows_is_near_the_truth():
    world, _ = start()
    errand = errand_of(world, size=64)
    pose = world.trials[0].target_pose()
    assert np.linalg.norm(np.subtract(errand.object_place, pose[:2])) < 0.03
    assert errand.goal_place == world.trials[0].errand.goal
    picture = goal_picture(world, size=64)
    assert (picture.float() - errand.start.float()).abs().amax(dim=0)[errand.mask].mean() > 10  # it is not there now
    np.testing.assert_allclose(world.trials[0].target_pose(), pose)  # and nothing was moved


def test_the_true_cost_prefers_what_carries_and_needs_the_simulator():
    world, first = start()
    errand = errand_of(world, size=32)
    stroke = stroke_for(errand, tuple(world.trials[0].target_pose()[:2]), world.embodiment, fps=10)
    x = torch.cat([stroke.belief().mean[None], torch.zeros(1, 1, 6)])
    imagined = imagine(world.rehearsal(), stroke.actions(x, first.state[0, -1]))
    cost = TrueErrand(errand=errand)(imagined)
    assert imagined.frames == {} and cost[0] < 0.05 < cost[1]
    with pytest.raises(ConfigError, match="simulator only"):
        TrueErrand(errand=errand)(imagine_without_truth(imagined))


def imagine_without_truth(imagined):
    from dataclasses import replace

    return replace(imagined, truth=None)


def test_scripted_policies_propose_whole_plans_and_the_best_of_them_is_done():
    world, first = start()
    errand = errand_of(world, size=32)
    policies = scripted_ensemble(world, errand)
    policies["shaky"].reset(seed=0)
    both = policies["shaky"].act(type(first)(frames=first.frames, state=first.state.repeat(2, 1, 1)))
    assert both.shape[0] == 2 and not torch.equal(both[0], both[1])
    best = BestOf(policies=policies, objective=TrueErrand(errand=errand), horizon=60)
    best.reset(seed=0)
    decision = best.decide(world.rehearsal(), first)
    assert decision.tried == 5 and decision.cost == min(decision.costs) < max(decision.costs)


def test_a_rehearsal_that_breaks_stands_still_and_the_world_itself_raises(monkeypatch):
    world, _ = start("push")
    branches = world.rehearsal(pictures=True).fork(3)
    step, calls = Simulation.step, []

    def breaking(self, action):
        calls.append(self)
        if self is branches.simulations[1] and calls.count(self) == 2:
            raise UnstablePhysics(0, "the test said so")
        step(self, action)

    monkeypatch.setattr(Simulation, "step", breaking)
    for _ in range(4):
        prediction = branches.step(torch.zeros(3, 1, 5))
    assert branches.broken == {1} and prediction.frames["head"].shape == (3, 1, 3, 32, 32)
    assert [calls.count(simulation) for simulation in branches.simulations] == [4, 2, 4]
    monkeypatch.setattr(Simulation, "step", lambda self, action: (_ for _ in ()).throw(UnstablePhysics(0, "now")))
    with pytest.raises(UnstablePhysics):
        world.step(torch.zeros(1, 1, 5))


def test_errands_are_drawn_from_their_split_and_the_goal_can_be_hidden():
    seeds = errand_seeds("push", "test", first_index=3)
    found = [next(seeds) for _ in range(2)]
    assert all(seed >= seed_of("test", 3) for seed in found)
    shown, hidden = (DojoWorld(task="push", size=64, show_goal=show).reset(seed=found[0]) for show in (True, False))
    assert not torch.equal(shown.frames["head"], hidden.frames["head"])
    with pytest.raises(ConfigError, match="free play"):
        _ = DojoWorld(size=32).outcomes
