"""Writing a LeRobotDataset v3.0: worker processes encode episodes, one writer joins them into shards.

    with DatasetWriter(root, fps=10, embodiment=body, cameras={"head": CameraSpec(height=128, width=128)}) as writer:
        for i, (frames, actions) in enumerate(recordings):
            writer.add(encode_episode(scratch=writer.scratch, index=i, fps=10, cameras=writer.cameras,
                                      frames={"head": frames}, columns={"action": actions}, task="push the cup"))

The dataset appears under `root` when the block ends well, whole and at once; after an error nothing stands there. The
same episodes in the same order give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dreamdojo.dataset import stats
from dreamdojo.dataset.depth import DepthRange
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.episode import EncodedEpisode, MetaValue, encode_episode
from dreamdojo.dataset.schema import (
    CODEBASE_VERSION,
    DATA_FILE_MB,
    DATA_PATTERN,
    DEFAULT_COLUMNS,
    EMBODIMENT_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_FILE_MB,
    VIDEO_PATTERN,
    CameraSpec,
    ColumnSpec,
    as_json_number,
    body_columns,
    depth_key,
    rgb_key,
)
from dreamdojo.dataset.shards import TableShards, VideoShards
from dreamdojo.dataset.tables import is_reserved, write_episode_table, write_task_table
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.files import disk_full, partial_path, remove_empty_folders, write_json
from dreamdojo.video import VideoCodec

__all__ = [
    "CameraSpec",
    "ColumnSpec",
    "DatasetWriter",
    "DepthRange",
    "EncodedEpisode",
    "MetaValue",
    "VideoCodec",
    "encode_episode",
]

_KINDS = {"f": "f", "i": "iu", "u": "u", "b": "b"}
"""Kind of a declared column -> kinds of array that are stored as it; only the width may differ."""


class DatasetWriter:
    """Collects encoded episodes into a dataset folder; a context manager.

    Args:
        root: the folder to make; refused where it exists.
        fps: frames per second of every episode.
        embodiment: the body; its action and state become the columns `action` and `observation.state`.
        cameras: camera name -> its pictures; `head` becomes the feature `observation.images.head`.
        columns: further columns.
        codec: how pictures are stored.
        depth_range: how depth is stored.
        extra_info: facts for `info.json`, under the key `dreamdojo` (e.g. the simulator's version).

    Raises:
        DataError: if `root` exists.
        ConfigError: if a column is declared twice.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        fps: float,
        embodiment: Embodiment,
        cameras: Mapping[str, CameraSpec],
        columns: Mapping[str, ColumnSpec] | None = None,
        codec: VideoCodec | None = None,
        depth_range: DepthRange | None = None,
        extra_info: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = Path(root)
        self.fps = fps
        self.embodiment = embodiment
        self.cameras = dict(cameras)
        self.codec = codec or VideoCodec()
        self.depth_range = depth_range or DepthRange()
        self._extra_info = dict(extra_info or {})
        body = body_columns(embodiment)
        if taken := sorted(set(columns or {}) & (set(body) | set(DEFAULT_COLUMNS))):
            raise ConfigError(f"dataset {self.root}: columns {taken} are written by the dataset itself; drop them")
        self.columns = {**body, **(columns or {})}
        self._refuse_existing()
        self._folder = partial_path(self.root)
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._stats: list[stats.FeatureStats] = []
        self._num_frames = 0
        self._last_index = -1

    @property
    def folder(self) -> Path:
        """The folder that will become `root`. What is written here by others becomes part of the dataset."""
        return self._folder

    @property
    def scratch(self) -> Path:
        """A folder for the parts of episodes; it never becomes part of the dataset."""
        return self._folder / ".scratch"

    @property
    def num_episodes(self) -> int:
        """Episodes added so far."""
        return len(self._rows)

    def __enter__(self) -> DatasetWriter:
        shutil.rmtree(self._folder, ignore_errors=True)
        with disk_full(self.root):
            self._folder.mkdir(parents=True)
        keys = [key for camera, spec in self.cameras.items() for key in self._keys(camera, spec)]
        self._videos = {key: VideoShards(self._folder, key, self.fps, max_bytes=VIDEO_FILE_MB << 20) for key in keys}
        self._data = TableShards(self._folder, {**self.columns, **DEFAULT_COLUMNS}, max_bytes=DATA_FILE_MB << 20)
        return self

    def add(self, episode: EncodedEpisode) -> None:
        """Append an episode; its video parts are consumed. It becomes episode number `num_episodes`.

        Raises:
            DataError: if it does not fit the dataset's declaration, comes out of order, or the disk is full.
        """
        self._check(episode)
        number, length, first = len(self._rows), episode.length, self._num_frames
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        frame_index = np.arange(length)
        columns: dict[str, np.ndarray] = {
            **{name: _as_declared(episode.columns[name], spec) for name, spec in self.columns.items()},
            "timestamp": (frame_index / self.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.full(length, number),
            "index": frame_index + first,
            "task_index": np.full(length, task),
        }
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.task],
            "length": length,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
        }
        parts = sum(part.stat().st_size for part in episode.videos.values())
        with disk_full(self.root, needed=parts + sum(values.nbytes for values in columns.values())):
            row |= self._data.append(columns)
            for key, shards in self._videos.items():
                row |= shards.append(episode.videos[key], length)
                episode.videos[key].unlink()
        episode_stats = {**episode.stats, **stats.numeric(DEFAULT_COLUMNS, columns)}
        row |= {
            f"stats/{name}/{key}": value
            for name, one in stats.to_json(episode_stats).items()
            for key, value in one.items()
        }
        self._rows.append({**row, **episode.meta})
        self._stats.append(episode_stats)
        self._num_frames += length
        self._last_index = episode.index

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_full(self.root):
                for shards in (*self._videos.values(), self._data):
                    shards.close()
                if kind is None:
                    self._finish()
        except BaseException:
            if kind is None:
                raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if not self._rows:
            raise DataError(f"dataset {self.root}: expected at least one episode, got none; nothing was written")
        write_json(self._folder / INFO_PATH, self._info())
        write_json(self._folder / STATS_PATH, stats.to_json(stats.combine(self._stats)))
        write_json(self._folder / EMBODIMENT_PATH, self.embodiment.side_by_side().to_dict())
        write_task_table(self._folder / TASKS_PATH, list(self._tasks))
        write_episode_table(self._folder, self._rows)
        shutil.rmtree(self.scratch, ignore_errors=True)
        remove_empty_folders(self._folder)
        self._refuse_existing()
        self._folder.rename(self.root)

    def _check(self, episode: EncodedEpisode) -> None:
        where = f"dataset {self.root}, episode {episode.index}"
        if episode.index <= self._last_index:
            raise DataError(
                f"{where}: expected episodes in rising order, got {episode.index} after {self._last_index}. "
                "Add them sorted by index, so that the same episodes always give the same dataset."
            )
        if set(episode.videos) != set(self._videos):
            raise DataError(f"{where}: expected videos {sorted(self._videos)}, got {sorted(episode.videos)}")
        expected = (as_json_number(self.fps), self.codec, self.depth_range)
        found = (as_json_number(episode.fps), episode.codec, episode.depth_range)
        if expected != found:
            raise DataError(f"{where}: expected fps, codec and depth range {expected}, got {found}")
        if set(episode.columns) != set(self.columns):
            raise DataError(
                f"{where}: expected the columns {sorted(self.columns)}, got {sorted(episode.columns)}. "
                "Declare a column in DatasetWriter(columns=...) or leave it out; action and observation.state come "
                "from the embodiment."
            )
        for name, spec in self.columns.items():
            values = episode.columns[name]
            shape = values.shape[1:] or (1,)
            fits = values.dtype.kind in ("UO" if spec.dtype == "string" else _KINDS[np.dtype(spec.dtype).kind])
            if shape != spec.shape or not fits:
                raise DataError(
                    f"{where}: column {name} expected rows of shape {spec.shape} and type {spec.dtype}, "
                    f"got {shape} and {values.dtype}"
                )
        if taken := sorted(key for key in episode.meta if is_reserved(key)):
            raise DataError(f"{where}: meta keys {taken} belong to the format; choose other names")

    def _info(self) -> dict[str, Any]:
        features = {name: spec.feature() for name, spec in {**self.columns, **DEFAULT_COLUMNS}.items()}
        for camera, spec in self.cameras.items():
            for key in self._keys(camera, spec):
                features[key] = self._picture_feature(spec, is_depth=key != rgb_key(camera))
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.embodiment.name,
            "total_episodes": len(self._rows),
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": as_json_number(self.fps),
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": DATA_PATTERN,
            "video_path": VIDEO_PATTERN if self._videos else None,
            "features": features,
            "dreamdojo": self._extra_info,
        }

    def _picture_feature(self, spec: CameraSpec, *, is_depth: bool) -> dict[str, Any]:
        channels = 1 if is_depth else 3
        codec = "hevc" if is_depth else {"libx264": "h264", "libsvtav1": "av1"}[self.codec.name]
        return {
            "dtype": "video",
            "shape": [spec.height, spec.width, channels],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": spec.height,
                "video.width": spec.width,
                "video.codec": codec,
                "video.pix_fmt": "gray12le" if is_depth else self.codec.pixel_format,
                "video.fps": as_json_number(self.fps),
                "video.channels": channels,
                "video.g": self.codec.gop,
                "has_audio": False,
                **(self.depth_range.to_info() if is_depth else {"video.is_depth_map": False}),
            },
        }

    @staticmethod
    def _keys(camera: str, spec: CameraSpec) -> list[str]:
        return [rgb_key(camera), depth_key(camera)] if spec.depth else [rgb_key(camera)]

    def _refuse_existing(self) -> None:
        if self.root.exists():
            raise DataError(
                f"dataset {self.root}: expected a folder that does not exist yet, found one. "
                "Remove it or choose another name; datasets are never overwritten."
            )


def _as_declared(values: np.ndarray, spec: ColumnSpec) -> np.ndarray:
    return values if spec.dtype == "string" else values.astype(spec.dtype, copy=False)
