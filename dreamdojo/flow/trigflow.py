"""TrigFlow: the same path as rectified flow, told by an angle (arXiv 2410.11081). The published student counts in it.

noisy = cos(t) clean + sin(t) noise,   t from 0 (clean) to pi / 2 (noise)

Divided by cos(t) + sin(t) it is the rectified-flow point at sigma = sin(t) / (cos(t) + sin(t)), so a network that
predicts a rectified-flow velocity F gives the clean sample as

clean = c_skip noisy + c_out F(c_in noisy, sigma),   c_skip = c_in = 1 / (cos t + sin t),   c_out = -sigma
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Preconditioning:
    """The four coefficients at one angle."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor
    """The sigma that the network is told."""


def precondition(t: Float[Tensor, "*b"], *, reference_compatible: bool = False) -> Preconditioning:
    """The coefficients above, computed in double precision.

    With `reference_compatible` they are rounded to bfloat16, as the published student rounds them (and its angles:
    `round_bfloat16`): sigma 0.9375, 0.8333 becomes 0.9414, 0.8359.
    """
    cos, sin = t.double().cos(), t.double().sin()
    total = cos + sin
    parts = (1 / total, -sin / total, 1 / total, sin / total)
    if reference_compatible:
        parts = tuple(round_bfloat16(part) for part in parts)
    return Preconditioning(*parts)


def angle_of_sigma(sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The angle at which the path, scaled, meets the rectified-flow point at `sigma`."""
    return torch.atan2(sigma.double(), 1 - sigma.double())


def round_bfloat16(value: Tensor) -> Tensor:
    """A number as the published student keeps it, in bfloat16."""
    return value.to(torch.bfloat16).double()
