"""The arithmetic of the curation benchmark."""

from benchmarks.curation import goals, rates


def test_every_goal_is_listed_measured_or_with_its_reason() -> None:
    empty = goals({})
    assert len(empty) == 7 and all(one["value"] is None and one["reason"] for one in empty.values())
    speeds = {"raw decode, AV1": 20.0, "judge, looked at everywhere, AV1": 15.0}
    found = goals({"speed": {name: {"hours_per_core_hour": value} for name, value in speeds.items()}})
    assert found["av1_share_of_raw_decode"] == {"value": 0.75, "bound": 0.7, "op": ">="}


def test_precision_and_recall_are_not_mixed_up() -> None:
    found = rates([True, True, True, False], [True, True, False, False])
    assert found["precision"]["mean"] == 2 / 3 and found["recall"]["mean"] == 1.0
