"""The position probes learn a toy table top, are judged on what is hard, and are not used when they fail."""

import dataclasses
import math

import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.evaluation.effector import EffectorProbeConfig, train_effector_probe
from dreamdojo.evaluation.keypoints import (
    Located,
    Plates,
    held_out_rows,
    near_peak,
    position_error,
    probe_error,
    soft_argmax,
)
from dreamdojo.evaluation.objects import ObjectProbeConfig, train_object_probe, visible_objects
from tests.evaluation.toy import toy_scenes

SMALL_EFFECTOR = EffectorProbeConfig(width=8, steps=180, batch=16, learning_rate=1e-2, erased=0.3)
SMALL_OBJECT = ObjectProbeConfig(width=12, steps=120, batch=16, learning_rate=1e-2, gate=9.0)


@pytest.fixture(scope="module")
def scenes():
    return toy_scenes(episodes=40, length=16, seed=0)


@pytest.fixture(scope="module")
def effector_probe(scenes):
    return train_effector(scenes, SMALL_EFFECTOR)


@pytest.fixture(scope="module")
def object_probe(scenes):
    s = scenes
    return train_object_probe(s.frames, s.labels, s.objects, s.objects_visible, s.episodes, config=SMALL_OBJECT)


def train_effector(s, config):
    return train_effector_probe(s.frames, s.labels, s.effector, s.effector_visible, s.episodes, config=config)


def test_the_effector_is_found_in_scenes_never_seen(effector_probe):
    new = toy_scenes(episodes=8, length=8, seed=77)
    located = effector_probe.locate(new.frames)
    error = position_error(located, new.effector, height=64, width=64, undetected="farthest")
    assert effector_probe.error.valid
    assert error[new.effector_visible].mean() < 2.5


def test_a_frame_without_an_arm_has_no_effector(scenes, effector_probe):
    plates = Plates.of(scenes.frames, scenes.labels, scenes.episodes)
    bare = plates.picture[plates.known.all(dim=(-2, -1))]
    assert effector_probe.locate(bare).found.float().mean() < 0.3
    assert effector_probe.error.false_alarms < 0.3


def test_moved_objects_are_followed_and_not_left_where_they_were(object_probe):
    new = toy_scenes(episodes=30, length=8, seed=77)
    first = torch.arange(0, len(new.frames), 8)
    mask = new.labels[first] == 3
    shift = (new.objects[first + 7, 0] - new.objects[first, 0]).norm(dim=1) * 64
    asked = (mask.sum(dim=(-2, -1)) >= 20) & visible_objects(new.labels[first + 7], 2)[:, 0] & (shift > 6)
    located = object_probe.locate(new.frames[first][asked], mask[asked], new.frames[first + 7][asked])
    truth = new.objects[first + 7, 0][asked]
    error = position_error(located, truth, height=64, width=64, undetected="farthest")
    assert asked.sum() >= 8
    assert error.mean() < 0.5 * shift[asked].mean()


def test_the_same_seed_trains_the_same_probe(scenes):
    brief = dataclasses.replace(SMALL_EFFECTOR, steps=3)
    first, second = train_effector(scenes, brief), train_effector(scenes, brief)
    for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.error == second.error


def test_the_gate_refuses_a_probe_that_has_learned_nothing(scenes):
    error = train_effector(scenes, dataclasses.replace(SMALL_EFFECTOR, steps=2)).error
    assert not error.valid
    assert str(error).startswith("not measured: the probe's own error is")


def test_a_probe_that_was_judged_on_nothing_is_not_valid():
    located = Located(position=torch.full((2, 2), 0.5), found=torch.tensor([True, True]))
    nothing = torch.zeros(2, dtype=torch.bool)
    error = probe_error(located, located.position, nothing, emptied=nothing, height=64, width=64, gate=9.0)
    assert not error.valid
    assert error.to_json()["mean"] is None


def test_what_is_not_found_counts_as_the_farthest_corner():
    located = Located(position=torch.tensor([[0.5, 0.5], [0.5, 0.5]]), found=torch.tensor([True, False]))
    truth = torch.tensor([[0.5, 0.25], [0.25, 0.5]])
    error = position_error(located, truth, height=40, width=80, undetected="farthest")
    assert error.tolist() == pytest.approx([10.0, math.hypot(60, 20)])
    assert position_error(located, truth, height=40, width=80, undetected="nan").isnan().tolist() == [False, True]


def test_two_guesses_are_not_averaged():
    heat = torch.full((1, 16, 32), -20.0)
    heat[0, 4, 6], heat[0, 12, 26] = 5.0, 4.5
    torch.testing.assert_close(soft_argmax(near_peak(heat)), torch.tensor([[6.5 / 32, 4.5 / 16]]), atol=1e-4, rtol=0)
    assert (soft_argmax(heat)[0, 0] - 6.5 / 32).abs() > 0.1


def test_erasing_puts_back_the_bare_table(scenes):
    plates = Plates.of(scenes.frames, scenes.labels, scenes.episodes)
    index = torch.arange(0, 640, 16)
    thing = scenes.labels[index] == 2
    frames = scenes.frames[index].float() / 255
    bare, possible = plates.erase(frames, thing, index, torch.zeros(len(index)))
    untouched, _ = plates.erase(frames, torch.zeros_like(thing), index, torch.zeros(len(index)))
    table = plates.picture[plates.row[index]].float() / 255
    where = (thing & possible[:, None, None])[:, None].expand_as(frames)
    torch.testing.assert_close(bare[where], table[where])
    torch.testing.assert_close(untouched, frames)


def test_whole_episodes_are_held_out():
    episodes = torch.arange(20).repeat_interleave(5)
    held_out = held_out_rows(episodes, share=0.2, seed=0)
    assert held_out.sum() == 20
    assert not set(episodes[held_out].tolist()) & set(episodes[~held_out].tolist())
    with pytest.raises(DataError, match="at least two episodes"):
        held_out_rows(torch.zeros(5, dtype=torch.long), share=0.2, seed=0)


def test_objects_that_never_move_teach_nothing_and_are_refused(scenes):
    s = scenes
    still = s.objects[:1].expand_as(s.objects)
    with pytest.raises(DataError, match="objects that move"):
        train_object_probe(s.frames, s.labels, still, s.objects_visible, s.episodes, config=SMALL_OBJECT)
