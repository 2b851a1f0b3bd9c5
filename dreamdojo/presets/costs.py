"""What a preset costs, counted without weights: `dreamdojo info`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets.preset import Preset
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.tokenizer.taef2 import TAEF2Config, TAEF2Tokenizer
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.memory import GIB
from dreamdojo.world_model.budget import (
    Grid,
    activation_bytes,
    cache_bytes,
    count_parameters,
    dit_on_meta,
    pass_flops,
    training_bytes,
)

CLIP_LATENTS = 4
LORA_RANK = 16
WORKING_COPIES = 48
"""Decoding holds about so many times one frame's features at full resolution; measured on the Wan tokenizer."""
TEXT_FEATURES = 100_352
"""Width of the published raw text features; converted models keep the text projected."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Counts are exact; memory of activations is an estimate. Bytes are for bfloat16 weights unless said."""

    parameters: dict[str, int]
    """Of each model."""
    weight_bytes: int
    """World model and tokenizer."""
    teacher_flops: float
    """Per frame, at the preset's steps."""
    student_flops: float
    """Per frame, at the preset's steps and with the pass that writes the cache, where there is one."""
    teacher_steps: int
    student_steps: int
    cache_bytes: int
    """Keys and values of the student's window."""
    activation_bytes: int
    """Of the teacher's pass."""
    tokenizer_bytes: int
    """What decoding holds beside the weights."""
    training_bytes: int
    """All weights, batch 1, in float32 with optimizer and average, on one device."""
    lora_bytes: int
    """A LoRA of rank 16, the base in bfloat16."""

    @property
    def generation_bytes(self) -> int:
        """What generating holds at once; the tokenizer does not work while the network does."""
        return self.weight_bytes + self.cache_bytes + max(self.activation_bytes, self.tokenizer_bytes)

    def rows(self) -> list[tuple[str, str]]:
        """Each cost in words and figures."""
        return [
            *((f"parameters, {name}", f"{count:,}") for name, count in self.parameters.items()),
            ("weights, world model and tokenizer", in_gib(self.weight_bytes)),
            ("activations, world model (estimate)", in_gib(self.activation_bytes)),
            ("activations and state, tokenizer (estimate)", in_gib(self.tokenizer_bytes)),
            ("keys and values of the window", in_gib(self.cache_bytes)),
            (f"teacher, {self.teacher_steps} steps", f"{in_flops(self.teacher_flops)} per frame"),
            (f"student, {self.student_steps} steps", f"{in_flops(self.student_flops)} per frame"),
            ("post-training, all weights (estimate)", in_gib(self.training_bytes)),
            (f"post-training, LoRA of rank {LORA_RANK} (estimate)", in_gib(self.lora_bytes)),
        ]


def costs_of(preset: Preset) -> Costs:
    """Count a preset's models on the meta device."""
    config = preset.world_model
    with torch.device("meta"):
        if preset.rgbd is not None:
            tokenizer = RGBDTokenizer(preset.rgbd)
        elif isinstance(preset.tokenizer, TokenizerConfig):
            tokenizer = Tokenizer(preset.tokenizer)
        elif isinstance(preset.tokenizer, TAEF2Config):
            tokenizer = TAEF2Tokenizer(preset.tokenizer)
        else:
            tokenizer = WanTokenizer(preset.tokenizer)
        latent_action = LatentActionModel(preset.latent_action)
    factor, k = preset.tokenizer.spatial_factor, preset.tokenizer.temporal_factor
    grid = Grid(rows=preset.size[0] // factor, columns=preset.size[1] // factor)
    world_model = count_parameters(dit_on_meta(config))
    frames = preset.posttraining.latent_frames
    window = config.window or CLIP_LATENTS
    lora = LORA_RANK * config.dim * config.num_blocks * (4 * 2 + 2 * 5 + 4 * 2)
    settings = {"frames": frames, "batch_size": 1, "checkpointed": preset.posttraining.fit.checkpoint_activations}
    tokens = preset.text_tokens or 1
    teacher_steps, student_steps = preset.student.teacher.steps, preset.student.sampler.steps
    one_frame = pass_flops(config, grid, frames=1, past=window - 1, text_tokens=tokens) / k
    if config.causal:
        clip, teacher_flops = 1, one_frame * (teacher_steps + 1)
    else:
        clip = CLIP_LATENTS
        whole = pass_flops(config, grid, frames=clip, text_tokens=tokens)
        teacher_flops = whole * teacher_steps / ((clip - 1) * k)
    as_published = {}
    if preset.text_tokens:
        published = replace(config, text_features=TEXT_FEATURES)
        as_published = {"world model with the published text projection": count_parameters(dit_on_meta(published))}
    return Costs(
        parameters={
            "world model": world_model,
            **as_published,
            "tokenizer": count_parameters(tokenizer),
            "latent action model": count_parameters(latent_action),
        },
        weight_bytes=2 * (world_model + count_parameters(tokenizer)),
        teacher_flops=teacher_flops,
        student_flops=one_frame * (student_steps + (preset.student.sampler.commit == "extra_pass")),
        teacher_steps=teacher_steps,
        student_steps=student_steps,
        cache_bytes=cache_bytes(config, grid, frames=window - 1),
        activation_bytes=activation_bytes(config, grid, frames=clip),
        tokenizer_bytes=WORKING_COPIES * preset.tokenizer.width * preset.size[0] * preset.size[1] * 2,
        training_bytes=training_bytes(config, grid, trained=world_model, frozen=0, **settings),
        lora_bytes=training_bytes(config, grid, trained=lora, frozen=world_model, **settings),
    )


def in_flops(count: float) -> str:
    """Arithmetic in words."""
    return f"{count / 1e12:.3g} TFLOP" if count >= 1e11 else f"{count / 1e9:.3g} GFLOP"


def in_gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / GIB:.2f} GiB" if count >= GIB / 100 else f"{count / 2**20:.2f} MiB"
