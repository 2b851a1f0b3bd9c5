"""What long rollouts do to a picture: drift of colour and energy, stillness, and objects that were out of sight.

Everything is per clip, like the other scores: NaN where a clip has no such number.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.evaluation.keypoints import position_error
from dreamdojo.evaluation.objects import MIN_VISIBLE_PIXELS
from dreamdojo.evaluation.rollouts import Clips, ObjectFinder
from dreamdojo.metrics import gradient_energy, unit_range


def colour_drift(
    frames: UInt8[Tensor, "b t c h w"], truth: UInt8[Tensor, "b t c h w"], span: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """How far the mean colour is from the truth's, in the first and in the last `span` frames; colours from 0 to 1."""
    gap = unit_range(frames).mean(dim=(3, 4)) - unit_range(truth).mean(dim=(3, 4))
    return gap[:, :span].mean(dim=1).norm(dim=1), gap[:, -span:].mean(dim=1).norm(dim=1)


def energy_drift(
    frames: UInt8[Tensor, "b t c h w"], truth: UInt8[Tensor, "b t c h w"], span: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Gradient energy of whole pictures over the truth's, in the first and in the last `span` frames; 1 is sharp."""

    def energy(part: Tensor) -> Tensor:
        return gradient_energy(unit_range(part)).mean(dim=(1, 2, 3))

    return energy(frames[:, :span]) / energy(truth[:, :span]), energy(frames[:, -span:]) / energy(truth[:, -span:])


def unrest(frames: UInt8[Tensor, "b t c h w"]) -> Float[Tensor, " b"]:
    """Mean change from frame to frame, 0 to 1: what a world does while nothing is done to it."""
    return torch.diff(unit_range(frames), dim=1).abs().mean(dim=(1, 2, 3, 4))


def was_hidden(
    visible: Bool[Tensor, "b t o"], marked: Bool[Tensor, "b o"], *, hidden_for: int = 3
) -> Bool[Tensor, "b t o"]:
    """Where an object that was marked at the start is in view again after at least `hidden_for` frames out of it."""
    run = torch.zeros_like(visible[:, 0], dtype=torch.long)
    before = torch.zeros_like(visible[:, 0])
    back = []
    for now in visible.unbind(dim=1):
        run = torch.where(now, 0, run + 1)
        before = before | (run >= hidden_for)
        back.append(now & before)
    return torch.stack(back, dim=1) & marked[:, None]


def error_after_return(
    clips: Clips, frames: UInt8[Tensor, "b t c h w"], probe: ObjectFinder, *, every: int = 5, hidden_for: int = 3
) -> dict[str, Float[Tensor, " b"]]:
    """Position error in pixels of objects that left and came back (`returned`), and of those never out of view
    (`stayed`), at every `every`-th frame; an object that is not found counts as the largest error.
    """
    scene = clips.scene
    assert scene is not None
    marked = scene.masks.sum(dim=(-2, -1)) >= MIN_VISIBLE_PIXELS
    back = was_hidden(scene.objects_visible, marked, hidden_for=hidden_for)
    always = scene.objects_visible.cumprod(dim=1).bool() & marked[:, None]
    found: dict[str, Tensor] = {}
    for name, asked in (("returned", back), ("stayed", always)):
        asked = asked & (torch.arange(asked.shape[1]) % every == 0)[None, :, None]
        clip, time, which = asked.nonzero(as_tuple=True)
        located = probe.locate(clips.last_context[clip], scene.masks[clip, which], frames[clip, time])
        height, width = frames.shape[-2:]
        error = position_error(
            located, scene.objects[clip, time, which], height=height, width=width, undetected="farthest"
        )
        spread = torch.full(asked.shape, torch.nan)
        spread[asked] = error
        found[name] = spread.flatten(1).nanmean(dim=1)
    return found
