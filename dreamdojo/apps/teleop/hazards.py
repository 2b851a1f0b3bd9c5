"""What is about to go wrong, read off predicted frames: an object that will be hit, or will fall out of the gripper.

Gripper and objects are found by the probes of `dreamdojo.evaluation`, in the late picture and in every predicted one;
depth, where the model predicts it, tells how close the gripper comes to what is behind it. Positions are (u, v) in
[0, 1] of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.effector import EffectorProbe, EffectorProbeConfig
from dreamdojo.evaluation.keypoints import HeatmapNet, ProbeError
from dreamdojo.evaluation.objects import ObjectProbe, ObjectProbeConfig
from dreamdojo.evaluation.rollouts import EffectorFinder, ObjectFinder
from dreamdojo.files import folder_written_whole, read_json, write_json

_NUMBERS = ("mean", "median", "found", "false_alarms", "gate")

Kind = Literal["collision", "drop", "contact"]


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
    clearance: float = 0.03
    """Metres between the gripper and what is behind it, by depth."""


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """Something that will happen."""

    kind: Kind
    """What."""
    seconds: float
    """In how long, counted from the late picture."""
    thing: int | None
    """Number of the object; None where it is the gripper alone."""

    @property
    def words(self) -> str:
        """For a person."""
        what = {"collision": "will be hit", "drop": "will fall", "contact": "The gripper will touch what is behind it"}
        subject = "" if self.thing is None else f"Object {self.thing + 1} "
        return f"{subject}{what[self.kind]} in {self.seconds:.1f} s"


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


def contact(
    depth: Float[Tensor, "t h w"],
    background: Float[Tensor, "h w"],
    tracks: Tracks,
    *,
    fps: float,
    limits: Limits | None = None,
) -> Hazard | None:
    """The gripper that comes down on something: less clearance than allowed, and becoming less.

    Args:
        depth: predicted metres from the late picture (row 0) on; 0 where nothing is known.
        background: metres of the scene before the gripper was there.
        tracks: where the gripper is.
        fps: frames per second.
        limits: from when on it counts.
    """
    limits = limits or Limits()
    height, width = background.shape
    column = (tracks.gripper[:, 0] * width).long().clamp(0, width - 1)
    row = (tracks.gripper[:, 1] * height).long().clamp(0, height - 1)
    ahead = torch.arange(len(depth))
    behind, here = background[row, column], depth[ahead, row, column]
    clearance = torch.where((behind > 0) & (here > 0) & tracks.gripper_found, behind - here, torch.inf)
    happens = (clearance < limits.clearance) & (clearance < clearance[0])
    if not happens.any():
        return None
    return Hazard(kind="contact", seconds=int(happens.nonzero()[0, 0]) / fps, thing=None)


def save_probes(folder: Path, effector: EffectorProbe, objects: ObjectProbe | None) -> None:
    """Keep trained probes."""
    with folder_written_whole(folder) as temporary:
        for name, probe in (("effector", effector), ("objects", objects)):
            if probe is not None:
                weights = {key: value.contiguous() for key, value in probe.net.state_dict().items()}
                save_file(weights, temporary / f"{name}.safetensors")
                write_json(temporary / f"{name}.json", probe.error.to_json())


def load_probes(folder: Path) -> tuple[EffectorProbe, ObjectProbe | None]:
    """Probes that were kept; a probe that failed its gate is refused by name.

    Raises:
        DataError: if there are none, or the gripper's is not good enough to be used.
    """
    effector = EffectorProbe(
        net=_net(folder / "effector", 3, EffectorProbeConfig().width), error=_error(folder / "effector")
    )
    if not effector.error.valid:
        raise DataError(f"{folder}: the probe of the gripper cannot be used: {effector.error}")
    if not (folder / "objects.safetensors").exists() or not (error := _error(folder / "objects")).valid:
        return effector, None
    return effector, ObjectProbe(net=_net(folder / "objects", 9, ObjectProbeConfig().width), error=error)


def _net(path: Path, channels: int, width: int) -> HeatmapNet:
    file = path.with_suffix(".safetensors")
    if not file.exists():
        raise DataError(f"expected a trained probe in {file}, found none. Make it with: dreamdojo teleop calibrate")
    net = HeatmapNet(channels, width=width)
    net.load_state_dict(load_file(file))
    return net.eval()


def _error(path: Path) -> ProbeError:
    raw = read_json(path.with_suffix(".json"), of="probe")
    numbers = {name: math.inf if raw[name] is None else float(raw[name]) for name in _NUMBERS}
    return ProbeError(**numbers, count=int(raw["count"]))
