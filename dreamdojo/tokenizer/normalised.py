"""What the tokenizers that were trained as one network share: sizes by their config, latents by channel statistics."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from dreamdojo.training.hub import Pretrained


class NormalisedTokenizer(Pretrained):
    """A tokenizer whose latents are `(raw - mean) / std`, by channel; its class registers both as buffers."""

    config: Any
    """With `latent_channels`, `spatial_factor` and `temporal_factor`."""
    latent_mean: Tensor
    latent_std: Tensor

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        return self.config.latent_channels

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        return self.config.spatial_factor

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame after the first."""
        return self.config.temporal_factor

    def num_latents(self, num_frames: int) -> int:
        """Latent frames of a whole video of `num_frames`."""
        return 1 + (num_frames - 1) // self.temporal_factor

    def normalise(self, raw: Float[Tensor, "b tl cl hl wl"]) -> Float[Tensor, "b tl cl hl wl"]:
        """What the encoder gives -> latents."""
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def denormalise(self, latents: Float[Tensor, "b tl cl hl wl"]) -> Float[Tensor, "b tl cl hl wl"]:
        """The inverse of `normalise`: what the decoder takes."""
        return latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
