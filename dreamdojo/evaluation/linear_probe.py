"""How much of a known quantity can be read off a representation by a straight line.

Used for "R2 of the true motion from the latent action". Three rules keep the number honest: whole episodes are held
out, the ridge strength is chosen by cross-validation inside the training episodes only, and the same procedure is
repeated with targets shuffled between episodes, which shows what it finds where there is nothing to find.

`probe_episodes` does the same with any other way of fitting, and hands back what it fitted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.metrics import ChosenRidge, Interval, choose_ridge, explained_variance, r2_score


@dataclass(frozen=True, kw_only=True)
class ProbedDimension:
    """One target: how well the probe predicts it on episodes it has never seen."""

    name: str
    """What the target is, e.g. `x`."""
    r2: Interval
    """R2 on held-out episodes, with a bootstrap interval over them; NaN where the target is the same in all of them."""
    null_mean: float
    """Mean R2 of the same procedure with targets shuffled between episodes."""
    null_high: float
    """The R2 that 95 % of the shuffles stay below."""
    strength: float | None
    """Ridge strength chosen for this target; None where the probe is no ridge regression."""

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above 0 and above 95 % of the shuffles."""
        return self.r2.low > max(self.null_high, 0.0)

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a results file; NaN becomes None."""
        null = {"null_mean": self.null_mean, "null_high": self.null_high}
        finite = {name: value if math.isfinite(value) else None for name, value in null.items()}
        return {**self.r2.to_json(), **finite, "strength": self.strength}


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """The result of `linear_probe`, one entry per target."""

    dimensions: tuple[ProbedDimension, ...]
    train_episodes: int
    held_out_episodes: int
    permutations: int

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "train_episodes": self.train_episodes,
            "held_out_episodes": self.held_out_episodes,
            "permutations": self.permutations,
            "r2": {dimension.name: dimension.to_json() for dimension in self.dimensions},
        }


@runtime_checkable
class Reader(Protocol):
    """Predicts targets from features, in their own units."""

    def predict(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The targets at `x`."""
        ...


Fit = Callable[[Tensor, Tensor, Tensor], Reader]
"""Features `n d`, targets `n k` and the fold `n` of each row -> what was fitted; whole episodes share a fold."""


@dataclass(frozen=True)
class Probed:
    """A probe and what it fitted."""

    probe: LinearProbe
    reader: Reader
    """Fitted on the rows that are not held out."""
    held_out: Bool[Tensor, " n"]
    """Rows of held-out episodes."""


def fewest_episodes(held_out: float = 0.3, folds: int = 5) -> int:
    """How many episodes a probe takes at least: some are held out, and each fold needs one of the others."""
    return next(count for count in itertools.count(1) if count - max(1, round(held_out * count)) >= folds)


def linear_probe(
    features: Float[Tensor, "n d"],
    targets: Float[Tensor, "n k"],
    episodes: Int[Tensor, " n"],
    *,
    names: tuple[str, ...],
    seed: int,
    held_out: float = 0.3,
    folds: int = 5,
    permutations: int = 20,
) -> LinearProbe:
    """R2 of each target from the features by ridge regression, on held-out episodes.

    Args:
        features: what is probed, one row per frame (a latent action, say).
        targets: the true quantity at the same frames, in its own units.
        episodes: which episode each row belongs to; rows of one episode stand together and in order.
        names: one name per target.
        seed: decides which episodes are held out, the folds and the shuffles.
        held_out: share of the episodes that are held out.
        folds: parts of the training episodes for choosing the strength.
        permutations: how often the targets are shuffled between episodes for the null.

    Raises:
        DataError: if there are too few episodes, the names do not fit or a number is not finite.
    """
    return probe_episodes(
        features,
        targets,
        episodes,
        names=names,
        seed=seed,
        held_out=held_out,
        folds=folds,
        permutations=permutations,
    ).probe


def probe_episodes(
    features: Float[Tensor, "n d"],
    targets: Float[Tensor, "n k"],
    episodes: Int[Tensor, " n"],
    *,
    names: tuple[str, ...],
    seed: int,
    fit: Fit | None = None,
    held_out: float = 0.3,
    folds: int = 5,
    permutations: int = 20,
) -> Probed:
    """As `linear_probe`, by `fit` (ridge regression where not given), and with what was fitted.

    Raises:
        DataError: if there are too few episodes, the names do not fit or a number is not finite.
    """
    fit = fit or choose_ridge
    if len(names) != targets.shape[1]:
        raise DataError(f"linear_probe needs one name per target: got {len(names)} names, {targets.shape[1]} targets.")
    generator = torch.Generator().manual_seed(seed)
    ids = episodes.unique()
    order = ids[torch.randperm(len(ids), generator=generator)]
    num_held_out = max(1, round(held_out * len(ids)))
    if len(ids) - num_held_out < folds:
        raise DataError(
            f"linear_probe needs at least {folds} training episodes for {folds} folds, got {len(ids)} episodes of "
            f"which {num_held_out} are held out. Give it more episodes or fewer folds."
        )
    test = torch.isin(episodes, order[:num_held_out])
    fold = folds_by_episode(episodes, order[num_held_out:], folds)

    x, y = features.double(), targets.double()
    reader = fit(x[~test], y[~test], fold[~test])
    r2 = explained_variance((reader.predict(x[test]) - y[test]).square(), y[test], episodes[test], seed=seed)
    strengths = reader.strengths if isinstance(reader, ChosenRidge) else (None,) * len(names)
    null = []
    for _ in range(permutations):
        shuffled = y.clone()
        for part in (test, ~test):
            shuffled[part] = _shuffled_between_episodes(y[part], episodes[part], generator)
        null.append(r2_score(fit(x[~test], shuffled[~test], fold[~test]).predict(x[test]), shuffled[test]))
    null_r2 = torch.stack(null) if null else y.new_full((1, y.shape[1]), torch.nan)

    probe = LinearProbe(
        dimensions=tuple(
            ProbedDimension(
                name=name,
                r2=r2.columns[k],
                null_mean=null_r2[:, k].mean().item(),
                null_high=null_r2[:, k].quantile(0.95).item(),
                strength=strengths[k],
            )
            for k, name in enumerate(names)
        ),
        train_episodes=len(ids) - num_held_out,
        held_out_episodes=num_held_out,
        permutations=permutations,
    )
    return Probed(probe, reader, test)


def folds_by_episode(episodes: Int[Tensor, " n"], order: Int[Tensor, " e"], folds: int) -> Int[Tensor, " n"]:
    """The fold of each row; the episodes of `order` are dealt into folds in that order."""
    fold = torch.empty_like(episodes)
    for part, members in enumerate(order.tensor_split(folds)):
        fold[torch.isin(episodes, members)] = part
    return fold


def _shuffled_between_episodes(
    y: Float[Tensor, "n k"], episodes: Int[Tensor, " n"], generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """The same targets with whole episodes in another order, so that each keeps its own course in time."""
    ids = episodes.unique()
    order = ids[torch.randperm(len(ids), generator=generator)]
    return torch.cat([y[episodes == episode] for episode in order])
