"""A convolutional trunk for the latent action model: in small pictures, motion of less than a patch is what counts.

encoder   a pair of frames as one picture (the first, and the change) -> convolutions, 4 x 4 cells -> posterior
decoder   previous frame -> a U-Net whose features the latent action scales and shifts (FiLM, arXiv 1709.07871) ->
          the change of the picture
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.nn.patches import to_pairs

WIDTHS = (3, 6, 8, 10, 12)
"""Channels level by level, in eighths of `dim`; a level halves the picture's sides, but for the third."""
STRIDES = (2, 2, 1, 2, 2)
CELLS = 4
"""Cells along each side of the picture, in which the encoder gathers what it saw."""
CHANGE_GAIN = 4.0
"""Brings the change of a pixel to the scale of the pixel."""
GROUPS = 8


class Layer(nn.Module):
    """Convolution, group norm, scale and shift where given, SiLU."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2)
        self.norm = nn.GroupNorm(GROUPS, channels_out)

    def forward(
        self, x: Float[Tensor, "b c h w"], film: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """One layer; `film` is a scale and a shift for each channel, both zero for none."""
        x = self.norm(self.convolution(x))
        if film is not None:
            x = x * (1 + film[0]) + film[1]
        return nn.functional.silu(x)


class PairEncoder(nn.Module):
    """Reads a pair of neighbouring frames as one picture."""

    def __init__(self, *, channels: int, dim: int, dim_out: int) -> None:
        super().__init__()
        widths = [dim * eighths // 8 for eighths in WIDTHS]
        self.layers = nn.ModuleList(
            Layer(before, after, kernel=5 if level == 0 else 3, stride=STRIDES[level])
            for level, (before, after) in enumerate(zip([2 * channels, *widths], widths, strict=False))
        )
        self.gather = nn.AdaptiveAvgPool2d(CELLS)
        self.out = nn.Sequential(nn.Linear(widths[-1] * CELLS**2, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim_out))

    def forward(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b p d"]:
        """Frames in [0, 1] -> one row for each of the `t - 1` pairs."""
        pairs = to_pairs(frames)
        first, second = pairs[:, 0], pairs[:, 1]
        x = torch.cat([first - 0.5, CHANGE_GAIN * (second - first)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.gather(x).flatten(1)).unflatten(0, (frames.shape[0], -1))


class ChangeDecoder(nn.Module):
    """Draws what a latent action changes in a frame."""

    def __init__(self, *, channels: int, dim: int, latent_dim: int, num_blocks: int) -> None:
        super().__init__()
        fine, middle, coarse = (dim * eighths // 8 for eighths in WIDTHS[:3])
        self.down = nn.ModuleList(
            [
                Layer(channels, fine, kernel=5, stride=2),
                Layer(fine, middle, stride=2),
                Layer(middle, coarse, stride=2),
            ]
        )
        self.blocks = nn.ModuleList(Layer(coarse, coarse) for _ in range(num_blocks))
        self.up = nn.ModuleList([Layer(coarse + middle, middle), Layer(middle + fine, fine)])
        self.widths = [coarse] * num_blocks + [middle, fine]
        self.film = nn.Linear(latent_dim, 2 * sum(self.widths))
        self.out = nn.Conv2d(fine, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, 0.0)  # pyright: ignore[reportArgumentType]

    def forward(
        self, frames: Float[Tensor, "n c h w"], latent_action: Float[Tensor, "n l"]
    ) -> Float[Tensor, "n c h w"]:
        """Frames in [0, 1] whose sides are multiples of 8, and their latent actions -> the change."""
        films = self._films(latent_action)
        fine = self.down[0]((frames - 0.5).contiguous(memory_format=torch.channels_last))
        middle = self.down[1](fine)
        x = self.down[2](middle)
        for block in self.blocks:
            x = x + block(x, next(films))
        for layer, beside in zip(self.up, (middle, fine), strict=True):
            x = layer(torch.cat([nn.functional.interpolate(x, scale_factor=2), beside], dim=1), next(films))
        return nn.functional.pixel_shuffle(self.out(x), 2)

    def _films(self, latent_action: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        scales, shifts = self.film(latent_action)[..., None, None].chunk(2, dim=1)
        return zip(scales.split(self.widths, dim=1), shifts.split(self.widths, dim=1), strict=True)
