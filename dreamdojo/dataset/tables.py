"""The two small tables of a v3.0 dataset's meta: tasks and episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamdojo.dataset.schema import EPISODES_PATTERN
from dreamdojo.errors import DataError

_RESERVED = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "task_index"}
_RESERVED_PREFIXES = ("data/", "videos/", "stats/", "meta/")


def is_reserved(key: str) -> bool:
    """Whether a column of the episode table belongs to the format, not to what a recording says about itself."""
    return key in _RESERVED or key.startswith(_RESERVED_PREFIXES)


def write_task_table(path: Path, tasks: Sequence[str]) -> None:
    """Tasks in the order of their index. LeRobot reads them as the index of a pandas frame, hence the metadata."""
    columns = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in columns
        ],
        "creator": {"library": "pyarrow", "version": "0"},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path, write_page_checksum=True)


def read_task_table(path: Path) -> dict[int, str]:
    """Task index -> text, from any of the ways LeRobot has written the table.

    Raises:
        DataError: if it is not a readable Parquet file.
    """
    table = _read(path)
    text = next(name for name in table.column_names if name != "task_index")
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def write_episode_table(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One row per episode; a fact that an episode does not state is null."""
    keys = dict.fromkeys(key for row in rows for key in row)
    place = {"chunk_index": 0, "file_index": 0}
    columns = {key: [row.get(key) for row in rows] for key in keys}
    columns |= {f"meta/episodes/{name}": [value] * len(rows) for name, value in place.items()}
    path = folder / EPISODES_PATTERN.format(**place)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, write_page_checksum=True)


def read_episode_table(folder: Path) -> list[dict[str, Any]]:
    """All rows of `meta/episodes`, in order, without the statistics.

    Raises:
        DataError: if a file is not readable Parquet.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*/*.parquet")):
        rows += _read(path, wanted=lambda name: not name.startswith("stats/")).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def _read(path: Path, *, wanted: Callable[[str], bool] = bool) -> pa.Table:
    """The columns of a file whose names are `wanted`."""
    try:
        names = [name for name in pq.read_schema(path).names if wanted(name)]
        return pq.read_table(path, columns=names, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a readable Parquet file, found {error}. Copy the dataset again.") from error
