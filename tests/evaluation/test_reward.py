"""The reward model tells what changed between two frames, and its error is counted by kind."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.evaluation.reward import Outcome, RewardConfig, RewardTraining, judge_error, train_reward_model
from dreamdojo.training.fit import FitConfig
from tests.tiny import CPU

TRAINING = RewardTraining(fit=FitConfig(steps=60, batch_size=16, learning_rate=4e-3, warmup_steps=5))


def moved_block(number: int, *, far: bool) -> Outcome:
    """A block that moves to the right by eight pixels, or by one."""
    random = np.random.default_rng(number)
    top, left = random.integers(2, 12), random.integers(0, 4)
    frames = np.full((9, 3, 16, 16), 60, np.uint8)
    shift = [t if far else min(t, 1) for t in range(9)]
    for t, by in enumerate(shift):
        frames[t, :, top : top + 3, left + by : left + by + 3] = 220
    return Outcome(frames=frames, success=(np.array(shift) >= 5).astype(np.float32))


def test_it_tells_success_in_scenes_it_has_not_seen(tmp_path: Path) -> None:
    known = [moved_block(i, far=i % 2 == 0) for i in range(24)]
    model = train_reward_model(known, tmp_path, compute=CPU, config=RewardConfig(width=4), training=TRAINING)
    new = [moved_block(i, far=i % 2 == 0) for i in range(100, 120)]
    said = model.probability(torch.from_numpy(np.stack([each.frames for each in new]))) > 0.5
    truth = torch.tensor([bool(each.success[-1]) for each in new])
    assert judge_error(said, truth).accuracy.mean >= 0.9
    again = train_reward_model(known, tmp_path, compute=CPU, config=RewardConfig(width=4), training=TRAINING)
    frames = torch.from_numpy(known[0].frames[None])
    torch.testing.assert_close(again.probability(frames), model.probability(frames))


def test_one_kind_of_outcome_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="successes and failures"):
        train_reward_model([moved_block(0, far=False)], tmp_path, compute=CPU, training=TRAINING)


def test_both_kinds_of_error_are_counted() -> None:
    said = torch.tensor([True, True, False, False, False])
    truth = torch.tensor([True, False, False, False, True])
    error = judge_error(said, truth)
    assert (error.accuracy.mean, error.false_success.mean, error.missed.mean) == pytest.approx((0.6, 1 / 3, 0.5))
    assert "33 % of 3 failures" in str(error)
    assert judge_error(said[:1], truth[:1]).to_json()["false_success"]["mean"] is None  # pyright: ignore
