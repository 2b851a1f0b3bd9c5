"""`decisions.parquet`: one row per clip that was considered, each score a column of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamdojo.curation.decide import Decision
from dreamdojo.errors import DataError
from dreamdojo.files import written_whole

ROWS_PATH = Path("curation/decisions.parquet")
"""In the dataset."""
_SCORE = "score/"
_PICTURE = "picture"


def write_rows(path: Path, rows: Sequence[Decision], pictures: Mapping[str, bytes]) -> None:
    """Write decisions with small JPEGs of some of them.

    Raises:
        DataError: if the disk is full.
    """
    names = [each.name for each in dataclasses.fields(Decision) if each.name != "scores"]
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    scores = sorted({score for row in rows for score in row.scores})
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays |= {_SCORE + name: pa.array([row.scores.get(name) for row in rows], pa.float64()) for name in scores}
    arrays[_PICTURE] = pa.array([pictures.get(row.clip) for row in rows], pa.binary())
    with written_whole(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, compression="zstd")


def read_rows(path: Path) -> tuple[list[Decision], dict[str, bytes]]:
    """Decisions, and the JPEGs by their clips' names.

    Raises:
        DataError: if there is no such file.
    """
    try:
        table = pq.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: expected the decisions of `dreamdojo curate`, found no file. Curate first, with the same --out."
        ) from error
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: expected the decisions of `dreamdojo curate`, found {error}.") from error
    names = {each.name for each in dataclasses.fields(Decision)}
    rows, pictures = [], {}
    for raw in table:
        scores = {
            key[len(_SCORE) :]: value for key, value in raw.items() if key.startswith(_SCORE) and value is not None
        }
        rows.append(Decision(**{key: value for key, value in raw.items() if key in names}, scores=scores))
        if raw[_PICTURE] is not None:
            pictures[raw["clip"]] = raw[_PICTURE]
    return rows, pictures
