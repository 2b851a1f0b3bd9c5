"""How far success in a model tells success in truth, for a handful of policies.

Each policy is one point: its true success and its success in the model. With eight points little is certain, so every
number here says how uncertain it is: Fisher's interval, an exact permutation test, the correlation without each policy
in turn. `truth` comes first in every function; MMRV depends on the order.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.metrics.statistics import Interval, mean_interval

Convention = Literal["truth", "model"]
"""Whose gaps weigh a wrong order in MMRV."""

EXACT_UP_TO = 11
"""Points up to which all permutations are tried; beyond, that many draws:"""
DRAWS = 200_000

_TOLERANCE = 1e-9
"""Correlations that differ by less are the same: a permutation of ties must count as reached."""


def pearson(truth: Float[Tensor, " p"], model: Float[Tensor, " p"]) -> float:
    """Pearson's correlation; NaN where one of them is constant or there are fewer than two points."""
    x, y = _centred(truth), _centred(model)
    scale = (x.norm() * y.norm()).item()
    return (x @ y).item() / scale if scale > 0 else math.nan


def ranks(values: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """1 for the smallest; equal values share the mean of their ranks."""
    values = values.double()
    below = (values[None] < values[:, None]).sum(dim=1)
    equal = (values[None] == values[:, None]).sum(dim=1)
    return below + (equal + 1) / 2


def spearman(truth: Float[Tensor, " p"], model: Float[Tensor, " p"]) -> float:
    """Spearman's correlation: Pearson's, of the ranks."""
    return pearson(ranks(truth), ranks(model))


def fisher_interval(correlation: float, count: int, *, level: float = 0.95) -> Interval:
    """Fisher's interval of Pearson's correlation: normal in `atanh r` with deviation `1 / sqrt(n - 3)`.

    Open (NaN) for fewer than four points. It supposes that points are drawn from a bivariate normal distribution, which
    chosen policies are not; the permutation test and the leave-one-out range suppose nothing of the kind.
    """
    if count < 4 or not math.isfinite(correlation):
        return Interval(mean=correlation, low=math.nan, high=math.nan, count=count, level=level)
    if abs(correlation) >= 1:
        return Interval(mean=correlation, low=correlation, high=correlation, count=count, level=level)
    centre, reach = math.atanh(correlation), NormalDist().inv_cdf(0.5 + level / 2) / math.sqrt(count - 3)
    low, high = math.tanh(centre - reach), math.tanh(centre + reach)
    return Interval(mean=correlation, low=low, high=high, count=count, level=level)


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """How often a correlation is as large if which success belongs to which policy were chance."""

    p: float
    """One-sided; NaN where there is no correlation."""
    exact: bool
    """Whether all permutations were tried."""


def permutation_test(truth: Float[Tensor, " p"], model: Float[Tensor, " p"], *, seed: int = 0) -> PermutationTest:
    """The share of all `p!` permutations whose Pearson correlation is at least the observed one.

    The smallest p that n points can reach is 1 / n!: 0.042 for four, 0.0014 for six. Beyond `EXACT_UP_TO` points
    permutations are drawn, and p is `(reached + 1) / (draws + 1)`.
    """
    count = len(truth)
    x, y = _centred(truth), _centred(model)
    if count < 2 or x.norm() == 0 or y.norm() == 0:
        return PermutationTest(p=math.nan, exact=True)
    observed = x @ y - _TOLERANCE * x.norm() * y.norm()
    if count > EXACT_UP_TO:
        generator = torch.Generator().manual_seed(seed)
        reached = 0
        for chunk in torch.arange(DRAWS).split(10_000):
            order = torch.rand(len(chunk), count, generator=generator).argsort(dim=1)
            reached += int((y[order] @ x >= observed).sum())
        return PermutationTest(p=(reached + 1) / (DRAWS + 1), exact=False)
    tail = min(count, 8)
    orders = torch.tensor(list(itertools.permutations(range(tail))))
    reached = 0
    for head in itertools.permutations(range(count), count - tail):
        rest = torch.tensor([i for i in range(count) if i not in head])
        fixed = sum((y[i] * x[place] for place, i in enumerate(head)), start=x.new_zeros(()))
        reached += int((y[rest][orders] @ x[count - tail :] + fixed >= observed).sum())
    return PermutationTest(p=reached / math.factorial(count), exact=True)


def leave_one_out(truth: Float[Tensor, " p"], model: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Pearson's correlation without each policy in turn."""
    kept = [torch.arange(len(truth)) != i for i in range(len(truth))]
    return torch.tensor([pearson(truth[rows], model[rows]) for rows in kept], dtype=torch.float64)


def mmrv(truth: Float[Tensor, " p"], model: Float[Tensor, " p"], *, weighed_by: Convention) -> float:
    """Mean maximum rank violation (Li et al. 2024, https://arxiv.org/abs/2405.05941).

    For every policy the worst pair that the model puts in the wrong order, then the mean over policies. The pair counts
    by the gap between its two *true* success rates (`weighed_by="truth"`, as the paper defines it), or by the gap in
    the model (`"model"`, which results from passing the arguments to the paper's code the other way round). 0 is best.

    Raises:
        DataError: if there are no policies.
    """
    if not len(truth):
        raise DataError("expected the success rates of at least one policy, got none")
    t, m = (values.double()[:, None] - values.double()[None] for values in (truth, model))
    wrong = (t < 0) != (m < 0)
    gap = (t if weighed_by == "truth" else m).abs()
    return (gap * wrong).amax(dim=1).mean().item()


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What perfect agreement would score with as many starts: truth against truth, drawn again."""

    pearson: float
    """Mean over draws."""
    mmrv_truth: float
    """Mean over draws, weighed by the gaps of the truth at hand."""
    mmrv_model: float
    """Mean over draws, weighed by the gaps of the truth drawn again."""


def agreement_floor(success: Bool[Tensor, "p n"], *, seed: int = 0, draws: int = 500) -> Floor:
    """Truth against what the same policies would truly reach from other starts, by drawing starts with replacement.

    All policies share the starts that are drawn, as they share those at hand.
    """
    generator = torch.Generator().manual_seed(seed)
    values, rate = success.double(), success.double().mean(dim=1)
    found = []
    for _ in range(draws):
        drawn = values[:, torch.randint(values.shape[1], (values.shape[1],), generator=generator)].mean(dim=1)
        found.append((pearson(rate, drawn), *(mmrv(rate, drawn, weighed_by=by) for by in ("truth", "model"))))
    r, by_truth, by_model = torch.tensor(found, dtype=torch.float64).nanmean(dim=0).tolist()
    return Floor(pearson=r, mmrv_truth=by_truth, mmrv_model=by_model)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """By how much the model is too hopeful, and whether that can be corrected."""

    optimism: Interval
    """Success in the model minus true success, mean over policies."""
    slope: float
    """Of the straight line `truth = slope * model + intercept`; NaN where all policies are alike in the model."""
    intercept: float
    error: float
    """Mean absolute difference between model and truth."""
    corrected_error: float
    """The same after the line, fitted without the policy it is applied to."""


def calibration(truth: Float[Tensor, " p"], model: Float[Tensor, " p"]) -> Calibration:
    """Over-optimism and the line that corrects it."""
    truth, model = truth.double(), model.double()
    slope, intercept = _line(truth, model)
    left = []
    for i in range(len(truth)):
        kept = torch.arange(len(truth)) != i
        a, b = _line(truth[kept], model[kept])
        left.append(abs(a * model[i].item() + b - truth[i].item()))
    return Calibration(
        optimism=mean_interval(model - truth),
        slope=slope,
        intercept=intercept,
        error=(model - truth).abs().mean().item(),
        corrected_error=sum(left) / len(left) if left else math.nan,
    )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """All of it, for one set of policies."""

    policies: int
    pearson: Interval
    """With Fisher's interval."""
    permutation: PermutationTest
    leave_one_out: tuple[float, float]
    """The lowest and highest Pearson correlation without one policy."""
    spearman: float
    mmrv_truth: float
    """Weighed by true gaps."""
    mmrv_model: float
    """Weighed by gaps in the model."""
    calibration: Calibration

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a results file; NaN becomes None."""
        c = self.calibration
        return {
            "policies": self.policies,
            "pearson": self.pearson.to_json(),
            "permutation_p": _finite(self.permutation.p),
            "permutation_exact": self.permutation.exact,
            "leave_one_out": [_finite(end) for end in self.leave_one_out],
            "spearman": _finite(self.spearman),
            "mmrv": {"weighed by true gaps": self.mmrv_truth, "weighed by gaps in the model": self.mmrv_model},
            "calibration": {
                "optimism": c.optimism.to_json(),
                **{name: _finite(getattr(c, name)) for name in ("slope", "intercept", "error", "corrected_error")},
            },
        }


def agreement(truth: Float[Tensor, " p"], model: Float[Tensor, " p"]) -> Agreement:
    """How far the model's success rates tell the true ones, one entry per policy.

    Raises:
        DataError: if there are no policies.
    """
    by_truth, by_model = (mmrv(truth, model, weighed_by=by) for by in ("truth", "model"))
    left = leave_one_out(truth, model)
    left = left[left.isfinite()].tolist()
    return Agreement(
        policies=len(truth),
        pearson=fisher_interval(pearson(truth, model), len(truth)),
        permutation=permutation_test(truth, model),
        leave_one_out=(min(left, default=math.nan), max(left, default=math.nan)),
        spearman=spearman(truth, model),
        mmrv_truth=by_truth,
        mmrv_model=by_model,
        calibration=calibration(truth, model),
    )


def _centred(values: Tensor) -> Tensor:
    values = values.double()
    if not len(values):
        return values
    centred = values - values.mean()
    # what is constant but for rounding is constant
    return torch.where(centred.abs() <= 1e-12 * values.abs().amax().clamp(min=1), 0.0, centred)


def _line(truth: Tensor, model: Tensor) -> tuple[float, float]:
    x, y = _centred(model), _centred(truth)
    if x.norm() == 0:
        return math.nan, truth.mean().item()
    slope = ((x @ y) / (x @ x)).item()
    return slope, (truth.mean() - slope * model.mean()).item()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
