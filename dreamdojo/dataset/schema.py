"""Names and shapes of the LeRobotDataset v3.0 layout: what crosses the border between two stages.

meta/info.json                             rate, features (columns and cameras), path patterns
meta/stats.json                            statistics of every feature over the dataset
meta/tasks.parquet                         task text -> task_index
meta/episodes/chunk-000/file-000.parquet   one row per episode: length, where its rows and frames are, its
                                           statistics, and what we know about it (`split`, `seed`, ...)
meta/embodiment.json                       ours: the body that the actions and the state belong to
data/chunk-000/file-000.parquet            one row per frame
videos/FEATURE/chunk-000/file-000.mp4      frames of many episodes, one after the other
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError

CODEBASE_VERSION = "v3.0"
ACTION = "action"
STATE = "observation.state"
IMAGE_PREFIX = "observation.images."
DEPTH_SUFFIX = "_depth"

INFO_PATH = Path("meta/info.json")
STATS_PATH = Path("meta/stats.json")
TASKS_PATH = Path("meta/tasks.parquet")
EPISODES_FOLDER = Path("meta/episodes")
EMBODIMENT_PATH = Path("meta/embodiment.json")
CHUNK_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATTERN = f"data/{CHUNK_PATTERN}.parquet"
VIDEO_PATTERN = f"videos/{{video_key}}/{CHUNK_PATTERN}.mp4"
EPISODES_PATTERN = f"{EPISODES_FOLDER.as_posix()}/{CHUNK_PATTERN}.parquet"

FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200

Dtype = Literal["float32", "float64", "int64", "int32", "uint8", "bool", "string"]


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """The pictures that one camera takes."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    depth: bool = False
    """Whether each picture has metric depth beside it."""


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """A number, or an array of numbers, per frame."""

    dtype: Dtype
    """numpy's name of the type, or `string`."""
    shape: tuple[int, ...] = (1,)
    """Shape of one row; `(1,)` is stored as a scalar."""
    names: tuple[str, ...] | None = None
    """A name per number, for one-dimensional columns."""

    def __post_init__(self) -> None:
        if not self.shape or any(side < 1 for side in self.shape):
            raise ConfigError(f"a column's shape needs positive sides, got {self.shape}")
        if self.names is not None and len(self.names) != self.shape[0]:
            raise ConfigError(f"expected {self.shape[0]} names for a column of shape {self.shape}, got {self.names}")
        if self.dtype == "string" and self.shape != (1,):
            raise ConfigError(f"a string column has shape (1,), got {self.shape}")

    def feature(self) -> dict[str, Any]:
        """The entry in `info.json`."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}

    def arrow_type(self) -> pa.DataType:
        """The Parquet type of one row."""
        arrow = pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))
        if self.shape != (1,):
            for side in reversed(self.shape):
                arrow = pa.list_(arrow, side) if len(self.shape) == 1 else pa.list_(arrow)
        return arrow


DEFAULT_COLUMNS: Mapping[str, ColumnSpec] = {
    "timestamp": ColumnSpec(dtype="float32"),
    "frame_index": ColumnSpec(dtype="int64"),
    "episode_index": ColumnSpec(dtype="int64"),
    "index": ColumnSpec(dtype="int64"),
    "task_index": ColumnSpec(dtype="int64"),
}
"""Columns of every LeRobot dataset, in its order; the writer fills them in."""


def rgb_key(camera: str) -> str:
    """`head` -> `observation.images.head`."""
    return IMAGE_PREFIX + camera


def depth_key(camera: str) -> str:
    """`head` -> `observation.images.head_depth`."""
    return IMAGE_PREFIX + camera + DEPTH_SUFFIX


def body_columns(embodiment: Embodiment) -> dict[str, ColumnSpec]:
    """The action and state columns that an embodiment declares; empty for video without actions."""
    columns = {}
    if embodiment.action_dim:
        names = tuple(embodiment.action_names())
        columns[ACTION] = ColumnSpec(dtype="float32", shape=(embodiment.action_dim,), names=names)
    if embodiment.state_dim:
        names = tuple(embodiment.state_names())
        columns[STATE] = ColumnSpec(dtype="float32", shape=(embodiment.state_dim,), names=names)
    return columns


def as_json_number(value: float) -> float | int:
    """Whole rates as integers, the way LeRobot writes them."""
    return int(value) if float(value).is_integer() else float(value)
