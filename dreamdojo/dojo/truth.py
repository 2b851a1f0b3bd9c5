"""The ground truth of a simulated dataset: one row per frame in `ground_truth.parquet`, beside the dataset's own files.

It is a separate table because a world model must not be trained on it: human video has no actions, and its true motion
is for probes alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from dreamdojo.dojo.simulation import Moment
from dreamdojo.errors import DataError

TRUTH_FILE = "ground_truth.parquet"
MIN_PIXELS = 6
"""Visible pixels, in a picture 128 wide, below which a thing counts as hidden."""

_FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("effector_position", _FLOATS),
        ("effector_yaw", pa.float32()),
        ("effector_opening", pa.float32()),
        ("effector_pixel", _FLOATS),
        ("joint_position", _FLOATS),
        ("object_poses", _FLOATS),
        ("object_pixels", _FLOATS),
        ("object_visible_pixels", pa.list_(pa.int32())),
        ("touched", pa.list_(pa.bool_())),
        ("grasped", pa.list_(pa.bool_())),
        ("segmentation_png", pa.binary()),
    ]
)


def truth_row(episode: int, frame: int, moment: Moment, segmentation: np.ndarray | None) -> dict[str, object]:
    """One row of the table.

    Args:
        episode: number of the episode.
        frame: number of the frame in it.
        moment: the simulator's truth.
        segmentation: `h w` uint8 labels (0 background, 1 table, 2 body, 3 and up objects), or None where not drawn.
    """
    num = len(moment.object_poses)
    counts = None
    if segmentation is not None:
        scale = (128 / segmentation.shape[0]) ** 2
        counts = [round(scale * int((segmentation == 3 + index).sum())) for index in range(num)]
    return {
        "episode_index": episode,
        "frame_index": frame,
        "effector_position": moment.effector_position.tolist(),
        "effector_yaw": moment.effector_yaw,
        "effector_opening": moment.opening,
        "effector_pixel": moment.effector_pixel.tolist(),
        "joint_position": moment.joint_position.tolist(),
        "object_poses": moment.object_poses.ravel().tolist(),
        "object_pixels": moment.object_pixels.ravel().tolist(),
        "object_visible_pixels": counts,
        "touched": moment.touched.tolist(),
        "grasped": moment.grasped.tolist(),
        "segmentation_png": None if segmentation is None else _png(segmentation),
    }


def write_truth(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the table into a dataset's folder."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / TRUTH_FILE, compression="zstd")


class GroundTruth:
    """Typed access to the table of a simulated dataset, episode by episode; arrays have time on axis 0."""

    def __init__(self, table: pa.Table, path: Path) -> None:
        self._table, self._path = table, path

    @classmethod
    def open(cls, root: Path | str) -> GroundTruth:
        """Open the table of the dataset in `root`.

        Raises:
            DataError: if there is none, or it is not whole.
        """
        path = Path(root) / TRUTH_FILE
        if not path.is_file():
            raise DataError(f"{path}: expected a table of true positions, found none. Only the dojo's datasets have it.")
        try:
            return cls(pq.read_table(path, schema=SCHEMA), path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a whole table of true positions ({error}). Simulate it again.") from error

    def effector_position(self, episode: int) -> np.ndarray:
        """`t 3` metres."""
        return self._floats("effector_position", episode)

    def effector_yaw(self, episode: int) -> np.ndarray:
        """`t` radians, without jumps."""
        return self._floats("effector_yaw", episode)

    def effector_opening(self, episode: int) -> np.ndarray:
        """`t`, 0 closed to 1 open."""
        return self._floats("effector_opening", episode)

    def effector_pixel(self, episode: int) -> np.ndarray:
        """`t 2` u to the right and v down, in [0, 1] inside the picture."""
        return self._floats("effector_pixel", episode)

    def effector_visible(self, episode: int) -> np.ndarray:
        """`t` bool: whether the effector is inside the picture. Its own body may cover the point itself."""
        pixel = self.effector_pixel(episode)
        return ((pixel >= 0) & (pixel <= 1)).all(axis=1)

    def joint_position(self, episode: int) -> np.ndarray:
        """`t j` radians."""
        return self._floats("joint_position", episode)

    def object_poses(self, episode: int) -> np.ndarray:
        """`t o 7` position in metres and quaternion `(w, x, y, z)`."""
        return self._floats("object_poses", episode).reshape(-1, self.num_objects(episode), 7)

    def object_pixels(self, episode: int) -> np.ndarray:
        """`t o 2` pixel positions of the objects' origins, in [0, 1] inside the picture."""
        return self._floats("object_pixels", episode).reshape(-1, self.num_objects(episode), 2)

    def object_visible_pixels(self, episode: int) -> np.ndarray:
        """`t o` how many pixels of each object are visible, in a picture 128 wide.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        return np.array(self._segmented("object_visible_pixels", episode))

    def objects_visible(self, episode: int) -> np.ndarray:
        """`t o` bool: whether enough of each object is visible, inside the picture.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        pixels = self.object_pixels(episode)
        inside = ((pixels >= 0) & (pixels <= 1)).all(axis=2)
        return inside & (self.object_visible_pixels(episode) >= MIN_PIXELS)

    def touched(self, episode: int) -> np.ndarray:
        """`t o` bool: whether the body touches each object."""
        return np.array(self._rows(episode)["touched"].to_pylist(), dtype=bool)

    def grasped(self, episode: int) -> np.ndarray:
        """`t o` bool: whether both sides of the hand touch each object."""
        return np.array(self._rows(episode)["grasped"].to_pylist(), dtype=bool)

    def segmentation(self, episode: int) -> np.ndarray:
        """`t h w` uint8: 0 background, 1 table, 2 body, 3 and up the objects.

        Raises:
            DataError: if the dataset was simulated without segmentation.
        """
        pictures = self._segmented("segmentation_png", episode)
        return np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])

    def num_objects(self, episode: int) -> int:
        """Objects on the table."""
        return len(self._rows(episode)["touched"][0])

    def _segmented(self, column: str, episode: int) -> list:
        values = self._rows(episode)[column].to_pylist()
        if any(value is None for value in values):
            raise DataError(
                f"{self._path}: episode {episode} has no segmentation; it was simulated with truth='poses'. "
                "Simulate it with truth='full'."
            )
        return values

    def _floats(self, column: str, episode: int) -> np.ndarray:
        return np.array(self._rows(episode)[column].to_pylist(), dtype=np.float32)

    def _rows(self, episode: int) -> pa.Table:
        if episode not in self._start:
            raise DataError(f"{self._path}: expected one of {len(self._start)} episodes, got {episode}")
        start, length = self._start[episode]
        return self._table.slice(start, length)

    @cached_property
    def _start(self) -> dict[int, tuple[int, int]]:
        counted = pc.value_counts(self._table["episode_index"])  # pyright: ignore[reportAttributeAccessIssue]
        starts, at = {}, 0
        for entry in counted.to_pylist():
            starts[entry["values"]] = (at, entry["counts"])
            at += entry["counts"]
        return starts


def _png(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
