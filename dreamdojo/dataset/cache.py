"""Side caches: columns derived from a dataset by a model (latents, latent actions) or by resizing.

They depend on a checkpoint, a rate and a frame gap, so they never enter the dataset; they stand beside it under a key,
and a cache whose key does not match is refused.

    CACHE/cache.json    key, shape and type of a row, number of rows per episode, episodes left out and why
    CACHE/rows.bin      the rows of all episodes, one after the other
    CACHE/valid.bin     one byte per row: whether it holds a value

Row t belongs to frame t of an episode at the key's rate. With a gap g it describes the motion from frame t to frame
t + g, and the last g rows are masked.
"""

from __future__ import annotations

import dataclasses
import json
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dreamdojo.errors import DataError, reading
from dreamdojo.files import disk_full, locked, read_json, write_json, written_whole

_META, _ROWS, _VALID, _DONE, _LOCK = "cache.json", "rows.bin", "valid.bin", "done.jsonl", "lock"


@dataclass(frozen=True, kw_only=True)
class CacheKey:
    """What a cache was made from and how."""

    kind: str
    """What a row is: `frames`, `latent`, `latent_action`."""
    dataset_hash: str
    """`Dataset.hash` of the source."""
    model_hash: str
    """Hash of the weights that made the rows; for resized frames, camera and size."""
    rate: float
    """Rows per second asked for (a slower source keeps its own)."""
    gap: int
    """Frames between the two that a row compares; 0 where a row belongs to a single frame."""


def open_cache(path: Path | str, key: CacheKey) -> SideCache:
    """Open a finished cache.

    Raises:
        DataError: if there is none, it is cut short, or it was made under another key (naming every field).
    """
    path = Path(path)
    meta = read_json(path / _META, of=f"cache {path}")
    _refuse_other_key(path, meta, key)
    with reading(f"cache {path}"):
        cache = SideCache(path, key, meta)
    for name, expected in ((_ROWS, cache.num_rows * cache.row_bytes), (_VALID, cache.num_rows)):
        found = (path / name).stat().st_size if (path / name).is_file() else "no such file"
        if expected != found:
            raise DataError(
                f"cache {path}: expected {expected} bytes in {name}, found {found}. Delete it and make it again."
            )
    return cache


class SideCache:
    """A finished cache: a mapping from an episode's number to its rows."""

    def __init__(self, path: Path, key: CacheKey, meta: Mapping[str, Any]) -> None:
        self.path = path
        self.key = key
        self.shape = tuple(int(side) for side in meta["shape"])
        self.dtype = np.dtype(meta["dtype"])
        self.left_out: dict[int, str] = {int(index): reason for index, reason in meta.get("left_out", {}).items()}
        self._spans = _spans({int(index): length for index, length in meta["episodes"].items()})
        self._rows: np.memmap | None = None

    def __repr__(self) -> str:
        return f"SideCache({self.key.kind}, {len(self._spans)} episodes, rows {self.shape} {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    left_out: dict[int, str]
    """Episodes that could not be read, and why; whoever made the cache chose to go on without them."""

    @property
    def episodes(self) -> list[int]:
        """Numbers of the episodes that it holds, in order."""
        return self.of(self._spans)

    def of(self, episodes: Iterable[int]) -> list[int]:
        """Those of `episodes` that are not left out."""
        return [episode for episode in episodes if episode not in self.left_out]

    @property
    def num_rows(self) -> int:
        """Rows of all episodes together."""
        return max((span.stop for span in self._spans.values()), default=0)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def __contains__(self, episode: int) -> bool:
        return episode in self._spans and episode not in self.left_out

    def __len__(self) -> int:
        return len(self._spans) - len(self.left_out)

    def __getitem__(self, episode: int) -> np.ndarray:
        """Rows of an episode, `t *shape`, memory-mapped and read-only; masked rows are zeros.

        Raises:
            DataError: if the cache does not hold the episode, or it was left out.
        """
        if episode in self.left_out:
            raise DataError(f"cache {self.path}: episode {episode} was left out: {self.left_out[episode]}")
        if self._rows is None:
            self._rows = np.memmap(self.path / _ROWS, dtype=self.dtype, mode="r", shape=(self.num_rows, *self.shape))
        return self._rows[self._span(episode)]

    def valid(self, episode: int) -> np.ndarray:
        """Which rows of an episode hold a value: `t` bool."""
        span = self._span(episode)
        with (self.path / _VALID).open("rb") as file:
            file.seek(span.start)
            return np.frombuffer(file.read(span.stop - span.start), dtype=bool)

    def _span(self, episode: int) -> slice:
        if episode not in self._spans:
            raise DataError(f"cache {self.path}: expected one of the episodes {self.episodes}, got {episode}")
        return self._spans[episode]


class CacheWriter:
    """Fills a cache episode by episode; a context manager.

    Work survives an interruption: started again with the same arguments, it knows in `done` what it holds. The cache
    appears under `path` when all episodes are in and it is closed.

    Args:
        path: folder to make; refused where it exists.
        key: what the rows are made from.
        episode_lengths: number of rows per episode.
        shape: shape of one row.
        dtype: type of the numbers.

    Raises:
        DataError: if `path` exists, an interrupted cache of another kind is in the way, or another process is
            filling it.
    """

    def __init__(
        self,
        path: Path | str,
        key: CacheKey,
        episode_lengths: Mapping[int, int],
        shape: Sequence[int],
        dtype: DTypeLike,
    ) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise DataError(
                f"cache {self.path}: expected a folder that does not exist yet, found one. Delete it first."
            )
        self.key = key
        self._folder = self.path.with_name(f".{self.path.name}.partial")
        lengths = {str(index): int(length) for index, length in sorted(episode_lengths.items())}
        self._meta = {
            "key": dataclasses.asdict(key),
            "shape": [int(side) for side in shape],
            "dtype": np.dtype(dtype).name,
            "episodes": lengths,
        }
        self._view = SideCache(self._folder, key, self._meta)
        with disk_full(self.path):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = locked(self._folder / _LOCK)
        self._release = weakref.finalize(self, lock.close)
        self.done = self._resume()

    done: set[int]
    """Episodes that are already in, or left out."""
    left_out: dict[int, str]
    """Episodes left out, and why."""

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def write(self, episode: int, array: np.ndarray) -> None:
        """Store an episode's rows, `t *shape`; with a gap g in the key, `t - g` rows will do, the last g are masked.

        Raises:
            DataError: if the episode is unknown or already in, the rows do not fit or are not finite, or the disk is
                full.
        """
        where = f"cache {self.path}, episode {episode}"
        span = self._view._span(episode)
        if episode in self.done:
            raise DataError(f"{where}: expected an episode that is not in yet; it is already stored")
        length, gap = span.stop - span.start, self.key.gap
        num_valid = max(length - gap, 0)
        if array.shape[1:] != self._view.shape or len(array) not in (length, num_valid):
            raise DataError(
                f"{where}: expected {num_valid or length} rows of shape {self._view.shape}, got an array {array.shape}"
            )
        values = array[:num_valid].astype(self._view.dtype, copy=False)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{where}: expected finite rows, found {(~np.isfinite(values)).sum()} bad numbers")
        rows = np.zeros((length, *self._view.shape), dtype=self._view.dtype)
        rows[:num_valid] = values
        with disk_full(self.path, needed=rows.nbytes):
            _write_at(self._folder / _ROWS, span.start * self._view.row_bytes, rows.tobytes())
            _write_at(self._folder / _VALID, span.start, (np.arange(length) < num_valid).tobytes())
        self._note(episode, None)

    def leave_out(self, episode: int, reason: str) -> None:
        """Go on without an episode that cannot be read; the cache tells who asks.

        Raises:
            DataError: if the episode is unknown or already in.
        """
        self._view._span(episode)
        if episode in self.done:
            raise DataError(f"cache {self.path}, episode {episode}: it is already stored")
        self.left_out[episode] = reason
        self._note(episode, reason)

    def _note(self, episode: int, reason: str | None) -> None:
        with disk_full(self.path), (self._folder / _DONE).open("a") as file:
            file.write(json.dumps([episode, reason]) + "\n")
        self.done.add(episode)

    def close(self) -> None:
        """Put the finished cache under its name.

        Raises:
            DataError: if episodes are missing; what is there is kept.
        """
        missing = [episode for episode in self._view.episodes if episode not in self.done]
        if missing:
            raise DataError(
                f"cache {self.path}: expected {len(self._view)} episodes, {len(missing)} are missing (first: "
                f"{missing[0]}). What is there is kept; run it again to go on."
            )
        for name, size in ((_ROWS, self._view.num_rows * self._view.row_bytes), (_VALID, self._view.num_rows)):
            os.truncate(self._folder / name, size)  # an episode left out at the end wrote nothing
        if self.left_out:
            write_json(self._folder / _META, self._meta | {"left_out": self.left_out})
        self._folder.rename(self.path)
        for name in (_DONE, _LOCK):
            (self.path / name).unlink(missing_ok=True)
        self._release()

    def _resume(self) -> set[int]:
        meta_path = self._folder / _META
        if meta_path.is_file():
            found = read_json(meta_path, of=f"cache {self._folder}")
            _refuse_other_key(self._folder, found, self.key)
            if found | {"left_out": {}} != self._meta | {"left_out": {}}:
                raise DataError(
                    f"cache {self._folder}: an interrupted cache with other episodes or rows is in the way. Delete it."
                )
        else:
            with disk_full(self.path):
                for name in (_ROWS, _VALID, _DONE):
                    (self._folder / name).write_bytes(b"")
                write_json(meta_path, self._meta)
        noted = _whole_lines(self._folder / _DONE)
        self.left_out = {episode: reason for episode, reason in noted if reason is not None}
        return {episode for episode, _ in noted}


def _whole_lines(path: Path) -> list[tuple[int, str | None]]:
    """What a file of JSON lines says; a last line that is cut short is taken off it, so that the next is whole."""
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with written_whole(path) as temporary:
            temporary.write_text(whole)
    return [tuple(json.loads(line)) for line in whole.splitlines()]


def _spans(lengths: Mapping[int, int]) -> dict[int, slice]:
    spans, position = {}, 0
    for index, length in lengths.items():
        spans[index] = slice(position, position + length)
        position += length
    return spans


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _refuse_other_key(path: Path, meta: Mapping[str, Any], key: CacheKey) -> None:
    expected, found = dataclasses.asdict(key), meta.get("key")
    found = found if isinstance(found, dict) else {}
    differing = [name for name in expected if expected[name] != found.get(name)]
    if differing:
        details = "; ".join(f"{name}: expected {expected[name]!r}, found {found.get(name)!r}" for name in differing)
        raise DataError(f"cache {path}: made for something else ({details}). Delete it or make it anew.")
