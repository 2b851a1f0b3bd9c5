from __future__ import annotations

import pytest
import torch

from dreamdojo.dojo import DojoWorld
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.world import Observation, World


def actions(batch=1, steps=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, 5, generator=generator) * 0.1


@pytest.fixture
def world():
    world = DojoWorld(size=64, actions_per_step=2)
    world.reset(seed=3)
    return world


def test_the_dojo_is_a_world(world):
    assert isinstance(world, World)
    assert world.cameras == ("head",)
    assert world.fps == 10
    assert world.embodiment.name == "dojo_arm/end_effector_velocity"


def test_an_observation_and_a_prediction_have_the_shapes_of_the_protocol():
    world = DojoWorld(size=64, actions_per_step=2, depth=True)
    observation = world.reset(seed=3)
    assert observation.frames["head"].shape == (1, 1, 3, 64, 64)
    assert observation.state is not None
    assert observation.state.shape == (1, 1, world.embodiment.state_dim)
    assert observation.depth is not None
    assert observation.depth["head"].shape == (1, 1, 1, 64, 64)
    prediction = world.step(actions())
    assert prediction.frames["head"].shape == (1, 2, 3, 64, 64)
    assert prediction.frames["head"].dtype == torch.uint8
    assert prediction.state is not None
    assert prediction.state.shape == (1, 2, world.embodiment.state_dim)
    assert prediction.state_source == "simulator"
    assert prediction.depth is not None
    assert prediction.depth["head"].shape == (1, 2, 1, 64, 64)


def test_a_reset_repeats_the_episode(world):
    first = [world.step(actions(seed=step)).frames["head"] for step in range(3)]
    world.reset(seed=3)
    second = [world.step(actions(seed=step)).frames["head"] for step in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_forks_are_exact_and_independent(world):
    world.step(actions())
    fork = world.fork(3)
    chunks = torch.cat([actions(seed=1), actions(seed=2), actions(seed=1)])
    futures = fork.step(chunks).frames["head"]
    assert torch.equal(futures[0], futures[2])
    assert not torch.equal(futures[0], futures[1])
    assert torch.equal(world.step(actions(seed=1)).frames["head"][0], futures[0])
    world.reset(seed=4)  # the parent's new scene is not the fork's
    assert len(fork.moments) == 3
    assert fork.step(chunks).frames["head"].shape[0] == 3


def test_observing_checks_shapes_and_changes_nothing(world):
    before = world.fork(1).step(actions()).frames["head"]
    seen = Observation(frames={"head": torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8)})
    world.observe(seen, actions())
    assert torch.equal(world.step(actions()).frames["head"], before)
    with pytest.raises(DataError, match="head"):
        world.observe(Observation(frames={}), actions())
    with pytest.raises(DataError, match="b k a"):
        world.observe(seen, actions(steps=1))


def test_what_the_dojo_cannot_do_is_refused_with_a_reason(world):
    with pytest.raises(ConfigError, match="without one"):
        world.reset(Observation(frames={}))
    with pytest.raises(DataError, match="b k a"):
        world.step(actions(steps=3))
    with pytest.raises(DataError, match="finite"):
        world.step(torch.full((1, 2, 5), torch.nan))
    with pytest.raises(ConfigError, match="batch 1"):
        world.fork(2).fork(2)
    world.close()
    with pytest.raises(ConfigError, match="reset"):
        world.step(actions())
