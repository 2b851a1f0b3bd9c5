"""One verdict in words, from bars that stand in one place.

    Collapsed   the decoder does as well without the latent action, or the latent action says nothing
    Leaky       the latent action tells the picture, beside or instead of what changes in it
    Weak        it works, but below a healthy bar
    Healthy     every bar that could be measured is met

The worst that any check finds is the verdict. Cautions (light, a moving camera) are told and do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dreamdojo.evaluation.health.examine import Health
from dreamdojo.evaluation.health.probing import Transfer
from dreamdojo.evaluation.report.render import number

Outcome = Literal["good", "caution", "weak", "leaky", "collapsed", "unknown"]
State = Literal["Healthy", "Weak", "Leaky", "Collapsed"]

GOALS = ("x", "y", "z", "opening")
"""Dimensions of motion that have a bar. Yaw is measured and has none."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where health begins, and where it ends."""

    planar_r2: float = 0.85
    """R2 of x and of y read by a line, healthy from here."""
    height_r2: float = 0.6
    """R2 of z, healthy from here."""
    opening_r2: float = 0.5
    """R2 of the hand's opening, healthy from here."""
    ood_drop: float = 0.15
    """Loss of R2 of any of these on unlike video, healthy up to here."""
    robot_drop: float = 0.1
    """Loss of R2 of any of these when the human line reads the robot, against the robot's own; healthy up to here."""
    utilisation: float = 0.7
    """Share of the oracle's gain, healthy from here."""
    ignored: float = 0.1
    """Share of the oracle's gain below which the latent action counts as ignored: collapsed."""
    still: float = 0.3
    """Scatter of the latent actions of pairs in which nothing moves, of the spread; healthy up to here."""
    leak: float = 0.6
    """The same, from where the latent action tells the picture: leaky."""
    light: float = 0.5
    """Answer to another light, of that to motion; a caution above."""
    camera: float = 0.5
    """Answer to a moved camera, of that to motion; a caution above."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    value: float | None
    """What was found; None where it could not be measured."""
    found: str
    """The same for people."""
    bar: str
    """What is healthy, for people."""
    outcome: Outcome
    reason: str = ""
    """A clause for the verdict, where the bar is not met."""


@dataclass(frozen=True, kw_only=True)
class HealthVerdict:
    """The state of a model in one word, in one sentence, and the checks behind it."""

    state: State
    checks: tuple[Check, ...]

    @property
    def text(self) -> str:
        """The verdict, its reasons, and what else is below its bar."""
        bad: list[Outcome] = ["collapsed", "leaky", "weak"]
        failed = sorted((c for c in self.checks if c.outcome in bad), key=lambda check: bad.index(check.outcome))
        worst = [check.reason for check in failed if check.outcome == failed[0].outcome]
        text = f"{self.state}: {'; '.join(worst)}." if worst else "Healthy: every bar that could be measured is met."
        if others := [f"{check.name}: {check.found}" for check in failed[len(worst) :]]:
            text += f" Also missed: {'; '.join(others)}."
        if unknown := [check.name for check in self.checks if check.outcome == "unknown"]:
            text += f" Not judged: {', '.join(unknown)}."
        return text

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to know even of a healthy model."""
        return tuple(check.reason for check in self.checks if check.outcome == "caution")

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "state": self.state,
            "text": self.text,
            "cautions": list(self.cautions),
            "checks": [
                {
                    "name": check.name,
                    "value": check.value if check.value is not None and math.isfinite(check.value) else None,
                    "found": check.found,
                    "healthy": check.bar,
                    "outcome": check.outcome,
                }
                for check in self.checks
            ],
        }


def judge_health(health: Health, bars: Thresholds | None = None) -> HealthVerdict:
    """Hold what was measured against the bars."""
    bars = bars or Thresholds()
    checks = (
        _listens(health),
        _utilisation(health, bars),
        _says_something(health),
        _rank(health),
        _still(health, bars),
        _above_chance(health),
        _motion(health, "Planar motion (x, y)", ("x", "y"), bars.planar_r2),
        _motion(health, "Height (z)", ("z",), bars.height_r2),
        _motion(health, "Opening of the hand", ("opening",), bars.opening_r2),
        _drop("Unlike video", health.elsewhere, bars.ood_drop, "at home"),
        _drop("Human line on the robot", _human_to_robot(health), bars.robot_drop, "by the robot's own line"),
        _nuisance(health, "light", "Another light", bars.light),
        _nuisance(health, "camera", "A moved camera", bars.camera),
    )
    outcomes = {check.outcome for check in checks}
    state: State = "Healthy"
    if "collapsed" in outcomes:
        state = "Collapsed"
    elif "leaky" in outcomes:
        state = "Leaky"
    elif "weak" in outcomes:
        state = "Weak"
    return HealthVerdict(state=state, checks=checks)


def _listens(health: Health) -> Check:
    gain = health.human.decoding.own_minus_other
    good = gain.above_zero
    found = f"{number(gain.mean, decimals=2, signed=True)} dB [{number(gain.low, decimals=2, signed=True)}, "
    found += f"{number(gain.high, decimals=2, signed=True)}]"
    return Check(
        name="Own against another's (dPSNR)",
        value=gain.mean,
        found=found,
        bar="above 0",
        outcome="good" if good else "collapsed",
        reason=f"the decoder draws the next frame as well with another pair's latent action (dPSNR {found})",
    )


def _utilisation(health: Health, bars: Thresholds) -> Check:
    share, gain = health.utilisation.share, health.utilisation.gain
    name, bar = "Decoder utilisation", f"at least {bars.utilisation:g}"
    if not math.isfinite(share.mean):
        return Check(
            name=name,
            value=None,
            found=f"the oracle gains {gain:.1%}",
            bar=bar,
            outcome="collapsed",
            reason=f"the decoder ignores its latent action: even the best one lowers its error by {gain:.1%} only",
        )
    outcome = "good" if share.mean >= bars.utilisation else "weak" if share.mean >= bars.ignored else "collapsed"
    return Check(
        name=name,
        value=share.mean,
        found=f"{number(share.mean, decimals=2)} [{number(share.low, decimals=2)}, {number(share.high, decimals=2)}]",
        bar=bar,
        outcome=outcome,
        reason=f"latent actions bring {number(100 * share.mean, decimals=0)} % of what the decoder could gain from "
        f"them (healthy from {100 * bars.utilisation:g} %)",
    )


def _says_something(health: Health) -> Check:
    spread = health.human.spread
    return Check(
        name="Active dimensions",
        value=float(spread.active),
        found=f"{spread.active} of {spread.dims}",
        bar="at least 1",
        outcome="good" if spread.active else "collapsed",
        reason="all pairs have the same latent action, up to its noise",
    )


def _rank(health: Health) -> Check:
    """The rank rounded to a whole number: even equal shares, counted on a sample, stay a little below their number."""
    rank, wanted = health.human.spread.effective_rank, health.degrees_of_freedom
    name, found = "Effective rank", f"{rank:.1f} of {health.human.spread.dims}"
    if wanted is None:
        return Check(name=name, value=rank, found=found, bar="motion not known", outcome="unknown")
    return Check(
        name=name,
        value=rank,
        found=found,
        bar=f"at least {wanted}, as motion",
        outcome="good" if round(rank) >= wanted else "weak",
        reason=f"effective rank {rank:.1f} is below the {wanted} true degrees of freedom",
    )


def _still(health: Health, bars: Thresholds) -> Check:
    size = health.human.response.still.mean
    found = number(size, decimals=2)
    if not math.isfinite(size):
        outcome: Outcome = "unknown"
    else:
        outcome = "good" if size <= bars.still else "weak" if size < bars.leak else "leaky"
    scatter = f"pairs in which nothing moves scatter by {found} of the spread (healthy up to {bars.still:g}"
    leaky = f"the latent action tells the picture beside what changes in it: {scatter}, leaky from {bars.leak:g})"
    return Check(
        name="Scatter where nothing moves",
        value=size,
        found=f"{found} of the spread",
        bar=f"at most {bars.still:g}",
        outcome=outcome,
        reason=leaky if outcome == "leaky" else f"{scatter})",
    )


def _above_chance(health: Health) -> Check:
    name, bar = "True motion above chance", "at least one dimension"
    if health.human.motion is None:
        return Check(name=name, value=None, found="no ground truth", bar=bar, outcome="unknown")
    read = health.human.motion.above_chance
    return Check(
        name=name,
        value=float(len(read)),
        found=", ".join(read) or "none",
        bar=bar,
        outcome="good" if read else "collapsed",
        reason="no dimension of the true motion can be read off the latent action better than by chance",
    )


def _motion(health: Health, name: str, dimensions: Sequence[str], bar: float) -> Check:
    probes = health.human.motion
    known = {} if probes is None else {d: r2.mean for d in dimensions if (r2 := probes.r2(d)) is not None}
    found = {d: r2 for d, r2 in known.items() if math.isfinite(r2)}
    healthy = f"R² at least {bar:g}"
    if not found:
        words = "no ground truth" if probes is None else "does not vary"
        return Check(name=name, value=None, found=words, bar=healthy, outcome="unknown")
    words = ", ".join(f"{d} {number(r2, decimals=2)}" for d, r2 in found.items())
    lowest = min(found.values())
    return Check(
        name=name,
        value=lowest,
        found=words,
        bar=healthy,
        outcome="good" if lowest >= bar else "weak",
        reason=f"R² of {words} (healthy from {bar:g})",
    )


def _human_to_robot(health: Health) -> list[Transfer]:
    return [t for t in health.transfers if t.source == health.human.pairs.name and not t.standardised]


def _drop(name: str, transfers: Sequence[Transfer], bar: float, against: str) -> Check:
    """The largest loss of R2 over sets and dimensions with a goal."""
    losses = {(t.target, d): loss for t in transfers for d, loss in t.drop.items() if d in GOALS}
    healthy = f"R², at most {bar:g} lost"
    if not losses:
        return Check(name=name, value=None, found="not known", bar=healthy, outcome="unknown")
    (target, dimension), worst = max(losses.items(), key=lambda item: item[1])
    found = f"{number(worst, decimals=2, signed=True)} ({dimension}, {target})"
    return Check(
        name=name,
        value=worst,
        found=found,
        bar=healthy,
        outcome="good" if worst <= bar else "weak",
        reason=f"on {target} the human line loses {number(worst, decimals=2)} of R² in {dimension} against that "
        f"{against} (healthy up to {bar:g})",
    )


def _nuisance(health: Health, which: str, name: str, bar: float) -> Check:
    share = health.human.response.relative(which)
    known = math.isfinite(share)
    return Check(
        name=f"{name}, against motion",
        value=share,
        found=f"{number(share, decimals=2)} times",
        bar=f"at most {bar:g}",
        outcome="unknown" if not known else "good" if share <= bar else "caution",
        reason=f"{name.lower()} between two frames moves the latent action {number(share, decimals=1)} times as far as "
        f"motion does (at most {bar:g} wanted)",
    )
