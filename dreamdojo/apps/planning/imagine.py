"""What a world says happens under candidate actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.world import World

BATCH = 64
"""Candidates that are imagined together."""


@runtime_checkable
class Truthful(Protocol):
    """A world that knows the truth: the dojo."""

    @property
    def moments(self) -> Sequence[Any]:
        """One `dreamdojo.dojo.simulation.Moment` per row of the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where things really are, in metres, and in the picture from 0 to 1."""

    effector: Float[Tensor, "n t 3"]
    objects: Float[Tensor, "n t o 3"]
    touched: Bool[Tensor, "n t o"]
    effector_pixel: Float[Tensor, "n t 2"]
    object_pixels: Float[Tensor, "n t o 2"]


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """Candidates and what follows from them; frame `i` comes after action `i`."""

    actions: Float[Tensor, "n t a"]
    """In the embodiment's units."""
    frames: Mapping[str, Tensor]
    """Camera name -> `n t c h w` uint8; empty in a rehearsal without pictures."""
    state: Float[Tensor, "n t s"] | None
    """Proprioception, where the world predicts it."""
    truth: Truth | None
    """Where the world knows it."""


@torch.no_grad()
def imagine(world: World, actions: Float[Tensor, "n t a"], *, batch: int = BATCH) -> Imagined:
    """Try `n` candidates from where a world of batch 1 stands; the world itself stays there.

    Raises:
        ConfigError: if `t` is not a multiple of the world's actions per step.
    """
    k = world.actions_per_step
    if actions.shape[1] % k or not actions.numel():
        raise ConfigError(f"expected candidates of a multiple of {k} actions, got shape {tuple(actions.shape)}")
    parts = [_imagine(world, part) for part in actions.split(batch)]
    states = [part.state for part in parts if part.state is not None]
    truths = [part.truth for part in parts if part.truth is not None]
    return Imagined(
        actions=actions,
        frames={camera: torch.cat([part.frames[camera] for part in parts]) for camera in parts[0].frames},
        state=torch.cat(states) if states else None,
        truth=_joined(truths) if truths else None,
    )


def _imagine(world: World, actions: Tensor) -> Imagined:
    branch, k = world.fork(len(actions)), world.actions_per_step
    steps, moments = [], []
    for index in range(0, actions.shape[1], k):
        steps.append(branch.step(actions[:, index : index + k]))
        if isinstance(branch, Truthful):
            moments += [branch.moments] * k  # the truth at the end of a step stands for all of its frames
    states = [step.state for step in steps if step.state is not None]
    return Imagined(
        actions=actions,
        frames={name: torch.cat([step.frames[name] for step in steps], dim=1) for name in steps[0].frames},
        state=torch.cat(states, dim=1) if states else None,
        truth=_truth(moments) if moments else None,
    )


def _truth(moments: Sequence[Sequence[Any]]) -> Truth:
    """From the moments of each time and row."""

    def stacked(read: Callable[[Any], np.ndarray]) -> Tensor:
        rows = [[read(moment) for moment in row] for row in moments]
        return torch.from_numpy(np.array(rows)).transpose(0, 1)

    return Truth(
        effector=stacked(lambda moment: moment.effector_position).float(),
        objects=stacked(lambda moment: moment.object_poses[:, :3]).float(),
        touched=stacked(lambda moment: moment.touched),
        effector_pixel=stacked(lambda moment: moment.effector_pixel).float(),
        object_pixels=stacked(lambda moment: moment.object_pixels).float(),
    )


def _joined(truths: Sequence[Truth]) -> Truth:
    names = [field.name for field in fields(Truth)]
    return Truth(**{name: torch.cat([getattr(truth, name) for truth in truths]) for name in names})
