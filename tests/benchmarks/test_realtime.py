"""The queue of `benchmarks/realtime.py`: budgets, goals, and one part at toy size."""

import json
import sys

import pytest
import torch

from benchmarks import realtime
from benchmarks.realtime import (
    ARMS,
    AS_DISTILLED,
    DEFAULT,
    SHIPPED,
    WARM_UP,
    fewest_good_steps,
    goals,
    kind_of,
    settings_of,
)
from benchmarks.realtime_report import realtime_report
from dreamdojo import foundation
from dreamdojo.evaluation.report import render

COST = {kind_of(arm, stage): 0.5 for arm in ARMS.values() for stage in arm.shares}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_spends_the_same_seconds(name):
    settings = settings_of(ARMS[name], 300.0, COST, seed=3)
    assert sum(settings.fit_of(stage).steps for stage in settings.stages) == 600
    assert {settings.fit_of(stage).seed for stage in settings.stages} == {3}
    assert sum(ARMS[name].shares.values()) == 1.0 and settings.sampler.steps == ARMS[name].steps


def teacher(psnr, error):
    rows = {"psnr": psnr, "effector_error": error}
    return {
        metric: {f"teacher, {s} steps": {"8": {"mean": {"mean": v}}} for s, v in zip((1, 2, 4, 8), values, strict=True)}
        for metric, values in rows.items()
    }


def test_the_teachers_fewest_good_steps_are_good_in_both():
    assert fewest_good_steps(teacher((19.0, 19.95, 20.0, 20.0), (9.0, 8.0, 5.1, 5.0))) == 4
    assert fewest_good_steps(teacher((20.0, 20.0, 20.0, 20.0), (5.0, 5.0, 5.0, 5.0))) == 1
    assert fewest_good_steps({"psnr": {}}) is None


def seed_cell(error, start):
    def arm(value):
        return {"scores": {"effector_error": {f"{AS_DISTILLED} steps": {"8": {"mean": {"mean": value}}}}}}

    return {DEFAULT: arm(error), WARM_UP: arm(start)}


def test_goals_are_all_there_with_a_reason_until_they_are_measured():
    empty = goals({})
    assert all(goal["value"] is None and goal["reason"] for goal in empty.values())
    paired = {"psnr": {"30": {"mean": -0.5}, "100": {"mean": 0.1}}}
    cells = {
        "teacher": teacher((20.0,) * 4, (9.0, 5.0, 5.0, 5.0)),
        "speed": {"openvino": {"teacher, 2 steps": 4.0, "student, 1 steps": 50.0}},
        "nano128": {"fps": {"torch": 20.0, "openvino": 35.0}},
        "consistency": {SHIPPED: {"paired": paired}},
        **{f"seeds, {i}": seed_cell(e, 6.0) for i, e in enumerate((5.0, 5.1, 4.9, 5.4, 7.0))},
    }
    found = goals(cells)
    assert found.keys() == empty.keys()
    assert found["student at 1 step over teacher at its fewest good steps"]["value"] == 12.5
    assert found["nano128, frames per second end to end on two cores"]["value"] == 35.0
    assert found["PSNR at 30 frames, student minus teacher, dB"]["value"] == -0.5
    assert found["seeds within 10 % of the median position error"]["value"] == 4
    assert found["seeds better than their warm-up"]["value"] == 4
    assert found["PSNR at 600 frames, student minus teacher, dB"]["reason"] == "not run"


def interval(mean):
    return {"mean": mean, "low": mean - 1, "high": mean + 1, "level": 0.95, "count": 8}


def scores(methods):
    row = {h: {"mean": interval(5.0), "minus teacher": interval(-1.0)} for h in ("1", "8", "16")}
    return {metric: dict.fromkeys(methods, row) for metric in ("effector_error", "sharpness", "psnr")}


def test_the_page_shows_every_part_that_has_run():
    assert [section.title for section in page({}).sections] == ["In short", "What it is made from"]
    student = {"scores": scores(("1 steps", "2 steps", "4 steps", "teacher, 8 steps"))}
    cells = {
        "teacher": scores([f"teacher, {steps} steps" for steps in (1, 2, 4, 8)]),
        "arm, consistency": student,
        "arm, + long rollouts": student,
        "budget, consistency, 0.25": student,
        "budget, consistency, 0.5": student,
        "seeds, 0": {"consistency": student, "+ long rollouts": student},
        "speed": {"torch": {"teacher, 8 steps": 5.0, "student, 1 steps": 30.0}},
        "backends": scores(("torch", "openvino")),
        "nano128": {"fps": {"torch": 20.0}, "steps": 2, "at 8 frames": {"psnr": {"student": interval(20.0)}}},
        "consistency": {"a student, 2 steps": minute(), "another, 1 steps": minute()},
    }
    titles = [section.title for section in page(cells).sections]
    assert titles[1:-1] == ["Steps", "Ways to a student", "When to stop", "Seed by seed", "A minute"]
    budget = next(section for section in page(cells).sections if section.title == "When to stop")
    assert budget.blocks[0].figures[0].x == (1.25, 2.5, 5.0)  # pyright: ignore
    (minutes,) = (section for section in page(cells).sections if section.title == "A minute")
    worlds = ["teacher", "a student, 2 steps", "another, 1 steps"]
    assert list(minutes.blocks[0].figures[0].lines) == worlds and list(minutes.blocks[1].columns[1:]) == worlds  # pyright: ignore
    assert "nano128: frames per second" in render(page(cells))


def minute():
    drifts = {kind: {"early": interval(0.1), "late": interval(0.2)} for kind in ("colour", "energy")}
    own = {**drifts, "stillness": {"change": interval(0.3)}}
    lines = {name: {"1": interval(20.0), "600": interval(9.0)} for name in ("teacher", "student")}
    return {"scores": {"psnr": lines}, "teacher": own, "student": own}


def page(cells):
    return realtime_report(cells, goals(cells), steps=1, conditions={"seconds of training": 300.0}, facts=("today",))


@pytest.mark.slow
@pytest.mark.skipif(foundation("nano") is None, reason="no weights ship")
def test_parts_are_a_queue_and_a_quick_run_writes_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(realtime, "RESULTS", tmp_path / "result.json")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    run = tmp_path / "run"
    run.mkdir()
    (run / "steps.json").write_text(json.dumps(COST))
    monkeypatch.setattr(realtime, "DEFAULT", WARM_UP)
    monkeypatch.setattr(realtime, "LASTING", ((WARM_UP, 1),))
    monkeypatch.setattr(realtime, "TEACHER_STEPS", (1, 2))
    monkeypatch.setattr(realtime, "STUDENT_STEPS", (1,))
    monkeypatch.setattr(realtime, "BACKENDS", ("torch",))
    arguments = ["realtime", "--run", str(run), "--quick", "--seconds", "0.1", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "speed", "--only", "consistency"])
    realtime.main()
    cells = json.loads((run / "cells.json").read_text())
    assert set(cells["speed"]["torch"]) == {"teacher, 1 steps", "teacher, 2 steps", "student, 1 steps"}
    assert list(cells["consistency"]) == [f"{WARM_UP}, 1 steps", SHIPPED]
    long = cells["consistency"][SHIPPED]
    assert {"scores", "paired", "clips", "teacher", "student"} == long.keys()
    assert {"colour", "energy", "stillness"} == long["student"].keys()
    assert not (tmp_path / "result.json").exists()
    capsys.readouterr()
    realtime.main()
    assert capsys.readouterr().out == ""
