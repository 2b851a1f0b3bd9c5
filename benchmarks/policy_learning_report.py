"""The page of `benchmarks/policy_learning.py`: success and return against steps in the dream, a table, films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.arms import today
from dreamdojo.evaluation.report import (
    Clip,
    CurveGrid,
    Curves,
    DataSheet,
    Report,
    Row,
    Section,
    Table,
    VideoGrid,
)
from dreamdojo.metrics import Interval, mean_interval, wilson_interval

LEARNED, UNTRAINED, RANDOM, SCRIPT = ARMS = ("learned in the dream", "untrained", "random", "script")
WORLDS = ("dream", "dojo")

Rows = list[dict[str, Any]]
"""What was seen after each round: steps, and in each world the success and return from each start."""


def share(values: Tensor) -> Interval:
    """Mean over starts of the mean over seeds; Wilson's interval where there is one seed."""
    rows = torch.atleast_2d(values.float())
    if len(rows) == 1:
        return wilson_interval(int(rows.sum()), rows.shape[1])
    return mean_interval(rows.mean(dim=0))


def figure(curves: Sequence[Rows], metrics: Mapping[str, Any]) -> CurveGrid:
    """Success and return against steps in the dream."""
    steps = tuple(float(row["steps"]) for row in curves[0])

    def line(world: str, what: str) -> tuple[Interval, ...]:
        def at(number: int) -> Interval:
            values = torch.tensor([rows[number][world][what] for rows in curves]).float()
            return share(values).scaled(100) if what == "success" else mean_interval(values.mean(dim=0))

        return tuple(at(number) for number in range(len(steps)))

    quiet: dict[str, tuple[Interval, ...]] = {}
    for arm in (RANDOM, SCRIPT):
        if row := metrics.get("test", {}).get(arm):
            quiet[f"{arm}, in the dojo"] = (Interval.from_json(row["dojo"]["success"]).scaled(100),) * len(steps)
    names = {world: f"learned, in the {world}" for world in WORLDS}
    return CurveGrid(
        figures=(
            Curves(
                x=steps,
                lines={**{name: line(world, "success") for world, name in names.items()}, **quiet},
                x_label="steps in the dream",
                y_label="Success, %",
                caption="After each round, from starts of test, with 95 % intervals over starts.",
                quiet=tuple(quiet),
            ),
            Curves(
                x=steps,
                lines={name: line(world, "return") for world, name in names.items()},
                x_label="steps in the dream",
                y_label="Return, widths of the picture",
                caption="Minus the sum of the distances from the mark, as the eyes see it, in predicted and true "
                "pictures.",
            ),
        )
    )


def report_of(
    curves: Sequence[Rows], metrics: Mapping[str, Any], clips: tuple[Clip, ...], fps: float, facts: Mapping[str, Any]
) -> Report:
    """The page."""
    rows = []
    for split, arms in metrics.items():
        for arm, row in arms.items():
            cells = [Interval.from_json(row[world]["success"]).scaled(100) for world in WORLDS]
            rows.append(Row(label=f"{arm}, {split}", cells=tuple(cells), quiet=arm != LEARNED))
    columns = ("arm", *(f"in the {world}" for world in WORLDS))
    caption = "Share of starts from which the gripper is in front of the object at the end, with 95 % intervals."
    sections = [
        Section(
            title="Learning in the dream",
            lead="PPO meets predicted pictures only; the dojo is where it is tried.",
            blocks=(figure(curves, metrics), Table(columns=columns, rows=tuple(rows), decimals=0, caption=caption)),
        ),
        Section(
            title="The learned policy",
            lead="From the same first frame, in the dream and in the dojo.",
            blocks=(VideoGrid(clips=clips, fps=fps),),
        ),
        Section(
            title="Data sheet",
            lead="What the numbers were made from.",
            blocks=(DataSheet(items={key: str(value) for key, value in facts.items()}),),
        ),
    ]
    return Report(
        title="A policy learned in a dream",
        subtitle="Tried in the dojo",
        facts=(today()["date"], facts["machine"]),
        sections=tuple(sections),
    )
