"""One way to start a linear layer."""

from __future__ import annotations

from torch import nn


def init_linear(layer: nn.Module, *, zero: bool = False) -> None:
    """Truncated normal with std `1 / sqrt(fan_in)` cut at three deviations, zero bias; or all zero."""
    assert isinstance(layer, nn.Linear)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        std = layer.in_features**-0.5
        nn.init.trunc_normal_(layer.weight, std=std, a=-3 * std, b=3 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
