"""The policies under test are many, independent and strangers to the starts; every goal is stated."""

from dataclasses import asdict

import pytest
import torch

from benchmarks.policy_evaluation import (
    FINDER,
    JUDGE,
    JUDGED_BY,
    LEARNED,
    POLICIES,
    STARTS,
    Cloned,
    Planned,
    goals,
    metrics_of,
)
from benchmarks.results_page import results_page
from dreamdojo.apps.policy_eval.compare import Score, compare
from dreamdojo.dojo.splits import seed_of
from dreamdojo.evaluate_policy import PIXELS
from dreamdojo.metrics.agreement import EXACT_UP_TO


def test_policies_are_independent_and_of_several_kinds() -> None:
    kinds = {type(each).__name__ for each in POLICIES.values()}
    assert 8 <= len(POLICIES) <= EXACT_UP_TO and len(LEARNED) >= 5 and len(kinds) >= 4
    cloned = [each for each in POLICIES.values() if isinstance(each, Cloned | Planned)]
    assert len({each.seed for each in cloned}) == len(cloned), "no two are one run"
    used = [(each.shown.first, 3 * each.shown.episodes) for each in cloned]
    used += [(FINDER.first, 3 * FINDER.episodes), (JUDGE.first_index, 3 * JUDGE.episodes)]  # seeds may be rejected
    for first, count in used:
        others = [other for other in used if other != (first, count)]
        assert all(first + count <= low or low + many <= first for low, many in others), "data of one is no other's"
    starts = {seed_of(split, first + i) for split, first in STARTS.items() for i in range(400)}
    assert not starts & {seed_of("train", first + i) for first, count in used for i in range(count)}


def score(name: str, rate: float, hope: float) -> Score:
    generator = torch.Generator().manual_seed(len(name))
    truth = torch.rand(400, generator=generator) < rate
    model = torch.rand(400, generator=generator) < hope
    frames = torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)
    said = {JUDGED_BY: model, PIXELS: torch.zeros(400, dtype=torch.bool)}
    return Score(
        name=name,
        model=said,
        truth=truth,
        real={JUDGED_BY: truth, PIXELS: truth},
        predicted_frames=frames,
        true_frames=frames,
        model_seconds=1.0,
        truth_seconds=1.0,
        policy_seconds=1.0,
    )


def test_goals_are_computed_from_the_raw_table() -> None:
    rates = torch.linspace(0.05, 0.9, len(POLICIES)).tolist()
    comparison = compare(
        [score(n, r, 0.2 + 0.6 * r) for n, r in zip(POLICIES, rates, strict=True)], (JUDGED_BY, PIXELS)
    )
    found = goals({"test": metrics_of(comparison)})
    assert found["test: paired starts per policy"]["value"] == 400 and found["test: Pearson"]["value"] > 0.9
    assert found["test: Pearson above that of pixel similarity"]["value"] == found["test: Pearson"]["value"]
    assert found["test: permutation p"]["value"] < 0.01
    assert found["test: MMRV weighed by true gaps, above its floor"]["value"] == pytest.approx(0, abs=0.02)
    assert all(each["value"] is None and each["reason"] for key, each in found.items() if key.startswith("ood"))
    page = results_page(
        {"policy_evaluation": {"date": "today", "metrics": {"judges": {}, "test": metrics_of(comparison)}}}
    )
    assert page.count("| cloned") == 7 and "| object pose | 0.9" in page, "every policy, and how far they agree"
    assert set(goals({})) == set(found), "what was not run is stated too"
    assert asdict(POLICIES[LEARNED[0]])["shown"]["episodes"] == 400  # pyright: ignore
