"""The model as a Gymnasium environment: what Gymnasium asks of one, and branches beside."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dreamdojo.dojo.world import DojoWorld
from dreamdojo.errors import ConfigError
from dreamdojo.rollout.env import WorldEnv, WorldVectorEnv
from dreamdojo.rollout.session import Session
from dreamdojo.world_model.sample import SamplerConfig
from tests.rollout.test_session import first_frame
from tests.tiny import CPU, PUSHER, tiny_tokenizer, tiny_world_model


def settings(k=1, **changes):
    world = Session(tiny_world_model(k), tiny_tokenizer(k), SamplerConfig(steps=2), embodiment=PUSHER, compute=CPU)
    return {"world": world, "starts": lambda index: first_frame(seed=index), "horizon": 5, **changes}


def right(prediction, actions):
    return prediction.state[:, -1, 0]


def drive(env, actions):
    return [env.step(action)[0] for action in actions]


def same(first, second):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)


def some_actions(env, n=4, seed=0):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(n)]


@pytest.mark.parametrize("k", [1, 4])
def test_gymnasium_finds_nothing_to_complain_about(k):
    env = gymnasium.make("dreamdojo/World-v0", render_mode="rgb_array", **settings(k))
    check_env(env.unwrapped)  # pytest turns its warnings into errors
    env.reset(seed=0)
    assert env.render().shape == (16, 16, 3)


def test_the_dojo_goes_through_the_same_environment():
    check_env(WorldEnv(world=DojoWorld(size=16), horizon=3), skip_render_check=True)


def test_the_reward_is_the_users_and_episodes_end_at_the_horizon():
    env = gymnasium.make("dreamdojo/World-v0", **settings(reward=right))
    env.reset(seed=0)
    worth, ends = zip(*[env.step(np.array([1.0, 0.0], np.float32))[1:4:2] for _ in range(5)], strict=True)
    np.testing.assert_allclose(worth, [0.05, 0.1, 0.15, 0.2, 0.25], rtol=1e-5)  # half a metre a second, ten times
    assert ends == (False, False, False, False, True)


def test_a_snapshot_is_come_back_to_exactly_and_more_than_once():
    env = WorldEnv(**settings())
    env.reset(seed=3)
    drive(env, some_actions(env, 2))
    moment = env.snapshot()
    first = drive(env, some_actions(env, 3, seed=1))
    for _ in range(2):
        env.restore(moment)
        assert same(drive(env, some_actions(env, 3, seed=1)), first)
    env.restore(moment)
    assert not same(drive(env, some_actions(env, 3, seed=2)), first)


def test_the_vector_form_steps_all_rows_and_begins_them_anew_together():
    envs = gymnasium.make_vec("dreamdojo/World-v0", num_envs=3, vectorization_mode="vector_entry_point", **settings())
    seen, _ = envs.reset(seed=0)
    assert seen in envs.observation_space and not np.array_equal(seen["pixels"][0], seen["pixels"][1])
    single = WorldEnv(**settings())
    assert np.array_equal(single.reset(seed=1)[0]["pixels"], seen["pixels"][1])  # row i is seeded with seed + i
    actions = some_actions(envs, 7)
    steps = [envs.step(action) for action in actions]
    assert [bool(step[3].all()) for step in steps] == [False] * 4 + [True] + [False] * 2
    assert all(step[0] in envs.observation_space and not step[2].any() for step in steps)
    envs.reset(seed=0)
    again = [envs.step(action) for action in actions]
    assert same([step[0] for step in steps], [step[0] for step in again])


def test_branches_of_one_moment_go_their_own_ways_in_the_vector_form():
    env, envs = WorldEnv(**settings(reward=right)), WorldVectorEnv(3, **settings(reward=right))
    env.reset(seed=5)
    drive(env, some_actions(env, 2))
    envs.reset(seed=0)
    seen = envs.restore(env.snapshot())
    assert (seen["pixels"] == seen["pixels"][:1]).all()
    _, worth, *_ = envs.step(np.array([[-1, 0], [0, 0], [1, 0]], np.float32))
    assert worth[0] < worth[1] < worth[2]
    with pytest.raises(ConfigError, match="1 or 2 worlds"):
        WorldVectorEnv(2, **settings()).restore(envs.snapshot())


def test_rewards_are_found_by_name():
    env = WorldEnv(**settings(reward="tests.rollout.test_env:right"))
    env.reset(seed=0)
    assert env.step(np.zeros(2, np.float32))[1] == pytest.approx(0.0)
    with pytest.raises(ConfigError, match="module:function"):
        WorldEnv(**settings(reward="right"))
    assert torch.is_tensor(env.world.fork(2).step(torch.zeros(2, 1, 2)).frames["head"])
