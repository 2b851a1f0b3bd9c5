"""Policies without a network, and finding a policy by a word."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.policies.cloning import PixelPolicy, PixelPolicyConfig
from dreamdojo.policies.open import open_policy
from dreamdojo.policies.simple import FunctionPolicy, RandomPolicy, RecordedPolicy, ShakyPolicy
from dreamdojo.training.checkpoint import save_model
from dreamdojo.world import Observation, Policy
from tests.apps.playing import ARM
from tests.tiny import PUSHER


def seen(batch: int = 2) -> Observation:
    frames = torch.zeros(batch, 1, 3, 16, 16, dtype=torch.uint8)
    return Observation(frames={"head": frames}, state=torch.zeros(batch, 1, 2))


def stay(observation: Observation) -> np.ndarray:
    return np.zeros((len(observation.frames["head"]), 3, 2))


def flat(observation: Observation) -> np.ndarray:
    return np.zeros((len(observation.frames["head"]), 2))


def test_a_function_becomes_a_policy() -> None:
    policy = open_policy("tests.policies.test_simple:stay", PUSHER, actions_per_step=1)
    assert isinstance(policy, Policy) and policy.act(seen()).shape == (2, 3, 2)
    with pytest.raises(DataError, match="b n a"):
        FunctionPolicy(flat).act(seen())


def test_random_actions_follow_their_seed_and_stay_in_range() -> None:
    policy = open_policy("random", PUSHER, actions_per_step=2)
    policy.reset(seed=3)
    first = [policy.act(seen()) for _ in range(20)]
    policy.reset(seed=3)
    again = [policy.act(seen()) for _ in range(20)]
    policy.reset(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], policy.act(seen()))
    assert first[0].shape == (2, 2, 2) and torch.stack(first).abs().max() <= 0.5, "declared: half a metre per second"
    assert not torch.equal(first[0][0], first[0][1]), "worlds side by side are not copies"


def test_noise_is_added_within_the_declared_range() -> None:
    inner = RecordedPolicy(torch.full((2, 4, 2), 0.45))
    still = ShakyPolicy(inner, PUSHER, noise=0.0)
    torch.testing.assert_close(still.act(seen()), torch.full((2, 4, 2), 0.45))
    shaken = ShakyPolicy(inner, PUSHER, noise=0.5)
    shaken.reset(seed=1)
    assert (shaken.act(seen()) - 0.45).abs().max() > 0 and shaken.act(seen()).max() <= 0.5
    assert isinstance(RandomPolicy(PUSHER), Policy)


@pytest.mark.parametrize("word", ["nothing.of.the.kind", "tests.policies.test_simple:gone", "no_module_here:f"])
def test_a_word_that_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        open_policy(word, PUSHER, actions_per_step=1)


def test_a_policy_of_another_body_or_rate_is_refused(tmp_path: Path) -> None:
    config = PixelPolicyConfig(embodiment=PUSHER, camera="head", size=(16, 16), rate=10.0, width=8, hidden=8)
    save_model(tmp_path, PixelPolicy(config))
    assert open_policy(str(tmp_path), PUSHER, actions_per_step=1, fps=10.0).act(seen()).shape == (2, 2, 2)
    with pytest.raises(ConfigError, match="at 5 Hz"):
        open_policy(str(tmp_path), PUSHER, actions_per_step=1, fps=5.0)
    with pytest.raises(ConfigError, match="of square/velocity"):
        open_policy(str(tmp_path), ARM, actions_per_step=1)


def test_without_lerobot_a_checkpoint_is_refused_with_advice(tmp_path: Path) -> None:
    try:
        import lerobot  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(MissingDependencyError, match="serve the policy"):
            open_policy(f"lerobot:{tmp_path}", PUSHER, actions_per_step=1)
    else:
        pytest.skip("LeRobot is installed here")
