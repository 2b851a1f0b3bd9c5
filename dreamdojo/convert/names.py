"""Names of weights in the published checkpoints and in ours, as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from dreamdojo.convert.stored import Stored
from dreamdojo.errors import CheckpointError

Value = TypeVar("Value", Tensor, Stored)

Rename = tuple[str, str]
"""A pattern of a published name (after its prefix) and our name for it, which holds each of its groups once."""

LATENT_ACTION_PREFIX = "lam."
LATENT_ACTION_NAMES: Sequence[Rename] = (
    (r"action_prompt", r"action_prompt"),
    (r"fc\.(weight|bias)", r"posterior.\1"),
    (r"(patch_up|action_up)\.(weight|bias)", r"\1.\2"),
    (r"(encoder|decoder)\.ffn\.(\d)\.(weight|bias)", r"\1.stem.\2.\3"),
    (r"(encoder|decoder)\.out\.(weight|bias)", r"\1.out.\2"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.spatial_attn\.to_q\.weight", r"\1.blocks.\2.space.query.weight"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.spatial_attn\.to_k\.weight", r"\1.blocks.\2.space.key.weight"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.spatial_attn\.to_v\.weight", r"\1.blocks.\2.space.value.weight"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.spatial_attn\.to_out\.0\.(\w+)", r"\1.blocks.\2.space.out.\3"),
    (r"encoder\.transformer_blocks\.(\d+)\.temporal_attn\.to_q\.weight", r"encoder.blocks.\1.time.query.weight"),
    (r"encoder\.transformer_blocks\.(\d+)\.temporal_attn\.to_k\.weight", r"encoder.blocks.\1.time.key.weight"),
    (r"encoder\.transformer_blocks\.(\d+)\.temporal_attn\.to_v\.weight", r"encoder.blocks.\1.time.value.weight"),
    (r"encoder\.transformer_blocks\.(\d+)\.temporal_attn\.to_out\.0\.(\w+)", r"encoder.blocks.\1.time.out.\2"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.ffn\.0\.(\w+)", r"\1.blocks.\2.mlp.0.\3"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.ffn\.3\.(\w+)", r"\1.blocks.\2.mlp.2.\3"),
    (r"(encoder|decoder)\.transformer_blocks\.(\d+)\.norm1\.(\w+)", r"\1.blocks.\2.norm_space.\3"),
    (r"encoder\.transformer_blocks\.(\d+)\.norm2\.(\w+)", r"encoder.blocks.\1.norm_time.\2"),
    (r"encoder\.transformer_blocks\.(\d+)\.norm3\.(\w+)", r"encoder.blocks.\1.norm_mlp.\2"),
    (r"decoder\.transformer_blocks\.(\d+)\.norm2\.(\w+)", r"decoder.blocks.\1.norm_mlp.\2"),
)
LATENT_ACTION_DROPPED = (r"encoder\.transformer_blocks\.\d+\.temporal_attn\.rotary_embedding\.freqs",)
"""Published entries that hold no learned number: fixed rotary frequencies."""

WORLD_MODEL_PREFIX = "net."
WORLD_MODEL_NAMES: Sequence[Rename] = (
    (r"x_embedder\.proj\.1\.weight", r"patch_in.weight"),
    (r"t_embedder\.1\.linear_1\.weight", r"time_embedding.0.weight"),
    (r"t_embedder\.1\.linear_2\.weight", r"time_embedding.2.weight"),
    (r"t_embedding_norm\.weight", r"embedding_norm.weight"),
    (r"crossattn_proj\.0\.(weight|bias)", r"text_projection.0.\1"),
    (r"action_embedder_B_D\.fc1\.(weight|bias)", r"action.embedding.0.\1"),
    (r"action_embedder_B_D\.fc2\.(weight|bias)", r"action.embedding.2.\1"),
    (r"action_embedder_B_3D\.fc1\.(weight|bias)", r"action.shared.0.\1"),
    (r"action_embedder_B_3D\.fc2\.(weight|bias)", r"action.shared.2.\1"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.q_proj\.weight", r"blocks.\1.\2_attention.query.weight"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.k_proj\.weight", r"blocks.\1.\2_attention.key.weight"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.v_proj\.weight", r"blocks.\1.\2_attention.value.weight"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.output_proj\.weight", r"blocks.\1.\2_attention.out.weight"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.q_norm\.weight", r"blocks.\1.\2_attention.query_norm.weight"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.k_norm\.weight", r"blocks.\1.\2_attention.key_norm.weight"),
    (r"blocks\.(\d+)\.mlp\.layer1\.weight", r"blocks.\1.mlp.0.weight"),
    (r"blocks\.(\d+)\.mlp\.layer2\.weight", r"blocks.\1.mlp.2.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_(self|cross)_attn\.1\.weight", r"blocks.\1.\2_modulation.down.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_(self|cross)_attn\.2\.weight", r"blocks.\1.\2_modulation.up.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_mlp\.1\.weight", r"blocks.\1.mlp_modulation.down.weight"),
    (r"blocks\.(\d+)\.adaln_modulation_mlp\.2\.weight", r"blocks.\1.mlp_modulation.up.weight"),
    (r"final_layer\.linear\.weight", r"patch_out.weight"),
    (r"final_layer\.adaln_modulation\.1\.weight", r"final_modulation.down.weight"),
    (r"final_layer\.adaln_modulation\.2\.weight", r"final_modulation.up.weight"),
)
WORLD_MODEL_DROPPED = (r"pos_embedder\.\w+", r"accum_\w+", r".*_extra_state")
"""Published entries that hold no learned number: rotary tables, training counters, engine state."""


def from_published(
    weights: Mapping[str, Value], *, prefix: str, names: Sequence[Rename], dropped: Sequence[str] = ()
) -> dict[str, Value]:
    """Published weights under our names.

    Raises:
        CheckpointError: if an entry is neither in the table nor known to hold nothing learned.
    """
    ours: dict[str, Value] = {}
    for published, value in weights.items():
        name = published.removeprefix(prefix)
        if is_dropped(name, dropped):
            continue
        renamed = _rename(name, names)
        if renamed is None:
            raise CheckpointError(
                f"entry {published!r} {tuple(value.shape)} is not part of the published layout. "
                "The file may belong to another model."
            )
        ours[renamed] = value
    return ours


def to_published(weights: Mapping[str, Value], *, prefix: str, names: Sequence[Rename]) -> dict[str, Value]:
    """Our weights under their published names; the inverse of `from_published`.

    Raises:
        CheckpointError: if one of them has no place in the published layout.
    """
    back = [_turned(*rename) for rename in names]
    published: dict[str, Value] = {}
    for name, value in weights.items():
        renamed = _rename(name, back)
        if renamed is None:
            raise CheckpointError(
                f"weight {name!r} {tuple(value.shape)} has no place in the published layout: this model is not of the "
                "published kind"
            )
        published[prefix + renamed] = value
    return published


def is_dropped(name: str, dropped: Sequence[str]) -> bool:
    """Whether a published name (after its prefix) is one of those that hold nothing learned."""
    return any(re.fullmatch(pattern, name) for pattern in dropped)


def _rename(name: str, names: Sequence[Rename]) -> str | None:
    for pattern, replacement in names:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def _turned(pattern: str, replacement: str) -> Rename:
    """A rename read from right to left: a pattern of our name, and the published name."""
    groups, between = re.findall(r"\([^()]*\)", pattern), re.split(r"\([^()]*\)", pattern)
    ours = re.split(r"\\(\d)", replacement)  # text, number of a group, text, number of a group, ...
    order = [int(number) for number in ours[1::2]]
    assert sorted(order) == list(range(1, len(groups) + 1)), f"{pattern} -> {replacement} cannot be turned round"
    back = "".join(groups[int(part) - 1] if place % 2 else re.escape(part) for place, part in enumerate(ours))
    published = between[0] + "".join(
        rf"\{order.index(group) + 1}{text}" for group, text in enumerate(between[1:], start=1)
    )
    return back, published.replace(r"\.", ".")


def _wan_block(published: str, ours: str) -> tuple[Rename, ...]:
    """The entries of one residual block; both prefixes end in a dot and are patterns without groups."""
    return (
        (rf"{published}residual\.0\.gamma", rf"{ours}norm_in.gamma"),
        (rf"{published}residual\.2\.(weight|bias)", rf"{ours}conv_in.\1"),
        (rf"{published}residual\.3\.gamma", rf"{ours}norm_out.gamma"),
        (rf"{published}residual\.6\.(weight|bias)", rf"{ours}conv_out.\1"),
        (rf"{published}shortcut\.(weight|bias)", rf"{ours}shortcut.\1"),
    )


def _wan_names(stages: int = 4, blocks: int = 2) -> tuple[Rename, ...]:
    """The published files number blocks and resamplers of all stages in one row; ours number them by stage."""
    names: list[Rename] = [
        (r"conv1\.(weight|bias)", r"to_posterior.\1"),
        (r"conv2\.(weight|bias)", r"from_latent.\1"),
    ]
    for side, row, resampler, per_stage in (
        ("encoder", "downsamples", "down", blocks),
        ("decoder", "upsamples", "up", blocks + 1),
    ):
        names += [
            (rf"{side}\.conv1\.(weight|bias)", rf"{side}.conv_in.\1"),
            (rf"{side}\.middle\.1\.norm\.gamma", rf"{side}.middle.attention.norm.gamma"),
            (rf"{side}\.middle\.1\.to_qkv\.(weight|bias)", rf"{side}.middle.attention.qkv.\1"),
            (rf"{side}\.middle\.1\.proj\.(weight|bias)", rf"{side}.middle.attention.out.\1"),
            (rf"{side}\.head\.0\.gamma", rf"{side}.norm_out.gamma"),
            (rf"{side}\.head\.2\.(weight|bias)", rf"{side}.conv_out.\1"),
            *_wan_block(rf"{side}\.middle\.0\.", rf"{side}.middle.before."),
            *_wan_block(rf"{side}\.middle\.2\.", rf"{side}.middle.after."),
        ]
        for stage in range(stages):
            first = stage * (per_stage + 1)
            for block in range(per_stage):
                names += _wan_block(rf"{side}\.{row}\.{first + block}\.", rf"{side}.stages.{stage}.blocks.{block}.")
            here, there = rf"{side}\.{row}\.{first + per_stage}\.", rf"{side}.stages.{stage}.{resampler}."
            names += [
                (rf"{here}resample\.1\.(weight|bias)", rf"{there}space.\1"),
                (rf"{here}time_conv\.(weight|bias)", rf"{there}time.\1"),
            ]
    return tuple(names)


WAN_PREFIX = ""
WAN_NAMES: Sequence[Rename] = _wan_names()
"""The published file holds no channel statistics: they are `WAN_LATENT_MEAN` and `WAN_LATENT_STD` of our class."""


def _taef2_block(published: str, ours: str) -> tuple[Rename, ...]:
    """The entries of one residual block, every second layer of a row a convolution; without groups, ending in a dot."""
    return (
        *((rf"{published}conv\.{2 * i}\.(weight|bias)", rf"{ours}convs.{i}.\1") for i in range(3)),
        (rf"{published}pool\.0\.(weight)", rf"{ours}whole.widen.\1"),
        (rf"{published}pool\.1\.(weight|bias)", rf"{ours}whole.norm.\1"),
        (rf"{published}pool\.3\.(weight)", rf"{ours}whole.narrow.\1"),
    )


def _taef2_names() -> tuple[Rename, ...]:
    """The published files number all layers of a half in one row; each of ours is named for what it does."""
    names: list[Rename] = [
        (r"encoder\.0\.(weight|bias)", r"encoder.conv_in.\1"),
        *_taef2_block(r"encoder\.1\.", "encoder.first."),
        (r"encoder\.14\.(weight|bias)", r"encoder.conv_out.\1"),
        (r"decoder\.1\.(weight|bias)", r"decoder.conv_in.\1"),
        *_taef2_block(r"decoder\.18\.", "decoder.last."),
        (r"decoder\.19\.(weight|bias)", r"decoder.conv_out.\1"),
    ]
    for stage in range(3):
        shrink, grow = 2 + 4 * stage, 7 + 5 * stage
        names += [
            (rf"encoder\.{shrink}\.(weight)", rf"encoder.shrink.{stage}.\1"),
            (rf"decoder\.{grow}\.(weight)", rf"decoder.grow.{stage}.\1"),
        ]
        for block in range(3):
            names += _taef2_block(rf"encoder\.{shrink + 1 + block}\.", f"encoder.stages.{stage}.{block}.")
            names += _taef2_block(rf"decoder\.{grow - 4 + block}\.", f"decoder.stages.{stage}.{block}.")
    return tuple(names)


TAEF2_NAMES: Sequence[Rename] = _taef2_names()
"""After `encoder.` and `decoder.`, which say from which of the two published files an entry is."""
