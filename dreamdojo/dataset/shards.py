"""Files that grow by one episode at a time and roll over at the format's size limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamdojo.dataset.schema import (
    DATA_PATTERN,
    FILES_PER_CHUNK,
    VIDEO_PATTERN,
    ColumnSpec,
)
from dreamdojo.errors import DataError
from dreamdojo.video import VideoJoiner


class VideoShards:
    """The videos of one camera."""

    def __init__(self, folder: Path, key: str, fps: float, *, max_bytes: int) -> None:
        self._folder, self._key, self._fps, self._max_bytes = folder, key, fps, max_bytes
        self._number, self._bytes = -1, 0
        self._joiner: VideoJoiner | None = None

    def append(self, part: Path, length: int) -> dict[str, int | float]:
        """Append a part; returns its row of the episode table.

        Raises:
            DataError: if the part does not hold `length` frames.
        """
        size = part.stat().st_size
        if self._joiner is None or self._bytes + size > self._max_bytes:
            self.close()
            self._number, self._bytes = self._number + 1, 0
            path = self._folder / VIDEO_PATTERN.format(video_key=self._key, **_place(self._number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._joiner = VideoJoiner(path, self._fps)
        span = self._joiner.append(part)
        if span.num_frames != length:
            raise DataError(f"video {part}: expected {length} frames, found {span.num_frames}. Encode the part again.")
        self._bytes += size
        place = {f"videos/{self._key}/{name}": value for name, value in _place(self._number).items()}
        return place | {
            f"videos/{self._key}/from_timestamp": span.first_frame / self._fps,
            f"videos/{self._key}/to_timestamp": (span.first_frame + length) / self._fps,
        }

    def close(self) -> None:
        """Finish the file being written."""
        joiner, self._joiner = self._joiner, None
        if joiner is not None:
            joiner.close()


class TableShards:
    """The rows of all frames."""

    def __init__(self, folder: Path, columns: Mapping[str, ColumnSpec], *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._schema = pa.schema([(name, spec.arrow_type()) for name, spec in columns.items()])
        self._number, self._bytes = -1, 0
        self._writer: pq.ParquetWriter | None = None

    def append(self, columns: Mapping[str, np.ndarray]) -> dict[str, int | float]:
        """Append an episode's columns `t ...`; returns its row of the episode table."""
        arrays = [to_arrow(columns[field.name], field.type) for field in self._schema]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        if self._writer is None or self._bytes + table.nbytes > self._max_bytes:
            self.close()
            self._number, self._bytes = self._number + 1, 0
            path = self._folder / DATA_PATTERN.format(**_place(self._number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy", write_page_checksum=True)
        self._writer.write_table(table)
        self._bytes += table.nbytes
        return {f"data/{name}": value for name, value in _place(self._number).items()}

    def close(self) -> None:
        """Finish the file being written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def to_arrow(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """`t ...` -> an Arrow column whose rows are scalars or (nested) lists."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        flat = to_arrow(values.reshape(-1, *values.shape[2:]), kind.value_type)
        if pa.types.is_fixed_size_list(kind):
            return pa.FixedSizeListArray.from_arrays(flat, type=kind)
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)
    return pa.array(values.reshape(-1), type=kind)


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
