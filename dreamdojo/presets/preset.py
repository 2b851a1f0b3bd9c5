"""What a preset is: every stage's settings, in data-flow order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.model import LatentActionConfig
from dreamdojo.latent_action.train import LatentActionTraining
from dreamdojo.student.distill import StudentTraining
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.model import TokenizerConfig
from dreamdojo.tokenizer.rgbd import RGBDConfig
from dreamdojo.tokenizer.taef2 import TAEF2Config
from dreamdojo.tokenizer.train import TokenizerTraining
from dreamdojo.tokenizer.wan import WanConfig
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.train import WorldModelTraining


@dataclass(frozen=True, kw_only=True)
class DataAmounts:
    """How much is simulated for a run that brings no data of its own."""

    human_minutes: float
    """Minutes of unlabelled human video."""
    robot_minutes: float
    """Minutes of robot episodes with actions."""
    episode_frames: int = 64
    """Frames of one episode."""
    test_episodes: int = 32
    """Held-out episodes of each body."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Every stage's settings, in data-flow order."""

    name: str
    """The preset's name, kept in run folders."""
    foundation: str | None = None
    """The preset whose shipped foundation it begins from; None: its own, if one ships."""
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    rate: float
    """Frames (and actions) per second; sources are resampled to it by timestamp."""
    modality: Literal["rgb", "rgbd"] = "rgb"
    """What the world model sees and predicts: colour, or colour and metric depth."""
    data: DataAmounts
    """What is simulated where no data is given."""
    clip_frames: int | None = None
    """Frames of the clips that episodes are cut into before they are encoded, each clip from scratch, as published;
    None encodes an episode as one video."""
    tokenizer: TokenizerConfig | WanConfig | TAEF2Config
    """The video autoencoder of RGB."""
    tokenizer_training: TokenizerTraining | None
    """How it is trained; None where it comes converted."""
    depth_tokenizer: TokenizerConfig | None = None
    """With `rgbd`, the autoencoder of depth, trained like that of RGB; None: depth goes through that of RGB."""
    depth_coding: DepthCoding | None = None
    """With `rgbd`, which metres depth spans."""
    latent_action: LatentActionConfig
    """The latent action model."""
    latent_action_training: LatentActionTraining
    """How it is trained."""
    latent_action_size: tuple[int, int] | None = None
    """Height and width of the frames it sees; None: the same as the world model."""
    latent_action_slot: int | None = None
    """First column of latent actions in the world model's wide action, as published; None: they are its action."""
    text_tokens: int | None = None
    """Tokens of the constant text that the world model sees."""
    world_model: DiTConfig
    """The world model's network."""
    pretraining: WorldModelTraining
    """Training on human video and its latent actions."""
    posttraining: WorldModelTraining
    """Training on a robot's episodes."""
    human_share: float
    """Share of human video in post-training batches, so that what it taught is not forgotten."""
    student: StudentTraining
    """Distillation to few steps."""

    def __post_init__(self) -> None:
        with_depth = self.modality == "rgbd"
        if with_depth != (self.depth_coding is not None) or (self.depth_tokenizer is not None and not with_depth):
            raise ConfigError(
                "modality rgbd needs a depth_coding and may have a depth_tokenizer, modality rgb has neither: got "
                f"{self.modality!r}, depth_coding={self.depth_coding}, depth_tokenizer={self.depth_tokenizer}"
            )
        latent_channels = (self.rgbd or self.tokenizer).latent_channels
        wanted = {
            "world_model.latent_channels": (self.world_model.latent_channels, latent_channels),
            "world_model.actions_per_latent": (self.world_model.actions_per_latent, self.tokenizer.temporal_factor),
        }
        if self.latent_action_slot is None:
            wanted["world_model.action_dim"] = (self.world_model.action_dim, self.latent_action.latent_dim)
        for name, (found, expected) in wanted.items():
            if found != expected:
                raise ConfigError(f"{name} must be {expected} to fit the stages before it, got {found}")
        step = self.tokenizer.spatial_factor * self.world_model.patch_size
        seen = self.latent_action_size or self.size
        if any(side % step for side in self.size) or any(side % self.latent_action.patch_size for side in seen):
            raise ConfigError(
                f"height and width {self.size} must divide by {step} (tokenizer factor times DiT patch), and {seen} by "
                f"{self.latent_action.patch_size} (latent action patch)"
            )
        if self.clip_frames is not None and (self.clip_frames - 1) % self.tokenizer.temporal_factor:
            raise ConfigError(
                f"clip_frames must be 1 + a multiple of {self.tokenizer.temporal_factor}, got {self.clip_frames}"
            )
        if not 0 <= self.human_share < 1:
            raise ConfigError(f"human_share must lie in [0, 1), got {self.human_share}")

    @property
    def rgbd(self) -> RGBDConfig | None:
        """The tokenizer of RGB and depth; None with modality `rgb`."""
        if self.depth_coding is None:
            return None
        return RGBDConfig(rgb=self.tokenizer, depth=self.depth_tokenizer, coding=self.depth_coding)
