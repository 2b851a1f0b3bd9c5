"""Metric depth as a picture: metres <-> codes in [-1, 1], evenly spaced in log(metres).

    code = 2 * log(metres / near) / log(far / near) - 1

So an error in codes is a relative one in metres: 0.01 is `0.005 * log(far / near)`, 1.4 % from 0.2 to 3 m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DepthCoding:
    """How metres become codes. Depth out of range comes back as the end of the range."""

    near: float
    """Metres of code -1."""
    far: float
    """Metres of code 1."""
    hole: float = 0.02
    """Up to so many metres, or where it is not finite, depth was not measured: sensors say 0, which a depth video holds
    as the first of its codes (0.01 m by default). A hole is coded as `far`."""

    def __post_init__(self) -> None:
        if not 0 <= self.hole < self.near < self.far:
            raise ConfigError(
                f"a depth coding needs 0 <= hole < near < far, got hole={self.hole}, near={self.near}, far={self.far}"
            )

    def encode(self, metres: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
        """Metres -> codes in [-1, 1]."""
        metres = metres.float()
        hole = ~metres.isfinite() | (metres <= self.hole)
        inside = torch.where(hole, self.far, metres).clamp(self.near, self.far)
        return 2 * (inside / self.near).log() / self._span - 1

    def decode(self, codes: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
        """Codes -> metres; the inverse of `encode` between `near` and `far`."""
        return self.near * (0.5 * (codes.float().clamp(-1, 1) + 1) * self._span).exp()

    def within(self, metres: Float[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
        """Where depth was measured and can be coded: what errors are counted over."""
        return metres.isfinite() & (metres >= self.near) & (metres <= self.far)

    @property
    def _span(self) -> float:
        return math.log(self.far / self.near)
