"""Statistics of features in LeRobot's form: min, max, mean, std, count and five quantiles, per episode and in all.

Columns have one value per number; pictures one per channel, shaped `(3, 1, 1)`, in [0, 1] (depth: `(1, 1, 1)`, metres).
Over episodes, quantiles are combined as LeRobot does, by a mean weighted with the counts: close, not exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Stats = dict[str, np.ndarray]
"""Name of a statistic -> its value."""
FeatureStats = dict[str, Stats]
"""Name of a feature -> its statistics."""

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_MAX_PICTURES = 100
_MAX_SIDE = 300


def column_stats(values: np.ndarray) -> Stats:
    """Statistics over axis 0 of a numeric column `t ...`."""
    rows = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
    rows = rows.astype(np.float64) if values.dtype.kind != "f" else rows
    shape = values.shape[1:] or (1,)
    result = {
        "min": rows.min(axis=0).reshape(shape),
        "max": rows.max(axis=0).reshape(shape),
        "mean": rows.mean(axis=0, dtype=np.float64).reshape(shape),
        "std": rows.std(axis=0, dtype=np.float64).reshape(shape),
        "count": np.array([len(values)], dtype=np.int64),
    }
    for name, value in zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True):
        result[name] = value.reshape(shape)
    return result


def picture_stats(frames: np.ndarray, *, scale: float) -> Stats:
    """Statistics per channel of pictures `t h w c`, over up to 100 of them spread evenly, divided by `scale`."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _MAX_PICTURES)).round().astype(int)
    step = max(1, max(frames.shape[1:3]) // (_MAX_SIDE // 2)) if max(frames.shape[1:3]) > _MAX_SIDE else 1
    pixels = frames[chosen, ::step, ::step].reshape(-1, frames.shape[-1])
    stats = _byte_stats(pixels) if pixels.dtype == np.uint8 else column_stats(pixels)
    result = {key: np.asarray(value / scale).reshape(-1, 1, 1) for key, value in stats.items() if key != "count"}
    return {**result, "count": np.array([len(chosen)], dtype=np.int64)}


def _byte_stats(pixels: np.ndarray) -> Stats:
    counts = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T], axis=1)
    levels, total = np.arange(256.0)[:, None], len(pixels)
    mean = (counts * levels).sum(axis=0) / total
    below = counts.cumsum(axis=0) / total
    return {
        "min": (counts > 0).argmax(axis=0).astype(np.float64),
        "max": 255.0 - (counts[::-1] > 0).argmax(axis=0),
        "mean": mean,
        "std": np.sqrt((counts * (levels - mean) ** 2).sum(axis=0) / total),
        **{name: (below >= q).argmax(axis=0).astype(np.float64) for name, q in QUANTILES.items()},
    }


def combine(stats: Sequence[FeatureStats]) -> FeatureStats:
    """Statistics of several episodes as those of one, feature by feature."""
    names = dict.fromkeys(name for one in stats for name in one)
    return {name: _combine_feature([one[name] for one in stats if name in one]) for name in names}


def _combine_feature(parts: list[Stats]) -> Stats:
    count = np.array([part["count"][0] for part in parts], dtype=np.float64)
    shape = (-1,) + (1,) * parts[0]["mean"].ndim
    weight = (count / count.sum()).reshape(shape)

    def stacked(name: str) -> np.ndarray:
        return np.stack([part[name] for part in parts])

    mean = (weight * stacked("mean")).sum(axis=0)
    variance = (weight * (stacked("std") ** 2 + (stacked("mean") - mean) ** 2)).sum(axis=0)
    combined = {
        "min": stacked("min").min(axis=0),
        "max": stacked("max").max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(count.sum())], dtype=np.int64),
    }
    quantiles = [name for name in QUANTILES if all(name in part for part in parts)]
    return combined | {name: (weight * stacked(name)).sum(axis=0) for name in quantiles}


def to_json(stats: FeatureStats) -> dict[str, dict[str, list[Any]]]:
    """Plain lists, for `stats.json` and the episode table."""
    return {name: {key: value.tolist() for key, value in one.items()} for name, one in stats.items()}


def from_json(raw: Mapping[str, Mapping[str, Any]]) -> FeatureStats:
    """The inverse of `to_json`."""
    return {name: {key: np.atleast_1d(np.asarray(value)) for key, value in one.items()} for name, one in raw.items()}


def numeric(names: Iterable[str], columns: Mapping[str, np.ndarray]) -> FeatureStats:
    """Statistics of those of `columns` that hold numbers."""
    return {name: column_stats(columns[name]) for name in names if columns[name].dtype.kind in "fiub"}
