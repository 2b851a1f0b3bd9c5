"""`benchmarks/teleop_serving.py`: its clients are refused or served as they should be, and what is left is counted."""

import asyncio
import os

from benchmarks.teleop_serving import Usage, besiege, goals, percentiles
from tests.apps.teleoperating import Perfect, SquareRobot, cockpit_served


def test_clients_that_come_stall_vanish_and_babble_leave_nothing_behind(caplog):
    robot = SquareRobot(fps=20.0)
    with cockpit_served(robot, Perfect(robot)) as (url, _):
        found = asyncio.run(besiege(url, os.getpid(), 3.0, clients=8))
    assert found["still drives"] and found["other pages at the end"] == 0
    assert found["at the end"]["files"] <= found["at the start"]["files"]
    clients = found["clients"]
    assert clients["frames"] and clients["closed 4403"] and clients["closed 4429"] and clients["closed 1009"]
    assert not any(name.startswith(("babble:", "flood:", "foreign:")) for name in clients)
    assert "refused a page from" in caplog.text and "hung up" in caplog.text and ": refused " in caplog.text


def test_what_a_process_holds_is_counted():
    before = Usage.of(os.getpid())
    ends = os.pipe()
    assert Usage.of(os.getpid()).files == before.files + 2 and before.threads >= 1 and before.megabytes > 50
    for end in ends:
        os.close(end)


def test_goals_say_what_was_not_run():
    assert percentiles([1.0]) == {"count": 1} and percentiles([10.0, 20.0, 10.0])["jitter"] == 10
    told = goals({})
    assert all(goal["value"] is None and goal["reason"] for goal in told.values())
    usage = {"megabytes": 700.0, "threads": 9, "files": 12}
    soak = {"minutes": 30, "at the start": usage, "at the end": {**usage, "files": 14}, "other pages at the end": 0}
    soak["megabytes an hour, second half"] = 3.0
    told = goals({"soak": soak})
    assert told["soak: open files more"]["value"] == 2 and told["soak: megabytes more"]["value"] == 0
