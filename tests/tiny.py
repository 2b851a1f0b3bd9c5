"""Tiny models and data that several tests share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.windows import Source
from dreamdojo.rollout.session import Session
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.rgbd import RGBDTokenizer, join_parts
from dreamdojo.training.device import Compute
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import latent_episode

CPU = Compute(torch.device("cpu"), False, "tests")
LATENT_DIM = 3

PUSHER = Embodiment(
    name="pusher",
    action=(
        Field(
            name="velocity",
            axes=("x", "y"),
            unit="m/s",
            low=(-0.5, -0.5),
            high=(0.5, 0.5),
            resampling="mean",
            integrates="position",
        ),
    ),
    state=(Field(name="position", axes=("x", "y"), unit="m", low=(-1, -1), high=(1, 1)),),
)


def tiny_dit(k: int = 1, **changes) -> DiTConfig:
    settings = {
        "latent_channels": 4,
        "dim": 32,
        "num_heads": 2,
        "num_blocks": 2,
        "action_dim": LATENT_DIM,
        "actions_per_latent": k,
        "patch_size": 2,
        "modulation_rank": 8,
        "text_dim": None,
        "mask_channels": False,
        "sigma_scale": 1000.0,
        "prediction": "clean",
        "causal": True,
        "window": 3,
        "previous_latent": True,
    }
    return DiTConfig(**{**settings, **changes})


def tiny_tokenizer(k: int = 1) -> Tokenizer:
    torch.manual_seed(0)
    return awake(Tokenizer(TokenizerConfig(latent_channels=4, width=8, spatial_factor=4, temporal_factor=k, blocks=1)))


def tiny_rgbd_tokenizer(k: int = 1) -> RGBDTokenizer:
    rgb = tiny_tokenizer(k)
    depth = awake(Tokenizer(replace(rgb.config, latent_channels=2, channels=1)))
    return join_parts(rgb, depth, DepthCoding(near=0.2, far=3.0))


def tiny_world_model(k: int = 1, body: Embodiment = PUSHER, **changes) -> WorldModel:
    torch.manual_seed(0)
    config = WorldModelConfig(
        dit=tiny_dit(k, **changes), size=(16, 16), rate=10.0, embodiments=(body,), adapter_hidden=8
    )
    return awake(WorldModel(config))


def tiny_session(k: int = 1, steps: int = 1, body: Embodiment = PUSHER) -> Session:
    """A session of a body at 16 x 16 pixels, 10 frames a second, not reset yet."""
    sampler = SamplerConfig(steps=steps)
    return Session(tiny_world_model(k, body), tiny_tokenizer(k), sampler, embodiment=body, compute=CPU)


def awake(model):
    """Gates and outputs start at zero, which would hide mistakes: give every parameter a value."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model.eval()


def latent_source(k: int = 1, episodes: int = 3, frames: int = 10, seed: int = 0, name: str = LATENT_ACTION) -> Source:
    random = np.random.default_rng(seed)
    width = LATENT_DIM if name == LATENT_ACTION else PUSHER.action_dim
    return Source(
        embodiment=name,
        episodes=[
            latent_episode(
                random.normal(size=(frames, 4, 4, 4)).astype(np.float32),
                random.normal(size=(k * (frames - 1), width)).astype(np.float32),
                k,
            )
            for _ in range(episodes)
        ],
    )
