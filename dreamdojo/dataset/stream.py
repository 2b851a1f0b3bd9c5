"""Episodes that are decoded while training reads them: nothing is kept on disk, and little in memory.

An episode is streamed in segments of up to `SEGMENT` rows. Threads decode the segments that a sampler is about to draw
from; FFmpeg works outside Python's lock, so they use as many cores as there are threads.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from dreamdojo.dataset.memory import Room
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import choose_frames, kept_frames
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.remote import StorageError
from dreamdojo.video import Size
from dreamdojo.video.resize import as_size

SEGMENT = 128
"""Rows of a segment, at most."""
_CHUNK = 32


class Unreadable(NamedTuple):
    """An episode that is left out."""

    dataset: str
    """Its folder or address."""
    episode: int
    """Its number."""
    reason: str
    """What is wrong with it."""


OnUnreadable = Callable[[Unreadable], None]
"""Told of each episode that is left out."""


class Segment(NamedTuple):
    """Part of an episode."""

    episode: int
    start: int
    stop: int


class EpisodeStream:
    """The segments of a dataset's episodes: `stream[i]["frames"]` is `t 3 h w` uint8, or `t 1 h w` float16 metres.

    Args:
        dataset: the source.
        episodes: numbers of its episodes.
        rate: frames per second to keep, chosen as `resample` does.
        size: height and width to resize to.
        camera: the camera; may be left out where there is only one.
        kind: pictures, or depth.
        memory: bytes that decoded segments may take; decides how many a sampler draws from at a time.
        workers: threads; one per core where not given.
        on_unreadable: told of an episode that does not decode, which is then left out; without it that is an error.

    Raises:
        ConfigError: if the memory does not hold four segments.
        DataError: if the dataset has no such camera or episode.
    """

    def __init__(
        self,
        dataset: Dataset,
        episodes: Sequence[int],
        *,
        rate: float,
        size: Size,
        camera: str | None = None,
        kind: Literal["frames", "depth"] = "frames",
        memory: int,
        workers: int | None = None,
        on_unreadable: OnUnreadable | None = None,
    ) -> None:
        self.dataset, self.rate, self.size = dataset, rate, as_size(size)
        self.kind: Literal["frames", "depth"] = kind
        self.camera = dataset.camera(camera)
        self.workers = workers or os.cpu_count() or 1
        self.unreadable: dict[int, str] = {}
        self._on_unreadable = on_unreadable
        self.segments: list[Segment] = []
        for index in episodes:
            length = num_rows(dataset, index, rate)
            self.segments += [Segment(index, at, min(at + SEGMENT, length)) for at in range(0, length, SEGMENT)]
        self.rows = np.array([part.stop - part.start for part in self.segments], dtype=np.int64)
        place = {index: dataset.place_of(index, self.camera) for index in episodes}
        numbers = {path: number for number, path in enumerate(sorted(set(place.values())))}
        self.files = np.array([numbers[place[part.episode]] for part in self.segments], dtype=np.int64)
        row = self.size[0] * self.size[1] * (3 if kind == "frames" else 2)
        fits = int(memory // (row * int(self.rows.max(initial=1))))
        self.ahead = max(min(fits // 4, 16), 1)  # of the memory alone: batches are the same for any number of workers
        self.pool = fits - self.ahead
        if self.pool < 2:
            raise ConfigError(
                f"expected memory for 4 segments of {int(self.rows.max(initial=1))} frames of {self.size[0]} x "
                f"{self.size[1]} ({4 * row * self.rows.max(initial=1) / 1e9:.2f} GB), got {memory / 1e9:.2f} GB"
            )
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("_threads", "_own", "_held", "_lock", "_room")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self._held: dict[int, Future[dict[str, np.ndarray]]] = {}
        self._lock = threading.Lock()
        self._room = Room()

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, place: int) -> dict[str, np.ndarray]:
        """The arrays of a segment.

        Raises:
            DataError: if it does not decode.
            StorageError: if it cannot be fetched.
        """
        with self._lock:
            future = self._wanted(place)
        return future.result()

    def hold(self, places: Sequence[int]) -> None:
        """Keep or decode these segments, in this order, and forget all others."""
        with self._lock:
            for place in self._held.keys() - set(places):
                self._held.pop(place).cancel()
            for place in places:
                self._wanted(place)

    def readable(self, place: int) -> bool:
        """Whether a segment may be drawn from; waits for it.

        Raises:
            DataError: if it may not, and nobody said that such episodes are left out.
            StorageError: if it cannot be fetched.
        """
        episode = self.segments[place].episode
        if episode in self.unreadable:
            return False
        try:
            self[place]
        except StorageError:
            raise
        except DataError as error:
            if self._on_unreadable is None:
                raise DataError(
                    f"{error} To go on without such episodes, and be told of them: --skip-corrupt."
                ) from error
            self.unreadable[episode] = str(error)
            self._on_unreadable(Unreadable(str(self.dataset.address), episode, str(error)))
            return False
        return True

    def close(self) -> None:
        """Stop the threads and forget what is decoded."""
        threads = self._threads
        self._forget()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def _wanted(self, place: int) -> Future[dict[str, np.ndarray]]:
        future = self._held.get(place)
        if future is None or future.cancelled():
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
            future = self._held[place] = self._threads.submit(self._decode, self.segments[place])
        return future

    def _decode(self, part: Segment) -> dict[str, np.ndarray]:
        if not hasattr(self._own, "dataset"):
            self._own.dataset = copy.copy(self.dataset)  # with open files of its own
        shape, dtype = _picture(self.size, self.kind)
        out = self._room.array((int(self.rows.max()), *shape), dtype)[: part.stop - part.start]
        return {"frames": decode_rows(self._own.dataset, part, self.rate, self.camera, self.size, self.kind, out)}


def num_rows(dataset: Dataset, episode: int, rate: float) -> int:
    """Frames of an episode at `rate`, by its length and the dataset's fps; reads no file."""
    times = np.arange(dataset.episode(episode).length) / dataset.fps
    return len(choose_frames(times, rate, source_rate=dataset.fps)[0])


def decode_rows(
    dataset: Dataset,
    part: Segment,
    rate: float,
    camera: str,
    size: tuple[int, int],
    kind: Literal["frames", "depth"] = "frames",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of an episode at `rate`: `t 3 h w` uint8, or `t 1 h w` float16 metres; in `out`, where given.

    Raises:
        DataError: if they do not decode, or the timestamps leave fewer rows than the episode's length promises.
    """
    kept = kept_frames(dataset, part.episode, rate)[0]
    if len(kept) < part.stop:
        raise DataError(
            f"dataset {dataset.address}, episode {part.episode}: expected {part.stop} frames at {rate:g} per second by "
            f"its length, found timestamps for {len(kept)}. Correct the column `timestamp`."
        )
    kept = kept[part.start : part.stop]
    if out is None:
        shape, dtype = _picture(size, kind)
        out = np.empty((len(kept), *shape), dtype)
    for start in range(0, len(kept), _CHUNK):
        rows, into = kept[start : start + _CHUNK], out[start : start + _CHUNK]
        if kind == "frames":
            dataset.frames(part.episode, rows, camera, size, out=np.moveaxis(into, 1, -1))
        else:
            into[:, 0] = dataset.depth(part.episode, rows, camera, size)
    return out


def _picture(size: tuple[int, int], kind: Literal["frames", "depth"]) -> tuple[tuple[int, ...], type]:
    """Shape and dtype of a row."""
    return ((3, *size), np.uint8) if kind == "frames" else ((1, *size), np.float16)


class MovingPool:
    """Which segments a sampler draws from at a step: a few at a time, in an order that is random.

    The order of an epoch shuffles the files, and the segments of `spread` files at a time among one another, so that a
    cache on disk needs to hold only so many files. It is cut into `lanes`, one for each micro-batch of a step, and each
    moves through its part so fast that an epoch draws about each frame once. All follows from the seed and the step.
    """

    def __init__(
        self, files: np.ndarray, usable: np.ndarray, *, size: int, lanes: int, seed: Sequence[int], spread: int = 8
    ):
        """Segments with their file, and whether they have a window; `size` of them, over all lanes, make the pool."""
        self._usable = np.flatnonzero(usable)
        self._files, self._seed, self._spread, self._lanes = files[self._usable], list(seed), spread, lanes
        self.size = max(size // lanes, 2)
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def at(self, step: int, used: float, ahead: int) -> tuple[np.ndarray, np.ndarray]:
        """The pool of a step, and the pool with those that come `ahead` of it; each as places of segments.

        Args:
            step: number of the micro-batch.
            used: segments' worth of frames that a micro-batch takes.
            ahead: how many segments to look ahead.
        """
        turn, lane = divmod(step, self._lanes)
        length = len(np.array_split(np.arange(len(self._usable)), self._lanes)[lane])
        if length == 0:
            raise ConfigError(
                f"expected at least {self._lanes} segments, one for each micro-batch, got {len(self._usable)}"
            )
        if length <= self.size:
            everything = self._usable[np.sort(self._order(0, lane))]
            return everything, everything
        first = int(turn * used)
        places = [self._place(lane, length, first + i) for i in range(self.size + ahead)]
        return np.array(places[: self.size]), np.array(places)

    def _place(self, lane: int, length: int, position: int) -> int:
        epoch, offset = divmod(position, length)
        return int(self._usable[self._order(epoch, lane)[offset]])

    def _order(self, epoch: int, lane: int) -> np.ndarray:
        if (epoch, lane) not in self._orders:
            random = np.random.default_rng([*self._seed, epoch])
            _, numbers = np.unique(self._files, return_inverse=True)
            block = random.permutation(numbers.max() + 1) // self._spread
            shuffled = random.permutation(len(self._files))
            order = shuffled[np.argsort(block[numbers[shuffled]], kind="stable")]
            self._orders = {key: kept for key, kept in self._orders.items() if key[0] >= epoch - 1}
            self._orders[epoch, lane] = np.array_split(order, self._lanes)[lane]
        return self._orders[epoch, lane]
