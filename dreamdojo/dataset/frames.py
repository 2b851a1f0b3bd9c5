"""Frames at the control rate and the model's size, decoded once and kept as a side cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.parallel import Progress, map_in_order
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import choose_frames
from dreamdojo.video import Size
from dreamdojo.video.resize import as_size

_CHUNK = 64
"""Frames decoded at a time, which bounds the memory that a worker needs at the source's size."""


def frames_key(dataset: Dataset, *, rate: float, size: Size, camera: str | None = None) -> CacheKey:
    """The key of a cache of resized frames.

    Raises:
        DataError: if the camera does not exist, or none is named where there are several.
    """
    height, width = as_size(size)
    name = dataset.camera(camera)
    return CacheKey(
        kind="frames",
        dataset_hash=dataset.hash,
        model_hash=f"area/{name}/{height}x{width}",
        rate=float(rate),
        gap=0,
    )


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

    Returns:
        The cache; `cache[episode]` is `t h w 3` uint8, row i belonging to `resample(...).frame_indices[i]`.

    Raises:
        DataError: if a video does not decode, the cache is of another key, or the disk is full.
    """
    path, size = Path(path), as_size(size)
    key = frames_key(dataset, rate=rate, size=size, camera=camera)
    wanted = sorted(episodes) if episodes is not None else [episode.index for episode in dataset.episodes]
    if path.exists():
        cache = open_cache(path, key)
        if set(wanted) <= set(cache.episodes):
            return cache
    kept = {}
    for index in wanted:
        kept[index], _ = choose_frames(dataset.timestamps(index), rate, source_rate=dataset.fps)
    lengths = {index: len(indices) for index, indices in kept.items()}
    with CacheWriter(path, key, lengths, (*size, 3), np.uint8) as writer:
        jobs = [(dataset, index, kept[index], camera, size) for index in wanted if index not in writer.done]
        for index, frames in map_in_order(_decode, jobs, workers=workers):
            writer.write(index, frames)
            if progress is not None:
                progress(len(writer.done), len(wanted))
    return open_cache(path, key)


_Job = tuple[Dataset, int, np.ndarray, str | None, tuple[int, int]]


def _decode(job: _Job) -> tuple[int, np.ndarray]:
    dataset, index, kept, camera, size = job
    out = np.empty((len(kept), *size, 3), dtype=np.uint8)
    for start in range(0, len(kept), _CHUNK):
        rows = kept[start : start + _CHUNK]
        out[start : start + len(rows)] = dataset.frames(index, rows, camera, size=size)
    return index, out
