"""Report sections from scores: which table stands beside which, and what may be said in words.

The words follow one rule. A difference is claimed if its paired interval excludes zero; otherwise the text says that
none was shown, whatever the mean looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.linear_probe import LinearProbe
from dreamdojo.evaluation.report import (
    Block,
    Clip,
    CurveGrid,
    Curves,
    Row,
    Section,
    Strip,
    Table,
    Text,
    Tone,
    Verdict,
    VideoGrid,
    number,
)
from dreamdojo.evaluation.rollouts import COPY, HORIZONS, METRIC_BY_KEY, TRUTH, Metric, RolloutScores
from dreamdojo.metrics import Interval

COMPARED = (
    "psnr",
    "ssim",
    "lpips",
    "moving_psnr",
    "effector_error",
    "object_error",
    "depth_error",
    "moving_depth_error",
)
"""Metrics in the tables of differences, where they could be measured."""

PICTURE = ("psnr", "moving_psnr", "ssim", "lpips", "sharpness")
"""Metrics of picture quality, where they could be measured."""


def picture_section(scores: RolloutScores, *, horizons: Sequence[int] = HORIZONS) -> Section:
    """How every picture metric that was measured stands for every method, beside the copied last frame."""
    keys = [key for key in PICTURE if key in scores.true_actions]
    blocks: list[Block] = [_beats_copy(scores, method, "moving_psnr", horizons) for method in scores.methods]
    if len(scores.horizons) > 4:
        curves = [_curves(scores, METRIC_BY_KEY[key]) for key in keys]
        blocks.append(CurveGrid(figures=tuple(curves)))
    blocks += [_means(scores, METRIC_BY_KEY[key], horizons) for key in keys]
    return Section(
        title="Picture quality",
        lead=f"{scores.clips} held-out clips, every frame predicted from the predictions before it. Copying the last "
        "given frame is the baseline: on still pixels it is perfect, so moving pixels decide.",
        blocks=tuple(blocks),
    )


def frechet_section(distances: Mapping[str, float], *, clips: int, frames: int) -> Section:
    """How far the clips of every method lie from the true ones, as a whole."""
    table = Table(
        columns=("Fréchet video distance", "to the true clips"),
        rows=tuple(Row(label=name, cells=(value,), quiet=name == COPY) for name, value in distances.items()),
        caption=f"Features of {clips} clips of {frames} predicted frames. It is of the set, so it has no interval by "
        "clip; it is biased upwards, the more the fewer clips there are, and compares only between equal sets.",
    )
    return Section(
        title="As a set of videos",
        lead="Fréchet distance between the features of predicted and of true clips, by the network that was given.",
        blocks=(table,),
    )


def against_copy_section(scores: RolloutScores, *, horizons: Sequence[int] = HORIZONS) -> Section:
    """Every method minus the copied last frame, paired by clip."""
    tables = tuple(
        Table(
            columns=(_heading(metric), *_columns(horizons)),
            rows=tuple(
                Row(label=method, cells=tuple(scores.against(metric.key, method, h) for h in horizons))
                for method in scores.methods
            ),
            decimals=metric.decimals,
            differences=True,
            better=metric.better,
        )
        for metric in scores.metrics
        if metric.key in COMPARED
    )
    return Section(
        title="Against copying the last frame",
        lead="Method minus copy, paired by clip. Green is better than copying, red is worse, grey is not shown.",
        blocks=tables,
    )


def controllability_section(scores: RolloutScores, *, horizons: Sequence[int] = HORIZONS) -> Section:
    """True actions minus another episode's from the same start, paired by clip."""
    methods = tuple(scores.other_actions["psnr"])
    if not methods:
        raise ConfigError("controllability needs predictions under other actions: give score_rollouts other_actions")
    verdicts = [_controllable(scores, method, horizons) for method in methods]
    tables = [
        Table(
            columns=(_heading(metric), *_columns(horizons)),
            rows=tuple(
                Row(label=method, cells=tuple(scores.controllability(metric.key, method, h) for h in horizons))
                for method in methods
            ),
            decimals=metric.decimals,
            differences=True,
            better=metric.better,
        )
        for metric in scores.metrics
        if metric.key in COMPARED
    ]
    return Section(
        title="Does it obey?",
        lead="The same start, once under the true actions and once under those of another episode; both compared with "
        "what truly happened. A model that ignores its actions scores 0, however sharp it is.",
        blocks=(*verdicts, *tables),
    )


def position_section(scores: RolloutScores, *, horizons: Sequence[int] = HORIZONS) -> Section:
    """Where the gripper and the moved objects are in predictions, with the probes' own errors beside them."""
    return Section(
        title="Where things are",
        lead="A probe finds the gripper or hand, and the objects that have moved, in every predicted frame. A method "
        "can do no better than the probe does on the truth.",
        blocks=(*_positions(scores, "effector", horizons), *_positions(scores, "object", horizons)),
    )


def depth_section(
    scores: RolloutScores, tokenizer_error: float | None, *, horizons: Sequence[int] = HORIZONS
) -> Section:
    """How far predicted depth is from the truth, beside the copied last frame."""
    keys = ("depth_error", "moving_depth_error")
    blocks: list[Block] = [
        _beats_copy(scores, method, "moving_depth_error", horizons, lower=True) for method in scores.methods
    ]
    if len(scores.horizons) > 4:
        blocks.append(CurveGrid(figures=tuple(_curves(scores, METRIC_BY_KEY[key]) for key in keys)))
    blocks += [_means(scores, METRIC_BY_KEY[key], horizons) for key in keys]
    if tokenizer_error is not None:
        blocks.append(
            Text(
                text=f"The tokenizer alone, on true frames: {tokenizer_error:.2f} cm. Every prediction goes through it."
            )
        )
    return Section(
        title="How far things are",
        lead="Mean absolute error of predicted depth in centimetres, over all measured pixels, and over those that "
        "moved in the picture, where copying the last frame is no help.",
        blocks=tuple(blocks),
    )


def latent_action_section(probe: LinearProbe) -> Section:
    """How much of the true motion a straight line reads off the latent action."""
    read = [d for d in probe.dimensions if d.above_chance]
    names = ", ".join(d.name for d in read)
    verdict = Verdict(
        tone="good" if read else "bad",
        text=f"The latent action tells {names}: above chance on episodes it has never seen."
        if read
        else "No dimension of the true motion can be read off the latent action better than by chance.",
    )
    table = Table(
        columns=("True motion", "R² on held-out episodes", "shuffled: mean", "shuffled: 95 %", "ridge"),
        rows=tuple(
            Row(label=d.name, cells=(d.r2, d.null_mean, d.null_high, "" if d.strength is None else f"{d.strength:g}"))
            for d in probe.dimensions
        ),
        caption=f"Ridge regression on {probe.train_episodes} episodes, judged on {probe.held_out_episodes} others. "
        f"Shuffled: the same procedure after exchanging targets between episodes, {probe.permutations} times.",
    )
    return Section(
        title="What latent actions know",
        lead="True motion of the hand or gripper, predicted from the latent action alone by a linear map.",
        blocks=(verdict, table),
    )


def clips_section(clips: Sequence[Clip], *, fps: float, horizons: Sequence[int] = HORIZONS) -> Section:
    """Videos side by side, and the first clip as a strip for paper."""
    first = clips[0]
    length = min(len(panel.frames) for panel in first.panels)
    moments = [h for h in horizons if first.context - 1 + h < length]
    strip = Strip(
        clip=first,
        frames=(first.context - 1, *(first.context - 1 + h for h in moments)),
        columns=("given", *(f"+{h}" for h in moments)),
        caption=f"{first.title}, as a strip: the last given frame and frames after it.",
    )
    return Section(
        title="See for yourself",
        lead="Clips are chosen before anything is scored, not for their looks. The mark on the time bar is where the "
        "given frames end and the dream begins. Click to pause.",
        blocks=(VideoGrid(clips=tuple(clips), fps=fps), strip),
    )


def _positions(scores: RolloutScores, probe: str, horizons: Sequence[int]) -> tuple[Block, ...]:
    metric, found = METRIC_BY_KEY[f"{probe}_error"], METRIC_BY_KEY[f"{probe}_found"]
    if probe not in scores.probes:
        return (Text(text=f"{metric.name}: not measured, for want of a probe or of true positions."),)
    error = scores.probes[probe]
    if not error.valid:
        return (Verdict(tone="open", text=f"{metric.name}: {error}."),)
    caption = (
        f"On held-out rendered frames {error} (median {error.median:.1f} px, {error.count} cases). The row “{TRUTH}” "
        "is the same probe on the true frames of these clips. Not found counts as the farthest corner of the frame."
    )
    limits = (
        f"The probe finds {error.found:.0%} of what is there, and claims to find {error.false_alarms:.0%} of what was "
        "taken out of the picture: a vanished thing is not always noticed."
    )
    return _means(scores, metric, horizons, caption=caption), _means(scores, found, horizons, caption=limits)


def _means(scores: RolloutScores, metric: Metric, horizons: Sequence[int], *, caption: str = "") -> Table:
    methods = scores.true_actions[metric.key]
    return Table(
        columns=(_heading(metric), *_columns(horizons)),
        rows=tuple(
            Row(
                label=method,
                cells=tuple(scores.mean(metric.key, method, h) for h in horizons),
                quiet=method in (COPY, TRUTH),
            )
            for method in methods
        ),
        decimals=metric.decimals,
        caption=caption,
    )


def _curves(scores: RolloutScores, metric: Metric) -> Curves:
    lines = {
        method: tuple(scores.mean(metric.key, method, h) for h in scores.horizons)
        for method in scores.true_actions[metric.key]
    }
    return Curves(
        x=tuple(float(h) for h in scores.horizons),
        lines=lines,
        quiet=(COPY,),
        x_label="frames after the last given one",
        y_label=_heading(metric),
    )


def _beats_copy(
    scores: RolloutScores, method: str, key: str, horizons: Sequence[int], *, lower: bool = False
) -> Verdict:
    """With `lower`, a smaller number is the better one."""
    return _verdict(
        {h: scores.against(key, method, h) for h in horizons},
        lower=lower,
        subject=method[:1].upper() + method[1:],
        unit=METRIC_BY_KEY[key].unit,
        good="beats copying the last frame on moving pixels",
        bad="is worse than copying the last frame on moving pixels",
        unshown="differs from copying the last frame on moving pixels",
    )


def _controllable(scores: RolloutScores, method: str, horizons: Sequence[int]) -> Verdict:
    return _verdict(
        {h: scores.controllability("moving_psnr", method, h) for h in horizons},
        subject=method[:1].upper() + method[1:],
        unit="dB",
        good="follows its actions: the true ones predict moving pixels better than another episode's",
        bad="follows its actions the wrong way: another episode's predict moving pixels better",
        unshown="follows its actions",
    )


def _verdict(
    differences: dict[int, Interval],
    *,
    subject: str,
    unit: str,
    good: str,
    bad: str,
    unshown: str,
    lower: bool = False,
) -> Verdict:
    """One sentence per outcome; the tone is the worst of them."""
    above = {h: d for h, d in differences.items() if d.above_zero}
    below = {h: d for h, d in differences.items() if d.below_zero}
    won, lost = (below, above) if lower else (above, below)
    unclear = {h: d for h, d in differences.items() if h not in won and h not in lost}
    sentences = []
    if won:
        sentences.append(f"{subject} {good} at {_list(won, unit)}.")
    if lost:
        sentences.append(f"{subject} {bad} at {_list(lost, unit)}.")
    if unclear:
        sentences.append(f"Not shown that {subject.lower()} {unshown} at {_list(unclear, unit)}.")
    tone: Tone = "bad" if lost else "good" if won and not unclear else "open"
    return Verdict(tone=tone, text=" ".join(sentences))


def _list(differences: dict[int, Interval], unit: str) -> str:
    parts = [
        f"{horizon} ({number(d.mean, decimals=1, signed=True)} {unit} "
        f"[{number(d.low, decimals=1, signed=True)}, {number(d.high, decimals=1, signed=True)}])"
        for horizon, d in differences.items()
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) + (
        " frames" if list(differences) != [1] else " frame"
    )


def _columns(horizons: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"+{horizon}" for horizon in horizons)


def _heading(metric: Metric) -> str:
    return f"{metric.name} ({metric.unit})" if metric.unit else metric.name
