"""Where the rows and frames of each episode are, for each version of the LeRobot layout.

v3.0 puts many episodes into one file and lists them in Parquet; v2.0 and v2.1 have one file per episode and JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamdojo.dataset import stats
from dreamdojo.dataset.schema import EPISODES_FOLDER, INFO_PATH, STATS_PATH, TASKS_PATH
from dreamdojo.dataset.stats import FeatureStats
from dreamdojo.dataset.tables import is_reserved, read_episode_table, read_task_table
from dreamdojo.errors import DataError
from dreamdojo.files import read_json

VERSIONS = ("v3.0", "v2.1", "v2.0")


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where the frames of one episode and camera are."""

    path: Path
    """Video file."""
    start: float
    """Seconds from the start of the file to the episode's first frame."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """What the meta of a dataset says about one episode."""

    index: int
    """The dataset's own number of the episode."""
    length: int
    """Frames."""
    tasks: tuple[str, ...]
    """What is being done, in words."""
    meta: Mapping[str, Any]
    """Everything else that the dataset states about the episode."""
    data: Path
    """Parquet file with the episode's rows."""
    videos: Mapping[str, VideoSpan]
    """Feature -> where its frames are."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The meta of a dataset, whatever its version."""

    root: Path
    """The dataset's folder."""
    version: str
    """One of `VERSIONS`."""
    info: Mapping[str, Any]
    """`meta/info.json`."""
    episodes: tuple[EpisodeRecord, ...]
    """In order of their index."""
    stats: FeatureStats | None
    """Statistics that the dataset carries, or None where it carries none."""


def read_layout(root: Path) -> Layout:
    """Read the meta of the dataset in `root`.

    Raises:
        DataError: if it is not a LeRobot dataset of a version we know, or its meta is incomplete.
    """
    if not root.is_dir():
        raise DataError(
            f"dataset {root}: expected a folder, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    info = read_json(root / INFO_PATH, of=f"dataset {root}")
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise DataError(
            f"dataset {root}: expected a LeRobot dataset of version {', '.join(VERSIONS)}, found {version!r}. "
            "Convert it with LeRobot's own converter first."
        )
    for key in ("fps", "features", "data_path"):
        if key not in info:
            raise DataError(f"dataset {root}: expected {key!r} in {INFO_PATH}, found {sorted(info)}")
    try:
        episodes = _episodes_v3(root, info) if version == "v3.0" else _episodes_v2(root, info)
    except KeyError as error:
        raise DataError(
            f"dataset {root}: expected {error} in the meta of every episode, found none. Copy the dataset again."
        ) from error
    if not episodes:
        raise DataError(f"dataset {root}: expected at least one episode, its meta lists none")
    return Layout(root=root, version=version, info=info, episodes=episodes, stats=_stats(root, version))


def video_features(info: Mapping[str, Any]) -> list[str]:
    """Features stored as video."""
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _episodes_v3(root: Path, info: Mapping[str, Any]) -> tuple[EpisodeRecord, ...]:
    rows = read_episode_table(root / EPISODES_FOLDER)
    if not rows:
        raise DataError(f"dataset {root}: expected Parquet files in {EPISODES_FOLDER}, found none")
    tasks = tuple(_tasks(root).values())
    only = tasks if len(tasks) == 1 else ()
    records = []
    for row in rows:
        place = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
        videos = {}
        for key in video_features(info):
            chunk = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            path = root / info["video_path"].format(video_key=key, **chunk)
            videos[key] = VideoSpan(path=path, start=float(row[f"videos/{key}/from_timestamp"]))
        records.append(
            EpisodeRecord(
                index=row["episode_index"],
                length=row["length"],
                tasks=tuple(row.get("tasks") or only),
                meta={key: value for key, value in row.items() if not is_reserved(key) and value is not None},
                data=root / info["data_path"].format(**place),
                videos=videos,
            )
        )
    return tuple(records)


def _episodes_v2(root: Path, info: Mapping[str, Any]) -> tuple[EpisodeRecord, ...]:
    size = info.get("chunks_size", 1000)
    records = []
    for row in _json_lines(root / "meta/episodes.jsonl", root):
        index = row["episode_index"]
        place = {"episode_index": index, "episode_chunk": index // size}
        spans = {
            key: VideoSpan(path=root / info["video_path"].format(video_key=key, **place), start=0.0)
            for key in video_features(info)
        }
        records.append(
            EpisodeRecord(
                index=index,
                length=row["length"],
                tasks=tuple(row.get("tasks", ())),
                meta={key: value for key, value in row.items() if not is_reserved(key)},
                data=root / info["data_path"].format(**place),
                videos=spans,
            )
        )
    return tuple(sorted(records, key=lambda record: record.index))


def _tasks(root: Path) -> dict[int, str]:
    path = root / TASKS_PATH
    return read_task_table(path) if path.is_file() else {}


def _stats(root: Path, version: str) -> FeatureStats | None:
    if (root / STATS_PATH).is_file():
        return stats.from_json(read_json(root / STATS_PATH, of=f"dataset {root}"))
    per_episode = root / "meta/episodes_stats.jsonl"
    if version == "v2.1" and per_episode.is_file():
        return stats.combine([stats.from_json(row["stats"]) for row in _json_lines(per_episode, root)])
    return None


def _json_lines(path: Path, root: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"dataset {root}: expected {path.relative_to(root)}, found no such file")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(
            f"dataset {root}: expected JSON lines in {path.relative_to(root)}, found {error}. It may be cut short."
        ) from error
