"""Stable-Baselines3 learns in a dream: all rows step as one, and what ends an episode is not lost."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers.vector import FilterObservation

from tests.rollout.test_env import right, settings

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO

from dreamdojo.errors import ConfigError
from dreamdojo.rollout.stable_baselines import StableBaselinesEnv


def environment(**changes):
    return gymnasium.make_vec(
        "dreamdojo/World-v0", num_envs=3, vectorization_mode="vector_entry_point", **settings(reward=right, **changes)
    )


def test_episodes_follow_each_other_and_their_last_frames_are_kept():
    env = StableBaselinesEnv(environment(horizon=2))
    env.seed(0)
    first = env.reset()
    push = np.full((3, 2), 0.5, np.float32)
    _, _, over, infos = env.step(push)
    assert not over.any() and infos == [{}, {}, {}]
    seen, worth, over, infos = env.step(push)
    assert over.all() and all(info["TimeLimit.truncated"] for info in infos)
    last = np.stack([info["terminal_observation"]["state"] for info in infos])
    np.testing.assert_allclose(last[:, 0], worth, rtol=1e-5)  # the reward is the place, so this is where they ended
    np.testing.assert_allclose(seen["state"], first["state"], rtol=1e-5)  # and this where the next ones begin
    assert not env.step(push)[2].any()
    env.seed(0)
    again = env.reset()
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_row_that_ends_alone_is_refused(monkeypatch):
    env = StableBaselinesEnv(environment(horizon=2))
    seen = env.reset()
    alone = np.array([False, True, False])
    monkeypatch.setattr(env.envs, "step", lambda actions: (seen, np.zeros(3), alone, ~alone & False, {}))
    with pytest.raises(ConfigError, match="expected all 3 episodes to end at once, 1 did"):
        env.step(np.zeros((3, 2), np.float32))


def test_a_policy_learns_what_is_worth_something():
    env = StableBaselinesEnv(FilterObservation(environment(horizon=4), ["state"]))
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=12, n_epochs=2, seed=0, device="cpu")
    before = model.policy.state_dict()["action_net.weight"].clone()
    model.learn(24)
    assert model.num_timesteps == 24 and not before.equal(model.policy.state_dict()["action_net.weight"])
    assert model.predict(env.reset(), deterministic=True)[0].shape == (3, 2)
