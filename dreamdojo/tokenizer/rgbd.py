"""RGB and depth in one tokenizer: a latent of each, side by side on the channel axis.

Frames have four channels: RGB in [-1, 1] and depth, coded as `DepthCoding` says. The RGB part is a tokenizer like any
other, so an RGB model's latents are the first channels of an RGB-D one's. Depth has a tokenizer of its own, of one
channel; or, with the Wan tokenizer, it goes through the same one, repeated on three channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.protocol import CausalState, VideoTokenizer
from dreamdojo.tokenizer.taef2 import TAEF2Config, TAEF2Tokenizer
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.training.hub import Pretrained


@dataclass(frozen=True, kw_only=True)
class RGBDConfig:
    """The two parts and how depth is coded."""

    rgb: TokenizerConfig | WanConfig | TAEF2Config
    """The tokenizer of RGB."""
    depth: TokenizerConfig | None
    """The tokenizer of depth; None: that of RGB, which sees depth on three channels."""
    coding: DepthCoding
    """Metres to codes and back."""

    def __post_init__(self) -> None:
        if self.depth is None:
            return
        if not isinstance(self.rgb, TokenizerConfig):
            raise ConfigError(
                f"a tokenizer of depth stands beside a small tokenizer of RGB, got a {type(self.rgb).__name__}: leave "
                "it out (None), and depth goes through that one too"
            )
        wanted = {"channels": 1} | {n: getattr(self.rgb, n) for n in ("spatial_factor", "temporal_factor")}
        for name, expected in wanted.items():
            if (found := getattr(self.depth, name)) != expected:
                raise ConfigError(f"the tokenizer of depth must have {name}={expected} to fit RGB's, got {found}")

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame, RGB and depth."""
        return self.rgb.latent_channels + (self.depth or self.rgb).latent_channels


class RGBDTokenizer(Pretrained):
    """Frames of RGB and coded depth to latent frames and back; satisfies `VideoTokenizer`.

    A state is that of the RGB part, then as many tensors of the depth part.
    """

    depth_ends: Tensor
    """Metres of `near` and `far`, among the weights so that their hash, by which caches know a tokenizer, has them."""

    def __init__(self, config: RGBDConfig) -> None:
        super().__init__()
        self.config = config
        self.rgb: nn.Module = _part(config.rgb)
        self.own_depth = None if config.depth is None else Tokenizer(config.depth)
        self.register_buffer("depth_ends", torch.tensor([config.coding.near, config.coding.far]))

    @property
    def rgb_part(self) -> VideoTokenizer:
        """The tokenizer of RGB."""
        assert isinstance(self.rgb, VideoTokenizer)
        return self.rgb

    @property
    def depth_part(self) -> VideoTokenizer:
        """The tokenizer of depth, of frames with one channel."""
        return _OnThreeChannels(self.rgb_part) if self.own_depth is None else self.own_depth

    @property
    def coding(self) -> DepthCoding:
        """Metres to codes and back."""
        return self.config.coding

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        return self.config.latent_channels

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        return self.rgb_part.spatial_factor

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame after the first."""
        return self.rgb_part.temporal_factor

    def num_latents(self, num_frames: int) -> int:
        """Latent frames of a whole video of `num_frames`."""
        return self.rgb_part.num_latents(num_frames)

    def join(self, rgb: Float[Tensor, "b t 3 h w"], metres: Float[Tensor, "b t 1 h w"]) -> Float[Tensor, "b t 4 h w"]:
        """RGB in [-1, 1] and depth in metres as this tokenizer's frames."""
        return torch.cat([rgb, self.coding.encode(metres)], dim=2)

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames -> normalised latent frames, and the state that continues the video.

        Raises:
            DataError: if the frames have other than four channels, or a part refuses them.
        """
        if frames.shape[2] != 4:
            raise DataError(f"expected frames b t 4 h w of RGB and coded depth, got {tuple(frames.shape)}")
        of_rgb, of_depth = _halves(state)
        rgb, rgb_state = self.rgb_part.encode(frames[:, :, :3], of_rgb)
        depth, depth_state = self.depth_part.encode(frames[:, :, 3:], of_depth)
        return torch.cat([rgb, depth], dim=2), (*rgb_state, *depth_state)

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames, and the state that continues the video."""
        of_rgb, of_depth = _halves(state)
        channels = self.config.rgb.latent_channels
        rgb, rgb_state = self.rgb_part.decode(latents[:, :, :channels], of_rgb)
        depth, depth_state = self.depth_part.decode(latents[:, :, channels:], of_depth)
        return torch.cat([rgb, depth], dim=2), (*rgb_state, *depth_state)


class _OnThreeChannels:
    """A tokenizer of RGB for pictures of one channel: repeated on the way in, averaged on the way out."""

    def __init__(self, rgb: VideoTokenizer) -> None:
        self._rgb = rgb

    @property
    def latent_channels(self) -> int:
        return self._rgb.latent_channels

    @property
    def spatial_factor(self) -> int:
        return self._rgb.spatial_factor

    @property
    def temporal_factor(self) -> int:
        return self._rgb.temporal_factor

    def num_latents(self, num_frames: int) -> int:
        return self._rgb.num_latents(num_frames)

    def encode(self, frames: Tensor, state: CausalState | None = None) -> tuple[Tensor, CausalState]:
        return self._rgb.encode(frames.expand(-1, -1, 3, -1, -1), state)

    def decode(self, latents: Tensor, state: CausalState | None = None) -> tuple[Tensor, CausalState]:
        frames, state = self._rgb.decode(latents, state)
        return frames.mean(dim=2, keepdim=True), state


def join_parts(
    rgb: Tokenizer | WanTokenizer | TAEF2Tokenizer, depth: Tokenizer | None, coding: DepthCoding
) -> RGBDTokenizer:
    """One tokenizer of two trained ones; without `depth`, that of RGB takes both."""
    config = RGBDConfig(rgb=rgb.config, depth=None if depth is None else depth.config, coding=coding)
    joined = RGBDTokenizer(config)
    joined.rgb, joined.own_depth = rgb, depth
    return joined.eval()


def rgb_tokenizer(tokenizer: VideoTokenizer) -> VideoTokenizer:
    """The part of a tokenizer that takes RGB frames: itself, but for one of RGB and depth."""
    return tokenizer.rgb_part if isinstance(tokenizer, RGBDTokenizer) else tokenizer


def _part(config: TokenizerConfig | WanConfig | TAEF2Config) -> Tokenizer | WanTokenizer | TAEF2Tokenizer:
    if isinstance(config, TokenizerConfig):
        return Tokenizer(config)
    return WanTokenizer(config) if isinstance(config, WanConfig) else TAEF2Tokenizer(config)


def _halves(state: CausalState | None) -> tuple[CausalState | None, CausalState | None]:
    """A state taken apart: both parts are of one kind, so they remember equally many tensors."""
    if state is None:
        return None, None
    half, rest = divmod(len(state), 2)
    if rest:
        raise DataError(
            f"expected a state of RGB and depth with equally many tensors of each, found {len(state)} tensors. Give "
            "the state that the same method returned for the same video."
        )
    return state[:half], state[half:]
