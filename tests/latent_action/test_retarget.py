"""A person's push is found, and a robot that follows true motion repeats it in the same scene."""

import numpy as np
import pytest
import torch

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.align import fit_alignment
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.latent_action.pairs import paired_episode
from dreamdojo.latent_action.retarget import (
    ALIGNED,
    FRAMES,
    LEAD,
    MEAN,
    MOVED,
    SHUFFLED,
    TRUE_MOTION,
    agreement,
    find_push,
    follow,
    replay,
    retarget,
    score_retargeting,
    start_layout,
    true_motion,
)
from tests.tiny import CPU


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "human"
    settings = SimulateSettings(
        body="human",
        split="test",
        first_index=50_000,
        episodes=10,
        frames=48,
        size=32,
        truth="poses",
        tasks={"push": 1.0},
    )
    simulate(settings, root, workers=1)
    return root


@pytest.fixture(scope="module")
def pushes(human):
    truth = GroundTruth.open(human)
    found = [find_push(truth, e.index, e.meta["seed"]) for e in open_dataset(human).episodes]
    return [push for push in found if push is not None]


def hand_as_latent(push):
    """The latent action of a perfect model: the hand's motion in units of its usual step."""
    return (push.hand_motion / 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def alignment():
    """Of a latent action that is the effector's velocity."""
    body, random = Simulation("arm").embodiment, np.random.default_rng(0)
    low, high = (np.array([v for field in body.action for v in getattr(field, end)]) for end in ("low", "high"))
    data = []
    for _ in range(6):
        actions = random.uniform(low, high, (64, body.action_dim)).astype(np.float32)
        actions[:, 4] = 0  # the gripper stays closed, as its state says
        states = np.zeros((64, body.state_dim), np.float32)
        data.append(paired_episode(body, actions[:, :3] / 10 / 0.02, actions, states))
    return fit_alignment(data[:4], data[4:], body, kind="ridge").alignment


def test_a_push_moves_one_object_along_the_table_and_begins_before_the_touch(human, pushes):
    truth = GroundTruth.open(human)
    assert len(pushes) >= 3
    for push in pushes:
        touched = truth.touched(push.episode)
        assert not touched[push.start : push.start + LEAD].any() and touched[push.start + LEAD].any()
        assert np.linalg.norm(push.displacement) >= MOVED
        assert len(push.hand_motion) == FRAMES - 1


@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
def test_the_robot_starts_where_the_hand_is_seen_and_disturbs_nothing(pushes, body):
    simulation = Simulation(body)
    for push in pushes:
        simulation.reset_to(start_layout(push, simulation))
        moment = simulation.moment()
        np.testing.assert_allclose(moment.object_poses[:, :2], push.object_poses[:, :2], atol=8e-3)
        assert not moment.touched.any() and moment.opening < 0.1
        assert np.abs(moment.effector_pixel - push.hand_pixel).max() < 0.2


def test_a_pixel_and_a_height_give_back_the_point():
    simulation = Simulation("arm")
    simulation.reset(3)
    point = np.array([0.05, -0.04, 0.036])
    np.testing.assert_allclose(simulation.on_plane(simulation.pixel(point), 0.036), point, atol=1e-9)


def test_following_the_hands_true_motion_repeats_the_push(pushes):
    simulation = Simulation("arm")
    moved = [replay(push, true_motion(push), simulation).displacement for push in pushes]
    assert np.mean([agreement(push.displacement, d) for push, d in zip(pushes, moved, strict=True)]) > 0.6


def test_perfect_latent_actions_do_as_well_as_true_motion_and_better_than_the_baselines(pushes, alignment):
    found = score_retargeting(pushes, [hand_as_latent(p) for p in pushes], alignment, Simulation("arm"))
    scores = {name: score.agreement.mean for name, score in found.scores.items()}
    assert scores[ALIGNED] == pytest.approx(scores[TRUE_MOTION], abs=0.1)
    assert scores[ALIGNED] > max(scores[MEAN], scores[SHUFFLED]) + 0.2
    assert found.clips + found.left_out == len(pushes) and set(found.above) == {MEAN, SHUFFLED}
    assert found.to_json()["scores"][ALIGNED]["agreement"]["count"] == found.clips


def test_agreement_is_one_for_equal_and_negative_for_opposite_displacements():
    there = np.array([0.1, 0.0])
    assert agreement(there, there) == pytest.approx(1.0)
    assert agreement(there, 0.5 * there) == agreement(there, 2 * there) == pytest.approx(0.5)
    assert agreement(there, np.zeros(2)) == 0.0 and agreement(there, -there) == pytest.approx(-1.0)
    assert agreement(there, np.array([0.0, 0.1])) == 0.0


def test_a_clip_becomes_commands_and_pictures(human, pushes):
    torch.manual_seed(0)
    config = LatentActionConfig(
        dim=16, latent_dim=3, num_heads=2, encoder_blocks=1, decoder_blocks=1, patch_size=8, early_fusion=True
    )
    model, body = LatentActionModel(config).eval(), Simulation("arm", control="joint_position").embodiment
    random, push = np.random.default_rng(0), pushes[0]
    data = [
        paired_episode(body, *(random.normal(size=(32, n)).astype(np.float32) for n in (3, 8, body.state_dim)), chunk=3)
        for _ in range(4)
    ]
    alignment = fit_alignment(data[:3], data[3:], body, kind="ridge", chunk=3).alignment
    frames = np.moveaxis(open_dataset(human).frames(push.episode, range(push.start, push.start + FRAMES)), -1, 1)
    simulation = Simulation("arm", control="joint_position")
    done = retarget(model, frames, push, alignment, simulation, CPU, size=32)
    assert done.commands.shape == (FRAMES - 1, body.action_dim)
    assert done.frames is not None and done.frames.shape == (FRAMES, 32, 32, 3)
    with pytest.raises(ConfigError, match="dojo_arm/joint_position, got dojo_arm/joint_velocity"):
        replay(push, follow(alignment, None), Simulation("arm", control="joint_velocity"))


def test_one_push_is_too_few_to_score(pushes, alignment):
    with pytest.raises(DataError, match="at least 2 pushes"):
        score_retargeting(pushes[:1], [hand_as_latent(pushes[0])], alignment, Simulation("arm"))
