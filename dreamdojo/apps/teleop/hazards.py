"""What is about to go wrong, read off predicted frames: an object that will be hit, or will fall out of the gripper.

Gripper and objects are found by the probes of `dreamdojo.evaluation`, in the late picture and in every predicted one.
Depth, where it is predicted, tells how far the gripper is from the surface around it. Positions are (u, v) in [0, 1] of
the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.evaluation.rollouts import EffectorFinder, ObjectFinder

Kind = Literal["collision", "drop", "contact"]

# how far around the gripper is looked, as a share of the picture, so that open fingers are seen; and the quantiles of
# the metres there that are the hand's and the surface's
_AROUND, _NEAR, _FAR = 0.16, 0.05, 0.75


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From when on something is a hazard. Lengths are shares of the picture's side."""

    moved: float = 0.05
    """An object that is to stay where it is, and moves so far, is hit."""
    near: float = 0.13
    """An object no farther than this from a closed gripper may be in it."""
    apart: float = 0.06
    """An object that was in the gripper, and comes so much farther away from it, falls."""
    closed: float = 0.75
    """Opening below which the gripper may hold something."""
    clearance: float = 0.16
    """Metres along the line of sight between the hand and the surface around it. The hand of the dojo's arm stands
    above its fingertips: it is that near when they are 3 to 6 cm above the table."""
    approach: float = 0.02
    """A gripper so near comes down on something if it has come nearer by so many metres."""


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """Something that will happen."""

    kind: Kind
    """What."""
    seconds: float
    """In how long, counted from the late picture."""
    thing: int | None = None
    """Number of the object; None where it is the gripper itself."""

    @property
    def words(self) -> str:
        """For a person."""
        subject = "The gripper" if self.thing is None else f"Object {self.thing + 1}"
        what = {"collision": "be hit", "drop": "fall", "contact": "touch down"}[self.kind]
        return f"{subject} will {what} in {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Where things are from the late picture (row 0) to the last predicted one."""

    gripper: Float[Tensor, "t 2"]
    gripper_found: Bool[Tensor, " t"]
    objects: Float[Tensor, "o t 2"]
    objects_found: Bool[Tensor, "o t"]


class Lookout:
    """Follows gripper and objects through predicted frames."""

    def __init__(self, gripper: EffectorFinder, objects: ObjectFinder | None) -> None:
        self._gripper, self._objects = gripper, objects
        self._start: Tensor | None = None
        self._masks: Tensor | None = None

    def reset(self, start: UInt8[Tensor, "c h w"], masks: Bool[Tensor, "o h w"] | None) -> None:
        """A new scene, and where its objects are in it (None: nobody knows, so none is followed)."""
        self._start, self._masks = start, masks

    def follow(self, frames: UInt8[Tensor, "t c h w"]) -> Tracks:
        """Find everything in the late picture and the predicted ones."""
        gripper = self._gripper.locate(frames)
        if self._objects is None or self._masks is None or self._start is None or not len(self._masks):
            none = frames.new_zeros((0, len(frames)))
            return Tracks(
                gripper=gripper.position,
                gripper_found=gripper.found,
                objects=none.float()[..., None].expand(0, len(frames), 2),
                objects_found=none.bool(),
            )
        count = len(self._masks)
        found = self._objects.locate(
            self._start.expand(count * len(frames), -1, -1, -1),
            self._masks.repeat_interleave(len(frames), dim=0),
            frames.repeat(count, 1, 1, 1),
        )
        return Tracks(
            gripper=gripper.position,
            gripper_found=gripper.found,
            objects=found.position.unflatten(0, (count, len(frames))),
            objects_found=found.found.unflatten(0, (count, len(frames))),
        )


def hazards(
    tracks: Tracks, *, fps: float, opening: float, target: int | None = None, limits: Limits | None = None
) -> list[Hazard]:
    """What will be hit or dropped.

    Args:
        tracks: where things are and will be.
        fps: frames per second.
        opening: of the gripper now, 0 to 1.
        target: the object that is meant to be touched, which cannot be hit but can fall.
        limits: from when on something counts.
    """
    limits = limits or Limits()
    found: list[Hazard] = []
    for thing in range(len(tracks.objects)):
        track, visible = tracks.objects[thing], tracks.objects_found[thing]
        if not visible[0]:
            continue
        away = (track - track[0]).norm(dim=-1)
        apart = (track - tracks.gripper).norm(dim=-1)
        held = opening < limits.closed and bool(tracks.gripper_found[0]) and float(apart[0]) < limits.near
        if held:
            happens = (apart - apart[0] > limits.apart) & visible & tracks.gripper_found
            kind: Kind = "drop"
        else:
            happens = (away > limits.moved) & visible
            kind = "collision"
        if happens.any() and (held or thing != target):
            first = int(happens.nonzero()[0, 0])
            found.append(Hazard(kind=kind, seconds=first / fps, thing=thing))
    return found


def clearance(depth: Float[Tensor, "t h w"], tracks: Tracks) -> Float[Tensor, " t"]:
    """Metres along the line of sight between the hand and the surface around it; infinite where it is not found."""
    height, width = depth.shape[-2:]
    reach = max(1, round(_AROUND * width))
    found = torch.full((len(depth),), torch.inf)
    for i in tracks.gripper_found.nonzero()[:, 0].tolist():
        u, v = tracks.gripper[i].tolist()
        row, column = min(height - 1, int(v * height)), min(width - 1, int(u * width))
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (row, column))
        near, far = depth[i, rows, columns].flatten().quantile(depth.new_tensor([_NEAR, _FAR])).tolist()
        found[i] = far - near
    return found


def contact(
    depth: Float[Tensor, "t h w"], tracks: Tracks, *, fps: float, limits: Limits | None = None
) -> Hazard | None:
    """The gripper that comes down on what it is over.

    Args:
        depth: metres in the late picture (row 0) and in the predicted ones.
        tracks: where the gripper is in them.
        fps: frames per second.
        limits: from when on it counts.
    """
    limits = limits or Limits()
    happens = _lacking(clearance(depth, tracks), limits) > 0
    return Hazard(kind="contact", seconds=int(happens.nonzero()[0, 0]) / fps) if happens.any() else None


def harm(tracks: Tracks, depth: Float[Tensor, "t h w"] | None, *, target: int | None = None) -> Float[Tensor, ""]:
    """What a motion costs: how far things that are to stay are moved, summed, and how far below its clearance it gets.

    Args:
        tracks: where things are under it.
        depth: metres in the same frames, where they are known.
        target: the object that is meant to be touched.
    """
    away = (tracks.objects - tracks.objects[:, :1]).norm(dim=-1) * (tracks.objects_found & tracks.objects_found[:, :1])
    if target is not None and target < len(away):
        away = torch.cat([away[:target], away[target + 1 :]])
    moved = away.amax(dim=1).sum() if len(away) else torch.zeros(())
    if depth is None:
        return moved
    return moved + _lacking(clearance(depth, tracks), Limits()).amax()


def _lacking(clear: Tensor, limits: Limits) -> Tensor:
    """Metres below the clearance, where the gripper has come nearer than it was."""
    farthest = clear.where(clear.isfinite(), -torch.inf).cummax(dim=0).values
    return (limits.clearance - clear).clamp(min=0) * (clear < farthest - limits.approach)
