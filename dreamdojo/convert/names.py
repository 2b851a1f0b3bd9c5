"""Names of weights in the published checkpoints and in ours, as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from dreamdojo.errors import CheckpointError

Rename = tuple[str, str]
"""A pattern of a published name (after its prefix) and our name for it."""

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
    weights: Mapping[str, Tensor], *, prefix: str, names: Sequence[Rename], dropped: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Published weights under our names.

    Raises:
        CheckpointError: if an entry is neither in the table nor known to hold nothing learned.
    """
    ours: dict[str, Tensor] = {}
    for published, tensor in weights.items():
        name = published.removeprefix(prefix)
        if any(re.fullmatch(pattern, name) for pattern in dropped):
            continue
        for pattern, replacement in names:
            if re.fullmatch(pattern, name):
                ours[re.sub(pattern, replacement, name)] = tensor
                break
        else:
            raise CheckpointError(
                f"entry {published!r} {tuple(tensor.shape)} is not part of the published layout. "
                "The file may belong to another model."
            )
    return ours
