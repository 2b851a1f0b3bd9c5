"""The small video tokenizer: a convolutional autoencoder, causal in time.

Frames are encoded one by one; with `temporal_factor` k > 1, the features of k frames join into one latent frame. As in
the Wan tokenizer the first frame is alone: `1 + k * n` frames give `1 + n` latent frames, so latent frame 0 depends on
frame 0 only, and latent frame i on frames `k (i - 1) + 1 .. k i` and on the latent frames before it. Time is mixed by
causal convolutions at latent resolution; their last inputs are a state that streams from call to call.

Latents are normalised by channel statistics that are measured once, after training: `(raw - mean) / std`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.normalised import NormalisedTokenizer
from dreamdojo.tokenizer.protocol import CausalState


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the small video tokenizer."""

    latent_channels: int
    """Channels of a latent frame."""
    width: int
    """Channels at half resolution; doubled below."""
    spatial_factor: int = 4
    """How many times smaller a latent frame's sides are."""
    temporal_factor: int = 1
    """`k`, the frames (and actions) that belong to one latent frame after the first."""
    channels: int = 3
    """Channels of a frame: 3 for RGB, 1 for depth."""
    blocks: int = 2
    """Residual blocks at latent resolution, on each side."""

    def __post_init__(self) -> None:
        for name, least in (("spatial_factor", 2), ("temporal_factor", 1)):
            value = getattr(self, name)
            if value < least or value & (value - 1):
                raise ConfigError(f"{name} must be a power of two and at least {least}, got {value}")
        if self.width % 8:
            raise ConfigError(f"width must be a multiple of 8, got {self.width}")

    @property
    def num_halvings(self) -> int:
        """How often the sides are halved."""
        return self.spatial_factor.bit_length() - 1


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the second starts at zero, so the block starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Every frame on its own."""
        return x + self.conv_out(nn.functional.silu(self.conv_in(nn.functional.silu(self.norm(x)))))


class CausalTimeConv(nn.Module):
    """A residual convolution over this latent frame and the two before it; starts as the identity.

    Before the first frame the history repeats it. The last two inputs are returned as the state of the next call.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3 * width, width, 1)
        nn.init.zeros_(self.mix.weight)
        assert self.mix.bias is not None
        nn.init.zeros_(self.mix.bias)

    def forward(
        self, x: Float[Tensor, "b t c h w"], state: Float[Tensor, "b 2 c h w"] | None
    ) -> tuple[Float[Tensor, "b t c h w"], Float[Tensor, "b 2 c h w"]]:
        """Mix each frame with its past; returns the mixed frames and the new state."""
        history = repeat(x[:, 0], "b c h w -> b two c h w", two=2) if state is None else state
        padded = torch.cat([history, x], dim=1)
        past = torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=2)
        mixed = self.mix(nn.functional.silu(past.flatten(0, 1))).unflatten(0, x.shape[:2])
        return x + mixed, padded[:, -2:]


class Tokenizer(NormalisedTokenizer):
    """Frames in [-1, 1] to latent frames and back."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, k = config.width, config.temporal_factor
        inner = 2 * width

        # The first halving only folds pixels into channels, so nothing is computed at full resolution.
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * config.channels, width, 3, padding=1)]
        down += [ResidualBlock(width), nn.SiLU()]
        for level in range(config.num_halvings - 1):
            before = width if level == 0 else inner
            down += [nn.Conv2d(before, inner, 4, stride=2, padding=1), ResidualBlock(inner), nn.SiLU()]
        if config.num_halvings == 1:
            down += [nn.Conv2d(width, inner, 3, padding=1)]
        self.down = nn.Sequential(*down)
        self.join = nn.Conv2d(k * inner, inner, 1)
        self.encode_time = CausalTimeConv(inner) if k > 1 else None
        self.to_latent = nn.Sequential(
            *[ResidualBlock(inner) for _ in range(config.blocks)],
            nn.GroupNorm(8, inner),
            nn.SiLU(),
            nn.Conv2d(inner, config.latent_channels, 3, padding=1),
        )

        self.from_latent = nn.Conv2d(config.latent_channels, inner, 3, padding=1)
        self.decode_blocks = nn.Sequential(*[ResidualBlock(inner) for _ in range(config.blocks)])
        self.decode_time = CausalTimeConv(inner)
        self.part = nn.Conv2d(inner, k * inner, 1)
        up: list[nn.Module] = [nn.SiLU()]
        for level in range(config.num_halvings - 1):
            after = width if level == config.num_halvings - 2 else inner
            up += [nn.Conv2d(inner, 4 * after, 3, padding=1), nn.PixelShuffle(2), ResidualBlock(after), nn.SiLU()]
        if config.num_halvings == 1:
            up += [nn.Conv2d(inner, width, 3, padding=1), nn.SiLU()]
        up += [nn.Conv2d(width, 4 * config.channels, 3, padding=1), nn.PixelShuffle(2)]
        self.up = nn.Sequential(*up)

        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames -> normalised latent frames, and the state that continues the video.

        Without a state the first frame is the first of the video: `t = 1 + k n`. With one, `t = k n`.

        Raises:
            DataError: if `t` does not fit `k`, or the sides do not divide by `spatial_factor`.
        """
        raw, state = self._encode(frames, state)
        return self.normalise(raw), state

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames, and the state that continues the video.

        Without a state the first latent frame is the first of the video and gives one frame; every other gives `k`.
        """
        return self._decode(self.denormalise(latents), state)

    def forward(
        self, frames: Float[Tensor, "b t c h w"], latent_noise: Float[Tensor, "b tl cl hl wl"] | float = 0.0
    ) -> tuple[Float[Tensor, "b t c h w"], Float[Tensor, "b tl cl hl wl"]]:
        """Reconstruction and raw latents, as training needs them; `latent_noise` is added before decoding."""
        raw, _ = self._encode(frames, None)
        return self._decode(raw + latent_noise, None)[0], raw

    def _encode(self, frames: Tensor, state: CausalState | None) -> tuple[Tensor, CausalState]:
        k, factor = self.config.temporal_factor, self.config.spatial_factor
        b, t, _, h, w = frames.shape
        if h % factor or w % factor:
            raise DataError(f"frames of {h}x{w} do not divide by the tokenizer's spatial factor {factor}")
        first = state is None
        if (t - first) % k or t == 0:
            form = f"1 + {k} n" if first else f"{k} n"
            raise DataError(f"expected {form} frames (k = {k} frames to a latent), got {t}")
        x = self.down(frames.flatten(0, 1)).unflatten(0, (b, t))
        if k > 1:
            if first:
                x = torch.cat([x[:, :1].expand(-1, k, -1, -1, -1), x[:, 1:]], dim=1)
            x = rearrange(x, "b (t k) c h w -> b t (k c) h w", k=k)
        x = self.join(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        new_state: CausalState = ()
        if self.encode_time is not None:
            x, kept = self.encode_time(x, state[0] if state else None)
            new_state = (kept,)
        return self.to_latent(x.flatten(0, 1)).unflatten(0, x.shape[:2]), new_state

    def _decode(self, raw: Tensor, state: CausalState | None) -> tuple[Tensor, CausalState]:
        k = self.config.temporal_factor
        first = state is None
        b, t = raw.shape[:2]
        x = self.decode_blocks(self.from_latent(raw.flatten(0, 1))).unflatten(0, (b, t))
        x, kept = self.decode_time(x, state[0] if state else None)
        x = self.part(x.flatten(0, 1)).unflatten(0, (b, t))
        x = rearrange(x, "b t (k c) h w -> b (t k) c h w", k=k)
        if first:
            x = x[:, k - 1 :]
        return self.up(x.flatten(0, 1)).unflatten(0, x.shape[:2]), (kept,)


def to_pixels(frames: Float[Tensor, "*b c h w"]) -> Tensor:
    """Frames in [-1, 1] -> uint8."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_pixels(frames: Tensor) -> Float[Tensor, "*b c h w"]:
    """uint8 frames -> [-1, 1]."""
    return frames.float() / 127.5 - 1
