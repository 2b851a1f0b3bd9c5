"""A robot that reads the hand's true motion off pictures repeats a demonstration, and makes up for its own errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.difficulty import CLUTTER
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.align import fit_alignment
from dreamdojo.latent_action.imitate import (
    CLOSED_LOOP,
    NEAR,
    OPEN_LOOP,
    OTHER_VIDEO,
    TRUE_ACTIONS,
    Attempt,
    attempt,
    find_demonstration,
    imitate,
    score_imitation,
    true_actions,
)
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel, LatentActionPosterior
from dreamdojo.latent_action.pairs import paired_episode
from dreamdojo.latent_action.retarget import MEAN, MOVED, follow
from tests.tiny import CPU

STEP = np.array([0.02, 0.02, 0.02, 0.05, 0.1], np.float32)
"""Usual change of the hand's place (m), turn (rad) and opening in a frame."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "robot"
    settings = SimulateSettings(
        body="arm",
        split="test",
        first_index=60_000,
        episodes=4,
        frames=32,
        size=32,
        truth="poses",
        tasks={"push": 1.0},
    )
    simulate(settings, root, workers=1)
    return open_dataset(root)


@pytest.fixture(scope="module")
def demonstrations(dataset):
    truth = GroundTruth.open(dataset.root)
    found = [
        find_demonstration(dataset, truth, e.index, dataset.frames(e.index, range(e.length), size=16))
        for e in dataset.episodes
    ]
    return [demonstration for demonstration in found if demonstration is not None]


class Seer(LatentActionModel):
    """Knows the hand in every picture of a dataset, and in any other picture from the simulation that drew it.

    Its latent action is the hand's true motion times `gain`: below 1 as regression gives it, which shrinks.
    """

    def __init__(self, dataset, demonstrations, simulation, gain=1.0):
        super().__init__(
            LatentActionConfig(dim=8, latent_dim=5, num_heads=2, encoder_blocks=1, decoder_blocks=1, patch_size=8)
        )
        self.simulation, self.gain, self.hands = simulation, gain, {}
        for shown in demonstrations:
            pictures = torch.from_numpy(np.moveaxis(shown.frames, -1, 1).copy()).float() / 255
            for picture, state in zip(pictures, dataset.states(shown.episode), strict=True):
                self.hands[picture.numpy().tobytes()] = state[:5]

    def hand(self, picture):
        known = self.hands.get(picture.numpy().tobytes())
        return self.simulation.state()[:5] if known is None else known

    def encode(self, frames):
        motion = [(self.hand(second) - self.hand(first)) / STEP for first, second in frames]
        mean = self.gain * torch.from_numpy(np.stack(motion).astype(np.float32))[:, None]
        return LatentActionPosterior(mean, torch.zeros_like(mean))


@pytest.fixture(scope="module")
def alignment():
    """Of a latent action that is the effector's velocity, its turn and the opening that it aims for."""
    body, random = Simulation("arm").embodiment, np.random.default_rng(0)
    low, high = (np.array([v for field in body.action for v in getattr(field, end)]) for end in ("low", "high"))
    data = []
    for _ in range(6):
        actions = random.uniform(low, high, (64, body.action_dim)).astype(np.float32)
        states = np.zeros((64, body.state_dim), np.float32)
        states[:, 4] = random.uniform(0, 1, 64)
        motion = np.concatenate([actions[:, :4] / 10, actions[:, 4:] - states[:, 4:5]], axis=1) / STEP
        data.append(paired_episode(body, motion, actions, states))
    return fit_alignment(data[:4], data[4:], body, kind="ridge").alignment


def test_a_demonstration_is_an_episode_that_moves_an_object(dataset, demonstrations):
    truth = GroundTruth.open(dataset.root)
    assert len(demonstrations) >= 3
    for shown in demonstrations:
        moved = np.linalg.norm(shown.goal - shown.before[shown.target])
        assert moved >= MOVED >= NEAR
        places = truth.object_poses(shown.episode)[:, :, :2]
        assert moved == pytest.approx(np.linalg.norm(places[-1] - places[0], axis=1).max())
        assert len(shown.frames) == len(shown.hand) == len(shown.actions) + 1
    still = demonstrations[0]
    with pytest.raises(DataError, match="expected 32 frames, got 31"):
        find_demonstration(dataset, truth, still.episode, still.frames[:-1])


def test_true_actions_reproduce_a_demonstration(demonstrations):
    simulation = Simulation("arm")
    for shown in demonstrations:
        done = attempt(shown, true_actions(shown), simulation)
        assert done.object_error < 1e-6 and done.hand_error < 1e-6 and done.success


def test_success_is_an_object_near_where_the_demonstration_left_it():
    assert Attempt(object_error=NEAR - 1e-6, hand_error=1.0).success
    assert not Attempt(object_error=NEAR, hand_error=0.0).success


def test_looking_makes_up_for_what_a_shrunken_latent_action_misses(dataset, demonstrations, alignment):
    simulation = Simulation("arm")
    model = Seer(dataset, demonstrations, simulation, gain=0.7)
    found = score_imitation(model, demonstrations, alignment, simulation, CPU)
    success = {name: score.success.mean for name, score in found.scores.items()}
    assert success[TRUE_ACTIONS] == 1 and success[CLOSED_LOOP] >= 0.75
    assert success[OPEN_LOOP] <= 0.25, "one may happen to arrive, which depends on the processor's rounding"
    assert success[MEAN] == success[OTHER_VIDEO] == 0
    hand = {name: score.hand_error.mean for name, score in found.scores.items()}
    assert hand[CLOSED_LOOP] < 0.02 < hand[OPEN_LOOP] < hand[MEAN]
    assert (found.demonstrations, found.left_out) == (len(demonstrations), 0)
    assert set(found.above) == {OPEN_LOOP, MEAN, OTHER_VIDEO} and found.above[MEAN].mean == success[CLOSED_LOOP]
    written = found.to_json()["scores"][CLOSED_LOOP]["success"]
    assert written["count"] == found.demonstrations and 0 <= written["low"] <= written["mean"] <= written["high"] <= 1


def test_a_chunk_goes_on_as_the_demonstration_does(dataset, demonstrations):
    simulation, shown, k = Simulation("arm"), demonstrations[0], 3
    body, random = simulation.embodiment, np.random.default_rng(0)
    data = [
        paired_episode(body, *(random.normal(size=(32, n)).astype(np.float32) for n in (5, 5, body.state_dim)), chunk=k)
        for _ in range(4)
    ]
    alignment = fit_alignment(data[:3], data[3:], body, kind="ridge", chunk=k).alignment
    model = Seer(dataset, demonstrations, simulation)
    commander, hands = imitate(model, shown, alignment, CPU), dataset.states(shown.episode)[:, :5]
    for frame in (0, len(shown.actions) - 2):  # the last frame stays where the chunk reaches beyond it
        simulation.reset(shown.seed)
        ahead = hands[np.minimum(np.arange(frame + 1, frame + 1 + k), len(hands) - 1)]
        latent_actions = np.diff(np.concatenate([simulation.state()[None, :5], ahead]), axis=0) / STEP
        before = np.zeros(body.action_dim, np.float32)
        expected = follow(alignment, latent_actions.astype(np.float32))(simulation, 0, before)
        np.testing.assert_allclose(commander(simulation, frame, before), expected, atol=1e-5)


def test_a_demonstration_in_which_the_physics_gives_up_is_left_out(dataset, demonstrations, alignment, monkeypatch):
    simulation, broken, reset = Simulation("arm"), demonstrations[1].seed, Simulation.reset

    def give_up(self, seed):
        if seed == broken:
            raise UnstablePhysics(seed, "a test")
        reset(self, seed)

    monkeypatch.setattr(Simulation, "reset", give_up)
    model = Seer(dataset, demonstrations, simulation)
    short = [replace(d, frames=d.frames[:4], hand=d.hand[:4], actions=d.actions[:3]) for d in demonstrations[:2]]
    found = score_imitation(model, short, alignment, simulation, CPU)
    assert (found.demonstrations, found.left_out) == (1, 1)


def test_what_cannot_be_imitated_is_said(dataset, demonstrations, alignment):
    shown, simulation = demonstrations[0], Simulation("arm", control="joint_velocity")
    with pytest.raises(ConfigError, match="dojo_arm/end_effector_velocity, who demonstrates, got dojo_arm/joint"):
        attempt(shown, true_actions(shown), simulation)
    other = replace(shown, embodiment=simulation.embodiment)
    with pytest.raises(ConfigError, match="simulation of dojo_arm/end_effector_velocity, got dojo_arm/joint_velocity"):
        attempt(other, follow(alignment, None), simulation)
    with pytest.raises(DataError, match="Give the simulation the difficulty of the dataset"):
        attempt(shown, true_actions(shown), Simulation("arm", difficulty=CLUTTER))
    model = Seer(dataset, demonstrations, simulation)
    with pytest.raises(DataError, match="at least 2 demonstrations"):
        score_imitation(model, demonstrations[:1], alignment, Simulation("arm"), CPU)
