"""Parts of a network that stay in float32 whatever the rest computes in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def linear_float32(layer: nn.Module, x: Float[Tensor, "*b d_in"]) -> Float[Tensor, "*b d_out"]:
    """A linear layer in float32, also under autocast and with weights kept in another precision."""
    assert isinstance(layer, nn.Linear)
    with torch.autocast(x.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return nn.functional.linear(x.float(), layer.weight.float(), bias)
