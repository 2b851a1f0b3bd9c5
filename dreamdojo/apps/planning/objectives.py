"""What a candidate costs: the distance of its end from a picture, of an object from its goal, steps still to go.

An objective is any callable `Imagined -> costs n`, so a user's function is one too: `--objective module:function`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.planner import Objective
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.keypoints import Located
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.functions import find_function
from dreamdojo.metrics import unit_range
from dreamdojo.rollout.session import CAMERA
from dreamdojo.tokenizer.model import from_pixels
from dreamdojo.tokenizer.protocol import VideoTokenizer

Embed = Callable[[UInt8[Tensor, "n c h w"]], Float[Tensor, "n ..."]]
"""Pictures to what they are compared by."""

MISSING = 1.0
"""What an object that is not found counts as: as far as the picture is wide."""


@dataclass(frozen=True, kw_only=True)
class GoalImage:
    """The mean squared distance of the last frames from a picture of how it should look, after `embed`."""

    goal: UInt8[Tensor, "c h w"]
    """The picture."""
    embed: Embed
    """`latents(tokenizer)`, `pixels`, `pyramid`, or any network's features."""
    last: int = 1
    """Frames at the end that are compared."""
    camera: str = CAMERA
    """Whose frames."""

    def __call__(self, imagined: Imagined) -> Float[Tensor, " n"]:
        """Costs."""
        return self.distances(frames_of(imagined, self.camera)[:, -self.last :]).mean(dim=1)

    def distances(self, frames: UInt8[Tensor, "n t c h w"]) -> Float[Tensor, "n t"]:
        """How far each frame is from the picture."""
        seen = self.embed(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).flatten(2)
        return (seen - self.embed(self.goal[None]).flatten()).square().mean(dim=2)


def latents(tokenizer: nn.Module) -> Embed:
    """Each picture's latent frame, as that of a video of its own."""
    assert isinstance(tokenizer, VideoTokenizer)
    device = next(tokenizer.parameters()).device

    @torch.no_grad()
    def embed(pictures: Tensor) -> Tensor:
        parts = [tokenizer.encode(from_pixels(part.to(device)[:, None]))[0][:, 0] for part in pictures.split(64)]
        return torch.cat(parts).float().cpu()

    return embed


def pixels(pictures: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The pictures themselves, in [0, 1]."""
    return unit_range(pictures)


def pyramid(pictures: UInt8[Tensor, "n c h w"], *, levels: int = 5) -> Float[Tensor, "n p"]:
    """The pictures, and their sums over windows of 2, 4, ... `2 ** (levels - 1)` pixels that overlap by half.

    Pixels only compare what overlaps; windows also say how far a small thing is from its place, up to their side. It
    counts alike at every level, a large thing more at the coarse ones.
    """
    picture = unit_range(pictures)
    parts = [picture.flatten(1)]
    for side in (2**level for level in range(1, levels)):
        means = F.avg_pool2d(picture, side, stride=side // 2, padding=side // 2, count_include_pad=False)
        parts.append(side**2 / 2 * means.flatten(1))  # four windows hold each pixel
    return torch.cat(parts, dim=1)


def features(network: Callable[[Tensor], Tensor]) -> Embed:
    """A network that takes pictures in [0, 1], `n c h w`, such as a TorchScript file gives."""
    return lambda pictures: network(unit_range(pictures))


@dataclass(frozen=True, kw_only=True)
class ObjectGoal:
    """The marked object at its goal: its distance at the end, and a share of how near the hand came to it.

    Where things are is read off the frames by the probes, so it works in every world with pictures. Distances are in
    widths of the picture.
    """

    objects: ObjectProbe
    effector: EffectorProbe
    """Both trained on renderings of the same body at the same size."""
    start: UInt8[Tensor, "c h w"]
    """The frame in which the object is marked."""
    mask: Bool[Tensor, "h w"]
    """Where it is there."""
    goal: Float[Tensor, " 2"]
    """(u, v) in [0, 1] where it should be."""
    reach: float = 0.3
    """Weight of the hand's least distance from the object: it leads to candidates that touch it at all."""
    last: int = 3
    """Frames at the end over which the object's distance is averaged."""
    every: int = 4
    """The hand is looked for in every so-manieth frame."""

    def __call__(self, imagined: Imagined) -> Float[Tensor, " n"]:
        """Costs."""
        frames = frames_of(imagined, CAMERA)
        ends = frames[:, -self.last :]
        end, _ = self._object(ends)
        cost = (end - self.goal).norm(dim=-1)
        if not self.reach:
            return cost.mean(dim=1)
        way = frames[:, :: self.every]
        place, there = self._object(way)
        hand, seen = _places(self.effector.locate(way.flatten(0, 1)), way.shape[:2], self.goal + MISSING)
        near = torch.where(there & seen, (hand - place).norm(dim=-1), MISSING).amin(dim=1)
        return cost.mean(dim=1) + self.reach * near

    def _object(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Where the object is in frames `n t c h w`, and whether it is seen; far outside where it is not."""
        count = frames.shape[0] * frames.shape[1]
        start, mask = self.start.expand(count, -1, -1, -1), self.mask.expand(count, -1, -1)
        return _places(self.objects.locate(start, mask, frames.flatten(0, 1)), frames.shape[:2], self.goal + MISSING)


def user_objective(name: str) -> Objective:
    """An objective of the user's own, named `module:function`: `Imagined -> costs n`.

    Raises:
        ConfigError: if there is none of that name; when called, if it does not return one cost per candidate.
    """
    function = find_function(name)

    def objective(imagined: Imagined) -> Tensor:
        costs = torch.as_tensor(function(imagined), dtype=torch.float32)
        if costs.shape != imagined.actions.shape[:1]:
            raise ConfigError(f"{name} should return {len(imagined.actions)} costs, returned {tuple(costs.shape)}")
        return costs

    return objective


def frames_of(imagined: Imagined, camera: str) -> UInt8[Tensor, "n t c h w"]:
    """The frames of a camera.

    Raises:
        ConfigError: if the world drew none.
    """
    if camera not in imagined.frames:
        raise ConfigError(
            f"this objective looks at frames of camera {camera!r}; it has {sorted(imagined.frames) or 'none'}. "
            "Rehearse in the dojo with pictures."
        )
    return imagined.frames[camera]


def _places(located: Located, shape: torch.Size, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the shape of the frames, `missing` where nothing was found, and whether something was."""
    found = located.found.unflatten(0, shape)
    return torch.where(found[..., None], located.position.unflatten(0, shape), missing), found
