"""Reading LeRobot datasets (v3.0, v2.1, v2.0). Every array has time on axis 0; only the frames asked for are decoded.

dataset = open_dataset("recordings/robot")
dataset.frames(0, range(40, 48), size=64)      # 8 64 64 3, uint8
dataset.actions(0)                             # t a, float32
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamdojo.dataset import stats as statistics
from dreamdojo.dataset.columns import ParquetColumns
from dreamdojo.dataset.depth import DepthRange, stream_info
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.foreign import derive_embodiment, find_cameras, locate_body, read_modality
from dreamdojo.dataset.layout import EpisodeRecord, Layout, read_layout
from dreamdojo.dataset.schema import ACTION, EMBODIMENT_PATH, STATE, CameraSpec
from dreamdojo.dataset.stats import FeatureStats
from dreamdojo.errors import DataError, reading
from dreamdojo.files import read_json
from dreamdojo.remote import CacheFullError, FileCache, RemoteDataset, is_remote
from dreamdojo.video import Size, VideoReader

_MAX_READERS = 16
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One continuous recording."""

    index: int
    """Number by which the dataset's methods know it."""
    length: int
    """Frames."""
    task: str
    """What is being done, in words; may be empty."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What else the dataset states about it, e.g. `split` or `seed`."""


def open_dataset(root: Path | str, *, embodiment: Embodiment | None = None, cache: FileCache | None = None) -> Dataset:
    """Open a dataset folder and check that every file its meta names is there.

    Args:
        root: the folder, or the URL of one (`hf://datasets/ORG/NAME`, `s3://...`): its files come when they are read.
        embodiment: the body of recordings that do not declare theirs, e.g. one of `published.PUBLISHED_BODIES`.
        cache: where files of a URL are kept; `FileCache.default()` where not given.

    Raises:
        DataError: naming the dataset and what is wrong with it; also if it cannot be of that embodiment.
    """
    remote = RemoteDataset(str(root), cache or FileCache.default()) if is_remote(root) else None
    with reading(f"meta of the dataset {root}"):
        return Dataset(read_layout(Path(root) if remote is None else remote.folder), embodiment, remote)


class Dataset:
    """A dataset on disk. It can be pickled, and used after a fork: open files are never shared between processes."""

    def __init__(
        self, layout: Layout, embodiment: Embodiment | None = None, remote: RemoteDataset | None = None
    ) -> None:
        self._remote = remote
        self.root = layout.root
        self.version = layout.version
        self.info = layout.info
        self.fps = float(layout.info["fps"])
        if not self.fps > 0:
            raise DataError(f"dataset {self.root}: expected a positive fps, found {self.fps}")
        self._layout = layout
        self._records = {record.index: record for record in layout.episodes}
        self._modality = read_modality(self.root)
        self.cameras, self._pictures, self._depths = find_cameras(self.root, self.info, self._modality)
        self.episodes = [
            Episode(index=r.index, length=r.length, task=r.tasks[0] if r.tasks else "", meta=r.meta)
            for r in layout.episodes
        ]
        self._episodes = {episode.index: episode for episode in self.episodes}
        self._forget()
        self._check_files()
        own = self.root / EMBODIMENT_PATH
        found = Embodiment.from_dict(read_json(own, of=f"dataset {self.root}")) if own.is_file() else None
        self._declared = found
        if embodiment is not None:
            found = self.locate(embodiment)
        self.embodiment = found or derive_embodiment(self.root, self.info, self._modality, self.stats)

    cameras: dict[str, CameraSpec]
    """Camera name -> its pictures, in the order of `info.json`."""
    embodiment: Embodiment
    """The body, as the dataset declares it, as it was opened, or as its meta lets one guess."""

    def __repr__(self) -> str:
        return (
            f"Dataset({str(self.root)!r}, {self.version}, {self.embodiment.name}, {len(self.episodes)} episodes, "
            f"{self.num_frames} frames at {self.fps:g} fps, cameras {list(self.cameras)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_readers", "_held", "_columns")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def num_frames(self) -> int:
        """Frames over all episodes."""
        return sum(episode.length for episode in self.episodes)

    @property
    def num_decoded(self) -> int:
        """Frames that the open decoders have produced so far: what random access has cost."""
        return sum(reader.num_decoded for reader in self._readers.values())

    @property
    def columns(self) -> list[str]:
        """Names of the columns that `column` reads."""
        return [key for key, feature in self.info["features"].items() if feature["dtype"] not in ("video", "image")]

    @cached_property
    def stats(self) -> FeatureStats:
        """Statistics of the features: the dataset's own, or, where it has none, of its numeric columns."""
        if self._layout.stats is not None:
            return self._layout.stats
        names = [key for key in self.columns if self.info["features"][key]["dtype"] != "string"]
        parts = [statistics.numeric(names, {key: self.column(key, index) for key in names}) for index in self._records]
        return statistics.combine(parts)

    @cached_property
    def hash(self) -> str:
        """32 hex digits that change when the dataset does.

        Of a dataset elsewhere, those of its storage's listing. Else cheap, so not of every byte: all of `meta/`, and of
        each data and video file its name, its size and its first and last 64 KiB, where Parquet and MP4 keep their
        tables of contents.
        """
        if self._remote is not None:
            return self._remote.hash
        digest = hashlib.blake2b(digest_size=16)
        meta = sorted(path for path in (self.root / "meta").rglob("*") if path.is_file())
        for path in meta:
            digest.update(f"{path.relative_to(self.root).as_posix()}\0".encode() + path.read_bytes())
        for path in sorted(self._files()):
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{path.relative_to(self.root).as_posix()}\0{size}\0".encode() + file.read(1 << 16))
                file.seek(max(0, size - (1 << 16)))
                digest.update(file.read())
        return digest.hexdigest()

    def episode(self, index: int) -> Episode:
        """The episode of that number.

        Raises:
            DataError: if there is none.
        """
        self._record(index)
        return self._episodes[index]

    def frames(
        self,
        episode_index: int,
        indices: Sequence[int] | np.ndarray,
        camera: str | None = None,
        size: Size | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Pictures of an episode: `t h w 3` uint8, in the order asked for.

        Args:
            episode_index: the episode's number.
            indices: frames of the episode, counted from 0.
            camera: name of the camera; may be left out where there is only one.
            size: centre-crop and area-resize each picture to this.
            out: where to put them, as shaped; a new array where not given.

        Raises:
            DataError: if the camera, the episode or a frame does not exist, or the video does not decode.
        """
        camera = self.camera(camera)
        return self._read(episode_index, indices, self._pictures[camera], "rgb", size, out)

    @property
    def address(self) -> str:
        """The folder, or the URL, that was opened."""
        return str(self.root) if self._remote is None else self._remote.url

    def place_of(self, episode_index: int, camera: str | None = None) -> Path:
        """The file that holds an episode's pictures, by the name it has in the dataset; it may not be here.

        Raises:
            DataError: if the camera or the episode does not exist.
        """
        return self._record(episode_index).videos[self._pictures[self.camera(camera)]].path

    def video_of(self, episode_index: int, camera: str | None = None) -> tuple[Path, float]:
        """The file that holds an episode's pictures, and the second in it at which the episode begins.

        Raises:
            DataError: if the camera or the episode does not exist, or the dataset is not on this machine.
        """
        if self._remote is not None:
            raise DataError(f"dataset {self._remote.url}: expected one on this machine. Copy it here first.")
        span = self._record(episode_index).videos[self._pictures[self.camera(camera)]]
        return span.path, span.start

    def depth(
        self,
        episode_index: int,
        indices: Sequence[int] | np.ndarray,
        camera: str | None = None,
        size: Size | None = None,
    ) -> np.ndarray:
        """Depth of an episode in metres: `t h w` float32. Like `frames`; resizing picks pixels, it averages nothing.

        Raises:
            DataError: also if the camera has no depth.
        """
        camera = self.camera(camera)
        if camera not in self._depths:
            having = [name for name, spec in self.cameras.items() if spec.depth]
            raise DataError(
                f"dataset {self.root}: camera {camera} has no depth; cameras with depth: {having or 'none'}"
            )
        key = self._depths[camera]
        codes = self._read(episode_index, indices, key, "gray12", size)
        return DepthRange.from_info(
            stream_info(self.info["features"][key]), of=f"dataset {self.root}, feature {key}"
        ).dequantize(codes)

    def column(self, key: str, episode_index: int) -> np.ndarray:
        """A column of an episode, as stored: `t` or `t ...`; text as an array of str objects.

        Raises:
            DataError: naming dataset, column and episode, if the column, the file or rows are missing.
        """
        record = self._record(episode_index)
        owner = self._columns.read(record.data, "episode_index", of=self._where(record))
        rows = np.flatnonzero(owner == record.index)
        if len(rows) != record.length or (len(rows) and rows[-1] - rows[0] + 1 != len(rows)):
            raise DataError(
                f"{self._where(record)}: expected {record.length} consecutive rows in "
                f"{record.data.relative_to(self.root)}, found {len(rows)}. The meta and the data do not belong "
                "together; copy the dataset again."
            )
        values = self._columns.read(record.data, key, of=self._where(record))[rows[0] : rows[-1] + 1]
        with reading(f"{self._where(record)}, column {key}"):
            shape = tuple(self.info["features"].get(key, {}).get("shape", ()))
            return values.reshape(len(values), *shape) if len(shape) > 1 else values

    def locate(self, body: Embodiment) -> Embodiment:
        """`body` with the columns in which this dataset holds its fields.

        Raises:
            DataError: if a column is missing or too narrow, or the dataset declares another body.
        """
        if self._declared is None:
            return locate_body(self.root, self.info, self._modality, body)
        if self._declared.side_by_side() != body.side_by_side():
            raise DataError(
                f"dataset {self.root}: expected recordings that may be read as {body.name}, found "
                f"{self._declared.name} declared in {EMBODIMENT_PATH} (names or ranges differ). Do not name a body."
            )
        return self._declared

    def actions(self, episode_index: int, *, body: Embodiment | None = None) -> np.ndarray:
        """Actions `t a`, float32, in the embodiment's units and order; row t is done between frame t and frame t + 1.

        `body` reads them as another embodiment's than the dataset was opened with.

        Raises:
            DataError: if the dataset has none, they are not finite, or their width is not the embodiment's.
        """
        body = self.embodiment if body is None else self.locate(body)
        return self._numbers(ACTION, episode_index, body.name, body.action)

    def states(self, episode_index: int, *, body: Embodiment | None = None) -> np.ndarray:
        """Proprioceptive states `t s`, float32, in the embodiment's units and order. Like `actions`.

        Raises:
            DataError: if the dataset has none, they are not finite, or their width is not the embodiment's.
        """
        body = self.embodiment if body is None else self.locate(body)
        return self._numbers(STATE, episode_index, body.name, body.state)

    def timestamps(self, episode_index: int) -> np.ndarray:
        """Seconds since the episode's first frame, `t` float64; where the column holds zeros only, by the fps.

        Raises:
            DataError: if time does not advance by one frame per row at the dataset's fps.
        """
        record = self._record(episode_index)
        times = self.column("timestamp", episode_index).astype(np.float64)
        if not times.any():
            return np.arange(len(times)) / self.fps
        times -= times[0]
        if len(times) > 1:
            steps = np.diff(times)
            typical = float(np.median(steps))
            if not (steps > 0).all() or abs(typical * self.fps - 1) > _RATE_TOLERANCE:
                rate = f"{1 / typical:.3g} fps" if typical > 0 else "time standing still"
                raise DataError(
                    f"{self._where(record)}: expected timestamps rising at {self.fps:g} fps (info.json), found {rate}, "
                    f"steps from {steps.min():.4f} to {steps.max():.4f} s. Correct the fps or the column `timestamp`."
                )
        return times

    def close(self) -> None:
        """Close the video files that reading has opened; reading opens them again."""
        for path in list(self._readers):
            self._close(path)
        self._forget()

    def _forget(self) -> None:
        self._readers: OrderedDict[Path, VideoReader] = OrderedDict()
        self._held: dict[Path, ExitStack] = {}
        self._columns = ParquetColumns(local=self._local)
        self._process = os.getpid()

    def _record(self, index: int) -> EpisodeRecord:
        if index not in self._records:
            known = f"{min(self._records)} to {max(self._records)}"
            raise DataError(f"dataset {self.root}: expected an episode from {known}, got {index}")
        return self._records[index]

    def _where(self, record: EpisodeRecord) -> str:
        return f"dataset {self.root}, episode {record.index}"

    def camera(self, camera: str | None = None) -> str:
        """The name of a camera, checked; without a name, the only camera.

        Raises:
            DataError: listing the cameras, if there is no such camera or none is named where there are several.
        """
        if camera is None and len(self.cameras) == 1:
            return next(iter(self.cameras))
        if camera is None or camera not in self.cameras:
            asked = "no camera was named" if camera is None else f"there is no camera {camera!r}"
            raise DataError(f"dataset {self.root}: {asked}; it has {', '.join(self.cameras) or 'none'}. Choose one.")
        return camera

    def _numbers(self, key: str, episode_index: int, body: str, fields: tuple[Field, ...]) -> np.ndarray:
        record = self._record(episode_index)
        values = self.column(key, episode_index)
        values = values.reshape(len(values), -1)
        spans = [np.arange(*field.source) for field in fields if field.source is not None]
        columns = np.concatenate(spans) if spans else np.arange(sum(field.size for field in fields))
        width = int(columns.max(initial=-1)) + 1
        if values.shape[1] < width or (not spans and values.shape[1] != width):
            raise DataError(
                f"{self._where(record)}: expected {'at least ' if spans else ''}{width} numbers in column {key}, as "
                f"the embodiment {body} declares, found {values.shape[1]}"
            )
        values = values[:, columns].astype(np.float32)
        if not np.isfinite(values).all():
            row, place = np.argwhere(~np.isfinite(values))[0]
            raise DataError(
                f"{self._where(record)}: column {key} expected finite numbers, found {values[row, place]} at frame "
                f"{row}, number {columns[place]}. Repair the recording or leave the episode out."
            )
        return values

    def _read(
        self,
        episode_index: int,
        indices: Sequence[int] | np.ndarray,
        key: str,
        pixels: Literal["rgb", "gray12"],
        size: Size | None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        record = self._record(episode_index)
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= record.length:
            found = f"{chosen.min()} to {chosen.max()}" if len(chosen) else "an empty list"
            raise DataError(f"{self._where(record)}: expected frames from 0 to {record.length - 1}, got {found}")
        span = record.videos[key]
        times = span.start + self.timestamps(episode_index)[chosen]
        return self._reader(span.path, pixels).read_at(times, tolerance=0.49 / self.fps, size=size, out=out)

    def _reader(self, path: Path, pixels: Literal["rgb", "gray12"]) -> VideoReader:
        if self._process != os.getpid():
            self._forget()
        reader = self._readers.get(path)
        if reader is None:
            held = ExitStack()
            try:
                copy = held.enter_context(self._local(path))
            except CacheFullError:  # of what this dataset itself holds open, perhaps
                self.close()
                copy = held.enter_context(self._local(path))
            reader = VideoReader(copy, pixels=pixels)
            needed = self._frames_in[path]
            if reader.num_frames is not None and reader.num_frames < needed:
                raise DataError(
                    f"dataset {self.root}: expected {needed} frames in {path.relative_to(self.root)}, found "
                    f"{reader.num_frames}. The video is cut short, or the meta belongs to another recording."
                )
            if reader.fps is not None and abs(reader.fps / self.fps - 1) > _RATE_TOLERANCE:
                raise DataError(
                    f"dataset {self.root}: expected {self.fps:g} fps (info.json) in {path.relative_to(self.root)}, "
                    f"found {reader.fps:g}. Correct the fps in info.json or re-encode the video."
                )
            self._readers[path], self._held[path] = reader, held
            if len(self._readers) > _MAX_READERS:
                self._close(next(iter(self._readers)))
        self._readers.move_to_end(path)
        return reader

    def _close(self, path: Path) -> None:
        self._readers.pop(path).close()
        self._held.pop(path).close()

    def _local(self, path: Path) -> AbstractContextManager[Path]:
        """The file on this machine while a block runs; of a dataset elsewhere a copy that is fetched where needed."""
        return nullcontext(path) if self._remote is None else self._remote.held(path)

    def _is_there(self, path: Path) -> bool:
        if self._remote is None:
            return path.is_file()
        return path.relative_to(self.root).as_posix() in self._remote.files

    @cached_property
    def _frames_in(self) -> dict[Path, int]:
        """Frames that the episodes have in each video file."""
        frames: dict[Path, int] = {}
        for record in self._records.values():
            for path in {span.path for span in record.videos.values()}:
                frames[path] = frames.get(path, 0) + record.length
        return frames

    def _files(self) -> set[Path]:
        used = {*self._pictures.values(), *self._depths.values()}
        spans = [span for r in self._records.values() for key, span in r.videos.items() if key in used]
        return {record.data for record in self._records.values()} | {span.path for span in spans}

    def _check_files(self) -> None:
        missing = sorted(path for path in self._files() if not self._is_there(path))
        if missing:
            raise DataError(
                f"dataset {self.root}: expected the file {missing[0].relative_to(self.root)}, found no such file "
                f"({len(missing)} of {len(self._files())} are missing). Copy the dataset again."
            )
