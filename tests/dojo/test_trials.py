from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from dreamdojo.dojo.geometry import axis_angle, multiply
from dreamdojo.dojo.objects import TRAIN_SHAPES
from dreamdojo.dojo.scene import FIRST_OBJECT
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.trials import Course, TrialSettings, load_trials, run_trial, run_trials, save_trials
from dreamdojo.dojo.turns import draw_views, heading
from dreamdojo.errors import ConfigError, DataError

SETTINGS = TrialSettings(split="test", trials=3, horizon=14, other=6, still=6, size=32, drawn=64)
UP = (0, 0, 1)


@pytest.fixture(scope="module")
def trials():
    return run_trials(SETTINGS, workers=1)


def test_every_branch_begins_in_the_state_in_which_the_given_frames_end(trials):
    for trial in trials:
        assert len(trial.given.frames) == SETTINGS.context and trial.given.frames.shape[1:] == (32, 32, 3)
        lengths = {name: len(course.frames) for name, course in trial.branches.items()}
        assert lengths == {"own": 14, "other": 6, "still": 6}
        for course in trial.branches.values():
            assert np.abs(course.effector[0] - trial.given.effector[-1]).max() < 0.08
            assert np.abs(course.pixels[0] - trial.given.pixels[-1]).max() < 0.08
        own, other, still = (trial.branches[name] for name in ("own", "other", "still"))
        assert not np.allclose(own.actions[:6], other.actions)
        moved = [np.abs(course.effector[5] - course.effector[0]).sum() for course in (own, other, still)]
        assert moved[2] < 0.3 * max(moved[:2])


def test_the_same_trial_is_the_same_bytes_also_where_it_continues_as_recorded(trials):
    again = run_trial(SETTINGS, 0)
    for name, course in again.branches.items():
        for each in fields(Course):
            np.testing.assert_array_equal(getattr(course, each.name), getattr(trials[0].branches[name], each.name))


def test_the_hand_touches_something_soon_after_the_given_frames(trials):
    assert np.mean([trial.branches["own"].touched[:9].any() for trial in trials]) > 0.6
    assert not any(trial.given.touched.any() for trial in trials if trial.branches["own"].touched.any())


def test_trials_survive_the_disk(trials, tmp_path):
    save_trials(tmp_path / "trials.npz", trials)
    for before, after in zip(trials, load_trials(tmp_path / "trials.npz"), strict=True):
        assert before.seed == after.seed
        np.testing.assert_array_equal(before.folds, after.folds)
        np.testing.assert_array_equal(before.branches["other"].headings, after.branches["other"].headings)
        np.testing.assert_array_equal(before.given.frames, after.given.frames)
    whole = (tmp_path / "trials.npz").read_bytes()
    for content in (b"nothing", b"", whole[: len(whole) // 2]):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(DataError, match="expected trials"):
            load_trials(tmp_path / "broken.npz")


def test_a_covered_object_is_seen_again_and_was_not_moved():
    settings = TrialSettings(split="test", trials=6, horizon=40, size=64, drawn=64, tasks={"cover": 1.0})
    returned = 0
    for trial in run_trials(settings, workers=1):
        own = trial.branches["own"]
        for index in range(len(trial.folds)):
            area = (own.labels == FIRST_OBJECT + index).sum(axis=(1, 2))
            full, least = (trial.given.labels[-1] == FIRST_OBJECT + index).sum(), int(area.argmin())
            if area[least] < 0.3 * full and area[least:].max() > 0.8 * full:
                returned += 1
                assert np.abs(own.pixels[-1, index] - trial.given.pixels[-1, index]).max() < 0.02
    assert returned >= 3


def test_a_heading_follows_the_turn_about_the_vertical_and_nothing_else():
    rng, turn = np.random.default_rng(0), axis_angle(UP, 0.7)
    shapes = {name: make(rng) for name, make in TRAIN_SHAPES.items()}
    assert heading(shapes["mug"], turn) == pytest.approx(0.7)
    rolled = multiply(turn, axis_angle((1, 0, 0), 1.1))  # a capsule that rolls about its own axis looks the same
    assert heading(shapes["capsule"], rolled) == pytest.approx(heading(shapes["capsule"], turn))
    lying = multiply(turn, axis_angle((0, 1, 0), math.pi / 2))
    assert math.isnan(heading(shapes["bottle"], turn)) and heading(shapes["bottle"], lying) == pytest.approx(0.7)
    assert math.isnan(heading(shapes["ball"], turn)) and math.isnan(heading(shapes["bowl"], turn))


def test_a_boxs_heading_is_that_of_its_longer_side_and_a_square_one_looks_alike_four_times():
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(50):
        shape = TRAIN_SHAPES["box"](rng)
        x, y, _ = shape.parts[0].size
        assert shape.mark is not None
        assert heading(shape, (1, 0, 0, 0)) == pytest.approx(0 if x >= y else math.pi / 2)
        assert (shape.mark.fold == 4) == (min(x, y) > 0.75 * max(x, y))
        kinds.add(shape.mark.fold)
    assert kinds == {2, 4}


def test_views_show_the_same_objects_elsewhere():
    views = draw_views("arm", seed=seed_of("ood_shape", 7), count=4, size=64)
    count = views.pixels.shape[1]
    assert views.frames.shape == (4, 64, 64, 3) and views.headings.shape == (4, count) and len(views.folds) == count
    assert np.abs(np.diff(views.pixels, axis=0)).max(axis=-1).min() > 0
    assert set(np.unique(views.labels)) <= {0, 1, 2, *range(FIRST_OBJECT, FIRST_OBJECT + count)}
    seen = views.headings[:, np.isfinite(views.headings).all(axis=0)]
    assert seen.size == 0 or np.abs(np.diff(seen, axis=0)).max() > 0.2


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="drawn no smaller"):
        TrialSettings(split="test", trials=1, horizon=8, size=64, drawn=32)
    with pytest.raises(ConfigError, match="split"):
        TrialSettings(split="nowhere", trials=1, horizon=8)
