"""How much robot data an alignment needs: held-out R2 against seconds of data, and an answer in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.latent_action.align import AlignmentConfig, Kind, Map, fit_map
from dreamdojo.latent_action.pairs import PairedEpisode, check_pairs, paired_rows
from dreamdojo.metrics import ExplainedVariance, explained_variance

SECONDS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Amounts of robot data that the curve is measured at."""
SMALL_GAIN = 0.02
"""R2 that twice the data must bring for more data to be worth recording."""
CARRIED = 0.05
"""R2 below which the latent action does not tell the robot's actions."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What an amount of robot data explains on the held-out episodes."""

    seconds: float
    r2: ExplainedVariance
    """Of each number of an action chunk; squared errors averaged over several choices of the data."""


@dataclass(frozen=True, kw_only=True)
class Sufficiency:
    """Whether there is enough robot data."""

    enough: bool
    """Whether twice the data would bring next to nothing, and the latent action tells the actions at all."""
    carried: bool
    """Whether the latent action tells the actions."""
    gain: float | None
    """R2 that twice the data would bring, from the slope of the curve's end; None where it has one point only."""
    text: str
    """The same in a sentence."""


@dataclass(frozen=True, kw_only=True)
class AlignmentCurve:
    """Held-out R2 against seconds of robot data."""

    names: tuple[str, ...]
    """Of the numbers of an action chunk."""
    points: tuple[CurvePoint, ...]

    def sufficiency(self) -> Sufficiency:
        """Do I have enough?"""
        last = self.points[-1]
        r2, gain = last.r2.mean, self._gain()
        amount = f"with {last.seconds:.0f} s of this robot, R² on held-out episodes is {r2.mean:.2f}"
        more = "" if gain is None else f"twice as much would bring about {gain:+.3f}"
        rising = gain is None or gain >= SMALL_GAIN
        carried = math.isfinite(r2.mean) and r2.mean >= CARRIED
        if not carried:
            hope = f"; {more}, so record more and look again" if rising and more else ""
            if not rising:
                hope = f", and more data would not change that ({more}): train a better latent action model"
            text = f"Not enough: {amount}, so the latent action does not carry this robot's actions{hope}."
        elif gain is None:
            text = f"Not known: {amount}; record at least {2 * last.seconds:.0f} s to see whether more would help."
        elif rising:
            text = f"Not enough: {amount} and still rising; {more}."
        else:
            rest = "" if r2.mean >= 0.5 else "; what is missing is in the latent action, not in the amount of data"
            text = f"Enough: {amount}, and {more}{rest}."
        untold = [name for name, r2 in zip(self.names, last.r2.columns, strict=True) if r2.mean < CARRIED]
        if carried and untold:
            text += f" The latent action does not tell {', '.join(untold)}."
        return Sufficiency(enough=carried and not rising, carried=carried, gain=gain, text=text)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain structures for a file."""
        return [{"seconds": point.seconds} | point.r2.to_json(self.names) for point in self.points]

    def _gain(self) -> float | None:
        ends = [p for p in self.points if math.isfinite(p.r2.mean.mean)][-3:]
        if len(ends) < 2:
            return None
        doublings = np.log2([point.seconds for point in ends])
        return float(np.polyfit(doublings, [point.r2.mean.mean for point in ends], 1)[0])


def alignment_curve(
    train: Sequence[PairedEpisode],
    held_out: Sequence[PairedEpisode],
    embodiment: Embodiment,
    *,
    rate: float,
    kind: Kind = "mlp",
    chunk: int = 1,
    hidden: int = 128,
    seconds: Sequence[float] = SECONDS,
    draws: int = 3,
    seed: int = 0,
) -> AlignmentCurve:
    """R2 of the actions on `held_out` when fitted on the first seconds of `train`, and on all of it.

    Args:
        train: episodes to take data from.
        held_out: the same for every amount.
        embodiment: the robot.
        rate: actions per second.
        kind: how to fit.
        chunk: actions that are mapped together.
        hidden: width of the MLP.
        seconds: amounts of data; those that `train` does not reach are left out.
        draws: how often each amount is taken from `train`, its episodes in another order.
        seed: decides the orders and the fits.

    Raises:
        DataError: as `fit_alignment`.
    """
    check_pairs(train, held_out, embodiment)
    truth_latent, truth, groups = paired_rows(held_out, chunk)
    total = sum(len(episode.action) for episode in train)
    amounts = {max(2, round(s * rate / chunk)) for s in seconds if s * rate / chunk < 0.95 * total}
    points = []
    for rows in sorted(amounts | {total}):
        errors = []
        for draw in range(draws if rows < total else 1):
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed + draw)).tolist()
            latent, action, own = (part[:rows] for part in paired_rows([train[i] for i in order], chunk))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                mapping = Map(latent.shape[1], action.shape[1], hidden=hidden if kind == "mlp" else None)
            fit_map(mapping, latent, action, own, seed=seed)
            with torch.no_grad():
                errors.append((mapping(truth_latent) - truth).square())
        r2 = explained_variance(torch.stack(errors).mean(dim=0), truth, groups, seed=seed)
        points.append(CurvePoint(seconds=rows * chunk / rate, r2=r2))
    config = AlignmentConfig(embodiment=embodiment, latent_dim=truth_latent.shape[1] // chunk, chunk=chunk)
    return AlignmentCurve(names=tuple(config.action_names), points=tuple(points))
