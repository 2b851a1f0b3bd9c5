"""TAEF2, the tiny image autoencoder of FLUX.2's latent space, as a video tokenizer: every frame on its own.

Sides shrink by 8; a latent frame has 32 channels. It comes trained (`madebyollin/taef2`, MIT; `dreamdojo convert`) and
stays as it is. Both halves are residual blocks of one width between convolutions that halve or double the sides:

    encoder   conv, block, 3 x (shrink, 3 blocks), conv        decoder   conv, 3 x (3 blocks, grow), block, conv

The blocks at latent resolution first add what a pointwise network makes of group-normalised features: the norm runs
over the whole picture, so this is how a place learns of places far away. The decoder holds latents within +-3.

The published scale is that of FLUX.2's normalised latents, near mean 0 and standard deviation 1 in every channel, so
`latent_mean` and `latent_std` are 0 and 1 as converted; `tokenizer.train.measure_statistics` sets them from frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.normalised import NormalisedTokenizer
from dreamdojo.tokenizer.protocol import CausalState

HALVINGS = 3
BLOCKS = 3
"""Residual blocks at each resolution but the full one, which has one."""
GROUPS = 4
"""Of the group norm in the blocks at latent resolution."""
LATENT_BOUND = 3.0
PIXELS_AT_ONCE = 2**20
"""A pixel's features take 256 bytes in float32; a call works through its frames in parts of so many pixels."""


@dataclass(frozen=True, kw_only=True)
class TAEF2Config:
    """Sizes of TAEF2; the defaults are those of the published weights."""

    width: int = 64
    """Channels of every layer between the first and the last."""
    latent_channels: int = 32
    """Channels of a latent frame."""

    def __post_init__(self) -> None:
        for name in ("width", "latent_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        return 2**HALVINGS

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame: 1."""
        return 1


class WholePicture(nn.Module):
    """A pointwise network around a group norm, which averages over the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(width, GROUPS * width, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, GROUPS * width)
        self.narrow = nn.Conv2d(GROUPS * width, width, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What each pixel learns of its picture."""
        return self.narrow(nn.functional.relu(self.norm(self.widen(x))))


class Block(nn.Module):
    """Three 3x3 convolutions beside a shortcut; with `whole`, the picture is looked at as a whole first."""

    def __init__(self, width: int, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = WholePicture(width) if whole else None
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Every frame on its own."""
        if self.whole is not None:
            x = x + self.whole(x)
        first, second, third = self.convs
        relu = nn.functional.relu
        return relu(x + third(relu(second(relu(first(x))))))


class Encoder(nn.Module):
    """Frames in [0, 1] to latents."""

    def __init__(self, config: TAEF2Config) -> None:
        super().__init__()
        width = config.width
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.first = Block(width)
        self.shrink = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False) for _ in range(HALVINGS)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, whole=level == HALVINGS - 1) for _ in range(BLOCKS)))
            for level in range(HALVINGS)
        )
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n cl hl wl"]:
        """Every frame on its own."""
        x = self.first(self.conv_in(x))
        for shrink, blocks in zip(self.shrink, self.stages, strict=True):
            x = blocks(shrink(x))
        return self.conv_out(x)


class Decoder(nn.Module):
    """Latents to frames in [0, 1]."""

    def __init__(self, config: TAEF2Config) -> None:
        super().__init__()
        width = config.width
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, whole=level == 0) for _ in range(BLOCKS))) for level in range(HALVINGS)
        )
        self.grow = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(HALVINGS))
        self.last = Block(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "n cl hl wl"]) -> Float[Tensor, "n 3 h w"]:
        """Every frame on its own."""
        x = nn.functional.relu(self.conv_in(LATENT_BOUND * torch.tanh(z / LATENT_BOUND)))
        for blocks, grow in zip(self.stages, self.grow, strict=True):
            x = grow(nn.functional.interpolate(blocks(x), scale_factor=2))
        return self.conv_out(self.last(x))


class TAEF2Tokenizer(NormalisedTokenizer):
    """Frames in [-1, 1] to latent frames and back; satisfies `VideoTokenizer` and remembers nothing between calls."""

    def __init__(self, config: TAEF2Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.requires_grad_(False)

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames -> normalised latent frames; the state is empty.

        Raises:
            DataError: if the frames have other than three channels, there are none, or their sides do not divide by 8.
        """
        b, t, channels, h, w = frames.shape
        factor = self.spatial_factor
        if channels != 3 or t == 0:
            raise DataError(f"expected frames b t 3 h w, at least one, got {tuple(frames.shape)}")
        if h % factor or w % factor:
            raise DataError(f"frames of {h}x{w} do not divide by the tokenizer's spatial factor {factor}")
        raw = _in_parts(self.encoder, (frames.flatten(0, 1) + 1) / 2, h * w).unflatten(0, (b, t))
        return self.normalise(raw), ()

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames; the state is empty."""
        raw = self.denormalise(latents)
        pixels = raw.shape[-2] * raw.shape[-1] * self.spatial_factor**2
        frames = _in_parts(self.decoder, raw.flatten(0, 1), pixels).unflatten(0, latents.shape[:2])
        return 2 * frames - 1, ()


def _in_parts(network: nn.Module, frames: Tensor, pixels: int) -> Tensor:
    """What a network that sees one frame at a time makes of frames of so many pixels, a few after another."""
    return torch.cat([network(part) for part in frames.split(max(1, PIXELS_AT_ONCE // pixels))])
