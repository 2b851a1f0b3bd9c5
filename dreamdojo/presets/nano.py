"""`nano`: the whole chain on a laptop with two cores, in a quarter of an hour."""

from dataclasses import replace

from dreamdojo.latent_action.model import LatentActionConfig
from dreamdojo.latent_action.train import LatentActionTraining
from dreamdojo.presets.preset import DataAmounts, Preset
from dreamdojo.student.distill import StudentTraining
from dreamdojo.student.self_forcing import SelfForcing
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.model import TokenizerConfig
from dreamdojo.tokenizer.taef2 import TAEF2Config
from dreamdojo.tokenizer.train import TokenizerTraining
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining

_TOKENIZER_TRAINING = TokenizerTraining(fit=FitConfig(steps=600, batch_size=16, learning_rate=2e-3))

_SELF_FORCING = SelfForcing(
    fit=FitConfig(
        steps=200, batch_size=8, learning_rate=5e-5, betas=(0.5, 0.99), warmup_steps=10, ema_decay=0.99, save_every=50
    ),
    shortest=5,
    longest=12,
    window=5,
    noise_floor=0.5,
)

NANO = Preset(
    name="nano",
    size=(64, 64),
    rate=10.0,
    data=DataAmounts(human_minutes=16, robot_minutes=5),
    tokenizer=TokenizerConfig(latent_channels=8, width=32, spatial_factor=4, temporal_factor=1),
    tokenizer_training=_TOKENIZER_TRAINING,
    latent_action=LatentActionConfig(
        dim=128,
        latent_dim=16,
        num_heads=4,
        encoder_blocks=3,
        decoder_blocks=3,
        patch_size=8,
        early_fusion=True,
        residual=True,
        antisymmetric=True,
        convolutional=True,
    ),
    latent_action_training=LatentActionTraining(
        fit=FitConfig(steps=600, batch_size=32, learning_rate=1.5e-3, compile=True),
        strides=(1, 2),
        kl_weight=1e-6,
        contrastive_weight=1e-3,
        shift=0.1,
        zoom=0.1,
        brightness=0.2,
        contrast=0.5,
        feature_weight=0.1,
        motion_emphasis=10.0,
    ),
    world_model=DiTConfig(
        latent_channels=8,
        dim=256,
        num_heads=4,
        num_blocks=4,
        action_dim=16,
        actions_per_latent=1,
        patch_size=4,
        modulation_rank=64,
        text_dim=None,
        mask_channels=False,
        sigma_scale=1000.0,
        spatial_rope_ratio=1.0,
        prediction="clean",
        causal=True,
        window=5,
        previous_latent=True,
        reference_latent=True,
        convolution_width=64,
    ),
    pretraining=WorldModelTraining(
        fit=FitConfig(steps=600, batch_size=8, learning_rate=1.5e-3, compile=True),
        latent_frames=5,
        context_noise=0.2,
        emphasis=1.0,
    ),
    posttraining=WorldModelTraining(
        fit=FitConfig(steps=1000, batch_size=8, learning_rate=1.2e-3, compile=True),
        latent_frames=5,
        context_noise=1.2,
        context_contrast=0.25,
        emphasis=1.0,
    ),
    human_share=0.25,
    student=StudentTraining(
        fit=FitConfig(steps=200, batch_size=8, learning_rate=2e-4),
        sampler=SamplerConfig(steps=1, shift=3.0, commit="last_step", still=0.2),
        teacher=SamplerConfig(steps=4, shift=3.0, still=0.2),
        stages=("warm_up", "self_forcing"),
        self_forcing=_SELF_FORCING,
        long_rollout=replace(_SELF_FORCING, shortest=12, longest=40),
    ),
)


def _longer(fit: FitConfig, steps: int) -> FitConfig:
    return replace(fit, steps=steps, warmup_steps=100, ema_decay=0.999)


NANO_FOUNDATION = replace(
    NANO,
    name="nano-foundation",
    data=DataAmounts(human_minutes=60, robot_minutes=20),
    tokenizer_training=replace(_TOKENIZER_TRAINING, fit=_longer(_TOKENIZER_TRAINING.fit, 2500)),
    latent_action_training=replace(NANO.latent_action_training, fit=_longer(NANO.latent_action_training.fit, 3000)),
    world_model=replace(NANO.world_model, reference_latent=False),
    pretraining=replace(NANO.pretraining, fit=_longer(NANO.pretraining.fit, 8000)),
)
"""The foundation of `nano` that ships: more data and more steps (`make weights`). It takes no reference frame; `nano`
adds one before the robot's episodes, when the context gets noisy enough to need it."""

NANO_ROBOT = replace(
    NANO,
    name="nano-robot",
    foundation="nano",
    data=DataAmounts(human_minutes=16, robot_minutes=120),
    human_share=0.1,
    posttraining=replace(NANO.posttraining, fit=_longer(NANO.posttraining.fit, 6000)),
    student=replace(NANO.student, fit=replace(NANO.student.fit, steps=400)),
)
"""`nano` with two hours of the robot's episodes in place of five minutes, and more steps: hours, not minutes."""

NANO128 = replace(
    NANO,
    name="nano128",
    size=(128, 128),
    tokenizer=replace(NANO.tokenizer, spatial_factor=8),
    latent_action_size=(64, 64),
)
"""`nano` in pictures of twice the side: a frame has as many latents, and only encoding and decoding cost more."""

NANO_RGBD = replace(
    NANO,
    name="nano-rgbd",
    foundation="nano",
    modality="rgbd",
    depth_tokenizer=replace(NANO.tokenizer, channels=1, latent_channels=2, width=16),
    depth_coding=DepthCoding(near=0.2, far=3.0),
    world_model=replace(NANO.world_model, latent_channels=10),
)
"""`nano` with metric depth, from a dataset that has it (`dreamdojo simulate --depth`)."""

NANO_TAEF2 = replace(
    NANO,
    name="nano-taef2",
    size=(128, 128),
    tokenizer=TAEF2Config(),
    tokenizer_training=None,
    latent_action_size=(64, 64),
    latent_action_training=replace(NANO.latent_action_training, feature_weight=0.0),
    world_model=replace(NANO.world_model, latent_channels=32),
)
"""`nano` at 128 pixels over a published image tokenizer, for real recordings (`dreamdojo convert --tokenizer`)."""
