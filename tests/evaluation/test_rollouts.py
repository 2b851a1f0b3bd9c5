"""Scores of predicted clips: the baseline, obedience, pairing, gates, and what is refused."""

import json
import math

import pytest
import torch

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.keypoints import Located, ProbeError
from dreamdojo.evaluation.rollouts import COPY, TRUTH, Clips, SceneTruth, score_rollouts
from tests.evaluation.toy import toy_scenes

CLIPS, LENGTH, CONTEXT = 6, 12, 4


class PerfectEffector:
    """Knows the answer for every frame it may be shown, and sees nothing in others."""

    def __init__(self, frames, positions, *, own_error):
        self.answers = {frame.numpy().tobytes(): at for frame, at in zip(frames, positions, strict=True)}
        self.error = ProbeError(mean=own_error, median=own_error, found=1, false_alarms=0, count=9, gate=2.5)

    def locate(self, frames):
        answers = [self.answers.get(frame.numpy().tobytes()) for frame in frames]
        position = torch.stack([torch.zeros(2) if answer is None else answer for answer in answers])
        return Located(position=position, found=torch.tensor([answer is not None for answer in answers]))


@pytest.fixture(scope="module")
def scenes():
    return toy_scenes(episodes=CLIPS, length=LENGTH, seed=5)


@pytest.fixture(scope="module")
def clips(scenes):
    frames = scenes.frames.unflatten(0, (CLIPS, LENGTH))
    labels = scenes.labels.unflatten(0, (CLIPS, LENGTH))[:, CONTEXT - 1]
    objects = scenes.objects.unflatten(0, (CLIPS, LENGTH))
    scene = SceneTruth(
        effector=scenes.effector.unflatten(0, (CLIPS, LENGTH))[:, CONTEXT:],
        effector_visible=scenes.effector_visible.unflatten(0, (CLIPS, LENGTH))[:, CONTEXT:],
        masks=torch.stack([labels == 3, labels == 4], dim=1),
        objects_start=objects[:, CONTEXT - 1],
        objects=objects[:, CONTEXT:],
        objects_visible=scenes.objects_visible.unflatten(0, (CLIPS, LENGTH))[:, CONTEXT:],
    )
    return Clips(last_context=frames[:, CONTEXT - 1], truth=frames[:, CONTEXT:], scene=scene)


def still(clips):
    return clips.last_context[:, None].expand_as(clips.truth).contiguous()


def perfect(clips, *, own_error=0.5):
    seen = torch.cat((clips.truth.flatten(0, 1), clips.last_context))
    positions = torch.cat((clips.scene.effector.flatten(0, 1), clips.scene.effector[:, 0]))
    return PerfectEffector(seen, positions, own_error=own_error)


def test_the_truth_beats_copying_and_copying_ties_with_itself(clips):
    scores = score_rollouts(clips, {"oracle": clips.truth, "lazy": still(clips)}, other_actions={}, horizons=(4, 8))
    assert scores.methods == ("oracle", "lazy")
    for horizon in (4, 8):
        assert scores.against("moving_psnr", "oracle", horizon).above_zero
        assert scores.against("psnr", "lazy", horizon).mean == pytest.approx(0, abs=1e-4)
        assert scores.mean("ssim", "oracle", horizon).mean == pytest.approx(1, abs=1e-5)
        assert scores.mean("sharpness", "oracle", horizon).mean == pytest.approx(1, abs=1e-5)


def test_a_model_that_ignores_its_actions_is_not_controllable(clips):
    predictions = {"obedient": clips.truth, "deaf": clips.truth}
    others = {"obedient": still(clips), "deaf": clips.truth}
    scores = score_rollouts(clips, predictions, other_actions=others, horizons=(8,))
    assert scores.controllability("moving_psnr", "obedient", 8).above_zero
    deaf = scores.controllability("moving_psnr", "deaf", 8)
    assert (deaf.mean, deaf.low, deaf.high) == (0, 0, 0)


def test_horizons_count_from_the_first_predicted_frame(clips):
    wrong_at_three = clips.truth.clone()
    wrong_at_three[:, 2] = 255 - wrong_at_three[:, 2]
    scores = score_rollouts(clips, {"model": wrong_at_three}, other_actions={}, horizons=(2, 3, 4))
    levels = [scores.mean("psnr", "model", horizon).mean for horizon in (2, 3, 4)]
    assert levels[1] < 20 < levels[0] == levels[2]


def test_position_errors_stand_beside_the_probes_own_and_misses_count(clips):
    blank = torch.zeros_like(clips.truth)
    scores = score_rollouts(
        clips,
        {"oracle": clips.truth, "blank": blank},
        other_actions={"oracle": still(clips)},
        horizons=(8,),
        effector_probe=perfect(clips),
    )
    assert scores.mean("effector_error", TRUTH, 8).mean == pytest.approx(0, abs=1e-4)
    assert scores.mean("effector_error", COPY, 8).mean > 1
    assert scores.mean("effector_error", "blank", 8).mean > 32  # half a picture at least
    assert scores.mean("effector_found", "blank", 8).mean == 0
    assert scores.controllability("effector_error", "oracle", 8).mean < 0


def test_a_probe_beyond_its_gate_measures_nothing_and_says_why(clips):
    bad = perfect(clips, own_error=5.2)
    scores = score_rollouts(clips, {"m": clips.truth}, other_actions={}, horizons=(8,), effector_probe=bad)
    assert "effector_error" not in {metric.key for metric in scores.metrics}
    assert str(scores.probes["effector"]) == (
        "not measured: the probe's own error is 5.2 px, more than the 2.5 px allowed"
    )
    with pytest.raises(ConfigError, match="no effector_error"):
        scores.mean("effector_error", "m", 8)


def test_clips_in_which_nothing_moves_are_left_out_for_every_method(clips):
    truth = clips.truth.clone()
    truth[0] = clips.last_context[0]
    quiet = Clips(last_context=clips.last_context, truth=truth)
    scores = score_rollouts(quiet, {"m": truth}, other_actions={}, horizons=(8,))
    assert scores.mean("psnr", "m", 8).count == CLIPS
    assert scores.mean("moving_psnr", "m", 8).count == scores.mean("moving_psnr", COPY, 8).count < CLIPS


def test_scores_are_plain_json_without_nan(clips):
    scores = score_rollouts(clips, {"m": clips.truth}, other_actions={"m": still(clips)}, horizons=(1, 8))
    plain = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert plain["mean"]["psnr"]["m"]["8"]["count"] == CLIPS
    assert len(plain["per_clip"]["true_actions"]["psnr"][COPY]) == CLIPS
    assert math.isfinite(plain["controllability"]["psnr"]["m"]["8"]["mean"])


def test_what_cannot_be_compared_is_refused(clips):
    with pytest.raises(DataError, match="'short' has shape"):
        score_rollouts(clips, {"short": clips.truth[:, :3]}, other_actions={}, horizons=(1,))
    with pytest.raises(ConfigError, match="between 1 and the 8"):
        score_rollouts(clips, {"m": clips.truth}, other_actions={}, horizons=(16,))
    with pytest.raises(ConfigError, match="other_actions names"):
        score_rollouts(clips, {"m": clips.truth}, other_actions={"n": clips.truth}, horizons=(1,))
