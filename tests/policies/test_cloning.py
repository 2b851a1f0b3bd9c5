"""Cloning from pixels: what is learned is where things are, and nothing that a dream does not know."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdojo.dataset.embodiment import Field
from dreamdojo.errors import DataError
from dreamdojo.policies.cloning import (
    ClonedPolicy,
    PixelPolicy,
    PixelPolicyConfig,
    PixelPolicyTraining,
    augmented,
    predicted_state,
    spatial_softmax,
    train_policy,
)
from dreamdojo.training.fit import FitConfig
from dreamdojo.world import Observation
from tests.tiny import CPU, PUSHER

CONFIG = PixelPolicyConfig(
    embodiment=PUSHER, camera="head", size=(16, 16), rate=10.0, width=8, hidden=32, chunk=3, execute=2
)
TRAINING = PixelPolicyTraining(fit=FitConfig(steps=80, batch_size=16, learning_rate=5e-3, warmup_steps=5))


def towards_the_spot(number: int, length: int = 6) -> dict[str, np.ndarray]:
    """A bright spot on a dark table; the demonstrator moves in its direction from the middle."""
    random = np.random.default_rng(number)
    place = random.integers(2, 14, size=2)
    frames = np.full((length, 3, 16, 16), 40, np.uint8)
    frames[:, :, place[1] - 1 : place[1] + 2, place[0] - 1 : place[0] + 2] = 230
    action = np.tile((place - 7.5) / 7.5, (length, 1)).astype(np.float32)
    action[-1] = np.nan
    return {"frames": frames, "state": np.zeros((length, 2), np.float32), "action": action}


def test_a_policy_learns_where_to_go_from_the_picture(tmp_path: Path) -> None:
    model = train_policy(CONFIG, TRAINING, [towards_the_spot(i) for i in range(40)], tmp_path, compute=CPU)
    policy = ClonedPolicy.load(tmp_path)
    new = [towards_the_spot(i) for i in range(100, 120)]
    frames = torch.from_numpy(np.stack([each["frames"][:1] for each in new]))
    actions = policy.act(Observation(frames={"head": frames}, state=torch.zeros(20, 1, 2)))
    wanted = 0.5 * torch.from_numpy(np.stack([each["action"][0] for each in new]))
    assert actions.shape == (20, 2, 2), "of a chunk of three, two are carried out"
    assert (actions[:, 0] - wanted).abs().mean() < 0.5 * wanted.abs().mean(), "much better than standing still"
    again = ClonedPolicy(model).act(Observation(frames={"head": frames}, state=torch.zeros(20, 1, 2)))
    torch.testing.assert_close(again, actions)


def test_state_that_no_action_integrates_is_not_looked_at() -> None:
    joints = Field(name="joints", axes=("a", "b"), unit="rad", low=(-1, -1), high=(1, 1))
    body = replace(PUSHER, state=(joints, *PUSHER.state))
    assert predicted_state(body) == [2, 3]
    model = PixelPolicy(replace(CONFIG, embodiment=body)).eval()
    frames, state = torch.rand(1, 3, 16, 16), torch.zeros(1, 4)
    moved = state.clone()
    moved[:, :2] = 5
    torch.testing.assert_close(model(frames, state), model(frames, moved))
    moved[:, 2] = 5
    assert not torch.allclose(model(frames, state), model(frames, moved))


def test_spatial_softmax_points_at_the_peak() -> None:
    features = torch.zeros(1, 2, 5, 9)
    features[0, 0, 0, 8], features[0, 1, 4, 4] = 50, 50
    torch.testing.assert_close(spatial_softmax(features), torch.tensor([[1.0, 0.0, -1.0, 1.0]]))


def test_without_light_and_shift_augmentation_changes_nothing() -> None:
    frames = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    still = PixelPolicyTraining(brightness=0.0, contrast=0.0, shift=0)
    torch.testing.assert_close(augmented(frames, still, torch.Generator()), frames.float() / 255)
    moved = augmented(frames, PixelPolicyTraining(brightness=0, contrast=0, shift=1), torch.Generator().manual_seed(0))
    assert set(moved.flatten().tolist()) <= set((frames.float() / 255).flatten().tolist()), (
        "pixels are moved, not mixed"
    )


def test_what_the_policy_cannot_see_is_said() -> None:
    policy = ClonedPolicy(PixelPolicy(CONFIG))
    state = torch.zeros(1, 1, 2)
    with pytest.raises(DataError, match="16x16 pixels, got 32x32"):
        policy.act(Observation(frames={"head": torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)}, state=state))
    with pytest.raises(DataError, match="proprioception"):
        policy.act(Observation(frames={"head": torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)}))


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got none"):
        train_policy(CONFIG, TRAINING, [], tmp_path, compute=CPU)
