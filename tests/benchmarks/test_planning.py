"""The queue of the planning benchmark: what it compares, and that it goes on where it was stopped."""

import argparse
import json

import pytest

from benchmarks import planning
from benchmarks.planning import BEST, FOUNDATION, SCRATCH, SINGLES, TRUE, UNIFORM, Bench, Sizes, goals, summarise


def rows(wins, count=40):
    row = {"distance": 0.1, "seconds": 1.0, "decisions": [1]}
    return [{**row, "success": index < wins} for index in range(count)]


def test_arms_are_compared_pairwise_and_with_the_best_single_policy():
    wins = {BEST: 36, UNIFORM: 16, TRUE: 40, FOUNDATION: 30, SCRATCH: 10}
    wins |= {name: 10 + 2 * number for number, name in enumerate(SINGLES)}
    cells = {f"{arm}/pick_place/test": rows(count) for arm, count in wins.items()}
    summary = summarise(cells)["pick_place, test"]
    assert summary["best of N over uniform"] == pytest.approx(36 / 16)
    assert summary["best of N minus best single"]["mean"] == pytest.approx((36 - 18) / 40)
    assert summary["foundation minus scratch"]["low"] > 0
    assert summary["regret, simulator minus foundation"]["mean"] == pytest.approx(0.25)
    found = goals({"pick_place, test": summary})
    assert found["simulator: pick-place success"]["value"] == 1.0
    assert all("reason" in goal for goal in found.values() if goal["value"] is None)


def test_an_episode_that_is_there_is_not_run_again(tmp_path, monkeypatch):
    calls = []

    def episode(self, arm, task, seed, number):
        calls.append((arm, number))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows(1, 1)[0]

    monkeypatch.setattr(Bench, "episode", episode)
    monkeypatch.setattr(planning, "errand_seeds", lambda *_, **__: iter(range(100)))
    given = argparse.Namespace(tasks=["push"], splits=["test"], only=[TRUE, UNIFORM])
    bench = Bench(tmp_path, Sizes(episodes=2))
    with pytest.raises(KeyboardInterrupt):
        planning.run_queue(bench, given, keep=False)
    summary = planning.run_queue(bench, given, keep=False)
    assert calls == [(TRUE, 0), (TRUE, 1), (UNIFORM, 0), (UNIFORM, 0), (UNIFORM, 1)]
    assert summary["push, test"][UNIFORM]["success"]["mean"] == 1.0
    assert set(json.loads((tmp_path / "cells.json").read_text())["cells"]) == {
        f"{TRUE}/push/test",
        f"{UNIFORM}/push/test",
    }


def test_the_true_simulator_plans_at_toy_size(tmp_path):
    given = argparse.Namespace(tasks=["push"], splits=["test"], only=[TRUE, SINGLES[0]])
    summary = planning.run_queue(Bench(tmp_path, planning.QUICK), given, keep=False)
    assert set(summary["push, test"]) == {TRUE, SINGLES[0]}
