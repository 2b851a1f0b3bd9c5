"""Parts of a network that stay in float32 whatever the rest computes in."""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor, nn


def linear_float32(layer: nn.Module, x: Float[Tensor, "*b d_in"]) -> Float[Tensor, "*b d_out"]:
    """A linear layer in float32, also under autocast and with weights kept in another precision."""
    assert isinstance(layer, nn.Linear)
    bias = None if layer.bias is None else layer.bias.float()
    with no_autocast(x.device.type):
        return nn.functional.linear(x.float(), layer.weight.float(), bias)


def no_autocast(device: str) -> contextlib.AbstractContextManager:
    """Autocast off, on devices that know it (the meta device does not)."""
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
