"""The stages as functions on a run folder. Each reads what the ones before it wrote, and can be run alone.

RUN/cache/            frames, depth, latents and latent actions: side caches, keyed by what made them
RUN/tokenizer/        model.safetensors  config.json  metrics.jsonl  state/; with depth, of both, and in it
                      rgb/  depth/: the same of each part
RUN/latent_action/    the same
RUN/alignment/        model.safetensors  config.json  alignment.json: latent actions to a robot's actions and back
RUN/left_out.json     episodes that did not decode and were left out, by dataset, and why
RUN/pretrained/       the same: the world model after human video
RUN/teacher/          the same, after the robot's episodes; with a LoRA also lora.safetensors  lora.json
RUN/student/          the same, of few steps; with more stages than the warm-up also warm_up/  self_forcing/

Under torchrun several processes train a stage together; each writes its part of `state`, the main one the rest.
"""

from dreamdojo.stages.begin import adopt_foundation, link_model, start_from, start_with_depth
from dreamdojo.stages.latent_action import align_stage, latent_action_stage
from dreamdojo.stages.run import Engine, Episodes, Run, channels_first, clip_starts
from dreamdojo.stages.sources import (
    depth_source,
    frame_source,
    labelled_sources,
    latent_action_source,
    paired_episodes,
    robot_episodes,
    robot_motion,
    robot_source,
    training_episodes,
)
from dreamdojo.stages.tokenizer import tokenizer_stage
from dreamdojo.stages.world_model import (
    AdapterStart,
    align_adapter,
    body_for,
    posttrain_stage,
    pretrain_stage,
    sampling,
    student_stage,
)

__all__ = [
    "AdapterStart",
    "Engine",
    "Episodes",
    "Run",
    "adopt_foundation",
    "align_adapter",
    "align_stage",
    "body_for",
    "channels_first",
    "clip_starts",
    "depth_source",
    "frame_source",
    "labelled_sources",
    "latent_action_source",
    "latent_action_stage",
    "link_model",
    "paired_episodes",
    "posttrain_stage",
    "pretrain_stage",
    "robot_episodes",
    "robot_motion",
    "robot_source",
    "sampling",
    "start_from",
    "start_with_depth",
    "student_stage",
    "tokenizer_stage",
    "training_episodes",
]
