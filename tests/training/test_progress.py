"""The line of a long job in a log file."""

import io

import pytest
from rich.console import Console

from dreamdojo.training import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines_of(calls, clock):
    """What is written where `(seconds, done, total)` are reported."""
    log = io.StringIO()
    with progress.progress_line("work", Console(file=log, width=100)) as report:
        for seconds, done, total in calls:
            clock[0] = seconds
            report(done, total, "words")
    return log.getvalue().splitlines()


def test_the_time_left_follows_from_the_time_taken(clock):
    said = lines_of([(0, 0, 10), (20, 2, 10), (25, 3, 10), (40, 4, 10), (100, 10, 10)], clock)
    assert [" ".join(line.split()) for line in said] == [
        "work 2/10 20 s, about 80 s left words",
        "work 4/10 40 s, about 60 s left words",
        "work 10/10 100 s, about 0 s left words",
    ]


def test_a_resumed_job_is_not_taken_for_a_fast_one(clock):
    said = lines_of([(1, 401, 1000), (21, 411, 1000)], clock)
    assert said[-1].split("s, ")[1].startswith("about 1178 s left")


def test_a_second_stage_on_the_same_line_has_a_pace_of_its_own(clock):
    said = lines_of([(0, 0, 200), (100, 200, 200), (110, 20, 100), (120, 40, 100)], clock)
    assert said[0].split("s, ")[1].startswith("about 0 s left")
    assert said[-1].split("s, ")[1].startswith("about 30 s left")
