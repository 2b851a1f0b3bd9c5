"""What a handful of clips can tell: means with intervals, paired differences, explained variance.

The unit is the clip (or the episode): frames of one clip are not independent and never count as if they were. NaN
means "this clip has no such number" and is left out; `Interval.count` says how many clips remain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamdojo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean (or another statistic) and where it would plausibly lie with other clips."""

    mean: float
    """The statistic over all clips; NaN where there is none."""
    low: float
    """Lower end; NaN where fewer than two clips speak."""
    high: float
    """Upper end; NaN where fewer than two clips speak."""
    count: int
    """Clips (or episodes) it stands on."""
    level: float = 0.95
    """How often such an interval covers the true value."""

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    def to_json(self) -> dict[str, float | int | None]:
        """Plain numbers for a file; NaN becomes None."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high, "level": self.level}
        return {name: x if math.isfinite(x) else None for name, x in numbers.items()} | {"count": self.count}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Interval:
        """What `to_json` gave."""
        ends = {name: math.nan if plain[name] is None else plain[name] for name in ("mean", "low", "high")}
        return cls(**ends, count=plain["count"], level=plain["level"])

    def scaled(self, factor: float) -> Interval:
        """In another unit; `factor` is positive."""
        return replace(self, mean=factor * self.mean, low=factor * self.low, high=factor * self.high)

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mean_interval(values: Float[Tensor, " n"], *, level: float = 0.95) -> Interval:
    """Mean over clips with Student's t interval."""
    values = values[~values.isnan()].double()
    count = len(values)
    mean = values.mean().item() if count else math.nan
    if count < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, count=count, level=level)
    reach = student_t_quantile(0.5 + level / 2, count - 1) * values.std().item() / math.sqrt(count)
    return Interval(mean=mean, low=mean - reach, high=mean + reach, count=count, level=level)


def paired_interval(first: Float[Tensor, " n"], second: Float[Tensor, " n"], *, level: float = 0.95) -> Interval:
    """Mean of `first - second` with Student's t interval, entry `i` of both being the same clip.

    Pairing removes what makes clips differ from each other, which is most of the spread. A clip counts only where both
    have a number.
    """
    return mean_interval(first - second, level=level)


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Share of trials that succeed with Wilson's score interval, which stays in [0, 1] and is open at 0 and at 1.

    Raises:
        DataError: if there are more successes than trials, or a number is negative.
    """
    if not 0 <= successes <= trials:
        raise DataError(f"expected successes between 0 and the number of trials, got {successes} of {trials}")
    if not trials:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=0, level=level)
    share, z = successes / trials, NormalDist().inv_cdf(0.5 + level / 2)
    centre = share + z**2 / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = ((centre + side * reach) / (1 + z**2 / trials) for side in (-1, 1))
    return Interval(mean=share, low=max(low, 0.0), high=min(high, 1.0), count=trials, level=level)


def bootstrap_interval(
    values: Float[Tensor, " n *x"],
    statistic: Callable[[Tensor], Tensor],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of any statistic of the rows of `values`, by drawing rows with replacement.

    For what is not a mean (an R2, a median, a ratio of sums): `statistic` takes `n *x` rows, one per clip, and returns
    one number. Draws in which it is not finite are left out.

    Raises:
        DataError: if there are no rows.
    """
    count = len(values)
    if count == 0:
        raise DataError("bootstrap_interval needs at least one row, got none. Check that any clip was scored.")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(count, (resamples, count), generator=generator)
    draws = torch.stack([statistic(values[row]).double() for row in rows])
    draws = draws[draws.isfinite()]
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = draws.quantile(tails).tolist() if count > 1 and len(draws) else (math.nan, math.nan)
    return Interval(mean=statistic(values).item(), low=low, high=high, count=count, level=level)


def r2_score(predicted: Float[Tensor, "n k"], truth: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Share of the truth's variance that the prediction explains, per dimension.

    1 is perfect, 0 is no better than the truth's own mean, and it can be negative. NaN where the truth is constant.
    """
    residual = (predicted - truth).square().sum(dim=0)
    total = (truth - truth.mean(dim=0)).square().sum(dim=0)
    return torch.where(total > 0, 1 - residual / total, torch.nan)


@dataclass(frozen=True, kw_only=True)
class ExplainedVariance:
    """R2 of several targets on the same groups of rows."""

    columns: tuple[Interval, ...]
    """One per target; NaN where the truth is constant."""
    mean: Interval
    """Of the mean over the targets that vary."""

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain structures for a file, `names` being those of the targets."""
        of_targets = {name: interval.to_json() for name, interval in zip(names, self.columns, strict=True)}
        return {"mean": self.mean.to_json(), **of_targets}


def explained_variance(
    squared_error: Float[Tensor, "n k"],
    truth: Float[Tensor, "n k"],
    groups: Int[Tensor, " n"],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> ExplainedVariance:
    """R2 with a bootstrap over groups of rows (whole episodes), from four sums per group.

    Raises:
        DataError: if there are no rows.
    """
    if len(truth) == 0:
        raise DataError("explained_variance needs at least one row, got none. Check that any episode was scored.")
    centred = (truth - truth.mean(dim=0)).double()  # the sums below cancel badly for a target with a large offset
    rows = torch.stack([squared_error.double(), centred.square(), centred, torch.ones_like(centred)], dim=1)
    ids, member = groups.unique(return_inverse=True)
    sums = rows.new_zeros(len(ids), *rows.shape[1:]).index_add_(0, member, rows)

    def r2(total: Tensor) -> Tensor:
        residual, squares, first, count = total.unbind(dim=1)
        variance = squares - first.square() / count
        return torch.where(variance > 1e-12 * count, 1 - residual / variance, torch.nan)

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(ids), (resamples, len(ids)), generator=generator)
    times = rows.new_zeros(drawn.shape).scatter_add_(1, drawn, rows.new_ones(drawn.shape))
    found, draws = r2(sums.sum(dim=0)[None])[0], r2(torch.einsum("rg,gsk->rsk", times, sums))

    def interval(value: Tensor, values: Tensor) -> Interval:
        values = values[values.isfinite()]
        tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
        enough = len(ids) > 1 and len(values) > 0 and bool(value.isfinite())
        low, high = values.quantile(tails).tolist() if enough else (math.nan, math.nan)
        return Interval(mean=value.item(), low=low, high=high, count=len(ids), level=level)

    return ExplainedVariance(
        columns=tuple(interval(found[k], draws[:, k]) for k in range(truth.shape[1])),
        mean=interval(found.nanmean(), draws.nanmean(dim=1)),
    )


@lru_cache(maxsize=1024)
def student_t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Where Student's t distribution has the given probability below it.

    With `t = sqrt(v) tan(angle)` the density becomes proportional to `cos(angle)^(v - 1)` on a finite range, so it is
    summed on a grid (relative error below 1e-6 up to a million degrees of freedom).
    """
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 200_001, dtype=torch.float64)
    density = angle.cos().clamp(min=0) ** (degrees_of_freedom - 1)
    below = torch.cumulative_trapezoid(density)
    below = torch.cat([below.new_zeros(1), below / below[-1]])
    right = int(torch.searchsorted(below, torch.tensor(probability, dtype=torch.float64)))
    right = min(max(right, 1), len(below) - 1)
    part = (probability - below[right - 1]) / (below[right] - below[right - 1])
    return math.sqrt(degrees_of_freedom) * math.tan(angle[right - 1] + part * (angle[right] - angle[right - 1]))
