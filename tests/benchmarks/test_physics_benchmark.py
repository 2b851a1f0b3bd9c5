"""The arithmetic of the physics benchmark on cells whose answer is known, its queue, and all of it at toy size."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import arms, physics
from benchmarks.arms import REGRESSION, REGRESSION_HUMAN, Arms, finished
from benchmarks.physics import (
    COPY,
    HORIZONS,
    KNOWN,
    OURS,
    REDRAWN,
    TRUTH,
    UNSEEN,
    goals,
    of_trials,
    reduction,
    summarise,
)
from dreamdojo.errors import ConfigError
from dreamdojo.files import write_json
from dreamdojo.training.fit import FitConfig

COLUMNS = len([h for h in HORIZONS if h <= 24])
WHERE = (UNSEEN, "own", "pose_error, contact")


def cell(share, *, noise=0.0, seed=0):
    """Thirty trials that differ much from each other, errors a `share` of what they would be; one has no number."""
    random = np.random.default_rng(0)
    errors = random.uniform(5, 40, (30, 1)) * np.ones(COLUMNS) * share
    errors = errors + noise * np.random.default_rng(seed + 1).normal(size=errors.shape)
    rows = [[None] * COLUMNS, *errors.tolist()]
    picture = {"psnr": [[20.0] * COLUMNS] * 31}
    return {name: {"own": {"pose_error, contact": rows, **picture}} for name in (KNOWN, UNSEEN)}


def cells(**shares):
    names = {"ours": OURS, "none": "none", "plain": REGRESSION, "human": REGRESSION_HUMAN}
    trained = {
        names[key]: {str(seed): cell(share, noise=0.2, seed=seed) for seed in range(3)} for key, share in shares.items()
    }
    return {COPY: {"-": cell(1.2)}, TRUTH: {"-": cell(0.1)}, **trained}


def test_goals_are_the_share_by_which_our_error_is_lower_than_the_best_baselines():
    stored = cells(ours=0.6, none=1.0, plain=0.9, human=0.75)
    without, best, seeds = goals(stored).values()
    assert without["value"] == pytest.approx(0.4, abs=0.01) and best["value"] == pytest.approx(0.2, abs=0.01)
    assert REGRESSION_HUMAN in best["reason"] and "30 trials" in best["reason"] and seeds["value"] == 3
    assert goals(cells(ours=0.6, none=1.0, plain=0.7, human=0.9))["seeds of every arm compared"]["value"] == 3


def test_goals_say_what_has_not_been_run_or_cannot_be_told():
    assert all(goal["value"] is None and goal["reason"] == "not run" for goal in goals({}).values())
    partly = goals(cells(ours=0.6, none=1.0))
    assert [goal["value"] is None for goal in partly.values()] == [False, True, True]
    untouched = cells(ours=0.6, none=1.0)
    untouched["none"] = {"0": {n: {"own": {"pose_error, contact": [[None] * COLUMNS] * 31}} for n in (KNOWN, UNSEEN)}}
    assert next(iter(goals(untouched).values()))["reason"] == "no trial has a touched object"


def test_differences_are_paired_by_trial_and_by_seed():
    stored = cells(ours=0.6, none=1.0)
    gap = reduction(stored, "none", WHERE)
    assert gap is not None and gap.count == 30 and gap.low > 0.38 and gap.high < 0.42
    del stored["none"]["1"]
    stored[OURS]["1"] = cell(9.0)  # a seed that the other arm lacks says nothing about the difference
    again = reduction(stored, "none", WHERE)
    assert again is not None and again.mean == pytest.approx(gap.mean, abs=0.02)


def test_a_summary_holds_every_arm_and_what_ours_gains():
    summary = summarise(cells(ours=0.6, none=1.0))[UNSEEN]["own"]
    assert summary["psnr"][COPY]["8"]["mean"] == 20.0
    lower = summary["pose_error, contact"]["lower by"]
    assert lower["none"]["mean"] == pytest.approx(0.4, abs=0.01) and set(lower["none"]["by seed"]) == {"0", "1", "2"}
    assert lower[COPY]["mean"] == pytest.approx(0.5, abs=0.01) and TRUTH not in lower
    assert of_trials(cells(ours=0.6), OURS, WHERE).shape == (31, COLUMNS)


def test_arms_of_another_length_are_not_taken_for_these(tmp_path, monkeypatch):
    fit = FitConfig(steps=5, batch_size=1, learning_rate=1e-3)
    assert not finished(tmp_path, fit)
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(arms, "saved_step", lambda folder: 7)
    with pytest.raises(ConfigError, match="trained for 7 steps, 5 are asked for"):
        finished(tmp_path, fit)


def test_a_deterministic_arm_gets_fewer_steps_where_the_world_model_is_small(tmp_path):
    bench = Arms(tmp_path, tmp_path, steps=(2, 1), preset=physics.quick_preset())
    body = physics.TrialSettings(split="test", trials=1, horizon=1).simulation().embodiment
    robot = SimpleNamespace(dataset=SimpleNamespace(embodiment=body))
    bench.__dict__["data"] = {"robot": robot}
    assert 0 < bench.regression_steps < 0.05


@pytest.mark.slow
def test_the_quick_run_scores_trains_and_writes_a_page_but_no_result(tmp_path, monkeypatch, capsys):
    pages = []
    monkeypatch.setattr(physics, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(physics, "write_report", lambda path, report: pages.append(report))
    monkeypatch.setattr(
        sys, "argv", ["physics.py", "--quick", "--only", "none", "--only", REGRESSION, "--threads", "1"]
    )
    physics.main()
    assert "object pose error on unseen shapes" in capsys.readouterr().out and not physics.RESULTS.exists()
    titles = [section.title for section in pages[-1].sections]
    assert titles[:3] == ["In short", "See for yourself", "Where objects are and how they are turned"]
    assert {"Had it acted otherwise", "Stillness", "Long rollouts"} <= set(titles)
    strips = next(section for section in pages[-1].sections if section.title == "See for yourself").blocks[1:]
    assert {panel.label for panel in strips[0].clip.panels} == {TRUTH, "none", REGRESSION}  # pyright: ignore


def test_what_is_there_is_not_run_again_and_every_cell_is_written(tmp_path, monkeypatch):
    ran, published = [], []
    monkeypatch.setattr(physics, "run_cell", lambda arm, seed, ground, keep: ran.append((arm, seed, keep)) or cell(1.0))
    monkeypatch.setattr(physics, "publish", lambda ground, cells, **how: published.append(json.dumps(cells)))

    class Ground:
        folder = tmp_path

        def made_of(self):
            return {"steps": 1}

    physics.compare(Ground(), ["none"], [0, 1], machine="a test", write=None)  # pyright: ignore
    assert ran == [(COPY, 0, True), (REDRAWN, 0, True), (TRUTH, 0, True), ("none", 0, True), ("none", 1, False)]
    physics.compare(Ground(), ["none", OURS], [0], machine="a test", write=None)  # pyright: ignore
    assert ran[5:] == [(OURS, 0, True)]
    write_json(tmp_path / "cells.json", {"made_of": {"steps": 2}, "scores": {}})
    with pytest.raises(ConfigError, match="another --run"):
        physics.compare(Ground(), ["none"], [0], machine="a test", write=None)  # pyright: ignore
