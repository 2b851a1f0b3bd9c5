"""EgoDex: pairs of `TASK/N.mp4` and `TASK/N.hdf5` ([Hoque et al. 2025](https://arxiv.org/abs/2505.11709)).

The HDF5 has `camera/intrinsic` (3, 3), `transforms/JOINT` (N, 4, 4) in the world for the camera and 68 joints,
`confidences/JOINT` (N,), and the words in its attributes. Where its hands are is therefore known without a detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamdojo.curation.extras import require
from dreamdojo.curation.find import files_below
from dreamdojo.curation.hands import Hand
from dreamdojo.curation.sources.recording import Listing, Recording, Refused, Segment
from dreamdojo.curation.sources.remote import is_remote, list_files
from dreamdojo.errors import DataError

_CAMERA = "camera"
_FINGERS = ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger")
_RATE = 30.0
_MIN_CONFIDENCE = 0.3


@dataclass(frozen=True, kw_only=True)
class EgoDex:
    """Recordings of EgoDex below a folder."""

    folder: str
    """Folder of tasks. Remote folders are not read: the HDF5 files have to be at hand."""

    def listing(self) -> Listing:
        """One recording per pair of files; each is one take.

        Raises:
            DataError: if there are none.
            MissingDependencyError: without h5py.
        """
        if is_remote(self.folder):
            count = len(list_files(self.folder)[1])
            raise DataError(f"{self.folder}: EgoDex is read from a local folder; copy these {count} files first.")
        root = Path(self.folder)
        recordings, refused = [], []
        files, closed = files_below(root)
        refused += [Refused(name=name, reason=words, kind="cannot be read") for name, words in closed]
        for video in (path for path in files if path.suffix == ".mp4"):
            name = video.relative_to(root).as_posix()
            poses = video.with_suffix(".hdf5")
            if not poses.is_file():
                refused.append(Refused(name=name, reason=f"no {poses.name} beside it", kind="no poses"))
                continue
            try:
                words, length = _read_words(poses)
            except (OSError, KeyError, ValueError) as error:
                why = f"{poses.name}: expected EgoDex's poses, found {error}".replace(str(poses), poses.name)
                refused.append(Refused(name=name, reason=why, kind="no poses"))
                continue
            recordings.append(
                Recording(
                    name=name,
                    video=str(video),
                    group=name,
                    segments=(Segment(start=0.0, end=length / _RATE, text=words, name=video.stem),),
                    facts={"corpus": "EgoDex", "task": video.parent.name},
                    hands=str(poses),
                )
            )
        alone = [path for path in files if path.suffix == ".hdf5" and not path.with_suffix(".mp4").is_file()]
        refused += [
            Refused(name=path.relative_to(root).as_posix(), reason="no MP4 of the same name beside it", kind="no video")
            for path in alone
        ]
        if not recordings and not refused:
            raise DataError(f"{self.folder}: expected pairs of .mp4 and .hdf5 files, found none. Check the path.")
        return Listing(recordings=tuple(recordings), refused=tuple(refused))


class TrackedHands:
    """Where the hands of an EgoDex recording are in its picture, at any time.

    Args:
        path: the HDF5 file.
        size: `(height, width)` of the video, for which the intrinsics hold.

    Raises:
        DataError: if the file is not of the format.
    """

    def __init__(self, path: str, size: tuple[int, int]) -> None:
        h5py = require("h5py", needed_for="Reading EgoDex")
        try:
            with h5py.File(path, "r") as file:
                intrinsic = np.asarray(file["camera/intrinsic"], dtype=np.float64)
                camera = np.asarray(file[f"transforms/{_CAMERA}"], dtype=np.float64)
                self._hands = {side: _project(file, side, camera, intrinsic, size) for side in ("left", "right")}
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: expected EgoDex's transforms and intrinsics, found {error}.") from error

    def at(self, seconds: float) -> list[Hand]:
        """Hands in the picture at a time."""
        found = []
        for side, (points, confidence) in self._hands.items():
            frame = min(max(round(seconds * _RATE), 0), len(points) - 1)
            seen = points[frame]
            inside = np.isfinite(seen).all(axis=1) & (seen >= 0).all(axis=1) & (seen <= 1).all(axis=1)
            if inside.sum() < 4 or confidence[frame] < _MIN_CONFIDENCE:
                continue
            left, top = seen[inside].min(axis=0)
            right, bottom = seen[inside].max(axis=0)
            if right - left < 1e-3 or bottom - top < 1e-3:
                continue
            box = (float(left), float(top), float(right), float(bottom))
            found.append(Hand(box=box, score=float(confidence[frame]), side=side))
        return found


def _project(
    file: Any, side: str, camera: np.ndarray, intrinsic: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Joints `(n, j, 2)` in [0, 1] of the picture, NaN behind the camera; mean confidence `(n,)`."""
    names = [
        key for key in file["transforms"] if key == f"{side}Hand" or any(key.startswith(side + f) for f in _FINGERS)
    ]
    if not names:
        raise KeyError(f"no joints of the {side} hand")
    world = np.stack([np.asarray(file[f"transforms/{name}"], dtype=np.float64)[:, :3, 3] for name in names], axis=1)
    turned, origin = camera[:, :3, :3], camera[:, :3, 3]
    seen = np.einsum("nji,nkj->nki", turned, world - origin[:, None])
    pixels = np.einsum("ij,nkj->nki", intrinsic, seen)
    depth = pixels[..., 2:]
    points = np.where(depth > 1e-3, pixels[..., :2] / np.maximum(depth, 1e-3), np.nan) / (size[1], size[0])
    if "confidences" in file:
        kept = [np.asarray(file[f"confidences/{name}"]) for name in names if name in file["confidences"]]
        confidence = np.mean(kept, axis=0) if kept else np.ones(len(points))
    else:
        confidence = np.ones(len(points))
    return points, confidence


def _read_words(path: Path) -> tuple[str, int]:
    h5py = require("h5py", needed_for="Reading EgoDex")
    with h5py.File(path, "r") as file:
        attributes = {key: _text(value) for key, value in file.attrs.items()}
        length = len(file[f"transforms/{_CAMERA}"])
    words = attributes.get("llm_description", "")
    if attributes.get("which_llm_description") == "2" and attributes.get("llm_description2"):
        words = attributes["llm_description2"]
    return words or attributes.get("description", "") or attributes.get("task", ""), length


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
