"""The results page says what the files say."""

import pytest

from benchmarks.results_page import number, verdict


@pytest.mark.parametrize(
    "goal, said",
    [
        ({"value": 0.1, "bound": 0.0, "op": ">"}, "met"),
        ({"value": 0.0, "bound": 0.0, "op": ">"}, "**missed**"),
        ({"value": 3.0, "bound": 2.0, "op": "<="}, "**missed**"),
        ({"value": None, "bound": 2.0, "op": "<=", "reason": "no GPU"}, "not measured: no GPU"),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(goal, said):
    assert verdict(goal) == said


def test_numbers_keep_what_matters():
    assert [number(x) for x in (None, 0.0, 0.834, -12.345, 123.4, 0.0012)] == [
        "–",
        "0.00",
        "0.83",
        "-12.35",
        "123",
        "1.2e-03",
    ]
