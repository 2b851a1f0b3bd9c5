"""A trained world model with a wider entry: latents that carry depth too, or a reference frame beside every noisy one.

Columns of the first layer that see what is new start at zero, so nothing of it enters and the model says what it said;
rows of the output that make new channels start as in a new model. No norm mixes latent channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel


def add_depth(model: WorldModel, channels: int) -> WorldModel:
    """A model of `channels` more latent channels, which stand after its own; every other weight is a copy.

    A residual model (`previous_latent`) starts with depth that does not move, another one with depth made of noise.

    Raises:
        ConfigError: if `channels` is not positive.
    """
    if channels < 1:
        raise ConfigError(f"expected at least one latent channel of depth, got {channels}")
    old = model.config.dit
    return _widened(model, replace(old, latent_channels=old.latent_channels + channels))


def add_reference(model: WorldModel) -> WorldModel:
    """A model that is given a reference frame as well (`reference_latent`) and does not look at it yet.

    Raises:
        ConfigError: if it takes one already, or attends to the future.
    """
    if model.config.dit.reference_latent:
        raise ConfigError("this model takes a reference frame already")
    return _widened(model, replace(model.config.dit, reference_latent=True))


@torch.no_grad()
def _widened(model: WorldModel, wide: DiTConfig) -> WorldModel:
    old = model.config.dit
    wider = WorldModel(replace(model.config, dit=wide))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    entry, exits = "dit.patch_in.weight", ["dit.patch_out.weight"]
    if old.convolution_width:
        entry, exits = "dit.stem.conv_in.weight", ["dit.head.conv_out.weight", "dit.head.conv_out.bias"]
    fresh = wider.state_dict()
    weights[entry] = _with_columns(weights[entry], old, wide)
    for name in exits:
        weights[name] = _with_rows(weights[name], fresh[name].to(weights[name]), old, wide)
    wider.load_state_dict(weights, assign=True)
    return wider.eval()


def _with_columns(weight: Tensor, old: DiTConfig, wide: DiTConfig) -> Tensor:
    """The patch embedding `d (c p q)`, or a convolution `d c p q`, whose channels are the noisy latent's, the previous
    one's, the reference's, and the masks'."""
    columns = weight.reshape(len(weight), old.input_channels, -1)
    wider = columns.new_zeros(len(weight), wide.input_channels, columns.shape[2])
    for group in range(old.latents_per_frame):
        into, of = group * wide.latent_channels, group * old.latent_channels
        wider[:, into : into + old.latent_channels] = columns[:, of : of + old.latent_channels]
    masks = old.input_channels - old.latents_per_frame * old.latent_channels
    if masks:
        wider[:, -masks:] = columns[:, -masks:]
    return wider.flatten(1) if weight.ndim == 2 else wider.unflatten(2, weight.shape[2:])


def _with_rows(weight: Tensor, fresh: Tensor, old: DiTConfig, wide: DiTConfig) -> Tensor:
    """The output layer `(p q c) d`, or a convolution `c d p q`; rows of the new channels are those of `fresh`."""
    rows = rearrange(fresh, "(n c) ... -> n c ...", c=wide.latent_channels).clone()
    rows[:, : old.latent_channels] = rearrange(weight, "(n c) ... -> n c ...", c=old.latent_channels)
    return rows.flatten(0, 1)
