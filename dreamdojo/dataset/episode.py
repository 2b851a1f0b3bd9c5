"""One episode, encoded: what a worker process hands to the writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdojo.dataset import stats
from dreamdojo.dataset.depth import DepthRange
from dreamdojo.dataset.schema import CameraSpec, depth_key, rgb_key
from dreamdojo.dataset.stats import FeatureStats
from dreamdojo.errors import DataError
from dreamdojo.files import disk_full
from dreamdojo.video import VideoCodec, encode, encode_gray12

MetaValue = int | float | str


@dataclass(frozen=True, kw_only=True)
class EncodedEpisode:
    """An episode whose pictures are small video files and whose columns are in memory. It can be pickled."""

    index: int
    """Its place in the order of episodes; gaps are allowed."""
    length: int
    """Frames."""
    fps: float
    """Frames per second."""
    task: str
    """What is being done, in words; may be empty."""
    meta: Mapping[str, MetaValue]
    """Facts about the episode, e.g. `split` or `seed`."""
    videos: Mapping[str, Path]
    """Feature name -> its video file."""
    columns: Mapping[str, np.ndarray]
    """Column name -> `t ...`."""
    stats: FeatureStats
    """Statistics of the pictures and of the numeric columns."""
    codec: VideoCodec
    """How the pictures were encoded."""
    depth_range: DepthRange
    """How depth was encoded."""


def encode_episode(
    *,
    scratch: Path,
    index: int,
    fps: float,
    cameras: Mapping[str, CameraSpec],
    frames: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    task: str,
    depth: Mapping[str, np.ndarray] | None = None,
    meta: Mapping[str, MetaValue] | None = None,
    codec: VideoCodec | None = None,
    depth_range: DepthRange | None = None,
) -> EncodedEpisode:
    """Encode an episode's pictures to files under `scratch` and compute its statistics. Safe in a worker process.

    Args:
        scratch: folder for the parts; made if missing. `DatasetWriter.scratch` is one that cleans itself up.
        index: place in the order of episodes; also names the parts.
        fps: frames per second.
        cameras: what each camera's pictures must look like.
        frames: camera -> `t h w 3` uint8.
        columns: column -> `t ...`; row t of `action` is what is done between frame t and frame t + 1.
        task: what is being done, in words.
        depth: camera -> `t h w` float32 metres, for the cameras with depth; infinity is stored as the range's end.
        meta: facts about the episode; they become columns of the episode table.
        codec: how pictures are stored; must equal the writer's.
        depth_range: how depth is stored; must equal the writer's.

    Raises:
        DataError: naming the episode and the camera or column, if shapes, lengths or types do not fit, if a number is
            not finite, or if the disk is full.
    """
    codec, depth_range, depth = codec or VideoCodec(), depth_range or DepthRange(), depth or {}
    length = _check(index, cameras, frames, columns, depth)
    scratch.mkdir(parents=True, exist_ok=True)
    videos: dict[str, Path] = {}
    result: FeatureStats = stats.numeric(columns, columns)
    with disk_full(scratch, needed=sum(array.nbytes for array in frames.values()) // 20):
        for camera in cameras:
            key = rgb_key(camera)
            videos[key] = scratch / f"{index:06d}.{key}.mp4"
            encode(videos[key], frames[camera], fps, codec)
            result[key] = stats.picture_stats(frames[camera], scale=255.0)
        for camera, metres in depth.items():
            key = depth_key(camera)
            videos[key] = scratch / f"{index:06d}.{key}.mp4"
            encode_gray12(videos[key], (depth_range.quantize(frame) for frame in metres), fps)
            bounded = np.nan_to_num(metres, posinf=depth_range.max, neginf=depth_range.min)  # as it comes back
            result[key] = stats.picture_stats(bounded[..., None], scale=1.0)
    return EncodedEpisode(
        index=index,
        length=length,
        fps=fps,
        task=task,
        meta=dict(meta or {}),
        videos=videos,
        columns=dict(columns),
        stats=result,
        codec=codec,
        depth_range=depth_range,
    )


def _check(
    index: int,
    cameras: Mapping[str, CameraSpec],
    frames: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    depth: Mapping[str, np.ndarray],
) -> int:
    """The episode's length, once everything is found to agree."""
    where = f"episode {index}"
    with_depth = {camera for camera, spec in cameras.items() if spec.depth}
    for kind, given, wanted in (("frames", set(frames), set(cameras)), ("depth", set(depth), with_depth)):
        if given != wanted:
            raise DataError(
                f"{where}: expected {kind} of the cameras {sorted(wanted)}, got {sorted(given)}. "
                "Pass every declared camera and no other."
            )
    lengths: dict[str, int] = {}
    for camera, spec in cameras.items():
        shape = (spec.height, spec.width)
        lengths[f"frames[{camera!r}]"] = len(frames[camera])
        if frames[camera].shape[1:] != (*shape, 3) or frames[camera].dtype != np.uint8:
            raise DataError(_misfit(where, camera, f"frames (t, {spec.height}, {spec.width}, 3) uint8", frames[camera]))
        if spec.depth:
            lengths[f"depth[{camera!r}]"] = len(depth[camera])
            if depth[camera].shape[1:] != shape or depth[camera].dtype.kind != "f":
                raise DataError(_misfit(where, camera, f"depth (t, {spec.height}, {spec.width}) float", depth[camera]))
    for name, values in columns.items():
        lengths[f"columns[{name!r}]"] = len(values)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(
                f"{where}: column {name} expected finite numbers, found {values[row]} at frame {row}. "
                "Repair it or leave the episode out; a gap is not a number to learn from."
            )
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where}: expected one length, got {lengths}")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError(f"{where}: expected at least one frame, got none")
    return length


def _misfit(where: str, camera: str, expected: str, found: np.ndarray) -> str:
    return f"{where}: camera {camera} expected {expected}, got {found.shape} of {found.dtype}"
