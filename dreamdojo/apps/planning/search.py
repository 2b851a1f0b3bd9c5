"""Searching for cheap candidates by sampling: CEM, iCEM and MPPI, in numbers from -1 to 1.

A candidate is `m d`: `m` knots in time of `d` numbers each. All three draw candidates around a mean, look what they
cost, and move the mean; a `Belief` is what they hand from one plan to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import ConfigError, SimulationError


@dataclass(frozen=True, kw_only=True)
class CEM:
    """The cross-entropy method: the mean and spread of the cheapest candidates become those of the next ones.

    iCEM (Pinneri et al. 2020, arXiv 2008.06389) is the same with noise of a colour, elites that stay in the race, and
    fewer candidates from round to round: `icem()`.
    """

    candidates: int = 64
    """In the first round."""
    iterations: int = 3
    """Rounds."""
    elites: int = 8
    """The cheapest candidates of a round, which the next is drawn from."""
    momentum: float = 0.1
    """Share of the old mean and spread that is kept."""
    least_spread: float = 0.02
    """The spread does not fall below this, so that the search does not stop by itself."""
    noise_exponent: float = 0.0
    """The noise's power falls with frequency to this power over the knots: 0 is white, 2 is smooth."""
    kept: float = 0.0
    """Share of the elites that stay among the candidates, also from one plan to the next."""
    decay: float = 1.0
    """Every round has so many times fewer candidates, but never fewer than twice the elites."""

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.candidates or self.iterations < 1 or self.decay < 1:
            raise ConfigError(
                f"expected 1 or more elites, at least as many candidates, iterations of 1 or more and a decay of 1 or "
                f"more, got {self}"
            )


def icem(**settings: float) -> CEM:
    """iCEM with the constants of its paper, or others."""
    return CEM(**{"noise_exponent": 2.0, "kept": 0.3, "decay": 1.25, **settings})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class MPPI:
    """Model predictive path integral control (Williams et al. 2017): the mean of all candidates, cheap ones count more.

    weight = exp(-(cost - least cost) / (temperature x standard deviation of the costs))
    """

    candidates: int = 64
    """In every round."""
    iterations: int = 3
    """Rounds."""
    temperature: float = 0.3
    """How far from the cheapest a candidate may be to count, in standard deviations of the costs."""
    noise_exponent: float = 0.0
    """As of CEM."""

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.iterations < 1 or self.temperature <= 0:
            raise ConfigError(f"expected candidates and iterations of 1 or more and a temperature above 0, got {self}")


Search = CEM | MPPI


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Where a search looks."""

    mean: Float[Tensor, "m d"]
    spread: Float[Tensor, "m d"]
    kept: Float[Tensor, "j m d"] | None = None
    """Candidates that are tried again first."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The end of a search."""

    answer: Float[Tensor, "m d"]
    """What to do: the cheapest candidate of all, the last mean being one of them."""
    cost: float
    """Of the answer."""
    belief: Belief
    """Where to look next time."""
    tried: int
    """Candidates in all."""
    least: tuple[float, ...]
    """The lowest cost after each round."""


def search(
    cost: Callable[[Float[Tensor, "n m d"]], Float[Tensor, " n"]],
    belief: Belief,
    method: Search,
    *,
    generator: torch.Generator,
) -> Found:
    """The cheapest candidate that the method finds.

    A cost that is not finite (a scene that broke) is the worst there is.

    Raises:
        SimulationError: if no candidate of a round has a finite cost.
    """
    answer, least, course, tried, start = belief.mean, float("inf"), [], 0, belief
    for turn in range(method.iterations):
        candidates = draw(belief, method, turn, generator)
        costs = cost(candidates).float()
        costs = torch.where(costs.isfinite(), costs, torch.inf)
        tried += len(candidates)
        if not costs.isfinite().any():
            raise SimulationError(f"none of {len(candidates)} candidates has a finite cost. Look at the objective.")
        best = int(costs.argmin())
        if costs[best] < least:
            answer, least = candidates[best], float(costs[best])
        course.append(least)
        belief = _elites(belief, candidates, costs, method) if isinstance(method, CEM) else belief
        if isinstance(method, MPPI):
            belief = replace(belief, mean=_weighted(candidates, costs, method))
    belief = replace(belief, spread=start.spread)
    return Found(answer=answer, cost=least, belief=belief, tried=tried, least=tuple(course))


def coloured_noise(shape: tuple[int, int, int], exponent: float, generator: torch.Generator) -> Float[Tensor, "n m d"]:
    """Noise of variance 1 whose power falls as `frequency ** -exponent` along axis 1 (Timmer and König 1995)."""
    n, m, d = shape
    if exponent == 0 or m < 3:
        return torch.randn(shape, generator=generator)
    scale = torch.fft.rfftfreq(m)
    scale[0] = 1 / m
    scale = scale ** (-exponent / 2)
    alone = torch.zeros_like(scale, dtype=torch.bool)  # frequencies that have no imaginary part
    alone[0] = True
    alone[-1] |= m % 2 == 0
    parts = torch.randn(2, n, len(scale), d, generator=generator)
    real = parts[0] * torch.where(alone, 2**0.5, 1.0)[:, None]
    imaginary = parts[1] * torch.where(alone, 0.0, 1.0)[:, None]
    spectrum = torch.complex(real, imaginary) * scale[:, None]
    variance = (scale.square() * torch.where(alone, 2.0, 4.0)).sum() / m**2
    return torch.fft.irfft(spectrum, n=m, dim=1) / variance.sqrt()


def draw(belief: Belief, method: Search, turn: int, generator: torch.Generator) -> Float[Tensor, "n m d"]:
    """The candidates of round number `turn`: the mean, what is kept, and noise around the mean."""
    count = method.candidates
    if isinstance(method, CEM):
        count = max(int(count / method.decay**turn), min(2 * method.elites, count))
    knots, width = belief.mean.shape
    noise = coloured_noise((count, knots, width), method.noise_exponent, generator)
    candidates = (belief.mean + belief.spread * noise).clamp(-1, 1)
    candidates[0] = belief.mean  # the mean is always in the race, so no plan is worse than doing as before
    if belief.kept is not None and len(belief.kept):
        kept = belief.kept[: count - 1]
        candidates[1 : 1 + len(kept)] = kept
    return candidates


def _elites(belief: Belief, candidates: Tensor, costs: Tensor, method: CEM) -> Belief:
    order = costs.argsort()[: min(method.elites, int(costs.isfinite().sum()))]
    elites = candidates[order]
    mean, spread = elites.mean(dim=0), elites.std(dim=0, correction=0)
    share = method.momentum
    kept = elites[: round(method.kept * method.elites)] if method.kept else None
    return Belief(
        mean=share * belief.mean + (1 - share) * mean,
        spread=(share * belief.spread + (1 - share) * spread).clamp(min=method.least_spread),
        kept=kept,
    )


def _weighted(candidates: Tensor, costs: Tensor, method: MPPI) -> Tensor:
    finite = costs[costs.isfinite()]
    scale = method.temperature * max(float(finite.std(correction=0)), 1e-9)
    weight = (-(costs - costs.min()) / scale).softmax(dim=0)
    return torch.einsum("n,nmd->md", weight, candidates)
