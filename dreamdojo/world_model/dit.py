"""The world model: a diffusion transformer over latent video, conditioned on action chunks.

Every latent frame has its own noise level and its own action chunk; both enter as a modulation of each block
(DreamDojo, arXiv 2602.06949; Cosmos-Predict2.5's DiT with adaptive norm of low rank).

    e, shared = time_embedding(sigma) + action_embedding(chunk)
    x = x + gate * f(norm(x) * (1 + scale) + shift),   (shift, scale, gate) = up(down(silu(e))) + shared

The published network attends over all frames at once and predicts the velocity `noise - clean`. The options that small
models need are fields of `DiTConfig`: `causal` attention over a window of frames, the previous latent beside the
noisy one with a residual output, a prediction of the clean latent, and convolutions on both sides (`convolution.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.nn.attention import RMSNorm, attend, rotary_frequencies, rotate_half
from dreamdojo.nn.init import init_linear
from dreamdojo.nn.precision import linear_float32
from dreamdojo.world_model.convolution import GROUPS, Head, Stem


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of the world model and the options that small models need."""

    latent_channels: int
    """Channels of a latent frame."""
    dim: int
    """Width of the residual stream."""
    num_heads: int
    """Attention heads; must divide `dim` into even parts."""
    num_blocks: int
    """Transformer blocks."""
    action_dim: int
    """Width of one action in the space the model is conditioned on (the latent action's, or 384 slots as published)."""
    actions_per_latent: int = 4
    """`k`, the actions that belong to one latent frame."""
    patch_size: int = 2
    """Side of a square patch of latent pixels."""
    modulation_rank: int = 256
    """Inner width of each modulation."""
    text_dim: int | None = 1024
    """Width of the projected text; None leaves cross-attention out."""
    text_features: int | None = None
    """Width of the raw text features, where a projection to `text_dim` is part of the model."""
    mask_channels: bool = True
    """Whether a condition mask and a padding mask stand beside the latent as two more channels, as published."""
    sigma_scale: float = 1.0
    """Factor on sigma before its sinusoid; 1 as published, 1000 separates noise levels well in a small model."""
    spatial_rope_ratio: float = 3.0
    """NTK stretch of the rotary base for rows and columns."""
    prediction: Literal["velocity", "clean"] = "velocity"
    """What the network's output means."""
    causal: bool = False
    """Whether a frame attends only to itself and to earlier frames."""
    window: int | None = None
    """With `causal`, how many frames a frame attends to, itself included; None is all earlier ones."""
    previous_latent: bool = False
    """Whether the previous latent frame stands beside the noisy one and is added to the predicted clean latent."""
    reference_latent: bool = False
    """Whether an earlier real latent frame, in a rollout the newest, stands beside every noisy one, so that what was
    seen is not forgotten when the window has passed it."""
    convolution_width: int = 0
    """Channels of the convolutions before and behind the transformer, a multiple of 8; 0, as published, for none."""
    convolution_blocks: int = 2
    """Blocks of two convolutions on each side, where there are any."""

    def __post_init__(self) -> None:
        if self.convolution_width % GROUPS:
            raise ConfigError(f"convolution_width must be a multiple of {GROUPS}, got {self.convolution_width}")
        if self.dim % (2 * self.num_heads):
            raise ConfigError(
                f"dim must be a multiple of 2 * num_heads: got dim={self.dim}, num_heads={self.num_heads}"
            )
        if self.window is not None and not self.causal:
            raise ConfigError(f"a window (got {self.window}) needs causal=True")
        if self.previous_latent and not (self.causal and self.prediction == "clean"):
            raise ConfigError(
                "previous_latent needs causal=True and prediction='clean': got "
                f"causal={self.causal}, prediction={self.prediction!r}"
            )
        if self.reference_latent and not self.causal:
            raise ConfigError("reference_latent needs causal=True: whole clips begin with their first frame anyway")
        if self.text_features is not None and self.text_dim is None:
            raise ConfigError(f"text_features={self.text_features} needs a text_dim to be projected to")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def chunk_dim(self) -> int:
        """Width of the action chunk of one latent frame."""
        return self.action_dim * self.actions_per_latent

    @property
    def input_channels(self) -> int:
        """Channels that enter the patch embedding."""
        return self.latent_channels * self.latents_per_frame + (2 if self.mask_channels else 0)

    @property
    def latents_per_frame(self) -> int:
        """Latent frames that enter the network as one: the noisy one, the previous one and the reference."""
        return 1 + self.previous_latent + self.reference_latent


@dataclass(frozen=True)
class KeyValue:
    """Keys (before rotary positions) and values of some frames in one block."""

    key: Float[Tensor, "b f n heads d"]
    value: Float[Tensor, "b f n heads d"]


class Modulation(nn.Module):
    """`silu -> down -> up` to `parts` vectors of width `dim`; zero at the start, so a block begins as the identity."""

    def __init__(self, dim: int, rank: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, parts * dim, bias=False)
        init_linear(self.down)
        init_linear(self.up, zero=True)

    def forward(
        self, e: Float[Tensor, "b t d"], shared: Float[Tensor, "b t parts_d"]
    ) -> tuple[Float[Tensor, "b t 1 d"], ...]:
        """`parts` vectors per latent frame, in float32 and ready to act on its tokens."""
        own = linear_float32(self.up, linear_float32(self.down, nn.functional.silu(e)))
        return (own + shared)[:, :, None].chunk(self.parts, dim=-1)


def modulate(x: Float[Tensor, "b t n d"], scale: Float[Tensor, "b t 1 d"], shift: Float[Tensor, "b t 1 d"]) -> Tensor:
    """`layer_norm(x) * (1 + scale) + shift`, in the precision of `x`."""
    return (nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift).to(x.dtype)


class Attention(nn.Module):
    """Attention with RMS-normalised queries and keys; self-attention gets rotary positions, cross-attention none."""

    def __init__(self, config: DiTConfig, context_dim: int | None = None) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(context_dim or dim, dim, bias=False)
        self.value = nn.Linear(context_dim or dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_norm, self.key_norm = RMSNorm(config.head_dim), RMSNorm(config.head_dim)
        for layer in (self.query, self.key, self.value, self.out):
            init_linear(layer)

    def keys_and_values(self, context: Float[Tensor, "b *n d"]) -> tuple[Tensor, Tensor]:
        """Normalised keys and values with the heads split off."""
        key = self.key_norm(self.key(context).unflatten(-1, (self.num_heads, -1)))
        return key, self.value(context).unflatten(-1, (self.num_heads, -1))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        key: Float[Tensor, "b m heads hd"],
        value: Float[Tensor, "b m heads hd"],
        angles: Float[Tensor, "m half"] | None = None,
        mask: Tensor | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Tokens `x` attend to the given keys; with `angles`, `x` holds the last of their positions."""
        query = self.query_norm(self.query(x).unflatten(-1, (self.num_heads, -1))).transpose(1, 2)
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        if angles is not None:
            query, key = rotate_half(query, angles[-x.shape[1] :]), rotate_half(key, angles)
        return self.out(attend(query, key, value.to(query.dtype), mask).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Self-attention over space and time, cross-attention to text where there is one, MLP."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim, rank = config.dim, config.modulation_rank
        self.self_attention = Attention(config)
        self.self_modulation = Modulation(dim, rank, 3)
        self.cross_attention = Attention(config, config.text_dim) if config.text_dim else None
        self.cross_modulation = Modulation(dim, rank, 3) if config.text_dim else None
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False))
        self.mlp_modulation = Modulation(dim, rank, 3)
        init_linear(self.mlp[0])
        init_linear(self.mlp[2])

    def forward(
        self,
        x: Float[Tensor, "b t n d"],
        e: Float[Tensor, "b t d"],
        shared: Float[Tensor, "b t d3"],
        *,
        angles: Float[Tensor, "m half"],
        mask: Tensor | None,
        past: KeyValue | None,
        text: Float[Tensor, "b s dt"] | None,
    ) -> tuple[Float[Tensor, "b t n d"], KeyValue]:
        """One residual block; also returns this call's own keys and values, for a cache."""
        frames = x.shape[1]

        shift, scale, gate = self.self_modulation(e, shared)
        y = modulate(x, scale, shift)
        own = KeyValue(*self.self_attention.keys_and_values(y))
        key = own.key if past is None else torch.cat([past.key.to(own.key.dtype), own.key], dim=1)
        value = own.value if past is None else torch.cat([past.value.to(own.value.dtype), own.value], dim=1)
        y = self.self_attention(y.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2), angles, mask)
        x = x + (gate * y.unflatten(1, (frames, -1))).to(x.dtype)

        if self.cross_attention is not None and self.cross_modulation is not None:
            if text is None:
                raise DataError("this model is conditioned on text features: expected `text`, got None")
            shift, scale, gate = self.cross_modulation(e, shared)
            y = modulate(x, scale, shift).flatten(1, 2)
            y = self.cross_attention(y, *self.cross_attention.keys_and_values(text))
            x = x + (gate * y.unflatten(1, (frames, -1))).to(x.dtype)

        shift, scale, gate = self.mlp_modulation(e, shared)
        return x + (gate * self.mlp(modulate(x, scale, shift))).to(x.dtype), own


class ActionEmbedding(nn.Module):
    """Two MLPs from an action chunk: one into the modulation embedding, one into the part shared by all blocks."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim

        def mlp(out: int) -> nn.Sequential:
            layers = nn.Sequential(
                nn.Linear(config.chunk_dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, out)
            )
            init_linear(layers[0])
            init_linear(layers[2], zero=True)
            return layers

        self.embedding, self.shared = mlp(dim), mlp(3 * dim)


class DiT(nn.Module):
    """The world model's network: noisy latents, noise levels and action chunks in, a prediction out."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch, width, blocks = (
            config.dim,
            config.patch_size,
            config.convolution_width,
            config.convolution_blocks,
        )
        self.stem = Stem(config.input_channels, width, dim, blocks) if width else None
        self.patch_in = nn.Linear((width or config.input_channels) * patch**2, dim, bias=False)
        self.time_embedding = nn.Sequential(
            nn.Linear(dim, dim, bias=False), nn.SiLU(), nn.Linear(dim, 3 * dim, bias=False)
        )
        self.action = ActionEmbedding(config)
        self.embedding_norm = RMSNorm(dim)
        self.text_projection = (
            nn.Sequential(nn.Linear(config.text_features, config.text_dim or 0), nn.GELU())
            if config.text_features
            else None
        )
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_blocks)])
        self.final_modulation = Modulation(dim, config.modulation_rank, 2)
        self.patch_out = nn.Linear(dim, (width or config.latent_channels) * patch**2, bias=False)
        # A residual output starts as "nothing moves"; without one the output starts like any other layer.
        still = config.previous_latent
        self.head = Head(width, config.latent_channels, dim, blocks, zero=still) if width else None
        init_linear(self.patch_in)
        init_linear(self.time_embedding[0])
        init_linear(self.time_embedding[2])
        if self.text_projection is not None:
            init_linear(self.text_projection[0])
        init_linear(self.patch_out, zero=still and not width)

    def forward(
        self,
        noisy: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, "b t"],
        action: Float[Tensor, "b t ka"],
        *,
        has_action: Float[Tensor, "b t"] | None = None,
        previous: Float[Tensor, "b t c h w"] | None = None,
        reference: Float[Tensor, "b c h w"] | None = None,
        condition_mask: Float[Tensor, "b t"] | None = None,
        padding_mask: Float[Tensor, "b hp wp"] | None = None,
        text: Float[Tensor, "b s dt"] | None = None,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Float[Tensor, "b t c h w"], list[KeyValue]]:
        """Predict the velocity (or the clean latent) of every frame.

        Args:
            noisy: Latent frames at noise level `sigma` (0 is clean, 1 is noise).
            sigma: Noise level of each frame.
            action: The chunk that leads to each frame; the row of a frame without one is ignored.
            has_action: 1 where the frame has a chunk, 0 where it has none (the first frame of a recording);
                by default all but frame 0, or all frames when `past` is given.
            previous: The latent frame before each one, for models with `previous_latent`.
            reference: An earlier real latent frame, for models with `reference_latent`.
            condition_mask: 1 on frames that are given, for models with `mask_channels`.
            padding_mask: 1 on padded pixels, for models with `mask_channels`; zeros by default.
            text: Text features, raw if the model has a projection.
            past: Keys and values of earlier frames, one entry per block, oldest frame first.

        Returns:
            The prediction, and this call's own keys and values, one entry per block.
        """
        if has_action is None:
            has_action = torch.ones_like(sigma)
            if past is None:
                has_action[:, 0] = 0
        e, shared = self.embed(sigma, action, has_action)
        return self.transform(
            noisy,
            e,
            shared,
            previous=previous,
            reference=reference,
            condition_mask=condition_mask,
            padding_mask=padding_mask,
            text=text,
            past=past,
        )

    def embed(
        self, sigma: Float[Tensor, "b t"], action: Float[Tensor, "b t ka"], has_action: Float[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d3"]]:
        """`e` and `shared`, what noise level and action chunk say to every block.

        They are small and decide everything: they stay in float32 whatever the blocks compute in.
        """
        wave = sinusoid(sigma.float() * self.config.sigma_scale, self.config.dim)
        hidden = nn.functional.silu(linear_float32(self.time_embedding[0], wave))
        action = action.to(self.patch_in.weight.dtype)
        e = self.embedding_norm(wave + has_action[..., None] * self.action.embedding(action).float())
        shared = linear_float32(self.time_embedding[2], hidden)
        return e, shared + has_action[..., None] * self.action.shared(action).float()

    def transform(
        self,
        noisy: Float[Tensor, "b t c h w"],
        e: Float[Tensor, "b t d"],
        shared: Float[Tensor, "b t d3"],
        *,
        previous: Float[Tensor, "b t c h w"] | None = None,
        reference: Float[Tensor, "b c h w"] | None = None,
        condition_mask: Float[Tensor, "b t"] | None = None,
        padding_mask: Float[Tensor, "b hp wp"] | None = None,
        text: Float[Tensor, "b s dt"] | None = None,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Float[Tensor, "b t c h w"], list[KeyValue]]:
        """Everything after `embed`; arguments and results are those of `forward`."""
        config = self.config
        features = self._input_channels(noisy, previous, reference, condition_mask, padding_mask)
        if self.stem is not None:
            features = self.stem(features, e)
        rows, columns = noisy.shape[-2] // config.patch_size, noisy.shape[-1] // config.patch_size
        patches = rearrange(features, "b t c (y p) (x q) -> b t (y x) (c p q)", y=rows, x=columns)
        x = self.patch_in(patches.to(self.patch_in.weight.dtype))
        if text is not None:
            text = text.to(x.dtype)
            if self.text_projection is not None:
                text = self.text_projection(text)

        num_past = past[0].key.shape[1] if past else 0
        angles = self.rotary_angles(num_past + noisy.shape[1], rows, columns, noisy.device)
        mask = self._attention_mask(num_past, noisy.shape[1], rows * columns, noisy.device)
        own = []
        for index, block in enumerate(self.blocks):
            x, key_value = block(x, e, shared, angles=angles, mask=mask, past=past[index] if past else None, text=text)
            own.append(key_value)

        shift, scale = self.final_modulation(e, shared[..., : 2 * config.dim])
        x = linear_float32(self.patch_out, modulate(x.float(), scale, shift))
        out = rearrange(x, "b t (y x) (p q c) -> b t c (y p) (x q)", y=rows, p=config.patch_size, q=config.patch_size)
        if self.head is not None:
            out = self.head(features + out.to(features.dtype), e)
        return (out + previous if previous is not None else out), own

    def rotary_angles(
        self, frames: int, rows: int, columns: int, device: torch.device | None = None
    ) -> Float[Tensor, "m half"]:
        """Angles of every token of `frames` frames: a part of each head for time, rows and columns."""
        config = self.config
        device = device or torch.device("cpu")
        return _rotary_angles(frames, rows, columns, config.head_dim, config.spatial_rope_ratio, device)

    def _input_channels(
        self,
        noisy: Float[Tensor, "b t c h w"],
        previous: Float[Tensor, "b t c h w"] | None,
        reference: Float[Tensor, "b c h w"] | None,
        condition_mask: Float[Tensor, "b t"] | None,
        padding_mask: Float[Tensor, "b hp wp"] | None,
    ) -> Float[Tensor, "b t ci h w"]:
        config = self.config
        b, t, _, h, w = noisy.shape
        if h % config.patch_size or w % config.patch_size:
            raise DataError(f"latent frames of {h}x{w} do not divide into patches of {config.patch_size}")
        channels = [noisy]
        if config.previous_latent:
            if previous is None:
                raise DataError("this model takes the previous latent of every frame: expected `previous`, got None")
            channels.append(previous)
        if config.reference_latent:
            if reference is None:
                raise DataError("this model takes an earlier real latent: expected `reference`, got None")
            channels.append(reference[:, None].expand_as(noisy))
        if config.mask_channels:
            given = noisy.new_zeros(b, t) if condition_mask is None else condition_mask.to(noisy.dtype)
            channels.append(given[..., None, None, None].expand(b, t, 1, h, w))
            padded = noisy.new_zeros(b, h, w) if padding_mask is None else padding_mask.to(noisy.dtype)
            padded = nn.functional.interpolate(padded[:, None], size=(h, w), mode="nearest")
            channels.append(padded[:, None].expand(b, t, 1, h, w))
        return torch.cat(channels, dim=2)

    def _attention_mask(self, num_past: int, num_frames: int, tokens: int, device: torch.device) -> Tensor | None:
        """True where a token may attend; None where every token may."""
        window = self.config.window or num_past + num_frames
        if not self.config.causal or (num_frames == 1 and num_past < window):
            return None
        position = torch.arange(num_past + num_frames, device=device)
        distance = position[num_past:, None] - position[None, :]
        allowed = (distance >= 0) & (distance < window)
        return allowed.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


def sinusoid(value: Float[Tensor, "b t"], dim: int) -> Float[Tensor, "b t d"]:
    """`[cos(value f_i), sin(value f_i)]`, f_i from 1 down to 1/10000."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=value.device) / (dim // 2))
    angles = value.float()[..., None] * frequency
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@lru_cache(maxsize=32)
def _rotary_angles(
    frames: int, rows: int, columns: int, head_dim: int, ratio: float, device: torch.device
) -> Float[Tensor, "m half"]:
    """One table per grid and device: made on the CPU, so that every device has the same, and sent there once."""
    spatial, cpu = 2 * (head_dim // 6), torch.device("cpu")
    of_time = torch.arange(frames, device=cpu)[:, None] * rotary_frequencies(head_dim - 2 * spatial, device=cpu)
    of_row = torch.arange(rows, device=cpu)[:, None] * rotary_frequencies(spatial, ratio, cpu)
    of_column = torch.arange(columns, device=cpu)[:, None] * rotary_frequencies(spatial, ratio, cpu)
    grid = (frames, rows, columns, -1)
    parts = [of_time[:, None, None].expand(grid), of_row[None, :, None].expand(grid), of_column.expand(grid)]
    return torch.cat(parts, dim=-1).flatten(0, 2).to(device)
