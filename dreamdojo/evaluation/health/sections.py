"""The health report as a page: the verdict first, then what it stands on, then what can only be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dreamdojo.evaluation.health.examine import Health, SetHealth
from dreamdojo.evaluation.health.looks import Carried, Neighbours, difference
from dreamdojo.evaluation.health.pairs import Pairs
from dreamdojo.evaluation.health.probing import MotionProbes, Transfer
from dreamdojo.evaluation.health.response import GAIN, SHIFT, ZOOM
from dreamdojo.evaluation.health.verdict import Check, HealthVerdict, Thresholds
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
    Tone,
    Verdict,
    VideoGrid,
    number,
)
from dreamdojo.evaluation.report.pictures import enlarged
from dreamdojo.metrics import Interval

SIGN = {"good": "met", "caution": "caution", "weak": "missed", "leaky": "leaky", "collapsed": "collapsed"}
NO_TRUTH = "this set has no ground truth (ground_truth.parquet), so its true motion is not known"


def health_report(
    health: Health,
    verdict: HealthVerdict,
    *,
    title: str,
    facts: tuple[str, ...],
    data_sheet: dict[str, str],
    rate: float,
) -> Report:
    """The page."""
    return Report(
        title=title,
        subtitle="Does the latent action carry the motion, does the decoder listen to it, and what else moves it?",
        facts=facts,
        sections=(
            verdict_section(health, verdict),
            motion_section(health),
            transfer_section(health),
            decoder_section(health),
            spread_section(health),
            response_section(health),
            neighbours_section(health),
            carried_section(health, fps=rate),
            Section(
                title="Data sheet",
                lead="What the numbers stand on, and the bars.",
                blocks=(DataSheet(items=data_sheet),),
            ),
        ),
    )


def verdict_section(health: Health, verdict: HealthVerdict) -> Section:
    """The verdict, headline numbers, and every check."""
    tone: Tone = "good" if verdict.state == "Healthy" else "bad"
    rows = tuple(Row(label=check.name, cells=(check.found, check.bar, _sign(check))) for check in verdict.checks)
    by_name = {check.name: check for check in verdict.checks}
    cards = (
        _card("Planar motion R²", by_name["Planar motion (x, y)"], "the lower of x and y, by a line"),
        _card("Height R²", by_name["Height (z)"], "by a line"),
        _card("Opening R²", by_name["Opening of the hand"], "by a line"),
        _card("Lost on unlike video", by_name["Unlike video"], "R², the worst dimension"),
        _card("Lost on the robot", by_name["Human line on the robot"], "R² of the human line, the worst dimension"),
        _card("Decoder utilisation", by_name["Decoder utilisation"], "of what an oracle gains"),
        _card("Effective rank", by_name["Effective rank"], f"of {health.human.spread.dims}", decimals=1),
        _card("dPSNR", by_name["Own against another's (dPSNR)"], "dB, own latent action minus another pair's"),
    )
    cautions = tuple(Verdict(tone="open", text=f"Caution: {text}.") for text in verdict.cautions)
    table = Table(columns=("Check", "Found", "Healthy", "Bar"), rows=rows)
    return Section(
        title="Verdict",
        lead="One verdict for the human video, from bars that are listed with what was found.",
        blocks=(Verdict(tone=tone, text=verdict.text), *cautions, Cards(cards=cards), table),
    )


def motion_section(health: Health) -> Section:
    """What can be read off the latent actions of each set."""
    blocks: list[Block] = []
    for each in health.sets:
        if each.motion is None:
            blocks.append(Text(text=f"{_capital(each.pairs.name)}: {NO_TRUTH}."))
        else:
            blocks.append(_probe_table(each, each.motion, "true motion"))
        if each.actions is not None:
            blocks.append(_probe_table(each, each.actions, "the robot's actions"))
    return Section(
        title="What latent actions know",
        lead="True motion of the hand or gripper from one frame to the next, predicted from the latent action alone, "
        "by a line and by a two-layer network. Shuffled: the R² that 95 % of the same line's fits stay below after "
        "exchanging targets between episodes. At rest: what the line says where the same frame stands twice, of the "
        "usual motion.",
        blocks=tuple(blocks),
    )


def transfer_section(health: Health) -> Section:
    """Lines read on other video and on other bodies."""
    blocks: list[Block] = []
    if health.elsewhere:
        blocks.append(
            _transfer_table(
                health.elsewhere,
                "At home: the same line on held-out episodes of the human set.",
                own="at home",
            )
        )
    else:
        blocks.append(Text(text="No unlike video with ground truth was given (--ood)."))
    if health.transfers:
        blocks.append(
            _transfer_table(
                health.transfers,
                "Fitted on all episodes of one body, read on held-out episodes of the other. Own: a line fitted on the "
                "other body's remaining episodes. Standardised: latent actions of each body brought to mean 0 and "
                "deviation 1 first.",
                own="own line",
            )
        )
    else:
        blocks.append(Text(text="No robot with ground truth was given (--robot), so no line crosses between bodies."))
    return Section(
        title="Does it mean the same elsewhere?",
        lead="R² of a line that was fitted on one set and is read on another. A latent action that tells motion, and "
        "not the picture, keeps its meaning.",
        blocks=tuple(blocks),
    )


def decoder_section(health: Health) -> Section:
    """dPSNR on every set, and utilisation against the oracle."""
    psnr = Table(
        columns=("PSNR (dB)", "own", "another pair's", "zero", "copied frame"),
        rows=tuple(
            Row(
                label=each.pairs.name,
                cells=(each.decoding.own, each.decoding.other, each.decoding.zero, each.decoding.copy),
            )
            for each in health.sets
        ),
    )
    gains = Table(
        columns=("dPSNR (dB)", "own − another pair's", "own − zero", "own − copied frame"),
        rows=tuple(
            Row(
                label=each.pairs.name,
                cells=(each.decoding.own_minus_other, each.decoding.own_minus_zero, each.decoding.own_minus_copy),
            )
            for each in health.sets
        ),
        differences=True,
        caption="Paired by episode.",
    )
    use = health.utilisation
    scale = 1e3
    oracle = Table(
        columns=("Human pairs", "mean latent action", "inferred", "oracle", "search from inferred", "search from zero"),
        rows=(
            Row(
                label="Mean squared error × 1000",
                cells=tuple(
                    scale * x for x in (use.without, use.inferred, use.oracle, use.from_inferred, use.from_zero)
                ),
            ),
        ),
        decimals=3,
        caption=f"Oracle: the better of two searches by Adam, {use.steps} steps each, through the frozen decoder, on "
        f"{use.pairs} pairs. Utilisation is (mean − inferred) / (mean − oracle).",
    )
    share = use.share
    words = (
        f"The inferred latent action brings {number(share.mean, decimals=2)} "
        f"[{number(share.low, decimals=2)}, {number(share.high, decimals=2)}] of what the decoder could gain from one."
        if math.isfinite(share.mean)
        else f"Even the best latent action lowers the decoder's error by {use.gain:.1%} only: it does not listen."
    )
    return Section(
        title="Does the decoder listen?",
        lead="The next frame, drawn with the pair's own latent action and with others. A decoder that ignores its "
        "latent action gains nothing, however well it draws.",
        blocks=(gains, psnr, Text(text=words), oracle),
    )


def spread_section(health: Health) -> Section:
    """Effective rank, active dimensions, and the curves behind them."""
    spread = health.human.spread
    x = tuple(float(i + 1) for i in range(spread.dims))
    shares = tuple(Interval(mean=s, low=s, high=s, count=1) for s in spread.shares)
    wanted = health.degrees_of_freedom
    true = f" The hand truly moves in {wanted} dimensions." if wanted is not None else ""
    figures = CurveGrid(
        figures=(
            Curves(
                x=x,
                lines={"": shares},
                x_label="principal direction",
                y_label="Share of the latent actions' variance",
            ),
            Curves(
                x=x,
                lines={"": spread.kl},
                x_label="dimension, sorted",
                y_label="KL to the prior, nats",
            ),
        )
    )
    table = Table(
        columns=("Latent actions", "effective rank", "active dimensions", "numbers"),
        rows=tuple(
            Row(
                label=each.pairs.name,
                cells=(each.spread.effective_rank, str(each.spread.active), str(each.spread.dims)),
            )
            for each in health.sets
        ),
        decimals=1,
        caption="Effective rank: the exponential of the entropy of the variance's shares. Active: the mean varies by "
        "more than a tenth of its noise's variance.",
    )
    return Section(
        title="How much room it uses",
        lead=f"Effective rank {spread.effective_rank:.1f} of {spread.dims} numbers.{true}",
        blocks=(table, figures),
    )


def response_section(health: Health) -> Section:
    """What moves the latent action."""
    table = Table(
        columns=("Distance, in spreads", "motion", "still", "another light", "moved camera"),
        rows=tuple(
            Row(
                label=each.pairs.name,
                cells=(each.response.motion, each.response.still, each.response.light, each.response.camera),
            )
            for each in health.sets
        ),
        caption=f"Still: the same frame twice, around the mean of such pairs. Another light: each colour channel "
        f"{GAIN:.0%} brighter or darker in the second frame. Moved camera: by {SHIFT:.0%} of the side along both axes "
        f"and {ZOOM:.0%} nearer or farther. All but still are measured from the same frame twice.",
    )
    return Section(
        title="What else moves it?",
        lead="How far the latent action goes when the hand moves, when nothing does, when only the light changes and "
        "when only the camera moves, in units of the latent actions' spread. Healthy: far for motion, near 0 for "
        "stillness and light, little for the camera.",
        blocks=(table,),
    )


def neighbours_section(health: Health) -> Section:
    """A few pairs beside those with the most similar latent actions."""
    blocks: list[Block] = []
    if health.agreement is not None:
        near, middle = (number(x, decimals=2, signed=True) for x in health.agreement)
        blocks.append(
            Text(
                text=f"In numbers: the mean cosine between the true motion of a pair and that of its nearest neighbour "
                f"is {near}; with a pair of the middle rank it is {middle}."
            )
        )
    blocks += [_neighbour_strip(health.human.pairs, each) for each in health.neighbours]
    return Section(
        title="Nearest neighbours",
        lead="Pairs of other episodes whose latent actions point the same way (cosine). The motion should be alike, "
        "whatever the scene. The first column is the pair in which most changes, of three episodes.",
        blocks=tuple(blocks),
    )


def carried_section(health: Health, *, fps: float) -> Section:
    """Motion of one clip in the scene of another."""
    steps = len(health.carried[0].scene) - 1
    kept, copied = (sum(values) / len(health.carried) for values in zip(*(c.kept for c in health.carried), strict=True))
    caption = f"After {steps} steps B by its own is {kept:.1f} dB from the truth, its first frame {copied:.1f} dB."
    if kept < copied - 3:
        caption += " The decoder was made for one step and wears out over several, so little can be told from these."
    return Section(
        title="Motion carried to another scene",
        lead="The latent actions of clip A move the first frame of clip B, step by step. The hand in B should go where "
        "A's goes. Beside it, B's first frame moved by B's own latent actions: what the decoder can do at best.",
        blocks=(VideoGrid(clips=tuple(_clip(each) for each in health.carried), fps=fps, caption=caption),),
    )


def default_data_sheet(health: Health, bars: Thresholds) -> dict[str, str]:
    """What the numbers stand on, and the bars."""
    sheet = {
        f"{each.pairs.name}": f"{len(each.pairs.frames)} episodes, {len(each.pairs)} pairs of neighbouring frames"
        for each in health.sets
    }
    sheet["healthy"] = (
        f"R² ≥ {bars.planar_r2:g} planar, ≥ {bars.height_r2:g} height, ≥ {bars.opening_r2:g} opening; loss ≤ "
        f"{bars.ood_drop:g} on unlike video, ≤ {bars.robot_drop:g} from human to robot; utilisation ≥ "
        f"{bars.utilisation:g}; effective rank ≥ true degrees of freedom; scatter at rest ≤ {bars.still:g}"
    )
    sheet["collapsed"] = (
        f"dPSNR not above 0, utilisation below {bars.ignored:g}, no active dimension, or no true motion above chance"
    )
    sheet["leaky"] = f"scatter at rest from {bars.leak:g} of the spread"
    return sheet


def _probe_table(each: SetHealth, probes: MotionProbes, what: str) -> Table:
    rows = []
    for line, network in zip(probes.linear.dimensions, probes.mlp.dimensions, strict=True):
        rest = probes.still[line.name]
        rows.append(Row(label=line.name, cells=(line.r2, network.r2, line.null_high, f"{rest.share:.0%}")))
    return Table(
        columns=(f"{_capital(each.pairs.name)}: {what}", "line, R²", "network, R²", "shuffled", "at rest"),
        rows=tuple(rows),
        caption=f"Fitted on {probes.linear.train_episodes} episodes, judged on {probes.linear.held_out_episodes} "
        f"others; {probes.linear.permutations} shuffles.",
    )


def _transfer_table(transfers: Sequence[Transfer], caption: str, *, own: str) -> Table:
    names = tuple(dict.fromkeys(name for transfer in transfers for name in transfer.r2))
    rows = []
    for transfer in transfers:
        way = f"{transfer.source} → {transfer.target}" + (", standardised" if transfer.standardised else "")
        rows.append(Row(label=way, cells=tuple(transfer.r2.get(name) for name in names)))
        rows.append(
            Row(
                label=f"{transfer.target}, {own}" if own != "at home" else own,
                quiet=True,
                cells=tuple(transfer.own.get(name) for name in names),
            )
        )
    return Table(columns=("R²", *names), rows=tuple(_without_repeats(rows)), caption=caption)


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """The rows, a baseline only after the last row that it belongs to."""
    kept = []
    for index, row in enumerate(rows):
        if row.quiet and any(later == row for later in rows[index + 1 :]):
            continue
        kept.append(row)
    return kept


def _neighbour_strip(pairs: Pairs, found: Neighbours) -> Strip:
    rows = torch.tensor([found.row, *found.rows])
    where = list(zip(pairs.episode[rows].tolist(), pairs.start[rows].tolist(), strict=True))
    first, second = (torch.stack([pairs.frames[episode][start + i] for episode, start in where]) for i in (0, 1))
    panels = [("frame", first), ("next", second), ("change", difference(first, second))]
    episode, start = where[0]
    return Strip(
        clip=Clip(
            title=f"{pairs.name} episode {episode}, frame {start}",
            panels=tuple(Panel(label=label, frames=_larger(frames)) for label, frames in panels),
            context=1,
        ),
        frames=tuple(range(len(rows))),
        columns=(f"episode {episode}", *(number(cosine, decimals=2) for cosine in found.cosines)),
        caption=f"Episode {episode} at frame {start}, and its nearest in other episodes by cosine. Change: brighter "
        "and darker around grey, doubled.",
    )


def _larger(frames: Tensor) -> Tensor:
    """Small pictures enlarged by a whole factor, with a dark line between neighbours."""
    factor = max(1, round(160 / frames.shape[-2]))
    large = torch.from_numpy(enlarged(frames.permute(0, 2, 3, 1).numpy(), factor)).permute(0, 3, 1, 2).clone()
    large[..., -1, :], large[..., :, -1] = 20, 20
    return large


def _clip(carried: Carried) -> Clip:
    return Clip(
        title=carried.title,
        panels=(
            Panel(label="A", frames=carried.source),
            Panel(label="B", frames=carried.scene),
            Panel(label="B by A's motion", frames=carried.carried),
            Panel(label="B by its own", frames=carried.redrawn),
        ),
        context=1,
    )


def _card(label: str, check: Check, note: str, *, decimals: int = 2) -> Card:
    known = check.value is not None and math.isfinite(check.value)
    tone: Tone | None = None if check.outcome == "unknown" else "good" if check.outcome == "good" else "bad"
    value = number(check.value, decimals=decimals) if known and check.value is not None else "–"
    return Card(label=label, value=value, note=f"{note}; healthy: {check.bar}", tone=tone)


def _sign(check: Check) -> str:
    return SIGN.get(check.outcome, "not judged")


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
