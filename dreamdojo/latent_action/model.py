"""The latent action model: what changed between two frames, as a few continuous numbers.

A spatio-temporal transformer reads the frames, one learned token per frame gathers what changed, and its output is
the posterior of the latent action; a spatial transformer redraws the next frame from the previous one and a latent
action (DreamDojo, arXiv 2602.06949; the model of AdaWorld, arXiv 2503.18938).

    posterior = N(mean, exp(log_variance)),  [mean | log_variance] = fc(action_token(encoder(frames)))
    next_frame = sigmoid(decoder(patch_up(previous_frame) + action_up(latent_action)))

With `early_fusion` the encoder sees each pair of neighbouring frames as one picture of twice the channels, with
`residual` the decoder predicts the change of the picture, and with `antisymmetric` the posterior's mean is half of
`fc(frames) - fc(frames backwards)`; all off, this is the published model. With `convolutional` both transformers are
convolutions instead (`convolution.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.convolution import ChangeDecoder, PairEncoder
from dreamdojo.nn.attention import attend, rotary_frequencies, rotate_interleaved
from dreamdojo.nn.patches import from_pairs, from_patches, to_pairs, to_patches
from dreamdojo.training.hub import Pretrained

CHANGE_GAIN = 10.0
"""With early fusion, a patch's change is about a tenth of the patch; this brings both to one scale for the norm."""


@dataclass(frozen=True, kw_only=True)
class LatentActionConfig:
    """Sizes of the latent action model and the options that small models need."""

    dim: int
    """Width of both transformers."""
    latent_dim: int
    """Numbers in one latent action."""
    num_heads: int
    """Attention heads; must divide `dim`."""
    encoder_blocks: int
    """Spatio-temporal blocks of the encoder."""
    decoder_blocks: int
    """Spatial blocks of the decoder."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    channels: int = 3
    """Channels of a frame: 3 for RGB."""
    early_fusion: bool = False
    """Whether the encoder reads a pair of frames as one picture; off, they meet in temporal attention as published."""
    residual: bool = False
    """Whether the decoder predicts the change of the picture; off, it predicts the picture through a sigmoid."""
    antisymmetric: bool = False
    """Whether the latent action of a pair seen backwards is the negative of its own, so that stillness is zero and
    nothing that stays in the picture can enter; costs a second pass of the encoder."""
    convolutional: bool = False
    """Whether encoder and decoder are convolutions, which see motion of less than a patch; needs `early_fusion` and
    `residual`. `dim` is the width at an eighth of the picture, `decoder_blocks` counts layers there, frames are cropped
    to multiples of `patch_size`, itself a multiple of 8; `num_heads` and `encoder_blocks` play no part."""

    def __post_init__(self) -> None:
        if self.convolutional and not (self.early_fusion and self.residual):
            raise ConfigError("a convolutional latent action model needs early_fusion and residual")
        if self.convolutional and (self.patch_size % 8 or self.dim % 64):
            raise ConfigError(
                "a convolutional latent action model needs a patch_size that is a multiple of 8 and a dim that is a "
                f"multiple of 64: got patch_size={self.patch_size}, dim={self.dim}"
            )
        if self.dim % self.num_heads:
            raise ConfigError(f"dim must be a multiple of num_heads: got dim={self.dim}, num_heads={self.num_heads}")

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch of one frame."""
        return self.channels * self.patch_size**2


@dataclass(frozen=True)
class LatentActionPosterior:
    """Gaussian posterior of the latent action of each neighbouring pair."""

    mean: Float[Tensor, "b p l"]
    log_variance: Float[Tensor, "b p l"]

    def sample(self, noise: Float[Tensor, "b p l"]) -> Float[Tensor, "b p l"]:
        """The reparameterised sample `mean + noise * std`."""
        return self.mean + noise * torch.exp(0.5 * self.log_variance)


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values without bias, the output with one."""

    def __init__(self, dim: int, num_heads: int, *, rotary: bool) -> None:
        super().__init__()
        self.num_heads, self.rotary = num_heads, rotary
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Every token attends to all tokens of its row."""
        query, key, value = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if self.rotary:
            frequencies = rotary_frequencies(query.shape[-1]).to(x.device)
            angles = torch.arange(x.shape[1], device=x.device)[:, None] * frequencies
            query, key = rotate_interleaved(query, angles), rotate_interleaved(key, angles)
        return self.out(attend(query, key, value).transpose(1, 2).flatten(-2))


def feed_forward(dim: int) -> nn.Sequential:
    """The MLP of a block: four times as wide inside, exact GELU."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class SpatioTemporalBlock(nn.Module):
    """Attention among the tokens of a frame, then among frames at one token, then an MLP; pre-norm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm_space, self.norm_time, self.norm_mlp = (nn.LayerNorm(dim) for _ in range(3))
        self.space = Attention(dim, num_heads, rotary=False)
        self.time = Attention(dim, num_heads, rotary=True)
        self.mlp = feed_forward(dim)

    def forward(self, x: Float[Tensor, "b t n d"]) -> Float[Tensor, "b t n d"]:
        """One residual block."""
        b, t, n, _ = x.shape
        x = x + self.space(self.norm_space(x).flatten(0, 1)).unflatten(0, (b, t))
        across_time = self.norm_time(x).transpose(1, 2).flatten(0, 1)
        x = x + self.time(across_time).unflatten(0, (b, n)).transpose(1, 2)
        return x + self.mlp(self.norm_mlp(x))


class SpatialBlock(nn.Module):
    """Attention among the tokens of a frame, then an MLP; pre-norm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm_space, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.space = Attention(dim, num_heads, rotary=False)
        self.mlp = feed_forward(dim)

    def forward(self, x: Float[Tensor, "b t n d"]) -> Float[Tensor, "b t n d"]:
        """One residual block."""
        b, t, _, _ = x.shape
        x = x + self.space(self.norm_space(x).flatten(0, 1)).unflatten(0, (b, t))
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """Stem (norm, linear, norm), fixed sinusoid over the token index, blocks, output linear."""

    def __init__(self, dim_in: int, dim: int, dim_out: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.LayerNorm(dim_in), nn.Linear(dim_in, dim), nn.LayerNorm(dim))
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Linear(dim, dim_out)

    def forward(self, x: Float[Tensor, "b t n d_in"]) -> Float[Tensor, "b t n d_out"]:
        """Tokens of every frame in, tokens of every frame out."""
        x = self.stem(x)
        x = x + sinusoid(x.shape[2], x.shape[3], x.device)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def sinusoid(length: int, dim: int, device: torch.device) -> Float[Tensor, "n d"]:
    """Position n: sin at even and cos at odd channels, frequency `10000 ** (-2 i / d)`."""
    angles = torch.arange(length, device=device)[:, None] * rotary_frequencies(dim).to(device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class LatentActionModel(Pretrained):
    """Encoder from frames to latent actions, decoder from a frame and a latent action to the next frame."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        self.config = config
        if config.convolutional:
            sizes = {"channels": config.channels, "dim": config.dim}
            self.encoder = PairEncoder(**sizes, dim_out=2 * config.latent_dim)
            self.decoder = ChangeDecoder(**sizes, latent_dim=config.latent_dim, num_blocks=config.decoder_blocks)
            return
        dim, heads, patch = config.dim, config.num_heads, config.patch_dim
        encoder_in = 2 * patch if config.early_fusion else patch
        encoder_block = SpatialBlock if config.early_fusion else SpatioTemporalBlock
        self.action_prompt = nn.Parameter(torch.empty(1, 1, 1, encoder_in).uniform_(-1, 1))
        self.encoder = Transformer(
            encoder_in, dim, dim, [encoder_block(dim, heads) for _ in range(config.encoder_blocks)]
        )
        self.posterior = nn.Linear(dim, 2 * config.latent_dim)
        self.patch_up = nn.Linear(patch, dim)
        self.action_up = nn.Linear(config.latent_dim, dim)
        self.decoder = Transformer(dim, dim, patch, [SpatialBlock(dim, heads) for _ in range(config.decoder_blocks)])
        if config.residual:
            nn.init.zeros_(self.decoder.out.weight)
            nn.init.zeros_(self.decoder.out.bias)

    def encode(self, frames: Float[Tensor, "b t c h w"]) -> LatentActionPosterior:
        """Frames in [0, 1] -> the posterior of the latent action of each of the `t - 1` neighbouring pairs."""
        forwards = self._posterior(frames)
        if not self.config.antisymmetric:
            return forwards
        backwards = self._posterior(frames.flip(1))
        return LatentActionPosterior(
            mean=(forwards.mean - backwards.mean.flip(1)) / 2,
            log_variance=(forwards.log_variance + backwards.log_variance.flip(1)) / 2,
        )

    def _posterior(self, frames: Float[Tensor, "b t c h w"]) -> LatentActionPosterior:
        if self.config.convolutional:
            mean, log_variance = self.encoder(self._cropped(frames)).float().chunk(2, dim=-1)
            return LatentActionPosterior(mean, log_variance)
        tokens = self._encoder_tokens(frames)
        prompt = self.action_prompt.expand(*tokens.shape[:2], 1, -1)
        action_token = self.encoder(torch.cat([prompt, tokens], dim=2))[:, :, 0]
        if self.config.early_fusion:
            action_token = from_pairs(action_token[:, 0], batch=frames.shape[0])
        else:
            action_token = action_token[:, 1:]
        mean, log_variance = self.posterior(action_token).chunk(2, dim=-1)
        return LatentActionPosterior(mean, log_variance)

    def decode(
        self, frames: Float[Tensor, "b p c h w"], latent_action: Float[Tensor, "b p l"]
    ) -> Float[Tensor, "b p c h2 w2"]:
        """Each frame in [0, 1] and its latent action -> the frame after it."""
        if self.config.convolutional:
            frames = self._cropped(frames)
            change = self.decoder(frames.flatten(0, 1), latent_action.flatten(0, 1))
            return frames + change.unflatten(0, frames.shape[:2])
        patches = to_patches(frames, self.config.patch_size)
        tokens = self.patch_up(patches) + self.action_up(latent_action)[:, :, None]
        redrawn = self.decoder(tokens)
        redrawn = patches + redrawn if self.config.residual else redrawn.sigmoid()
        return from_patches(
            redrawn, self.config.patch_size, frames.shape[-2] // self.config.patch_size * self.config.patch_size
        )

    def _cropped(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h2 w2"]:
        height, width = (side // self.config.patch_size * self.config.patch_size for side in frames.shape[-2:])
        return frames[..., :height, :width]

    def _encoder_tokens(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b2 t2 n p"]:
        if not self.config.early_fusion:
            return to_patches(frames, self.config.patch_size)
        pairs = to_patches(to_pairs(frames), self.config.patch_size)
        return torch.cat([pairs[:, :1], CHANGE_GAIN * (pairs[:, 1:] - pairs[:, :1])], dim=-1)
