from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.predict import Recording, draw_places, plan_clips, predict
from dreamdojo.rollout.session import Session
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, PUSHER, tiny_tokenizer, tiny_world_model


def recording(number, length):
    """Frames and actions that carry their recording and their time."""
    time = np.arange(length)
    frames = np.broadcast_to((10 * number + time % 10)[:, None, None, None], (length, 3, 16, 16)).astype(np.uint8)
    actions = np.stack([np.full(length - 1, number / 100), time[:-1] / 1000], axis=1).astype(np.float32)
    return Recording(frames=frames, actions=actions)


def test_clips_keep_frames_and_actions_together():
    plan = plan_clips([recording(n, 30) for n in range(20)], context=5, horizon=8, seed=0)
    assert plan.recording == tuple(range(20))
    for clip, (number, start) in enumerate(zip(plan.recording, plan.start, strict=True)):
        time = torch.arange(start, start + 12)
        torch.testing.assert_close(plan.actions[clip, :, 1], time / 1000)
        torch.testing.assert_close(plan.actions[clip, :, 0], torch.full((12,), number / 100))
        assert plan.given[clip, 0, 0, 0, 0] == 10 * number + start % 10


def test_other_actions_share_the_context_and_then_come_from_another_recording():
    plan = plan_clips([recording(n, 30) for n in range(3)], context=5, horizon=8, seed=0)
    assert torch.equal(plan.other_actions[:, :4], plan.actions[:, :4])
    assert (plan.other_actions[:, 4:, 0] != plan.actions[:, 4:, 0]).all()


def test_few_recordings_give_several_clips_that_do_not_overlap():
    plan = plan_clips([recording(n, 60) for n in range(2)], context=5, horizon=8, seed=0)
    assert plan.recording.count(0) == plan.recording.count(1) == 4
    for number in (0, 1):
        starts = sorted(s for r, s in zip(plan.recording, plan.start, strict=True) if r == number)
        assert all(later - earlier >= 13 for earlier, later in pairwise(starts))


def test_short_recordings_are_passed_over_and_too_few_are_refused():
    recordings = [recording(0, 30), recording(1, 10), recording(2, 30)]
    assert set(plan_clips(recordings, context=5, horizon=8, seed=0).recording) == {0, 2}
    with pytest.raises(DataError, match=r"at least two held-out episodes of 13 frames.*found 1; the longest has 30"):
        plan_clips(recordings[:2], context=5, horizon=8, seed=0)


def test_predictions_are_alike_in_batches_and_follow_their_own_clip():
    plan = plan_clips([recording(n, 30) for n in range(4)], context=5, horizon=4, seed=0, least_clips=4)
    session = Session(tiny_world_model(), tiny_tokenizer(), SamplerConfig(steps=1), embodiment=PUSHER, compute=CPU)
    video = predict(session, plan)
    assert video.shape == plan.truth.shape and video.dtype == torch.uint8
    assert torch.equal(video, predict(session, plan))
    assert not torch.equal(video, predict(session, plan, other_actions=True))


def test_as_many_clips_as_asked_for_and_never_ones_that_overlap():
    lengths = [30, 60, 13, 100]
    for clips in (2, 3, 5, 9):
        places = draw_places(lengths, context=5, horizon=8, seed=1, clips=clips)
        assert len(places) == len(set(places)) == clips and len({number for number, _ in places}) > 1
        for number, length in enumerate(lengths):
            starts = sorted(start for of, start in places if of == number)
            assert all(later - earlier >= 13 for earlier, later in pairwise(starts))
            assert not starts or starts[-1] + 13 <= length
    with pytest.raises(DataError, match=r"expected 15 clips of 13 frames that do not overlap, the 4 .* hold 14"):
        draw_places(lengths, context=5, horizon=8, seed=1, clips=15)
    with pytest.raises(ConfigError, match="at least 2 clips, got 1"):
        draw_places(lengths, context=5, horizon=8, seed=1, clips=1)


def test_states_of_the_given_frames_reach_the_session():
    recordings = [recording(n, 30) for n in range(2)]
    with_states = [
        replace(r, states=np.repeat(np.arange(30, dtype=np.float32)[:, None], 2, axis=1)) for r in recordings
    ]
    plan = plan_clips(with_states, context=5, horizon=8, seed=0, least_clips=2)
    states = plan.seen(slice(None), slice(1, None)).state
    assert states is not None and states.shape == (2, 4, 2)
    torch.testing.assert_close(states[:, 0, 0], torch.tensor(plan.start) + 1.0)
    assert plan_clips(recordings, context=5, horizon=8, seed=0).seen(slice(1), slice(1)).state is None
