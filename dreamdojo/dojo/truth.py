"""What really happened, beside a dataset: `ground_truth.parquet`, one row per frame and one row group per episode.

    truth = GroundTruth.open("runs/nano/data/human")
    truth.effector_position(0)                        # t 3, metres
    truth.segmentation(0)                             # t h w, 0 background, 1 table, 2 body, 3 and up the objects

Models never see it. Probes are trained on it and predictions are measured against it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dreamdojo.dojo.render import Picture
from dreamdojo.dojo.scene import FIRST_OBJECT
from dreamdojo.dojo.simulation import Moment
from dreamdojo.errors import DataError

FILE_NAME = "ground_truth.parquet"

VISIBLE_SHARE = 0.0015
"""Share of the picture that a thing must cover to count as visible: 6 pixels at 64 px."""

_LIST = pa.list_(pa.float32())
_SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("effector_position", _LIST),
        ("effector_yaw", pa.float32()),
        ("effector_opening", pa.float32()),
        ("joint_position", _LIST),
        ("object_poses", _LIST),
        ("touched", pa.list_(pa.bool_())),
        ("grasped", pa.list_(pa.bool_())),
        ("effector_pixel", _LIST),
        ("object_pixels", _LIST),
        ("effector_visible_pixels", pa.int32()),
        ("object_visible_pixels", pa.list_(pa.int32())),
        ("segmentation", pa.binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The truth of one frame: the physics, and the picture's segmentation where it was drawn."""

    moment: Moment
    """Poses and contacts."""
    picture: Picture
    """What the camera saw."""


def truth_table(episode: Sequence[Truth]) -> pa.Table:
    """The rows of one episode; its number is filled in by `TruthWriter`."""
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for index, truth in enumerate(episode):
        moment, labels = truth.moment, truth.picture.segmentation
        count = len(moment.object_poses)
        row: dict[str, Any] = {
            "episode_index": 0,
            "frame_index": index,
            "effector_position": moment.effector_position,
            "effector_yaw": moment.effector_yaw,
            "effector_opening": moment.opening,
            "joint_position": moment.joint_position,
            "object_poses": moment.object_poses.ravel(),
            "touched": moment.touched,
            "grasped": moment.grasped,
            "effector_pixel": moment.effector_pixel,
            "object_pixels": moment.object_pixels.ravel(),
            "effector_visible_pixels": truth.picture.hand_pixels,
            "object_visible_pixels": None
            if labels is None
            else [(labels == FIRST_OBJECT + i).sum() for i in range(count)],
            "segmentation": None if labels is None else _to_png(labels),
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table(columns, schema=_SCHEMA)


class TruthWriter:
    """Writes the table next to a dataset that is being written; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._episodes = 0

    def __enter__(self) -> TruthWriter:
        self._file = pq.ParquetWriter(self._path, _SCHEMA, compression="zstd")
        return self

    def add(self, episode: pa.Table) -> None:
        """Append the next episode."""
        number = pa.array(np.full(len(episode), self._episodes))
        table = episode.set_column(0, "episode_index", number)
        self._file.write_table(table, row_group_size=len(table))
        self._episodes += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class GroundTruth:
    """Reads the truth of a dataset's episodes. Arrays have time on axis 0, positions in metres, angles in radians."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pq.ParquetFile(path)

    @classmethod
    def open(cls, dataset: Path | str) -> GroundTruth:
        """The table in a dataset's folder.

        Raises:
            DataError: if the folder has none, or it is not such a table.
        """
        path = Path(dataset) / FILE_NAME
        try:
            truth = cls(path)
        except FileNotFoundError as error:
            raise DataError(
                f"dataset {dataset}: expected {FILE_NAME}, found none. Only simulated datasets have one."
            ) from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: expected a Parquet file, found {error}. Simulate the dataset again.") from error
        if truth._file.schema_arrow.names != _SCHEMA.names:
            raise DataError(
                f"{path}: expected the columns {_SCHEMA.names}, found {truth._file.schema_arrow.names}. "
                "It was written by another version; simulate the dataset again."
            )
        return truth

    @property
    def num_episodes(self) -> int:
        """Episodes in the table, in the dataset's order."""
        return self._file.num_row_groups

    def num_objects(self, episode: int) -> int:
        """Objects on the table."""
        return len(self._values(episode, "touched")[0])

    def effector_position(self, episode: int) -> np.ndarray:
        """`(t, 3)` where the hand is, metres."""
        return self._array(episode, "effector_position")

    def effector_yaw(self, episode: int) -> np.ndarray:
        """`(t,)` its turn about the vertical, radians, without jumps."""
        return self._array(episode, "effector_yaw")

    def effector_opening(self, episode: int) -> np.ndarray:
        """`(t,)` 0 closed to 1 open."""
        return self._array(episode, "effector_opening")

    def effector_pixel(self, episode: int) -> np.ndarray:
        """`(t, 2)` u to the right and v down, in [0, 1] inside the picture."""
        return self._array(episode, "effector_pixel")

    def effector_visible_pixels(self, episode: int) -> np.ndarray:
        """`(t,)` pixels that show the hand.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        return self._array(episode, "effector_visible_pixels", dtype=np.int32)

    def effector_visible(self, episode: int) -> np.ndarray:
        """`(t,)` bool: the hand's position lies inside the picture, and the hand is not hidden."""
        inside = _is_inside(self.effector_pixel(episode))
        if not self.has_segmentation:
            return inside
        return inside & (self.effector_visible_pixels(episode) >= self._enough_pixels(episode))

    def joint_position(self, episode: int) -> np.ndarray:
        """`(t, j)` radians; metres for the slides of a mobile base, which come first."""
        return self._array(episode, "joint_position")

    def object_poses(self, episode: int) -> np.ndarray:
        """`(t, n, 7)` position in metres and quaternion `(w, x, y, z)`."""
        poses = self._array(episode, "object_poses")
        return poses.reshape(len(poses), -1, 7)

    def object_pixels(self, episode: int) -> np.ndarray:
        """`(t, n, 2)` u and v of the objects' centres."""
        pixels = self._array(episode, "object_pixels")
        return pixels.reshape(len(pixels), -1, 2)

    def object_visible_pixels(self, episode: int) -> np.ndarray:
        """`(t, n)` pixels that show each object.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        return self._array(episode, "object_visible_pixels", dtype=np.int32)

    def objects_visible(self, episode: int) -> np.ndarray:
        """`(t, n)` bool: the object's centre lies inside the picture, and the object is not hidden."""
        inside = _is_inside(self.object_pixels(episode))
        if not self.has_segmentation:
            return inside
        return inside & (self.object_visible_pixels(episode) >= self._enough_pixels(episode))

    def touched(self, episode: int) -> np.ndarray:
        """`(t, n)` bool: any part of the body touches the object."""
        return self._array(episode, "touched", dtype=np.bool_)

    def grasped(self, episode: int) -> np.ndarray:
        """`(t, n)` bool: both sides of the hand touch it."""
        return self._array(episode, "grasped", dtype=np.bool_)

    @functools.cached_property
    def has_segmentation(self) -> bool:
        """Whether the pictures' segmentation was drawn."""
        return self._values(0, "segmentation")[0] is not None

    def segmentation(self, episode: int) -> np.ndarray:
        """`(t, h, w)` uint8: 0 background, 1 table, 2 body, 3 and up the objects.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        return np.stack([_from_png(picture) for picture in self._present(episode, "segmentation")])

    def _enough_pixels(self, episode: int) -> float:
        height, width = _from_png(self._present(episode, "segmentation")[0]).shape
        return VISIBLE_SHARE * height * width

    def _array(self, episode: int, column: str, dtype: type[np.generic] = np.float32) -> np.ndarray:
        return np.array(self._present(episode, column), dtype=dtype)

    def _present(self, episode: int, column: str) -> list[Any]:
        values = self._values(episode, column)
        if values[0] is None:
            raise DataError(
                f"{self._path}: expected {column}, but this dataset was simulated without segmentation. "
                'Simulate it again with truth="full".'
            )
        return values

    def _values(self, episode: int, column: str) -> list[Any]:
        if not 0 <= episode < self.num_episodes:
            raise DataError(f"{self._path}: expected an episode below {self.num_episodes}, got {episode}")
        return self._file.read_row_group(episode, columns=[column]).column(0).to_pylist()


def _is_inside(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(((pixels >= 0) & (pixels < 1)).all(axis=-1))


def _to_png(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def _from_png(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))
