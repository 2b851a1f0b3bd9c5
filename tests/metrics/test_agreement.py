"""Agreement between success rates, against scipy and against slow formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from dreamdojo.errors import DataError
from dreamdojo.metrics.agreement import (
    agreement,
    agreement_floor,
    calibration,
    fisher_interval,
    leave_one_out,
    mmrv,
    pearson,
    permutation_test,
    spearman,
)

TRUTH = torch.tensor([0.1, 0.25, 0.25, 0.4, 0.7, 0.9])
MODEL = torch.tensor([0.3, 0.2, 0.45, 0.6, 0.65, 0.65])


def test_correlations_and_fishers_interval_are_scipys() -> None:
    found = stats.pearsonr(TRUTH.numpy(), MODEL.numpy())
    assert pearson(TRUTH, MODEL) == pytest.approx(found.statistic, abs=1e-6)
    assert spearman(TRUTH, MODEL) == pytest.approx(stats.spearmanr(TRUTH.numpy(), MODEL.numpy()).statistic, abs=1e-6)
    low, high = found.confidence_interval(0.95)
    interval = fisher_interval(float(found.statistic), len(TRUTH))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-5)
    assert math.isnan(pearson(torch.full((5,), 0.3), MODEL[:5])), "a constant correlates with nothing"
    assert math.isnan(fisher_interval(0.9, 3).low), "three points say nothing"


def test_the_permutation_test_counts_every_permutation() -> None:
    observed = pearson(TRUTH, MODEL)
    reached = [pearson(TRUTH, MODEL[list(order)]) >= observed - 1e-9 for order in itertools.permutations(range(6))]
    found = permutation_test(TRUTH, MODEL)
    assert found.exact and found.p == pytest.approx(np.mean(reached))
    assert permutation_test(torch.arange(4.0), torch.arange(4.0)).p == pytest.approx(1 / 24), "the smallest there is"
    assert permutation_test(torch.arange(9.0), torch.arange(9.0)).p == pytest.approx(1 / math.factorial(9))
    drawn = permutation_test(torch.arange(12.0), torch.randn(12, generator=torch.Generator().manual_seed(0)))
    assert not drawn.exact and 0 < drawn.p < 1


def slow_mmrv(weight: list[float], other: list[float]) -> float:
    worst = []
    for i in range(len(weight)):
        violations = [
            abs(weight[i] - weight[j]) if (other[i] < other[j]) != (weight[i] < weight[j]) else 0.0
            for j in range(len(weight))
        ]
        worst.append(max(violations))
    return sum(worst) / len(worst)


def test_mmrv_is_the_papers_sum_and_depends_on_whose_gaps_count() -> None:
    truth, model = TRUTH.tolist(), MODEL.tolist()
    assert mmrv(TRUTH, MODEL, weighed_by="truth") == pytest.approx(slow_mmrv(truth, model))
    assert mmrv(TRUTH, MODEL, weighed_by="model") == pytest.approx(slow_mmrv(model, truth))
    swapped = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.45, 0.5, 0.55])
    assert mmrv(*swapped, weighed_by="truth") == pytest.approx((0 + 0.4 + 0.4) / 3)
    assert mmrv(*swapped, weighed_by="model") == pytest.approx((0 + 0.05 + 0.05) / 3)
    assert mmrv(TRUTH, 0.5 * TRUTH, weighed_by="truth") == 0, "the order alone counts"
    with pytest.raises(DataError, match="at least one"):
        mmrv(TRUTH[:0], MODEL[:0], weighed_by="truth")


def test_leaving_one_out_shows_a_correlation_that_hangs_on_one_policy() -> None:
    truth = torch.tensor([0.1, 0.12, 0.11, 0.13, 0.9])
    model = torch.tensor([0.2, 0.18, 0.21, 0.19, 0.95])
    assert pearson(truth, model) > 0.99
    left = leave_one_out(truth, model)
    assert left[4] < 0 and left[:4].min() > 0.99
    assert agreement(truth, model).leave_one_out[0] == pytest.approx(left[4].item())


def test_a_line_corrects_optimism() -> None:
    found = calibration(TRUTH, 0.5 * TRUTH + 0.4)
    assert found.optimism.mean == pytest.approx((0.4 - 0.5 * TRUTH).mean().item(), abs=1e-6)
    assert (found.slope, found.intercept) == pytest.approx((2.0, -0.8), abs=1e-5)
    assert found.corrected_error == pytest.approx(0, abs=1e-5) and found.error > 0.1


def test_the_floor_falls_with_the_number_of_starts() -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.linspace(0.3, 0.5, 8)[:, None]
    few, many = (agreement_floor(torch.rand(8, n, generator=generator) < rates, draws=100) for n in (20, 2000))
    assert few.mmrv_truth > 2 * many.mmrv_truth and few.pearson < many.pearson
    assert many.mmrv_truth < 0.02


def test_one_policy_agrees_with_nothing() -> None:
    found = agreement(TRUTH[:1], MODEL[:1]).to_json()
    assert found["pearson"]["mean"] is None and found["permutation_p"] is None and found["spearman"] is None
    assert found["calibration"]["corrected_error"] is None and math.isnan(pearson(TRUTH[:0], MODEL[:0]))


def test_everything_goes_into_a_file() -> None:
    found = agreement(TRUTH, MODEL).to_json()
    assert found["policies"] == 6 and found["permutation_exact"] is True
    assert agreement(TRUTH, torch.full((6,), 0.5)).to_json()["spearman"] is None, "NaN is not JSON"
