"""Intervals: small cases by hand, coverage by simulation, the rules for missing numbers."""

import math

import pytest
import scipy.stats
import torch

from dreamdojo.errors import DataError, brief
from dreamdojo.metrics import (
    Interval,
    bootstrap_interval,
    explained_variance,
    mean_interval,
    paired_interval,
    r2_score,
    student_t_quantile,
    wilson_interval,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("freedom", [1, 2, 5, 23, 400, 100_000])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.995])
def test_the_t_quantile_agrees_with_scipy(freedom, probability):
    expected = scipy.stats.t.ppf(probability, freedom)
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_mean_interval_by_hand():
    interval = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    reach = 4.30265 / math.sqrt(3)  # t with two degrees of freedom, standard deviation 1
    assert (interval.mean, interval.count) == (2.0, 3)
    assert interval.low == pytest.approx(2 - reach, abs=1e-4)
    assert interval.high == pytest.approx(2 + reach, abs=1e-4)


def test_pairing_sees_a_small_gain_under_a_large_spread():
    clips = 10 * normal(24)
    better = clips + 0.5 + 0.1 * normal(24, seed=1)
    paired = paired_interval(better, clips)
    assert paired.above_zero and not paired.below_zero
    assert paired.high - paired.low < 0.2 < 5 < mean_interval(better).high - mean_interval(better).low


def test_paired_intervals_cover_the_true_difference_about_as_often_as_they_say():
    first, second = normal(600, 12) + 0.3, normal(600, 12, seed=1)
    intervals = [paired_interval(a, b) for a, b in zip(first, second, strict=True)]
    covered = sum(interval.low <= 0.3 <= interval.high for interval in intervals) / 600
    assert 0.925 < covered < 0.975


def test_a_pair_counts_only_where_both_clips_have_a_number():
    interval = paired_interval(torch.tensor([1.0, torch.nan, 3.0, 5.0]), torch.tensor([0.0, 1.0, torch.nan, 2.0]))
    assert (interval.mean, interval.count) == (2.0, 2)


@pytest.mark.parametrize("values", [torch.tensor([]), torch.tensor([2.0]), torch.tensor([torch.nan, 2.0])])
def test_fewer_than_two_clips_have_no_interval(values):
    interval = mean_interval(values)
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert not interval.above_zero and not interval.below_zero
    assert interval.to_json()["low"] is None


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (1, 3), (8, 10), (45, 60), (20, 20)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_wilson_interval_agrees_with_scipy(successes, trials, level):
    interval = wilson_interval(successes, trials, level=level)
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (interval.mean, interval.count) == (successes / trials, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_trials_have_no_share_and_successes_are_trials():
    assert math.isnan(wilson_interval(0, 0).mean) and wilson_interval(0, 0).to_json()["low"] is None
    with pytest.raises(DataError, match="got 3 of 2"):
        wilson_interval(3, 2)


def test_the_bootstrap_agrees_with_t_on_a_mean_and_repeats_with_its_seed():
    values = normal(60)
    drawn = bootstrap_interval(values, torch.mean, seed=3)
    exact = mean_interval(values)
    assert drawn == bootstrap_interval(values, torch.mean, seed=3)
    assert drawn.low == pytest.approx(exact.low, abs=0.05)
    assert drawn.high == pytest.approx(exact.high, abs=0.05)


def test_the_bootstrap_refuses_nothing():
    with pytest.raises(DataError, match="at least one row"):
        bootstrap_interval(torch.zeros(0), torch.mean, seed=0)


def test_drawing_from_many_episodes_takes_memory_in_step_with_them():
    groups = torch.arange(20_000)
    truth = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    found = explained_variance(0.25 * truth.square(), truth, groups, seed=0, resamples=20)
    assert found.columns[0].mean == pytest.approx(0.75, abs=1e-3) and found.columns[0].count == 20_000


def test_r2_by_hand():
    truth = torch.tensor([[0.0, 1.0, 5.0], [2.0, 3.0, 5.0]])
    predicted = torch.tensor([[0.0, 2.0, 5.0], [2.0, 2.0, 4.0]])
    r2 = r2_score(predicted, truth)
    assert r2[:2].tolist() == [1.0, 0.0]
    assert r2[2].isnan()  # a constant has no variance to explain


def test_r2_is_negative_for_what_is_worse_than_the_mean():
    assert r2_score(torch.tensor([[9.0], [9.0]]), torch.tensor([[0.0], [1.0]])).item() < 0


def test_an_interval_comes_back_from_its_plain_numbers_and_in_another_unit():
    interval = Interval(mean=0.5, low=0.25, high=0.75, count=4)
    assert Interval.from_json(interval.to_json()) == interval
    assert interval.scaled(100) == Interval(mean=50, low=25, high=75, count=4)
    nothing = Interval.from_json(Interval(mean=1.0, low=math.nan, high=math.nan, count=1).to_json())
    assert nothing.mean == 1.0 and math.isnan(nothing.low) and math.isnan(nothing.high)


def test_somebody_elses_error_in_a_line():
    assert brief(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert brief(AssertionError()) == "AssertionError", "an error may have no message"
