"""The report of an alignment: what the latent action tells of a robot's actions, and whether there is enough data."""

from __future__ import annotations

from dreamdojo.evaluation.report import Card, Cards, Curves, Report, Row, Section, Table, Verdict
from dreamdojo.latent_action.align import AlignmentFit
from dreamdojo.latent_action.curve import CARRIED, AlignmentCurve
from dreamdojo.metrics import Interval


def alignment_rows(fit: AlignmentFit) -> list[tuple[str, Interval]]:
    """Held-out R2 of each number of an action chunk, and of the latent action from it."""
    names = fit.alignment.config.action_names
    back = ("latent action from action, mean", fit.to_latent_action.mean)
    return [*zip(names, fit.to_action.columns, strict=True), ("action, mean", fit.to_action.mean), back]


def alignment_report(fit: AlignmentFit, curve: AlignmentCurve, *, facts: tuple[str, ...]) -> Report:
    """One page: the answer, the curve, and R2 by column."""
    enough, config = curve.sufficiency(), fit.alignment.config
    last, of_points = curve.points[-1], [(point.r2.mean, *point.r2.columns) for point in curve.points]
    tone = "good" if enough.enough else "open" if enough.carried else "bad"
    columns = list(zip(config.action_names, fit.to_action.columns, strict=True))
    told = [name for name, r2 in columns if r2.low > CARRIED]
    lost = [name for name, r2 in columns if r2.mean < CARRIED]
    unsure = [name for name, _ in columns if name not in (*told, *lost)]
    words = f"The latent action tells {', '.join(told)}" if told else "The latent action tells no column of the action"
    answer = Section(
        title="Do I have enough?",
        lead="R² of the robot's actions, read off the latent actions of its own video, on episodes that were not "
        "learned from, against seconds of robot data.",
        blocks=(
            Verdict(tone=tone, text=enough.text),
            Cards(
                cards=(
                    Card(label="R², mean over columns", value=f"{fit.to_action.mean.mean:.2f}", note=str(last.r2.mean)),
                    Card(label="robot data", value=f"{last.seconds:.0f} s", note=f"{fit.train_episodes} episodes"),
                    Card(
                        label="twice as much brings",
                        value="unknown" if enough.gain is None else f"{enough.gain:+.3f}",
                        note="the slope of the last three amounts",
                    ),
                )
            ),
            Curves(
                x=tuple(point.seconds for point in curve.points),
                lines={"R²": tuple(point.r2.mean for point in curve.points)},
                x_label="seconds of robot data",
                y_label="R² on held-out episodes, mean over columns",
            ),
            Table(
                columns=("column", *(f"{point.seconds:.0f} s" for point in curve.points)),
                rows=tuple(
                    Row(label=name, cells=tuple(r2[number] for r2 in of_points))
                    for number, name in enumerate(("mean", *curve.names))
                ),
                caption=f"R² by seconds of robot data, always on the same {fit.held_out_episodes} held-out episodes.",
            ),
        ),
    )
    detail = Section(
        title="What is told",
        lead="Targets (joint positions, the gripper's opening) are told from where the body is: R² is that of the "
        "change asked for. 0 is no better than the mean action.",
        blocks=(
            Verdict(
                tone="good" if told else "bad",
                text=f"{words}; not told: {', '.join(lost) or 'none'}; "
                f"too few episodes to say: {', '.join(unsure) or 'none'}.",
            ),
            Table(
                columns=("column", "R² on held-out episodes"),
                rows=tuple(Row(label=name, cells=(r2,)) for name, r2 in alignment_rows(fit)),
            ),
        ),
    )
    return Report(
        title="Latent actions and this robot",
        subtitle=f"{config.embodiment.name}, {config.kind}, actions per chunk: {config.chunk}",
        facts=facts,
        sections=(answer, detail),
    )
