"""The same planner in a dream and in the simulator, best-of-N, objectives, and offline scoring."""

from dataclasses import replace

import pytest
import torch

from dreamdojo.apps.planning.imagine import imagine
from dreamdojo.apps.planning.objectives import GoalImage, latents, pixels, pyramid, user_objective
from dreamdojo.apps.planning.offline import score_offline
from dreamdojo.apps.planning.planner import BestOf, Planner, always
from dreamdojo.apps.planning.search import CEM
from dreamdojo.apps.planning.space import Knots
from dreamdojo.apps.planning.steps_to_go import (
    FewestSteps,
    JudgedEpisode,
    StepsToGo,
    StepsToGoConfig,
    train_steps_to_go,
)
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.fit import FitConfig
from tests.rollout.test_session import first_frame
from tests.tiny import CPU, PUSHER, tiny_session, tiny_tokenizer

TARGET = torch.tensor([0.1, -0.05])


def session(k=1):
    world = tiny_session(k)
    world.reset(first_frame(), seed=0)
    return world


def to_target(imagined):
    """A user's objective: the predicted position at the end."""
    return (imagined.state[:, -1] - TARGET).norm(dim=1)


def planner(**changes):
    space = always(Knots(embodiment=PUSHER, horizon=4, knots=2, gain=1.0))
    search = CEM(candidates=16, iterations=3, elites=4)
    return Planner(**{"space": space, "method": search, "objective": to_target, "execute": 2, **changes})


@pytest.mark.parametrize("k", [1, 4])
def test_a_planner_reaches_its_goal_and_leaves_the_world_where_it_was(k):
    world, mind = session(k), planner()
    before = world.fork(1).step(torch.zeros(1, k, 2)).frames["head"]
    mind.reset(seed=0)
    decision = mind.decide(world, first_frame())
    assert decision.actions.shape == (4, 2) and decision.execute == (4 if k == 4 else 2) and decision.tried == 48
    assert decision.cost < 0.03 < float(TARGET.norm())
    assert torch.equal(world.fork(1).step(torch.zeros(1, k, 2)).frames["head"], before)
    mind.reset(seed=0)
    assert torch.equal(mind.decide(world, first_frame()).actions, decision.actions)


def test_a_warm_start_begins_with_what_was_left_of_the_last_plan():
    searches = {}
    for warm in (True, False):
        mind = planner(warm_start=warm, method=CEM(candidates=8, iterations=4, elites=2))
        mind.reset(seed=0)
        world = session()
        first = mind.decide(world, first_frame())
        for action in first.actions[: first.execute]:
            state = world.step(action[None, None]).state
        searches[warm] = mind.decide(world, replace(first_frame(), state=state)).costs[0]
    assert searches[True] < searches[False]


class Steady:
    """A policy with one idea."""

    def __init__(self, velocity, chunk=1):
        self.velocity, self.chunk, self.seeds = torch.tensor(velocity), chunk, []

    def reset(self, *, seed=0):
        self.seeds.append(seed)

    def act(self, observation):
        return self.velocity.expand(len(observation.frames["head"]), self.chunk, 2)


def test_best_of_n_takes_the_policy_whose_future_is_best_and_uniform_takes_any():
    policies = {"left": Steady([-0.2, 0.0]), "right": Steady([0.2, -0.1], chunk=3), "still": Steady([0.0, 0.0])}
    best = BestOf(policies=policies, objective=to_target, horizon=5, samples=2)
    best.reset(seed=0)
    decision = best.decide(session(), first_frame())
    assert (decision.source, decision.tried, decision.actions.shape) == ("right", 6, (5, 2))
    uniform = BestOf(policies=policies, objective=to_target, horizon=1, choose="uniform")
    uniform.reset(seed=0)
    world = session()
    assert {uniform.decide(world, first_frame()).source for _ in range(20)} == set(policies)
    with pytest.raises(ConfigError, match="got none"):
        BestOf(policies={}, objective=to_target, horizon=5).decide(session(), first_frame())


def test_a_policy_that_proposes_nothing_is_named_and_not_asked_for_ever():
    with pytest.raises(DataError, match="at least 1"):
        BestOf(policies={"mute": Steady([0.0, 0.0], chunk=0)}, objective=to_target, horizon=5).decide(
            session(), first_frame()
        )


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_a_goal_picture_costs_nothing_when_it_is_reached(kind):
    embed = pixels if kind == "pixels" else latents(tiny_tokenizer())
    world = session()
    actions = torch.tensor([[[0.4, 0.0]] * 3, [[-0.4, 0.3]] * 3])
    imagined = imagine(world, actions)
    goal = GoalImage(goal=imagined.frames["head"][1, -1], embed=embed)
    costs = goal(imagined)
    assert costs[1] < 1e-9 < 1e-6 < costs[0]
    with pytest.raises(ConfigError, match="frames of camera"):
        goal(replace(imagined, frames={}))


def test_a_pyramid_sees_how_far_a_small_thing_is_where_pixels_do_not():
    places = [8, 12, 18, 26]
    pictures = torch.zeros(len(places), 3, 32, 32, dtype=torch.uint8)
    for picture, place in zip(pictures, places, strict=True):
        picture[:, 8:10, place : place + 2] = 255
    flat, told = (GoalImage(goal=pictures[0], embed=embed).distances(pictures[None])[0] for embed in (pixels, pyramid))
    assert flat[1] == flat[2] == flat[3] > 0
    assert told[0] == 0 < told[1] < told[2] <= told[3]


def test_an_objective_of_the_users_is_found_by_name_and_must_give_a_cost_for_each():
    imagined = imagine(session(), torch.zeros(3, 2, 2))
    name = "tests.apps.planning.test_planner"
    torch.testing.assert_close(user_objective(f"{name}:to_target")(imagined), to_target(imagined))
    with pytest.raises(ConfigError, match="3 costs"):
        user_objective("builtins:id")(imagined)
    with pytest.raises(ConfigError, match="nothing"):
        user_objective(f"{name}:nothing")


def test_batches_do_not_change_what_is_imagined_of_the_state():
    actions = torch.rand(5, 2, 2) - 0.5
    whole, parts = imagine(session(), actions), imagine(session(), actions, batch=2)
    assert whole.frames["head"].shape == parts.frames["head"].shape == (5, 2, 3, 16, 16)
    torch.testing.assert_close(whole.state, parts.state)


def test_offline_scoring_goes_on_where_it_was_stopped_and_knows_its_own_file(tmp_path):
    candidates = torch.rand(7, 3, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    file, about = tmp_path / "scores.json", {"scene": 1}
    goal = GoalImage(goal=first_frame(seed=4).frames["head"][0, 0], embed=pixels)
    whole = score_offline(session(), candidates, goal, tmp_path / "whole.json", about=about, batch=2)
    calls = []

    def stopping(imagined):
        calls.append(len(imagined.actions))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return goal(imagined)

    with pytest.raises(KeyboardInterrupt):
        score_offline(session(), candidates, stopping, file, about=about, batch=2)
    assert torch.equal(score_offline(session(), candidates, stopping, file, about=about, batch=2), whole)
    assert calls == [2, 2, 2, 2, 1]  # what was scored is not scored again
    with pytest.raises(ConfigError, match="other candidates"):
        score_offline(session(), candidates + 0.1, goal, file, about=about, batch=2)


def test_steps_to_go_are_learned_resumed_and_used_as_a_cost(tmp_path):
    def episode(success, frames=12):
        """Everything brightens until success, or stays dark."""
        done = torch.zeros(frames) if success is None else (torch.arange(frames) / success).clamp(max=1)
        return JudgedEpisode(latents=done[:, None, None, None].expand(-1, 4, 4, 4).clone(), success=success)

    config = StepsToGoConfig(latent_channels=4, width=8, most=10)
    torch.testing.assert_close(episode(10).steps_to_go(10)[[0, 4, 10, 11]], torch.tensor([1.0, 0.6, 0.0, 0.0]))
    assert (episode(None).steps_to_go(10) == 1).all()
    training = FitConfig(steps=60, batch_size=16, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9)
    episodes = [episode(10), episode(10), episode(None)]
    model = train_steps_to_go(config, training, episodes, tmp_path, compute=CPU).eval()
    share = model(torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(-1, 4, 4, 4))
    assert share[0] > share[1] > share[2]
    costs = FewestSteps(model=load_model(tmp_path, StepsToGo), embed=latents(tiny_tokenizer()))
    costs = costs(imagine(session(), torch.zeros(3, 5, 2)))
    assert costs.shape == (3,) and ((costs >= 0) & (costs <= 1)).all()
    with pytest.raises(DataError, match="none of 1 episodes"):
        train_steps_to_go(config, training, [episode(None)], tmp_path / "other", compute=CPU)
