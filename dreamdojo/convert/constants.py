"""Entries of the published files that hold nothing learned: tables of positions, and counters of the training run.

Our models compute positions, so these entries are compared with what they compute when a file is read, and kept beside
the converted model for the way back. A model that never was in the published form gets new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dreamdojo.convert.stored import Stored
from dreamdojo.errors import CheckpointError
from dreamdojo.latent_action.model import LatentActionConfig
from dreamdojo.world_model.dit import DiTConfig

CONSTANTS_FILE = "constants.safetensors"
"""Where they are kept, under their published names without the prefix."""

_FRAMES = "pos_embedder.seq"
_COUNTERS = {
    "accum_video_sample_counter": torch.int64,
    "accum_image_sample_counter": torch.int64,
    "accum_iteration": torch.int64,
    "accum_train_in_hours": torch.float32,
}


def world_model_constants(config: DiTConfig) -> dict[str, Tensor]:
    """Positions for 256 frames (student) or 128, and counters at zero."""
    spatial = 2 * (config.head_dim // 6)
    temporal = config.head_dim - 2 * spatial
    return {
        _FRAMES: torch.arange(256 if config.causal else 128, dtype=torch.float32),
        "pos_embedder.dim_spatial_range": torch.arange(0, spatial, 2).float() / spatial,
        "pos_embedder.dim_temporal_range": torch.arange(0, temporal, 2).float() / temporal,
        **{name: torch.zeros((), dtype=dtype) for name, dtype in _COUNTERS.items()},
    }


def latent_action_constants(config: LatentActionConfig) -> dict[str, Tensor]:
    """The rotary frequencies, once for each block of the encoder."""
    head_dim = config.dim // config.num_heads
    frequencies = 1.0 / 10000 ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return {
        f"encoder.transformer_blocks.{block}.temporal_attn.rotary_embedding.freqs": frequencies.clone()
        for block in range(config.encoder_blocks)
    }


def check_constants(file: Path, found: Mapping[str, Stored], expected: Mapping[str, Tensor]) -> None:
    """Compare a file's constants with ours: positions up to rounding, for any number of frames; counters never.

    Raises:
        CheckpointError: if one is unknown, or says that the file's model uses other positions.
    """
    for name, value in found.items():
        ours, theirs = expected.get(name), value.read().float()
        if ours is not None and name == _FRAMES:
            ours = torch.arange(theirs.numel(), dtype=torch.float32)
        if ours is None or (name not in _COUNTERS and ours.shape != theirs.shape):
            what = "no such entry" if ours is None else str(tuple(ours.shape))
            raise CheckpointError(f"{file}, entry {name!r}: expected {what}, found {tuple(theirs.shape)}")
        if name not in _COUNTERS and not torch.allclose(ours, theirs, rtol=1e-2, atol=0):
            raise CheckpointError(
                f"{file}, entry {name!r}: expected the positions that a published model uses, found others (largest "
                f"difference {(ours - theirs).abs().max():.3g}). Its output would not be the same in ours."
            )
