"""What policy evaluation found, as a report: success, agreement with the truth, videos of successes and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dreamdojo.apps.policy_eval.compare import Comparison, Score
from dreamdojo.evaluation.report import (
    Block,
    Card,
    Cards,
    Cell,
    Clip,
    CurveGrid,
    Curves,
    DataSheet,
    Panel,
    Report,
    Row,
    Section,
    Table,
    Text,
    Verdict,
    VideoGrid,
    number,
)
from dreamdojo.evaluation.reward import JudgeError
from dreamdojo.metrics import Interval
from dreamdojo.metrics.agreement import Agreement


def policy_report(
    comparison: Comparison,
    *,
    title: str,
    subtitle: str,
    facts: tuple[str, ...],
    data_sheet: dict[str, str],
    rate: float,
    judge_errors: Mapping[str, JudgeError] = {},
    groups: Mapping[str, tuple[str, ...]] = {},
) -> Report:
    """The report of a comparison.

    Args:
        comparison: What was found.
        title: Of the page.
        subtitle: Below it.
        facts: Short remarks.
        data_sheet: What the numbers were made from.
        rate: Frames per second.
        judge_errors: How often judges are wrong, by the frames it was measured on.
        groups: Further sets of policies to state the agreement of, e.g. the learned ones only.
    """
    sections = [_success(comparison)]
    if comparison.agreement(comparison.judges[0]) is not None:
        sections.append(_agreement(comparison, groups))
    sections += [_videos(comparison, rate), _judges(comparison, judge_errors)]
    sections.append(
        Section(title="Data sheet", lead="What the numbers were made from.", blocks=(DataSheet(items=data_sheet),))
    )
    return Report(title=title, subtitle=subtitle, facts=facts, sections=tuple(sections))


def _success(comparison: Comparison) -> Section:
    first, known = comparison.judges[0], comparison.floor is not None or comparison.scores[0].truth is not None
    columns = (*(["in truth"] if known else []), *(f"in the model, by {judge}" for judge in comparison.judges))
    rows = []
    for score in comparison.scores:
        cells: list[Cell] = [_percent(score.true_rate)] if known else []
        rows.append(Row(label=score.name, cells=(*cells, *(_percent(score.rate(j)) for j in comparison.judges))))
    starts = len(next(iter(comparison.scores[0].model.values())))
    blocks: list[Block] = [
        Table(
            columns=("policy", *columns),
            rows=tuple(rows),
            decimals=0,
            unit="%",
            caption=f"Share of {starts} episodes that succeed, with Wilson's 95 % interval.",
        )
    ]
    if known:
        gaps = [
            Row(label=score.name, cells=tuple(_percent(score.optimism(judge)) for judge in comparison.judges))
            for score in comparison.scores
        ]
        blocks.append(
            Table(
                columns=("policy", *(f"by {judge}" for judge in comparison.judges)),
                rows=tuple(gaps),
                decimals=0,
                differences=True,
                better="none",
                caption="Success in the model minus true success, in points, paired by start. Above zero the model is "
                "too hopeful.",
            )
        )
    blocks.append(_seconds(comparison))
    lead = f"Each policy acts from the same real first frames; {first} decides, other judges stand beside it."
    return Section(title="Success", lead=lead, blocks=tuple(blocks))


def _seconds(comparison: Comparison) -> Table:
    return Table(
        columns=("policy", "world model", "truth", "policy itself"),
        rows=tuple(
            Row(label=s.name, cells=(s.model_seconds, s.truth_seconds or None, s.policy_seconds))
            for s in comparison.scores
        ),
        decimals=2,
        unit="s",
        caption="Seconds per episode.",
    )


def _agreement(comparison: Comparison, groups: Mapping[str, tuple[str, ...]]) -> Section:
    found = {
        f"{judge}{name and f', {name}'}": result
        for judge in comparison.judges
        for name, among in {"": None, **groups}.items()
        if (result := comparison.agreement(judge, among)) is not None
    }
    first = found[comparison.judges[0]]
    tells = math.isfinite(first.pearson.low) and first.pearson.low > 0
    floor = comparison.floor
    blocks: list[Block] = [
        Verdict(tone="good" if tells else "open", text=_words(first)),
        Cards(
            cards=(
                Card(
                    label="Pearson",
                    value=number(first.pearson.mean, decimals=3),
                    note=f"{_range(first.pearson)}; without one policy {_span(first.leave_one_out)}",
                ),
                Card(
                    label="Permutation p",
                    value=_p(first),
                    note="exact" if first.permutation.exact else "from random permutations",
                ),
                Card(
                    label="MMRV",
                    value=number(first.mmrv_truth, decimals=3),
                    note="weighed by true gaps" + (f"; the floor is {floor.mmrv_truth:.3f}" if floor else ""),
                ),
                Card(
                    label="Optimism",
                    value=f"{number(100 * first.calibration.optimism.mean, decimals=0, signed=True)} points",
                    note="mean over policies",
                ),
            )
        ),
        CurveGrid(figures=tuple(_calibration_curve(comparison, judge) for judge in comparison.judges)),
        Table(
            columns=(
                "judge",
                "Pearson",
                "Spearman",
                "MMRV, true",
                "MMRV, model",
                "p",
                "one left out",
            ),
            rows=tuple(_agreement_row(name, result) for name, result in found.items()),
            decimals=3,
            caption="Brackets of Pearson are Fisher's. MMRV is the mean over policies of the worst pair in wrong order "
            "(0 is best), weighed by the gap in true success, as its paper defines it, or by the gap in the model. p "
            "is one-sided: how many of all ways to shuffle the policies correlate as well."
            + (
                f" Truth against truth from starts drawn again: Pearson {number(floor.pearson, decimals=3)}, MMRV "
                f"{floor.mmrv_truth:.3f} and {floor.mmrv_model:.3f}; no model can do better with so many starts."
                if floor
                else ""
            ),
        ),
        Table(
            columns=("judge", "slope", "intercept", "mean error", "mean error after the line"),
            rows=tuple(
                Row(label=name, cells=(c.slope, c.intercept, c.error, c.corrected_error))
                for name, result in found.items()
                if (c := result.calibration)
            ),
            decimals=2,
            caption="Calibration: truth = slope × model + intercept, over policies. The last column fits the line "
            "without the policy it corrects.",
        ),
    ]
    lead = "Does success in the model tell which policy is better in truth?"
    return Section(title="Agreement with the truth", lead=lead, blocks=tuple(blocks))


def _agreement_row(name: str, found: Agreement) -> Row:
    return Row(
        label=name,
        cells=(
            found.pearson,
            found.spearman,
            found.mmrv_truth,
            found.mmrv_model,
            _p(found),
            _span(found.leave_one_out),
        ),
    )


def _words(found: Agreement) -> str:
    r = found.pearson
    if math.isfinite(r.low) and r.low > 0:
        return (
            f"Success in the model tells the better policy: Pearson {r.mean:.2f} over {found.policies} policies, "
            f"interval above zero."
        )
    return f"Not settled: Pearson {number(r.mean, decimals=2)} over {found.policies} policies, interval {_range(r)}."


def _calibration_curve(comparison: Comparison, judge: str) -> Curves:
    """True success over success in the model, policy by policy, beside the diagonal."""
    order = sorted(comparison.scores, key=lambda score: score.rate(judge).mean)
    rates, truths = [s.rate(judge) for s in order], [s.true_rate for s in order if s.true_rate is not None]
    x = tuple(100 * rate.mean for rate in rates)
    same = tuple(Interval(mean=v, low=v, high=v, count=r.count) for v, r in zip(x, rates, strict=True))
    return Curves(
        x=x,
        lines={"truth": tuple(_percent(t) for t in truths), "perfect": same},
        x_label=f"success in the model by {judge}, %",
        y_label="True success, %",
        caption="One point per policy, in the order of the model. A line that rises is what selection needs; the "
        "distance to the dashed one is optimism.",
        quiet=("perfect",),
    )


def _videos(comparison: Comparison, rate: float) -> Section:
    judge = comparison.judges[0]
    clips = [
        clip
        for score in comparison.scores
        for wanted in (True, False)
        if (clip := _clip(score, judge, wanted)) is not None
    ]
    block: Block = VideoGrid(clips=tuple(clips), fps=rate) if clips else Text(text="None were kept.")
    lead = (
        "For every policy the first success and the first failure in the model, beside the truth from the same start."
    )
    return Section(title="Successes and failures", lead=lead, blocks=(block,))


def _clip(score: Score, judge: str, wanted: bool) -> Clip | None:
    said = score.model[judge][: len(score.predicted_frames)]
    rows = (said == wanted).nonzero()[:, 0]
    if not len(rows):
        return None
    row = int(rows[0])
    panels = [Panel(label="model", frames=score.predicted_frames[row])]
    title = f"{score.name}: {'success' if wanted else 'failure'} in the model"
    if score.true_frames is not None and score.truth is not None:
        panels.append(Panel(label="truth", frames=score.true_frames[row]))
        title += ", success in truth" if bool(score.truth[row]) else ", failure in truth"
    return Clip(title=title, panels=tuple(panels), context=1)


def _judges(comparison: Comparison, errors: Mapping[str, JudgeError]) -> Section:
    found = dict(errors)
    for judge in comparison.judges:
        if (error := comparison.judge_error(judge)) is not None:
            found[f"{judge}, true frames of these policies"] = error
    rows = tuple(
        Row(label=name, cells=tuple(_percent(each) for each in (e.accuracy, e.false_success, e.missed)))
        for name, e in found.items()
    )
    if not rows:
        block: Block = Text(text="The judges' own error is not known: no episode with a known outcome was given.")
    else:
        block = Table(
            columns=("judge and frames", "right", "failures called success", "successes missed"),
            rows=rows,
            decimals=0,
            unit="%",
            caption="On predicted frames, recorded actions of held-out episodes are carried out in the model and the "
            "judge's word is compared with how the recording ended: the model's error and the judge's together.",
        )
    return Section(
        title="How far the judges can be trusted", lead="Success is only as good as who decides it.", blocks=(block,)
    )


def _percent(interval: Interval | None) -> Interval:
    if interval is None:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=0)
    return interval.scaled(100)


def _p(found: Agreement) -> str:
    test = found.permutation
    return f"{test.p:.2g}{'' if test.exact else ' (drawn)'}" if math.isfinite(test.p) else number(test.p, decimals=0)


def _range(interval: Interval) -> str:
    return f"[{number(interval.low, decimals=2)}, {number(interval.high, decimals=2)}]"


def _span(ends: tuple[float, float]) -> str:
    return f"{number(ends[0], decimals=2)} to {number(ends[1], decimals=2)}"
