"""`2b` and `14b`: the published architecture (DreamDojo, arXiv 2602.06949; Cosmos-Predict2.5), for converted weights.

Sizes and the training recipe are those of the public release, with its faults mended (docs/faults.md): weights keep a
float32 copy, the motion term runs along time, episodes are split whole.
"""

from dataclasses import replace

from dreamdojo.dataset.published import ACTION_WIDTH, LATENT_ACTION_SLOT, NUM_FRAMES
from dreamdojo.latent_action.model import LatentActionConfig
from dreamdojo.latent_action.train import LatentActionTraining
from dreamdojo.presets.preset import DataAmounts, Preset
from dreamdojo.student.distill import StudentTraining
from dreamdojo.student.self_forcing import SelfForcing
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.wan import WanConfig
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining

_FIT = FitConfig(
    steps=50_000,
    batch_size=1,
    micro_batches=32,
    learning_rate=1.6e-4,
    warmup_steps=100,
    final_learning_rate=0.4,
    weight_decay=0.1,
    betas=(0.9, 0.999),
    gradient_clip=0.1,
    ema_decay=0.9999,
    save_every=1000,
    checkpoint_activations=True,
)

_TRAINING = WorldModelTraining(
    fit=_FIT, latent_frames=4, scheme="first_frame", shift=5.0, motion_weight=0.1, text_drop=0.2
)

_SELF_FORCING = SelfForcing(
    fit=replace(
        _FIT, steps=3_000, micro_batches=64, learning_rate=1e-7, weight_decay=0.01, gradient_clip=1.0, save_every=250
    ),
    critic_learning_rate=100.0,
    shortest=4,
    longest=13,
    window=4,
)

PAPER_2B = Preset(
    name="2b",
    size=(480, 640),
    rate=10.0,
    data=DataAmounts(human_minutes=60, robot_minutes=20),
    clip_frames=NUM_FRAMES,
    tokenizer=WanConfig(),
    tokenizer_training=None,
    latent_action=LatentActionConfig(
        dim=1024, latent_dim=32, num_heads=16, encoder_blocks=24, decoder_blocks=24, patch_size=16
    ),
    latent_action_training=LatentActionTraining(
        fit=replace(_FIT, steps=400_000, batch_size=20, micro_batches=8, learning_rate=2.5e-5, gradient_clip=0.3),
        strides=(1, 2, 3, 4),
        kl_weight=1e-6,
        contrast=0.0,
    ),
    latent_action_size=(240, 320),
    latent_action_slot=LATENT_ACTION_SLOT.start,
    text_tokens=512,
    world_model=DiTConfig(
        latent_channels=16, dim=2048, num_heads=16, num_blocks=28, action_dim=ACTION_WIDTH, modulation_rank=256
    ),
    pretraining=replace(_TRAINING, fit=replace(_FIT, steps=140_000)),
    posttraining=_TRAINING,
    human_share=0.0,
    student=StudentTraining(
        fit=replace(_FIT, steps=10_000, learning_rate=3e-5),
        sampler=SamplerConfig(steps=4, solver="renoise"),
        teacher=SamplerConfig(steps=35, solver="unipc"),
        stages=("warm_up", "self_forcing"),
        warm_up="ode",
        self_forcing=_SELF_FORCING,
        long_rollout=replace(_SELF_FORCING, shortest=13, longest=25),
    ),
)

PAPER_14B = replace(
    PAPER_2B,
    name="14b",
    world_model=replace(PAPER_2B.world_model, dim=5120, num_heads=40, num_blocks=36),
    pretraining=replace(PAPER_2B.pretraining, high_sigma_fraction=0.05),
    posttraining=replace(PAPER_2B.posttraining, high_sigma_fraction=0.05),
)

PAPER_2B_RGBD = replace(
    PAPER_2B,
    name="2b-rgbd",
    modality="rgbd",
    depth_coding=DepthCoding(near=0.2, far=5.0),
    world_model=replace(PAPER_2B.world_model, latent_channels=32),
)
"""`2b` with metric depth: depth goes through the same tokenizer, and the converted model is the start."""
