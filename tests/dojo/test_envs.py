from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dreamdojo.dojo  # noqa: F401  (registers the environments)
from dreamdojo.dojo.actors import Actor
from dreamdojo.dojo.envs import ErrandEnv
from dreamdojo.dojo.plans import EXPERT
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.errors import ConfigError

NAMES = ("dreamdojo/Push-v0", "dreamdojo/PickPlace-v0")


def make(name, **settings) -> tuple[gymnasium.Env, ErrandEnv]:
    env = gymnasium.make(name, size=64, render_mode="rgb_array", **settings)
    assert isinstance(env.unwrapped, ErrandEnv)
    return env, env.unwrapped


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", ["arm", "mobile_arm", "human"])
def test_gymnasium_finds_nothing_to_complain_about(name, body):
    check_env(make(name, body=body)[1])  # pytest turns its warnings into errors


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_the_scene_and_an_option_chooses_it(name):
    env, _ = make(name)
    first, info = env.reset(seed=5)
    again, _ = env.reset(seed=5)
    chosen, _ = env.reset(options={"scene": info["scene"]})
    other, _ = env.reset()
    np.testing.assert_array_equal(first["pixels"], again["pixels"])
    np.testing.assert_array_equal(first["pixels"], chosen["pixels"])
    assert not np.array_equal(first["pixels"], other["pixels"])
    with pytest.raises(ConfigError, match="scene"):
        env.reset(options={"level": 3})


@pytest.mark.parametrize("name", NAMES)
def test_an_expert_succeeds_and_doing_nothing_does_not(name):
    env, errands = make(name)
    successes = 0
    for seed in range(4):
        _, info = env.reset(seed=seed)
        assert not info["success"]
        actor = Actor(errands.simulation, np.random.default_rng(seed), skill=EXPERT, tasks={errands.task: 1.0})
        for _ in range(150):
            action = errands.simulation.embodiment.normalize_action(actor.act())
            _, reward, terminated, truncated, info = env.step(action)
            assert reward == -info["distance"]
            if terminated or truncated:
                break
        successes += info["success"]
    assert successes >= 3
    env.reset(seed=0)
    still = np.array([0, 0, 0, 0, 1], np.float32)
    assert not any(env.step(still)[4]["success"] for _ in range(20))


def test_the_goal_is_drawn_in_the_colour_of_the_object():
    _, errands = make("dreamdojo/Push-v0")
    errands.reset(seed=2)
    model = errands.simulation.model
    target = model.body(f"object_{errands.errand.target}")
    np.testing.assert_allclose(model.geom("goal").rgba, model.geom_rgba[target.geomadr[0]], atol=0.1)


def test_unstable_physics_truncates_without_success(monkeypatch):
    env, _ = make("dreamdojo/Push-v0")
    env.reset(seed=0)

    def unstable(self, action):
        raise UnstablePhysics(0, "the test said so")

    monkeypatch.setattr(Simulation, "step", unstable)
    observation, _, terminated, truncated, info = env.step(np.zeros(5, np.float32))
    assert (terminated, truncated, info["success"], info["unstable"]) == (False, True, False, True)
    assert observation in env.observation_space
