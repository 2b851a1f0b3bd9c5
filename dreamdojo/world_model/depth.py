"""An RGB world model as an RGB-D one: its latents get more channels, and what it says about the old ones stays.

Columns of the patch embedding that see the new channels start at zero, so nothing of them enters; rows of the output
that make them start as in a new model. No norm mixes latent channels, so the old channels come out as they did.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel


@torch.no_grad()
def add_depth(model: WorldModel, channels: int) -> WorldModel:
    """A model of `channels` more latent channels, which stand after its own; every other weight is a copy.

    A residual model (`previous_latent`) starts with depth that does not move, another one with depth made of noise.

    Raises:
        ConfigError: if `channels` is not positive.
    """
    if channels < 1:
        raise ConfigError(f"expected at least one latent channel of depth, got {channels}")
    old = model.config.dit
    wide = replace(old, latent_channels=old.latent_channels + channels)
    wider = WorldModel(replace(model.config, dit=wide))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    patch_in, patch_out = weights["dit.patch_in.weight"], weights["dit.patch_out.weight"]
    weights["dit.patch_in.weight"] = _with_columns(patch_in, old, wide)
    weights["dit.patch_out.weight"] = _with_rows(patch_out, wider.dit.patch_out.weight.to(patch_out), old, wide)
    wider.load_state_dict(weights, assign=True)
    return wider.eval()


def _with_columns(weight: Tensor, old: DiTConfig, wide: DiTConfig) -> Tensor:
    """The patch embedding `d (c p q)`, whose channels are the noisy latent's, the previous one's, and the masks'."""
    area = old.patch_size**2
    columns = rearrange(weight, "d (c n) -> d c n", n=area)
    wider = columns.new_zeros(len(weight), wide.input_channels, area)
    latents = range(2 if old.previous_latent else 1)
    for group in latents:
        into, of = group * wide.latent_channels, group * old.latent_channels
        wider[:, into : into + old.latent_channels] = columns[:, of : of + old.latent_channels]
    masks = old.input_channels - len(latents) * old.latent_channels
    if masks:
        wider[:, -masks:] = columns[:, -masks:]
    return wider.flatten(1)


def _with_rows(weight: Tensor, fresh: Tensor, old: DiTConfig, wide: DiTConfig) -> Tensor:
    """The output layer `(p q c) d`; rows of the new channels are those of `fresh`."""
    rows = rearrange(fresh, "(n c) d -> n c d", c=wide.latent_channels).clone()
    rows[:, : old.latent_channels] = rearrange(weight, "(n c) d -> n c d", c=old.latent_channels)
    return rows.flatten(0, 1)
