"""The arithmetic of the pre-training comparison, on cells whose answer is known."""

import numpy as np
import pytest

from benchmarks.arms import MORE, ideal_labels
from benchmarks.pretraining_ablation import HORIZONS, goals, summarise


def cell(**offsets):
    """Clips that differ much from each other and arms that differ by a constant and a little noise."""
    random = np.random.default_rng(0)
    clips = random.normal(15, 5, 20)
    values = {
        arm: {str(h): list(clips + offset + 0.1 * random.normal(size=20)) for h in HORIZONS}
        for arm, offset in {"none": 0.0, "action-free": 0.5, "latent": 1.0, "ideal": 1.5, MORE: 0.2, **offsets}.items()
    }
    return {split: {"true": {"moving_psnr": values}, "other": {}} for split in ("test", "ood")}


def test_arms_are_compared_clip_by_clip_and_seed_by_seed():
    cells = {f"seed {seed}, {minutes} min": cell() for seed in range(3) for minutes in (1, 5)}
    summary = summarise(cells)
    rows = summary["test"]["1 min"]["moving_psnr"]["8"]
    gap = rows["latent minus none"]
    assert gap["count"] == 20 and gap["mean"] == pytest.approx(1, abs=0.1) and gap["high"] - gap["low"] < 0.2
    assert len(gap["by seed"]) == 3 and gap["by seed"] == pytest.approx([1, 1, 1], abs=0.1)
    assert rows["recovered of none to ideal"] == pytest.approx(2 / 3, abs=0.05)
    assert rows["recovered of action-free to ideal"] == pytest.approx(1 / 2, abs=0.08)
    found = goals(summary)
    moving = {key: goal["value"] for key, goal in found.items() if "PSNR of moving" in key}
    assert len(moving) == 8 and all(value > 0 for value in moving.values())


def test_obeying_is_the_gain_of_the_true_actions_over_anothers():
    both = cell()
    values = both["test"]["true"]["moving_psnr"]
    less = {arm: {h: [x - 2 for x in rows] for h, rows in told.items()} for arm, told in values.items()}
    both["test"] = {"true": {"psnr": {**values, "copy": values["none"]}}, "other": {"psnr": less}}
    both["ood"] = both["test"]
    rows = summarise({"seed 0, 1 min": both})["test"]["1 min"]["psnr"]["4"]
    assert rows["latent, true minus other actions"]["mean"] == pytest.approx(2)
    assert rows["copy, true minus other actions"] is None


def test_a_fraction_is_not_given_where_the_ideal_gains_nothing():
    for ideal in (0.0, -1.0):
        rows = summarise({"seed 0, 1 min": cell(ideal=ideal)})["test"]["1 min"]["moving_psnr"]["8"]
        assert rows["recovered of none to ideal"] is None


def test_goals_of_cells_that_were_not_run_say_so():
    found = goals(summarise({"seed 0, 5 min": cell()}))
    assert {goal["value"] is None for key, goal in found.items() if "1 min" in key} == {True}
    assert all(goal["reason"] == "not run" for goal in found.values() if goal["value"] is None)


def test_clips_without_a_number_do_not_count():
    with_gap = cell()
    with_gap["test"]["true"]["moving_psnr"]["latent"]["8"][3] = None
    rows = summarise({"seed 0, 1 min": with_gap})["test"]["1 min"]["moving_psnr"]["8"]
    assert rows["latent minus none"]["count"] == 19


def test_ideal_labels_are_in_the_humans_units():
    random = np.random.default_rng(0)
    human = {0: random.normal(0, 2, (50, 5)).astype(np.float32)}
    labels = ideal_labels(human, human, 8)
    assert labels[0].shape == (50, 8) and labels[0][:, :5].std(axis=0) == pytest.approx(1, abs=1e-5)
    assert not labels[0][:, 5:].any()
