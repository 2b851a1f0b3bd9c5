"""Convolutions around the transformer: small pictures move by less than a patch.

A transformer reads a patch as one vector, and has to learn anew for every place what it means to shift its content by a
pixel; a convolution knows that. So in small models both work together:

    stem   noisy latent, and the one before -> features at latent resolution, which patches are cut from
    head   features + what the transformer says of each patch -> the prediction

Frames do not see each other here, so a cache of keys and values remains all that a rollout remembers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.nn.init import init_linear
from dreamdojo.nn.precision import linear_float32

GROUPS = 8


class ConvolutionBlock(nn.Module):
    """Two 3x3 convolutions, scaled and shifted by noise level and action; starts as the identity."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = _zeros(nn.Conv2d(width, width, 3, padding=1))
        init_linear(self.modulation, zero=True)

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Every frame on its own, with its own modulation."""
        scale, shift = linear_float32(self.modulation, nn.functional.silu(e))[..., None, None].chunk(2, dim=1)
        y = nn.functional.silu(nn.functional.group_norm(x, GROUPS) * (1 + scale) + shift).to(x.dtype)
        return x + self.conv_out(nn.functional.silu(self.conv_in(y)))


class Stem(nn.Module):
    """What enters the network, as features."""

    def __init__(self, channels: int, width: int, dim: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList([ConvolutionBlock(width, dim) for _ in range(blocks)])

    def forward(self, x: Float[Tensor, "b t c h w"], e: Float[Tensor, "b t d"]) -> Float[Tensor, "b t width h w"]:
        """`e` is the modulation of each frame."""
        y = x.flatten(0, 1).to(self.conv_in.weight.dtype, memory_format=torch.channels_last)
        y = self.conv_in(y)
        for block in self.blocks:
            y = block(y, e.flatten(0, 1))
        return y.unflatten(0, x.shape[:2])


class Head(nn.Module):
    """What leaves it; starts at zero where `zero`, so that a residual output says "nothing moves"."""

    def __init__(self, width: int, channels: int, dim: int, blocks: int, *, zero: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ConvolutionBlock(width, dim) for _ in range(blocks)])
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)
        if zero:
            _zeros(self.conv_out)

    def forward(self, x: Float[Tensor, "b t width h w"], e: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c h w"]:
        """The prediction in float32."""
        y = x.flatten(0, 1)
        for block in self.blocks:
            y = block(y, e.flatten(0, 1))
        return self.conv_out(nn.functional.silu(y)).unflatten(0, x.shape[:2]).float()


def _zeros(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
