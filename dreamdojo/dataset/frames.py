"""Frames at the control rate and the model's size, and their depth, decoded once and kept as side caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.parallel import Progress, map_in_order
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import kept_frames
from dreamdojo.errors import DataError
from dreamdojo.remote import StorageError
from dreamdojo.video import Size
from dreamdojo.video.resize import as_size

_CHUNK = 64
"""Frames decoded at a time, which bounds the memory that a worker needs at the source's size."""
_DTYPE = {"frames": np.uint8, "depth": np.float16}


def frames_key(dataset: Dataset, *, rate: float, size: Size, camera: str | None = None) -> CacheKey:
    """The key of a cache of resized frames.

    Raises:
        DataError: if the camera does not exist, or none is named where there are several.
    """
    return _key(dataset, "frames", "area", rate=rate, size=size, camera=dataset.camera(camera))


def cache_frames(
    dataset: Dataset,
    path: Path | str,
    *,
    rate: float,
    size: Size,
    camera: str | None = None,
    episodes: Sequence[int] | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    skip_corrupt: bool = False,
) -> SideCache:
    """Decode, centre-crop and area-resize episodes at the control rate; resumable, and free when already done.

    Args:
        dataset: the source.
        path: folder of the cache.
        rate: frames per second to keep, chosen as `resample` does.
        size: height and width to resize to.
        camera: the camera; may be left out where there is only one.
        episodes: numbers of the episodes; all where not given.
        progress: told how many episodes are done, and of how many.
        workers: processes, as in `map_in_order`.
        skip_corrupt: go on without episodes that do not decode; the cache's `left_out` names them.

    Returns:
        The cache; `cache[episode]` is `t h w 3` uint8, row i belonging to `resample(...).frame_indices[i]`.

    Raises:
        DataError: if a video does not decode, the cache is of another key, or the disk is full.
    """
    size = as_size(size)
    key = frames_key(dataset, rate=rate, size=size, camera=camera)
    return _cache(dataset, Path(path), key, (*size, 3), camera, episodes, progress, workers, skip_corrupt)


def depth_key(dataset: Dataset, *, rate: float, size: Size, camera: str | None = None) -> CacheKey:
    """The key of a cache of resized depth.

    Raises:
        DataError: if the camera does not exist, or none is named where there are several, or it has no depth.
    """
    name = dataset.camera(camera)
    if not dataset.cameras[name].depth:
        having = [other for other, spec in dataset.cameras.items() if spec.depth]
        raise DataError(
            f"dataset {dataset.root}: expected depth beside the camera {name}, found none (cameras with depth: "
            f"{', '.join(having) or 'none'}). Record it (in the dojo: dreamdojo simulate --depth), choose a camera "
            "that has it, or use a preset of modality rgb."
        )
    return _key(dataset, "depth", "nearest", rate=rate, size=size, camera=name)


def cache_depth(
    dataset: Dataset,
    path: Path | str,
    *,
    rate: float,
    size: Size,
    camera: str | None = None,
    episodes: Sequence[int] | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    skip_corrupt: bool = False,
) -> SideCache:
    """Like `cache_frames`, of depth: `cache[episode]` is `t h w` float16 metres; resizing picks pixels.

    float16 holds 1 m to half a millimetre and 10 m to 4 mm.

    Raises:
        DataError: also if the camera has no depth.
    """
    size = as_size(size)
    key = depth_key(dataset, rate=rate, size=size, camera=camera)
    return _cache(dataset, Path(path), key, size, camera, episodes, progress, workers, skip_corrupt)


def _key(dataset: Dataset, kind: str, resizing: str, *, rate: float, size: Size, camera: str) -> CacheKey:
    height, width = as_size(size)
    how = f"{resizing}/{camera}/{height}x{width}"
    return CacheKey(kind=kind, dataset_hash=dataset.hash, model_hash=how, rate=float(rate), gap=0)


def _cache(
    dataset: Dataset,
    path: Path,
    key: CacheKey,
    shape: tuple[int, ...],
    camera: str | None,
    episodes: Sequence[int] | None,
    progress: Progress | None,
    workers: int | None,
    skip_corrupt: bool,
) -> SideCache:
    wanted = sorted(episodes) if episodes is not None else [episode.index for episode in dataset.episodes]
    if path.exists():
        cache = open_cache(path, key)
        if cache.left_out and not skip_corrupt:
            first, reason = next(iter(cache.left_out.items()))
            raise DataError(
                f"cache {path}: it goes without {len(cache.left_out)} corrupt episodes (first: {first}: {reason}). "
                "Give --skip-corrupt again to go on without them, or repair them and delete the cache."
            )
        if set(cache.of(wanted)) <= set(cache.episodes):
            return cache
    kept: dict[int, np.ndarray] = {}
    bad: dict[int, str] = {}
    for index in wanted:
        try:
            kept[index] = kept_frames(dataset, index, key.rate)[0]
        except StorageError:
            raise
        except DataError as error:
            if not skip_corrupt:
                raise
            kept[index], bad[index] = np.empty(0, np.int64), str(error)
    lengths = {index: len(indices) for index, indices in kept.items()}
    with CacheWriter(path, key, lengths, shape, _DTYPE[key.kind]) as writer:
        for index in bad.keys() - writer.done:
            writer.leave_out(index, bad[index])
        jobs = [(dataset, index, kept[index], camera, key.kind, shape) for index in wanted if index not in writer.done]
        for index, rows in map_in_order(_decode, jobs, workers=workers):
            if isinstance(rows, np.ndarray):
                writer.write(index, rows)
            elif skip_corrupt and not isinstance(rows, StorageError):
                writer.leave_out(index, str(rows))
            else:
                raise rows
            if progress is not None:
                progress(len(writer.done), len(wanted))
    return open_cache(path, key)


_Job = tuple[Dataset, int, np.ndarray, str | None, str, tuple[int, ...]]


def _decode(job: _Job) -> tuple[int, np.ndarray | DataError]:
    dataset, index, kept, camera, kind, shape = job
    read = dataset.depth if kind == "depth" else dataset.frames
    out = np.empty((len(kept), *shape), dtype=_DTYPE[kind])
    for start in range(0, len(kept), _CHUNK):
        rows = kept[start : start + _CHUNK]
        try:
            out[start : start + len(rows)] = read(index, rows, camera, size=(shape[0], shape[1]))
        except DataError as error:
            return index, error
    return index, out
