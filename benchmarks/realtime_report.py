"""The page of `benchmarks/realtime.py`: what a student costs, what it is worth, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.results_page import OPERATORS
from dreamdojo.evaluation.report import (
    Block,
    Card,
    Cards,
    CurveGrid,
    Curves,
    DataSheet,
    Report,
    Row,
    Section,
    Table,
)
from dreamdojo.evaluation.rollouts import COPY, TRUTH
from dreamdojo.metrics import Interval

interval = Interval.from_json
QUIET = (COPY, TRUTH)
LABELS = {
    "effector_error": "Gripper position error (px)",
    "sharpness": "Sharpness of moving regions",
    "moving_psnr": "PSNR of moving pixels (dB)",
    "psnr": "PSNR (dB)",
    "object_error": "Position error of moved objects (px)",
}
AHEAD = "8"
"""Frames ahead at which short clips are compared."""

Measured = Mapping[str, Any]
"""Name of a cell -> what was measured in it."""


def realtime_report(
    cells: Measured,
    goals: Mapping[str, Mapping[str, Any]],
    *,
    steps: int,
    conditions: Mapping[str, Any],
    facts: tuple[str, ...],
) -> Report:
    """Every part that has run so far; students are compared at `steps`."""
    taken = f"{steps} steps"
    sections = (
        Section(title="In short", lead="What was aimed at, and what was measured.", blocks=(goal_cards(goals),)),
        steps_section(cells),
        arms_section(cells, taken),
        budget_section(cells, taken, float(conditions["seconds of training"])),
        seeds_section(cells, taken),
        endurance_section(cells),
        Section(
            title="What it is made from",
            lead="Every student learned for the same seconds of processor time.",
            blocks=(DataSheet(items={name: str(value) for name, value in conditions.items()}),),
        ),
    )
    return Report(
        title="Real time",
        subtitle="What distillation keeps of the teacher, for how long, and how fast it is",
        facts=facts,
        sections=tuple(section for section in sections if section.blocks),
    )


def goal_cards(goals: Mapping[str, Mapping[str, Any]]) -> Cards:
    """A card for each goal."""
    cards = []
    for name, goal in goals.items():
        value, aim = goal["value"], f"goal: {goal['op']} {goal['bound']:g}"
        reached = value is not None and OPERATORS[goal["op"]](value, goal["bound"])
        cards.append(
            Card(
                label=name,
                value="not measured" if value is None else f"{value:.3g}",
                note=f"{aim}. {goal['reason']}" if value is None else aim,
                tone="open" if value is None else "good" if reached else "bad",
            )
        )
    return Cards(cards=tuple(cards))


def steps_section(cells: Measured) -> Section:
    """Quality and speed by the number of steps, teacher and students."""
    blocks: list[Block] = []
    worlds = {"teacher": cells.get("teacher", {})}
    worlds |= {key.removeprefix("arm, "): cells[key]["scores"] for key in cells if key.startswith("arm, ")}
    pace = {
        f"{model}, {backend}": {name.split(", ")[1]: fps for name, fps in found.items() if name.startswith(model)}
        for backend, found in cells.get("speed", {}).items()
        for model in ("teacher", "student")
    }
    if pace:
        steps = sorted({name for found in pace.values() for name in found}, key=lambda name: int(name.split()[0]))
        rows = [Row(label=model, cells=tuple(found.get(step) for step in steps)) for model, found in pace.items()]
        blocks.append(
            Table(
                columns=("Frames per second, one session with decoding", *steps),
                rows=tuple(rows),
                decimals=0,
                caption="The best of three runs of 60 frames.",
            )
        )
    for metric, label in LABELS.items():
        rows = []
        for world, scores in worlds.items():
            for method, found in scores.get(metric, {}).items():
                if method.endswith("steps") and not (world != "teacher" and method.startswith("teacher")):
                    name = method if world == "teacher" else f"{world}, {method}"
                    rows.append(Row(label=name, cells=(interval(found[AHEAD]["mean"]),), quiet=world == "teacher"))
        if rows:
            blocks.append(Table(columns=(label, f"{AHEAD} frames ahead"), rows=tuple(rows)))
    if (own := cells.get("nano128")) is not None:
        rows = [Row(label=backend, cells=(fps,)) for backend, fps in own["fps"].items()]
        blocks.append(Table(columns=("nano128: frames per second", f"{own['steps']} steps"), rows=tuple(rows)))
        rows = [
            Row(label=f"{LABELS[metric]}: {method}", cells=(interval(value),), quiet=method in QUIET)
            for metric, methods in own["at 8 frames"].items()
            if metric in LABELS
            for method, value in methods.items()
        ]
        blocks.append(Table(columns=("nano128: quality", "8 frames ahead"), rows=tuple(rows)))
    if (both := cells.get("backends")) is not None:
        rows = [
            Row(
                label=f"{LABELS[metric]}: {name}",
                cells=tuple(interval(found[h]["mean"]) for h in ("1", "8", "16")),
            )
            for metric in LABELS
            for name, found in both.get(metric, {}).items()
            if name not in QUIET
        ]
        columns = ("The same student, either backend", "1 frame", "8 frames", "16 frames")
        blocks.append(Table(columns=columns, rows=tuple(rows)))
    return Section(title="Steps", lead="What a step costs and what it is worth.", blocks=tuple(blocks))


def arms_section(cells: Measured, taken: str) -> Section:
    """The ways to a student, against the teacher, paired by clip."""
    arms = {key.removeprefix("arm, "): cell for key, cell in cells.items() if key.startswith("arm, ")}
    blocks = []
    for metric, label in LABELS.items():
        rows = []
        for name, cell in arms.items():
            found = cell["scores"].get(metric, {}).get(taken)
            if found is not None:
                rows.append(Row(label=name, cells=tuple(interval(found[h]["minus teacher"]) for h in ("1", "8", "16"))))
        if rows:
            blocks.append(
                Table(
                    columns=(f"{label}: {taken}, minus the teacher", "1 frame", "8 frames", "16 frames"),
                    rows=tuple(rows),
                    differences=True,
                    better="lower" if "error" in metric else "higher",
                )
            )
    return Section(
        title="Ways to a student",
        lead="The same teacher and the same seconds of training; one thing at a time.",
        blocks=tuple(blocks),
    )


def budget_section(cells: Measured, taken: str, seconds: float) -> Section:
    """Quality against training time."""
    names = list(dict.fromkeys(key.split(", ")[1] for key in cells if key.startswith("budget, ")))
    shares = sorted({float(key.rsplit(", ", 1)[1]) for key in cells if key.startswith("budget, ")})
    figures = []
    for metric in ("effector_error", "sharpness", "moving_psnr"):
        lines = {}
        for name in names:
            keys = [*(f"budget, {name}, {share:g}" for share in shares), f"arm, {name}"]
            found = [cells[key]["scores"].get(metric, {}).get(taken) for key in keys if key in cells]
            if len(found) == len(shares) + 1 and all(row is not None for row in found):
                lines[name] = tuple(interval(row[AHEAD]["mean"]) for row in found)
        if lines:
            figures.append(
                Curves(
                    x=tuple(share * seconds / 60 for share in (*shares, 1.0)),
                    lines=lines,
                    x_label="minutes of training",
                    y_label=f"{LABELS[metric]}, {AHEAD} frames ahead",
                )
            )
    return Section(
        title="When to stop",
        lead=f"{taken}, first seed: where a line is flat, more minutes buy nothing.",
        blocks=(CurveGrid(figures=tuple(figures)),) if figures else (),
    )


def seeds_section(cells: Measured, taken: str) -> Section:
    """Each seed of the default way, and its warm-up."""
    runs = {key.removeprefix("seeds, "): cell for key, cell in cells.items() if key.startswith("seeds, ")}
    blocks = []
    for metric in ("effector_error", "sharpness"):
        ways = [way for way in next(iter(runs.values()), {}) if all(way in cell for cell in runs.values())]
        rows = []
        for seed, cell in runs.items():
            found = [cell[way]["scores"].get(metric, {}).get(taken) for way in ways]
            if all(row is not None for row in found):
                rows.append(Row(label=f"seed {seed}", cells=tuple(interval(row[AHEAD]["mean"]) for row in found)))
        if rows:
            blocks.append(Table(columns=(f"{LABELS[metric]}, {AHEAD} frames ahead", *ways), rows=tuple(rows)))
    return Section(title="Seed by seed", lead="Is a good student luck?", blocks=tuple(blocks))


def endurance_section(cells: Measured) -> Section:
    """A minute of frames, each predicted from the predictions before it."""
    minutes: Measured = cells.get("consistency", {})
    if not minutes:
        return Section(title="A minute", lead="", blocks=())
    first = next(iter(minutes.values()))
    worlds = {"teacher": first["teacher"], **{name: found["student"] for name, found in minutes.items()}}

    def lines(metric: str) -> dict[str, Measured]:
        others = {name: rows for name, rows in first["scores"][metric].items() if name != "student"}
        return others | {name: found["scores"][metric]["student"] for name, found in minutes.items()}

    figures = [
        Curves(
            x=tuple(float(h) for h in first["scores"][metric]["teacher"]),
            lines={name: tuple(interval(one) for one in rows.values()) for name, rows in lines(metric).items()},
            quiet=tuple(name for name in lines(metric) if name in QUIET),
            x_label="frames after the last given one",
            y_label=LABELS[metric],
        )
        for metric in first["scores"]
        if metric in LABELS
    ]
    rows = [
        Row(label=f"{kind}, {when}", cells=tuple(interval(own[kind][when]) for own in worlds.values()))
        for kind in ("colour", "energy")
        for when in ("early", "late")
    ]
    rows += [
        Row(
            label=f"at rest: {name}",
            cells=tuple(interval(own["stillness"][name]) for own in worlds.values()),
        )
        for name in first["teacher"]["stillness"]
    ]
    blocks = (CurveGrid(figures=tuple(figures)), Table(columns=("Drift", *worlds), rows=tuple(rows), decimals=3))
    return Section(title="A minute", lead="Every frame is predicted from the predictions before it.", blocks=blocks)
