"""What is about to go wrong, read off predicted frames: an object that will be hit, or will fall out of the gripper.

Gripper and objects are found by the probes of `dreamdojo.evaluation`, in the late picture and in every predicted one.
Positions are (u, v) in [0, 1] of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.evaluation.rollouts import EffectorFinder, ObjectFinder

Kind = Literal["collision", "drop"]


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


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """Something that will happen."""

    kind: Kind
    """What."""
    seconds: float
    """In how long, counted from the late picture."""
    thing: int
    """Number of the object."""

    @property
    def words(self) -> str:
        """For a person."""
        what = {"collision": "be hit", "drop": "fall"}[self.kind]
        return f"Object {self.thing + 1} will {what} in {self.seconds:.1f} s"


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
