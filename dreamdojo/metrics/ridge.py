"""Ridge regression in closed form.

    minimise over W, b:   |y - x W - b|^2 / n  +  strength |W|^2

The bias is not shrunk. Solved in double precision from the centred normal equations, which suits a few hundred
features; columns of very different scale should be standardised first, because one strength serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamdojo.errors import DataError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridge strengths to choose from, for features and targets of unit variance."""


@dataclass(frozen=True, kw_only=True)
class RidgeFit:
    """`y = x @ weight + bias`."""

    weight: Float[Tensor, "d k"]
    """One column per target."""
    bias: Float[Tensor, " k"]
    """What is predicted at x = 0."""

    def predict(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The fitted targets at `x`, in the precision of `x`."""
        return x @ self.weight.to(x.dtype) + self.bias.to(x.dtype)


def fit_ridge(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], *, strength: float) -> RidgeFit:
    """The linear map from `x` to `y` with the least error plus `strength` times its squared size.

    `strength` 0 is least squares, the smallest solution where several fit. Returned in the precision of `y`.

    Raises:
        DataError: if there are no rows or a number is not finite.
    """
    if len(x) == 0 or not (x.isfinite().all() and y.isfinite().all()):
        raise DataError(
            f"ridge regression needs at least one row of finite numbers, got {len(x)} rows, "
            f"{int((~x.isfinite()).sum())} bad features and {int((~y.isfinite()).sum())} bad targets. "
            "Leave out the rows that have no label before fitting."
        )
    features, targets = x.double(), y.double()
    x_mean, y_mean = features.mean(dim=0), targets.mean(dim=0)
    features, targets = features - x_mean, targets - y_mean
    if strength == 0:
        weight = torch.linalg.pinv(features) @ targets
    else:
        shrink = strength * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
        factor = torch.linalg.cholesky(features.mT @ features / len(x) + shrink)
        weight = torch.cholesky_solve(features.mT @ targets / len(x), factor)
    return RidgeFit(weight=weight.to(y.dtype), bias=(y_mean - x_mean @ weight).to(y.dtype))


@dataclass(frozen=True, kw_only=True)
class ChosenRidge(RidgeFit):
    """A ridge fit, in the units of features and targets, whose strengths were chosen by cross-validation."""

    strengths: tuple[float, ...]
    """Chosen for each target, for features and targets of unit variance."""


def choose_ridge(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n k"],
    fold: Int[Tensor, " n"],
    *,
    strengths: tuple[float, ...] = STRENGTHS,
) -> ChosenRidge:
    """Ridge regression on standardised columns; each target gets the strength that predicts it best across folds.

    A row's `fold` says in which part it is left out; rows that are not independent share one.

    Raises:
        DataError: if there are no rows or a number is not finite.
    """
    if len(x) == 0 or not (x.isfinite().all() and y.isfinite().all()):
        fit_ridge(x, y, strength=0.0)  # says what is wrong
    features, targets = x.double(), y.double()
    x_mean, x_std = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-12)
    y_mean, y_std = targets.mean(dim=0), targets.std(dim=0, correction=0).clamp(min=1e-12)
    features, targets = (features - x_mean) / x_std, (targets - y_mean) / y_std
    error = targets.new_zeros(len(strengths), y.shape[1])
    for part in fold.unique():
        inside, outside = fold != part, fold == part
        if not inside.any():
            continue
        for row, strength in enumerate(strengths):
            fit = fit_ridge(features[inside], targets[inside], strength=strength)
            error[row] += (fit.predict(features[outside]) - targets[outside]).square().sum(dim=0)
    chosen = error.argmin(dim=0).tolist()
    fits = {row: fit_ridge(features, targets, strength=strengths[row]) for row in set(chosen)}
    weight = torch.stack([fits[row].weight[:, k] for k, row in enumerate(chosen)], dim=1) * y_std / x_std[:, None]
    return ChosenRidge(
        weight=weight.to(y.dtype),
        bias=(y_mean - x_mean @ weight).to(y.dtype),  # standardised fits pass through the means
        strengths=tuple(strengths[row] for row in chosen),
    )
