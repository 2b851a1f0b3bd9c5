"""How far predicted depth is from the true one, in centimetres."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.metrics.frames import MIN_MOVING_FRACTION


def depth_error(
    predicted: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], counted: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Mean absolute error in cm of depth in metres, over the pixels that are `counted`.

    NaN where they are fewer than `MIN_MOVING_FRACTION` of a picture: too few to say anything.
    """
    error = (100 * (predicted.float() - truth.float()).abs()).where(counted, 0.0)
    sums, counts = error.sum(dim=(-2, -1)), counted.sum(dim=(-2, -1))
    enough = (counts > 0) & (counts >= MIN_MOVING_FRACTION * truth.shape[-2] * truth.shape[-1])
    return torch.where(enough, sums / counts.clamp(min=1), torch.nan)
