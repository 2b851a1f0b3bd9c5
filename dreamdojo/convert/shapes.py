"""Settings of a published model, from the shapes of its entries: nothing about its size is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.latent_action.model import LatentActionConfig
from dreamdojo.tokenizer.taef2 import TAEF2Config
from dreamdojo.tokenizer.wan import WanConfig
from dreamdojo.world_model.dit import DiTConfig

ACTIONS_PER_LATENT = 4
TEACHER: Mapping[str, bool | int | None] = {"causal": False, "window": None}
STUDENT: Mapping[str, bool | int | None] = {"causal": True, "window": 4}
"""The student attends to three earlier frames and the current one."""

_HEAD_DIM = r"encoder.transformer_blocks.0.temporal_attn.rotary_embedding.freqs"


@dataclass(frozen=True)
class Shapes:
    """Shapes of a file's entries by their published names, without the prefix."""

    file: Path
    by_name: Mapping[str, tuple[int, ...]]

    def of(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of one entry.

        Raises:
            CheckpointError: if there is none, or one of another number of axes.
        """
        found = self.by_name.get(name)
        if found is None or len(found) != axes:
            what = "none" if found is None else str(found)
            raise CheckpointError(
                f"{self.file}: expected an entry {name!r} of {axes} axes, found {what}. It may be of another model."
            )
        return found

    def count(self, rows: str) -> int:
        """How many blocks of that name there are."""
        found = (re.match(re.escape(rows) + r"\.(\d+)\.", name) for name in self.by_name)
        return 1 + max((int(match[1]) for match in found if match), default=-1)


def dit_config(shapes: Shapes, *, student: bool) -> DiTConfig:
    """The world model's network, with the projection of raw text features.

    Raises:
        CheckpointError: if the shapes cannot be those of one.
    """
    dim, patch_in = shapes.of("x_embedder.proj.1.weight", 2)
    patch_out, _ = shapes.of("final_layer.linear.weight", 2)
    (head_dim,) = shapes.of("blocks.0.self_attn.q_norm.weight", 1)
    rank, _ = shapes.of("blocks.0.adaln_modulation_mlp.1.weight", 2)
    _, chunk_dim = shapes.of("action_embedder_B_D.fc1.weight", 2)
    text_dim, text_features = shapes.of("crossattn_proj.0.weight", 2)
    side = isqrt(max(patch_in - patch_out, 0) // 2)  # two more channels go in than come out: the masks
    try:
        return DiTConfig(
            latent_channels=patch_out // side**2,
            dim=dim,
            num_heads=dim // head_dim,
            num_blocks=shapes.count("blocks"),
            action_dim=chunk_dim // ACTIONS_PER_LATENT,
            actions_per_latent=ACTIONS_PER_LATENT,
            patch_size=side,
            modulation_rank=rank,
            text_dim=text_dim,
            text_features=text_features,
            mask_channels=True,
            sigma_scale=1.0,
            spatial_rope_ratio=3.0,
            prediction="velocity",
            **(STUDENT if student else TEACHER),  # pyright: ignore[reportArgumentType]
        )
    except (ConfigError, ZeroDivisionError) as error:
        raise _impossible(shapes.file, "world model", error) from error


def latent_action_config(shapes: Shapes) -> LatentActionConfig:
    """The latent action model.

    Raises:
        CheckpointError: if the shapes cannot be those of one.
    """
    (half_head_dim,) = shapes.of(_HEAD_DIM, 1)
    *_, patch_dim = shapes.of("action_prompt", 4)
    dim, latent_dim = shapes.of("action_up.weight", 2)
    try:
        return LatentActionConfig(
            dim=dim,
            latent_dim=latent_dim,
            num_heads=dim // (2 * half_head_dim),
            encoder_blocks=shapes.count("encoder.transformer_blocks"),
            decoder_blocks=shapes.count("decoder.transformer_blocks"),
            patch_size=isqrt(patch_dim // 3),
            channels=3,
        )
    except (ConfigError, ZeroDivisionError) as error:
        raise _impossible(shapes.file, "latent action model", error) from error


def taef2_config(shapes: Shapes) -> TAEF2Config:
    """The image autoencoder of FLUX.2's latents.

    Raises:
        CheckpointError: if the shapes cannot be those of one.
    """
    width, *_ = shapes.of("encoder.0.weight", 4)
    latent_channels, *_ = shapes.of("encoder.14.weight", 4)
    return TAEF2Config(width=width, latent_channels=latent_channels)


def wan_config(shapes: Shapes) -> WanConfig:
    """The tokenizer.

    Raises:
        CheckpointError: if the shapes cannot be those of one.
    """
    stages, blocks = 4, 2
    width, *_ = shapes.of("encoder.conv1.weight", 5)
    channels, *_ = shapes.of("conv2.weight", 5)
    firsts = [stage * (blocks + 1) for stage in range(stages)]
    widths = [shapes.of(f"encoder.downsamples.{first}.residual.2.weight", 5)[0] for first in firsts]
    in_time = [f"encoder.downsamples.{first + blocks}.time_conv.weight" in shapes.by_name for first in firsts[:-1]]
    try:
        return WanConfig(
            width=width,
            latent_channels=channels,
            multipliers=tuple(each // width for each in widths),
            blocks=blocks,
            temporal_down=tuple(in_time),
        )
    except (ConfigError, ZeroDivisionError) as error:
        raise _impossible(shapes.file, "tokenizer", error) from error


def _impossible(file: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file}: expected the shapes of a {what}, found ones that no {what} has ({error})")
