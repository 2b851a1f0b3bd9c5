"""The page of `benchmarks/physics.py`: what is asked, what each arm answers, and the pictures to see it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dreamdojo.evaluation.report import (
    Block,
    Card,
    Cards,
    Clip,
    CurveGrid,
    Curves,
    DataSheet,
    Panel,
    Report,
    Row,
    Section,
    Strip,
    Table,
    Text,
    VideoGrid,
)
from dreamdojo.evaluation.rollouts import COPY, TRUTH
from dreamdojo.metrics import Interval

interval = Interval.from_json
QUIET = (COPY, TRUTH)
LABELS = {
    "pose_error": "Pose error of objects (px)",
    "position_error": "Position error of objects (px)",
    "heading_error": "Orientation error of objects (degrees)",
    "found": "Objects found",
    "effector_error": "Gripper position error (px)",
    "psnr": "PSNR (dB)",
    "moving_psnr": "PSNR of moving pixels (dB)",
    "answer_margin": "Nearer to its own answer by (dB)",
    "answer_right": "Share nearer to its own answer",
    "there": "Share that is there again",
    "there_found": "Share that is found",
    "there_error": "Position error (px)",
    "change": "Change since the start (grey levels)",
    "energy": "Change between frames (squared grey levels)",
}
FAR = "8"
"""The horizon that tables show, where a branch has it; else its last."""

Summary = Mapping[str, Any]
"""Set -> branch -> metric -> arm (or `lower by`) -> horizon -> interval, as plain numbers."""


def physics_report(
    summary: Summary,
    goals: Mapping[str, Mapping[str, Any]],
    *,
    probes: Mapping[str, Any],
    strips: Mapping[str, Mapping[str, Tensor]],
    given: Mapping[str, Sequence[Tensor]],
    facts: tuple[str, ...],
    conditions: Mapping[str, Any],
    rate: float,
) -> Report:
    """Everything that was measured so far; arms that have not run are missing from it."""
    sections = [goals_section(goals, probes)]
    if strips:
        sections.append(look_section(strips, given, rate))
    sections += [
        pose_section(summary),
        answer_section(summary),
        permanence_section(summary),
        stillness_section(summary),
        drift_section(summary),
        Section(
            title="What it is made from",
            lead="Data, seeds and steps. Seeds of a trial are averaged before intervals over trials are taken.",
            blocks=(DataSheet(items={name: str(value) for name, value in conditions.items()}),),
        ),
    ]
    return Report(
        title="Physics, measured",
        subtitle="Objects' poses in predicted frames, against the simulator's truth",
        facts=facts,
        sections=tuple(section for section in sections if section.blocks),
    )


def goals_section(goals: Mapping[str, Mapping[str, Any]], probes: Mapping[str, Any]) -> Section:
    """The goals, and how far the probes may be trusted."""
    cards = []
    for name, goal in goals.items():
        value = goal["value"]
        reached = value is not None and value >= goal["bound"]
        share = isinstance(goal["bound"], float)
        cards.append(
            Card(
                label=name,
                value="not measured" if value is None else f"{value:.0%}" if share else f"{value}",
                note=f"goal: {goal['bound']:.0%} or more. {goal.get('reason', '')}"
                if share
                else f"goal: {goal['bound']}",
                tone="open" if value is None else "good" if reached else "bad",
            )
        )
    rows = [
        Row(label=f"{name} position (px)", cells=(error["mean"], error["median"], error["gate"], _used(error)))
        for name, error in probes.items()
        if name != "heading" and error is not None
    ]
    rows += [
        Row(label=f"orientation (degrees), {kind}", cells=(error["mean"], error["median"], error["gate"], _used(error)))
        for kind, error in probes["heading"].items()
    ]
    table = Table(
        columns=("Probe", "own error, mean", "median", "gate", ""),
        rows=tuple(rows),
        decimals=1,
        caption="Position probes: on moved objects in rendered frames of held-out episodes. Orientation: in rendered "
        "scenes that it did not learn from, all headings alike; objects that look the same however they turn are not "
        f"asked for. In every table below the row “{TRUTH}” is what the same probes get wrong on the true frames.",
    )
    return Section(
        title="In short",
        lead="Pose error counts how far the points of an object are off, in pixels; an object that is not found counts "
        "as the largest error. Touched: by the body, since the last given frame.",
        blocks=(Cards(cards=tuple(cards)), table),
    )


def look_section(
    strips: Mapping[str, Mapping[str, Tensor]], given: Mapping[str, Sequence[Tensor]], rate: float
) -> Section:
    """The first trials of each set, arms side by side."""
    films, clips = [], []
    for where in next(iter(strips.values())):
        name, branch = where.split("/")
        shown = {arm: kept[where] for arm, kept in strips.items() if where in kept and arm != COPY}
        for number, start in enumerate(given[name]):
            panels = tuple(Panel(label=arm, frames=torch.cat([start, frames[number]])) for arm, frames in shown.items())
            if panels:
                title = f"{name}, {branch}, trial {number + 1}"
                films.append(Clip(title=title, panels=panels, context=len(start)))
                clips += films[-1:] if number == 0 else []
    blocks: list[Block] = []
    for clip in clips:
        last = len(clip.panels[0].frames) - clip.context
        moments = [h for h in (1, 2, 4, 8, 16, 24, 40, 64) if h <= last]
        blocks.append(
            Strip(
                clip=clip,
                frames=(clip.context - 1, *(clip.context - 1 + h for h in moments)),
                columns=("given", *(f"+{h}" for h in moments)),
                caption=clip.title,
            )
        )
    return Section(
        title="See for yourself",
        lead="The first trials of each set, chosen before anything was scored; every arm's first seed. “other”: "
        "another robot takes over in the state in which the given frames end; “still”: the robot is to stay as it is.",
        blocks=(VideoGrid(clips=tuple(films), fps=rate), *blocks),
    )


def pose_section(summary: Summary) -> Section:
    """Poses in every kind of scene, touched objects apart."""
    kinds = [name for name in summary if "pose_error, all" in summary[name].get("own", {})]
    blocks: list[Block] = []
    for metric in ("pose_error", "position_error", "heading_error", "found"):
        for which in ("contact", "no contact"):
            key = f"{metric}, {which}"
            there = [name for name in kinds if key in summary[name]["own"]]
            if there:
                blocks.append(_kinds_table(summary, there, key, f"{LABELS[metric]}, {_touched(which)}"))
        differences = [name for name in kinds if summary[name]["own"].get(f"{metric}, contact", {}).get("lower by")]
        if differences:
            blocks.append(_lower_table(summary, differences, f"{metric}, contact", LABELS[metric]))
    figures = [
        _curves(summary[name]["own"]["pose_error, contact"], f"Pose error, touched (px): {name}") for name in kinds
    ]
    return Section(
        title="Where objects are and how they are turned",
        lead=f"Errors {FAR} frames after the last given one. Objects that the body has touched since then apart from "
        "those it has not: there, copying is hard to beat.",
        blocks=(CurveGrid(figures=tuple(figures)), *blocks) if figures else tuple(blocks),
    )


def answer_section(summary: Summary) -> Section:
    """Counterfactual actions."""
    kinds = [name for name in summary if "other" in summary[name]]
    keys = ("answer_right", "answer_margin", "pose_error, contact", "effector_error", "moving_psnr")
    blocks = [
        _kinds_table(summary, there, key, _label(key), branch="other")
        for key in keys
        if (there := [name for name in kinds if key in summary[name]["other"]])
    ]
    return Section(
        title="Had it acted otherwise",
        lead="The same start, another robot's actions, against the simulator's own answer to them. An answer is right "
        "if it is nearer to that than to what the first robot's actions led to, where the two differ.",
        blocks=tuple(blocks),
    )


def permanence_section(summary: Summary) -> Section:
    """Objects that were hidden."""
    kinds = [name for name in summary if "there" in summary[name].get("own", {})]
    blocks: list[Block] = [
        _kinds_table(summary, kinds, key, LABELS[key]) for key in ("there", "there_found", "there_error") if kinds
    ]
    if blocks:
        words = (
            "Copying the last frame is right here without knowing anything: nothing was moved, and it hides nothing."
        )
        blocks.append(Text(text=words))
    return Section(
        title="Hidden and seen again",
        lead="The arm covers an object without touching it and moves away. In the first frame in which the object "
        "is to be seen again: is it there (within 4 px), is it found at all, how far is it off?",
        blocks=tuple(blocks),
    )


def stillness_section(summary: Summary) -> Section:
    """Zero action."""
    kinds = [name for name in summary if "still" in summary[name]]
    figures = [
        _curves(summary[name]["still"][key], _label(key))
        for name in kinds
        for key in ("change", "energy", "effector_error", "position_error, all")
        if key in summary[name]["still"]
    ]
    return Section(
        title="Stillness",
        lead="The robot is told to stay as it is. Whatever changes beyond the true frames' own settling is made up. "
        "Change since the start is a mean absolute difference; that between frames, the energy, a mean squared one.",
        blocks=(CurveGrid(figures=tuple(figures)),) if figures else (),
    )


def drift_section(summary: Summary) -> Section:
    """Errors against time, where trials are longest."""
    lengths = {
        name: max(map(int, _horizons(summary[name]["own"]["psnr"]))) for name in summary if "own" in summary[name]
    }
    if not lengths:
        return Section(title="Long rollouts", lead="", blocks=())
    longest = max(lengths, key=lambda name: lengths[name])
    rows = summary[longest]["own"]
    keys = ("pose_error, all", "pose_error, contact", "effector_error", "moving_psnr", "psnr", "found, all")
    figures = [_curves(rows[key], _label(key)) for key in keys if key in rows]
    return Section(
        title="Long rollouts",
        lead=f"Errors against time to {lengths[longest]} frames, every frame predicted from the predictions before it "
        f"({longest}).",
        blocks=(CurveGrid(figures=tuple(figures)),),
    )


def _kinds_table(summary: Summary, kinds: Sequence[str], key: str, heading: str, *, branch: str = "own") -> Table:
    """One row per arm, one column per kind of scene."""
    arms = [arm for arm in summary[kinds[0]][branch][key] if arm != "lower by"]
    rows = []
    for arm in arms:
        cells = []
        for name in kinds:
            by_horizon = summary[name][branch][key][arm]
            cells.append(interval(by_horizon[FAR if FAR in by_horizon else list(by_horizon)[-1]]))
        rows.append(Row(label=arm, cells=tuple(cells), quiet=arm in QUIET))
    return Table(columns=(heading, *kinds), rows=tuple(rows))


def _lower_table(summary: Summary, kinds: Sequence[str], key: str, heading: str) -> Table:
    """By how many per cent ours is lower than each other arm's."""
    against = list(dict.fromkeys(arm for name in kinds for arm in summary[name]["own"][key]["lower by"]))
    rows = []
    for arm in against:
        found = [summary[name]["own"][key]["lower by"].get(arm) for name in kinds]
        rows.append(Row(label=arm, cells=tuple(None if x is None else interval(x).scaled(100) for x in found)))
    return Table(
        columns=(f"{heading}, touched: ours is lower by (%), than", *kinds),
        rows=tuple(rows),
        decimals=0,
        differences=True,
        caption="Mean over the frames up to 24; 95 % intervals by drawing trials anew, paired by trial and seed.",
    )


def _curves(rows: Mapping[str, Any], heading: str) -> Curves:
    arms = {arm: by_horizon for arm, by_horizon in rows.items() if arm != "lower by"}
    horizons = _horizons(rows)
    return Curves(
        x=tuple(float(h) for h in horizons),
        lines={arm: tuple(interval(by_horizon[h]) for h in horizons) for arm, by_horizon in arms.items()},
        quiet=tuple(arm for arm in arms if arm in QUIET),
        x_label="frames after the last given one",
        y_label=heading,
    )


def _horizons(rows: Mapping[str, Any]) -> list[str]:
    return list(next(by_horizon for arm, by_horizon in rows.items() if arm != "lower by"))


def _label(key: str) -> str:
    metric, _, which = key.partition(", ")
    return LABELS[metric] + (f", {_touched(which)}" if which else "")


def _touched(which: str) -> str:
    return {"contact": "touched", "no contact": "not touched", "all": "all objects"}[which]


def _used(error: Mapping[str, Any]) -> str:
    return "used" if error["valid"] else "not used"
