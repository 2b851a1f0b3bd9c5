"""What a world model costs: parameters, memory and arithmetic, counted on the meta device without any weights.

Parameters and floating-point operations are exact counts (a multiply-add is two operations). Activations are an
estimate of the largest set of tensors that live at once; benchmarks measure the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdojo.world_model.dit import DiT, DiTConfig, KeyValue

BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}

TRAINING_BYTES = 4 + 4 + 8 + 4
"""Per trained parameter: float32 weight, gradient, two moments of AdamW, average."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The token grid of a clip."""

    rows: int
    """Latent rows."""
    columns: int
    """Latent columns."""

    def tokens(self, config: DiTConfig) -> int:
        """Tokens of one latent frame."""
        return self.rows // config.patch_size * (self.columns // config.patch_size)


def count_parameters(module: nn.Module) -> int:
    """All parameters of a module, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


@lru_cache
def dit_on_meta(config: DiTConfig) -> DiT:
    """The network without weights."""
    with torch.device("meta"):
        return DiT(config)


def pass_flops(config: DiTConfig, grid: Grid, *, frames: int, past: int = 0, text_tokens: int = 512) -> int:
    """Operations of one forward pass over `frames` latent frames after `past` cached ones."""
    one, two = (_flops(replace(config, num_blocks=count), grid, frames, past, text_tokens) for count in (1, 2))
    return one + (config.num_blocks - 1) * (two - one)  # every block does the same


@lru_cache
def _flops(config: DiTConfig, grid: Grid, frames: int, past: int, text_tokens: int) -> int:
    with torch.device("meta"):
        kept = torch.empty(1, past, grid.tokens(config), config.num_heads, config.head_dim)
        keywords = {
            "previous": torch.empty(1, frames, config.latent_channels, grid.rows, grid.columns)
            if config.previous_latent
            else None,
            "reference": torch.empty(1, config.latent_channels, grid.rows, grid.columns)
            if config.reference_latent
            else None,
            "text": torch.empty(1, text_tokens, config.text_features or config.text_dim) if config.text_dim else None,
            "past": [KeyValue(kept, kept)] * config.num_blocks if past else None,
        }
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            dit_on_meta(config)(
                torch.empty(1, frames, config.latent_channels, grid.rows, grid.columns),
                torch.empty(1, frames),
                torch.empty(1, frames, config.chunk_dim),
                **keywords,
            )
    return counter.get_total_flops()


def cache_bytes(config: DiTConfig, grid: Grid, *, frames: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Keys and values of `frames` latent frames in all blocks."""
    return 2 * config.num_blocks * frames * grid.tokens(config) * config.dim * BYTES[dtype]


def activation_bytes(config: DiTConfig, grid: Grid, *, frames: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """About what one block holds at once in inference: the stream, its float32 normed copy, and the MLP's inside."""
    tokens = frames * grid.tokens(config)
    return tokens * config.dim * (9 * BYTES[dtype] + 8)


def training_bytes(
    config: DiTConfig, grid: Grid, *, frames: int, batch_size: int, trained: int, frozen: int, checkpointed: bool
) -> int:
    """About what a training step holds: weights with optimizer and average, frozen bfloat16 weights, activations.

    With checkpointed activations a block keeps its input only, and one block at a time everything.
    """
    tokens = batch_size * frames * grid.tokens(config)
    whole_block = tokens * config.dim * 60
    kept = (
        tokens * config.dim * 2 * config.num_blocks + whole_block if checkpointed else whole_block * config.num_blocks
    )
    return trained * TRAINING_BYTES + frozen * 2 + kept
