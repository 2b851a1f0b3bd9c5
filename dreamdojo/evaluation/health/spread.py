"""How many of its numbers a latent action uses.

    effective rank = exp(-sum_i p_i log p_i),  p = eigenvalues of the latent actions' covariance, divided by their sum
    kl_d           = mean over pairs of -1/2 (1 + log_variance_d - mean_d^2 - exp(log_variance_d)), nats
    active         = variance over pairs of mean_d  >=  ACTIVE x mean over pairs of exp(log_variance_d)

The rank is that of the means: it counts directions, weighted by how far the latent actions go along them. A dimension
is active where it tells pairs apart beyond its own noise, at whatever scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.evaluation.health.pairs import Pairs
from dreamdojo.metrics import Interval, mean_interval

ACTIVE = 0.1
"""Variance of the means over variance of the noise from which a dimension counts as active."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What the latent actions of a set use of their space."""

    effective_rank: float
    """0 where all latent actions are the same."""
    shares: tuple[float, ...]
    """Share of the variance along each principal direction, falling."""
    kl: tuple[Interval, ...]
    """Nats of each dimension, falling; means over episodes."""
    active: int
    """Dimensions that tell pairs apart."""

    @property
    def dims(self) -> int:
        """Numbers in one latent action."""
        return len(self.shares)

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "effective_rank": self.effective_rank,
            "dims": self.dims,
            "active": self.active,
            "shares": list(self.shares),
            "kl": [interval.to_json() for interval in self.kl],
        }


def measure_spread(pairs: Pairs) -> Spread:
    """Rank, KL and active dimensions of the latent actions of `pairs`."""
    mean, log_variance = pairs.mean.double(), pairs.log_variance.double()
    variance = mean.var(dim=0)
    noise = log_variance.exp().mean(dim=0)
    active = (variance >= ACTIVE * noise) & (variance > 1e-10)
    shares = variance_shares(mean)
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp())
    everywhere = torch.arange(len(pairs))
    by_dimension = [mean_interval(pairs.by_episode(column, everywhere)) for column in kl.unbind(dim=1)]
    return Spread(
        effective_rank=effective_rank(shares),
        shares=tuple(shares.tolist()),
        kl=tuple(sorted(by_dimension, key=lambda interval: -interval.mean)),
        active=int(active.sum()),
    )


def variance_shares(x: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Share of the variance along each principal direction, falling; zeros where nothing varies."""
    eigenvalues = torch.linalg.eigvalsh(x.T.cov()).clamp(min=0).flip(0)
    total = eigenvalues.sum()
    return eigenvalues / total if total > 1e-10 else torch.zeros_like(eigenvalues)


def effective_rank(shares: Float[Tensor, " d"]) -> float:
    """The exponential of the entropy of `shares`: k equal ones count as k; 0 where all are zero."""
    if shares.sum() == 0:
        return 0.0
    return torch.special.entr(shares).sum().exp().item()
