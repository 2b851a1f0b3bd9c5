"""Attention, RMS norm and rotary positions, shared by every transformer in the project."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

LARGEST_PLAIN_PRODUCT = 2**20
"""Scores per head up to which the plain product is used on a CPU."""


def attend(
    query: Float[Tensor, "b heads n d"],
    key: Float[Tensor, "b heads m d"],
    value: Float[Tensor, "b heads m d"],
    mask: Bool[Tensor, "n m"] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """Softmax attention with scale `d ** -0.5`; `mask` is true where attention is allowed.

    On a CPU the plain product is several times faster than the fused kernel for the short sequences of `nano`,
    most of all in its backward pass; elsewhere, and where the scores would be large, the fused kernel is used.
    """
    if query.device.type != "cpu" or query.shape[-2] * key.shape[-2] > LARGEST_PLAIN_PRODUCT:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        forbidden = torch.finfo(scores.dtype).min
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, forbidden)
    return scores.softmax(dim=-1, dtype=scores.dtype) @ value


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalise the last axis."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * self.weight).to(x.dtype)


def rotary_frequencies(dim: int, ratio: float = 1.0, device: torch.device | None = None) -> Float[Tensor, " half"]:
    """`base ** (-2 i / dim)`, i = 0 .. dim/2 - 1, with base 10000 stretched by the NTK `ratio` of the axis."""
    base = 10000.0 * ratio ** (dim / (dim - 2)) if ratio != 1.0 else 10000.0
    return base ** -(torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)


def rotate_interleaved(x: Float[Tensor, "*b n d"], angles: Float[Tensor, "n half"]) -> Float[Tensor, "*b n d"]:
    """Rotary positions on interleaved pairs (2i, 2i+1), as in the latent action model."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).to(x.dtype)


def rotate_half(x: Float[Tensor, "*b n d"], angles: Float[Tensor, "n half"]) -> Float[Tensor, "*b n d"]:
    """Rotary positions on the pairs (i, i + d/2), as in the world model."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
