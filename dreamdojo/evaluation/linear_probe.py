"""How much of a known quantity can be read off a representation by a straight line.

Used for "R2 of the true motion from the latent action". Three rules keep the number honest: whole episodes are held
out, the ridge strength is chosen by cross-validation inside the training episodes only, and the same procedure is
repeated with targets shuffled between episodes, which shows what it finds where there is nothing to find.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.metrics import Interval, RidgeFit, bootstrap_interval, fit_ridge, r2_score

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridge strengths to choose from, for features and targets of unit variance."""


@dataclass(frozen=True, kw_only=True)
class ProbedDimension:
    """One target: how well the probe predicts it on episodes it has never seen."""

    name: str
    """What the target is, e.g. `x`."""
    r2: Interval
    """R2 on held-out episodes, with a bootstrap interval over them."""
    null_mean: float
    """Mean R2 of the same procedure with targets shuffled between episodes."""
    null_high: float
    """The R2 that 95 % of the shuffles stay below."""
    strength: float
    """Ridge strength chosen for this target."""


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
            "r2": {
                d.name: d.r2.to_json() | {"null_mean": d.null_mean, "null_high": d.null_high, "strength": d.strength}
                for d in self.dimensions
            },
        }


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
    fold = torch.empty_like(episodes)
    for part, members in enumerate(order[num_held_out:].tensor_split(folds)):
        fold[torch.isin(episodes, members)] = part

    x = _standardised(features.double(), by=~test)
    y = targets.double()
    predicted, strengths = _fit_and_predict(x, y, fold, test)
    null = []
    for _ in range(permutations):
        shuffled = y.clone()
        for part in (test, ~test):
            shuffled[part] = _shuffled_between_episodes(y[part], episodes[part], generator)
        null.append(r2_score(_fit_and_predict(x, shuffled, fold, test)[0], shuffled[test]))
    null_r2 = torch.stack(null) if null else y.new_full((1, y.shape[1]), torch.nan)

    return LinearProbe(
        dimensions=tuple(
            ProbedDimension(
                name=name,
                r2=_r2_interval(predicted[:, k], y[test, k], episodes[test], seed=seed),
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


def _fit_and_predict(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], fold: Int[Tensor, " n"], test: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, "m k"], list[float]]:
    """Predictions for the rows in `test` and the strength chosen for each target, all by the other rows."""
    y_mean, y_std = y[~test].mean(dim=0), y[~test].std(dim=0).clamp(min=1e-12)
    y = (y - y_mean) / y_std
    error = y.new_zeros(len(STRENGTHS), y.shape[1])
    for part in fold[~test].unique():
        inside = ~test & (fold != part)
        outside = ~test & (fold == part)
        for row, strength in enumerate(STRENGTHS):
            fit = fit_ridge(x[inside], y[inside], strength=strength)
            error[row] += (fit.predict(x[outside]) - y[outside]).square().sum(dim=0)
    chosen = error.argmin(dim=0).tolist()
    fits: dict[int, RidgeFit] = {row: fit_ridge(x[~test], y[~test], strength=STRENGTHS[row]) for row in set(chosen)}
    columns = [fits[row].predict(x[test])[:, k] for k, row in enumerate(chosen)]
    return torch.stack(columns, dim=1) * y_std + y_mean, [STRENGTHS[row] for row in chosen]


def _standardised(x: Float[Tensor, "n d"], *, by: Bool[Tensor, " n"]) -> Float[Tensor, "n d"]:
    return (x - x[by].mean(dim=0)) / x[by].std(dim=0).clamp(min=1e-12)


def _shuffled_between_episodes(
    y: Float[Tensor, "n k"], episodes: Int[Tensor, " n"], generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """The same targets with whole episodes in another order, so that each keeps its own course in time."""
    ids = episodes.unique()
    order = ids[torch.randperm(len(ids), generator=generator)]
    return torch.cat([y[episodes == episode] for episode in order])


def _r2_interval(
    predicted: Float[Tensor, " n"], truth: Float[Tensor, " n"], episodes: Int[Tensor, " n"], *, seed: int
) -> Interval:
    """R2 with a bootstrap over episodes, from four sums per episode."""
    centred = truth - truth.mean()  # the sums below cancel badly for a target with a large offset
    rows = torch.stack(((predicted - truth) ** 2, centred**2, centred, torch.ones_like(truth)), dim=1)
    sums = torch.stack([rows[episodes == episode].sum(dim=0) for episode in episodes.unique()])

    def r2(sums: Tensor) -> Tensor:
        residual, squares, total, count = sums.sum(dim=0)
        return 1 - residual / (squares - total**2 / count)

    return bootstrap_interval(sums, r2, seed=seed)
