"""The simulated pipeline, and the plan that follows from the figures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.pipeline_simulation import Pipeline, simulate
from benchmarks.scale import PARTS, Part, keep
from benchmarks.scale_plan import ASSUMED, measured, plan

ROOT = Path(__file__).parents[2]
CALM = Pipeline(
    segments_per_batch=1.0,
    batch_seconds=1.0,
    workers=2,
    decode_seconds=1.0,
    fetch_seconds=0.25,
    fetch_spread=0.0,
    stall_rate=0.0,
    hours_to_death=1e9,
    corrupt=0.0,
)


def test_without_failures_the_trainer_waits_only_where_there_is_too_little_work_done():
    assert CALM.load == pytest.approx(0.625)
    assert simulate(CALM, batches=500, seed=0).busy > 0.99
    short = replace(CALM, workers=1)
    assert short.load == pytest.approx(1.25) and simulate(short, batches=2000, seed=0).busy == pytest.approx(
        0.8, abs=0.01
    )


def test_failures_cost_time_and_the_same_seed_the_same_time():
    calm = simulate(CALM, batches=2000, seed=1)
    for failing in (
        replace(CALM, stall_rate=0.01, patience=math.inf),
        replace(CALM, hours_to_death=0.01),
        replace(CALM, workers=1, corrupt=0.2),
    ):
        one = simulate(failing, batches=2000, seed=1)
        assert one.busy < calm.busy and one.stalls + one.deaths + one.left_out > 0
        assert one == simulate(failing, batches=2000, seed=1) != simulate(failing, batches=2000, seed=2)


def test_more_segments_ahead_bridge_longer_stalls():
    stalling = replace(CALM, workers=8, stall_rate=0.01, stall_seconds=20.0, patience=math.inf)
    busy = [simulate(replace(stalling, ahead=ahead), batches=3000, seed=0).busy for ahead in (2, 16, 128)]
    assert busy[0] < busy[1] < busy[2] and busy[2] > 0.99


def test_asking_again_ends_a_stall():
    stalling = replace(CALM, workers=8, stall_rate=0.01, stall_seconds=20.0, ahead=16)
    patient, asking = (simulate(replace(stalling, patience=p), batches=3000, seed=0).busy for p in (math.inf, 1.0))
    assert asking > 0.99 > 0.95 > patient


def test_parts_share_a_file(tmp_path):
    path = tmp_path / "scale.json"
    goal = {"value": 1.0, "bound": 0.5, "op": ">="}
    keep(path, "training", Part({"x": 1}, {"g": goal, "old": goal}))
    keep(path, "data", Part({"y": 2}, {"h": goal}))
    keep(path, "training", Part({"x": 3}, {"g": goal}))
    found = json.loads(path.read_text())
    assert found["metrics"] == {"training": {"x": 3}, "data": {"y": 2}} and set(found["goals"]) == {"g", "h"}
    assert "data" in PARTS


def test_the_page_is_what_the_figures_say_and_names_every_assumption():
    load = {
        name: json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        for name in ("curation", "scale")
    }
    page = (ROOT / "docs" / "scale.md").read_text()
    text = plan(load["curation"], load["scale"])
    assert text in page and measured(load["scale"]) in page, "run python -m benchmarks.readme"
    assert all(f"`{name}`" in text for name in ASSUMED)
