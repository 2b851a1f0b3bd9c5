"""Columns of Parquet files as numpy arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamdojo.errors import DataError, reading


class ParquetColumns:
    """Reads whole columns of files; the last few stay in memory."""

    def __init__(
        self, *, local: Callable[[Path], AbstractContextManager[Path]] = nullcontext, max_kept: int = 64
    ) -> None:
        """`local` gives a file's copy on this machine, where the path is only its name."""
        self._local = local
        self._kept: OrderedDict[tuple[Path, str], np.ndarray] = OrderedDict()
        self._max_kept = max_kept

    def read(self, path: Path, key: str, *, of: str) -> np.ndarray:
        """A column: `n`, or `n ...` where rows are lists; text as an array of str objects.

        Args:
            path: the file.
            key: the column.
            of: the dataset and episode it is read for, to name in errors.

        Raises:
            DataError: if the file is not readable, or the column is missing, has gaps or rows of several lengths.
        """
        values = self._kept.get((path, key))
        if values is None:
            with reading(f"{of}, file {path.name}"):
                try:
                    with self._local(path) as copy:
                        values = self._load(copy, key, of)
                except (pa.ArrowException, OSError) as error:
                    raise DataError(
                        f"{of}: expected a readable Parquet file {path.name}, found {error}. Copy the dataset again."
                    ) from error
            self._kept[path, key] = values
            if len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end((path, key))
        return values

    @staticmethod
    def _load(path: Path, key: str, of: str) -> np.ndarray:
        names = pq.read_schema(path).names
        if key not in names:
            raise DataError(
                f"{of}: expected a column {key!r} in {path.name}, found {', '.join(names)}. "
                "Add it to the dataset, or choose another."
            )
        return _to_numpy(
            pq.read_table(path, columns=[key], page_checksum_verification=True)[key].combine_chunks(),
            f"{of}, column {key}",
        )


def _to_numpy(array: pa.Array, what: str) -> np.ndarray:
    if array.null_count:
        raise DataError(f"{what}: expected a value in every row, found {array.null_count} empty ones")
    if pa.types.is_fixed_size_list(array.type):
        inner = _to_numpy(array.flatten(), what)
        return inner.reshape(len(array), array.type.list_size, *inner.shape[1:])
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = np.unique(np.diff(array.offsets.to_numpy()))
        if len(lengths) != 1:
            raise DataError(f"{what}: expected rows of one length, found lengths {lengths.tolist()}")
        inner = _to_numpy(array.flatten(), what)
        return inner.reshape(len(array), int(lengths[0]), *inner.shape[1:])
    return array.to_numpy(zero_copy_only=False)
