"""Sessions as LeRobot episodes, and their replay.

Row t holds the real frame of tick t, what was shown for it, and what the period after it was given and did:

    observation.images.head         the real frame
    observation.images.prediction   what the operator was shown for this moment: a prediction, or the late picture
    observation.state, action       what was measured, and what the robot really did
    command, held, stopped, link, anchor, members, steps      what the session's course depends on (`Wish`, `Level`)
    frame_checksum, prediction_checksum    CRC-32 of the pixels, for video is stored with loss

With the seed in the episode's meta these rows are enough to live the session again: `replay` does, and compares.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.pace import Level
from dreamdojo.apps.teleop.predict import Imagined, Predictor
from dreamdojo.apps.teleop.teleoperation import Shown, Teleoperation, Wish
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.episode import EncodedEpisode, encode_episode
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.write import CameraSpec, ColumnSpec, DatasetWriter
from dreamdojo.errors import DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.rollout.starts import fitted
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation

PREDICTION = "prediction"
"""Name of the camera that shows what the operator was shown."""

_NO_PREDICTION = -1
"""Denoising steps of a period in which nothing was predicted; 0 are those of the model."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    real: np.ndarray
    shown: np.ndarray
    state: np.ndarray | None
    wish: Wish
    level: Level
    action: np.ndarray


class Recorder:
    """Collects a session; `close` writes it. An episode lives in memory until it ends."""

    def __init__(
        self,
        root: Path,
        *,
        fps: float,
        embodiment: Embodiment,
        size: tuple[int, int],
        shown: tuple[int, int],
        about: Mapping[str, Any],
    ) -> None:
        """Name the folder to make, and what will be recorded.

        Args:
            root: the dataset's folder; refused where it exists.
            fps: periods per second.
            embodiment: the robot's.
            size: of the real frames.
            shown: of what the operator is shown.
            about: what robot and predictor were, as JSON has it.

        Raises:
            DataError: if the folder exists.
        """
        a = embodiment.action_dim
        self._writer = DatasetWriter(
            root,
            fps=fps,
            embodiment=embodiment,
            cameras={
                CAMERA: CameraSpec(height=size[0], width=size[1]),
                PREDICTION: CameraSpec(height=shown[0], width=shown[1]),
            },
            columns={
                "command": ColumnSpec(dtype="float32", shape=(a,), names=tuple(embodiment.action_names())),
                "held": ColumnSpec(dtype="bool"),
                "stopped": ColumnSpec(dtype="bool"),
                "link": ColumnSpec(dtype="float64", shape=(4,), names=("up", "down", "jitter", "loss")),
                "anchor": ColumnSpec(dtype="bool"),
                "members": ColumnSpec(dtype="int64"),
                "steps": ColumnSpec(dtype="int64"),
                "frame_checksum": ColumnSpec(dtype="int64"),
                "prediction_checksum": ColumnSpec(dtype="int64"),
            },
            extra_info={"teleoperation": json.dumps(about)},
        )
        self._writer.__enter__()
        self._shown_size = shown
        self._episodes: list[EncodedEpisode] = []
        self._rows: list[_Row] = []
        self._seed = 0

    def begin(self, seen: Observation, *, seed: int) -> None:
        """An episode begins; the one before it ends."""
        self._end()
        self._seed = seed
        self._now = _moment(seen, fitted(seen, self._shown_size).frames[CAMERA][0, -1])

    def add(self, wish: Wish, level: Level, shown: Shown) -> None:
        """A period has passed."""
        real, pictured, state = self._now
        action = shown.report.done[-1].action
        self._rows.append(_Row(real=real, shown=pictured, state=state, wish=wish, level=level, action=action))
        self._now = _moment(shown.report.seen, shown_picture(shown, self._shown_size))

    def close(self) -> None:
        """Write the dataset, if there is anything to write."""
        self._end()
        if not self._episodes:
            self._writer.__exit__(KeyboardInterrupt, None, None)  # nothing was recorded: nothing is left behind
            return
        for episode in self._episodes:
            self._writer.add(episode)
        self._writer.__exit__(None, None, None)

    def _end(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        columns = {
            "action": np.stack([row.action for row in rows]),
            "command": np.stack([row.wish.action for row in rows]).astype(np.float32),
            "held": np.array([row.wish.held for row in rows]),
            "stopped": np.array([row.wish.stopped for row in rows]),
            "link": np.array([_link_row(row.wish.link) for row in rows]),
            "anchor": np.array([row.wish.anchor for row in rows]),
            "members": np.array([row.level.members for row in rows]),
            "steps": np.array([_NO_PREDICTION if not row.level.every else row.level.steps or 0 for row in rows]),
            "frame_checksum": np.array([zlib.crc32(row.real.tobytes()) for row in rows]),
            "prediction_checksum": np.array([zlib.crc32(row.shown.tobytes()) for row in rows]),
        }
        if rows[0].state is not None:
            columns["observation.state"] = np.stack([row.state for row in rows if row.state is not None])
        self._episodes.append(
            encode_episode(
                scratch=self._writer.scratch,
                index=len(self._episodes),
                fps=self._writer.fps,
                cameras=self._writer.cameras,
                frames={
                    CAMERA: np.stack([row.real for row in rows]),
                    PREDICTION: np.stack([row.shown for row in rows]),
                },
                columns=columns,
                task="teleoperation",
                meta={"seed": self._seed},
            )
        )


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A session lived again."""

    periods: int
    """How many."""
    frames_equal: int
    """Real frames that are the recorded ones, bit for bit."""
    predictions_equal: int | None
    """The same of what was shown; None where it was not asked for."""

    def __str__(self) -> str:
        told = f"{self.frames_equal} of {self.periods} real frames are bit-equal"
        if self.predictions_equal is None:
            return told
        return f"{told}, {self.predictions_equal} of {self.periods} of what was shown"


def about(dataset: Dataset) -> dict[str, Any]:
    """What robot and predictor a recorded session had.

    Raises:
        DataError: if the dataset is not a recorded session.
    """
    told = dataset.info.get("dreamdojo", {}).get("teleoperation")
    if told is None:
        raise DataError(f"{dataset.root}: expected a session recorded by dreamdojo teleop, found another dataset")
    return json.loads(told)


def replay(
    dataset: Dataset,
    episode: int,
    teleoperation: Teleoperation,
    predictor: Predictor | None,
    *,
    size: tuple[int, int],
    report: Report = silent,
) -> Replay:
    """Live a recorded episode again and compare its frames, those of the predictor too where there is one.

    Args:
        dataset: of recorded sessions.
        episode: which of its episodes.
        teleoperation: the same robot with the same safeguards.
        predictor: the same predictor, or None to compare the real frames alone.
        size: of what was shown.
        report: progress.
    """
    columns = {
        name: dataset.column(name, episode)
        for name in (
            *("command", "held", "stopped", "link", "anchor", "members", "steps"),
            *("frame_checksum", "prediction_checksum"),
        )
    }
    seed = int(dataset.episode(episode).meta["seed"])
    start = teleoperation.reset(seed=seed).seen
    if predictor is not None:
        predictor.reset(start, seed=seed)
    real, shown, _ = _moment(start, fitted(start, size).frames[CAMERA][0, -1])
    frames = predictions = 0
    periods = len(columns["held"])
    for row in range(periods):
        report(row + 1, periods, "replay")
        frames += int(zlib.crc32(real.tobytes()) == columns["frame_checksum"][row])
        predictions += int(zlib.crc32(shown.tobytes()) == columns["prediction_checksum"][row])
        up, down, jitter, loss = (float(value) for value in columns["link"][row])
        wish = Wish(
            action=columns["command"][row],
            held=bool(columns["held"][row]),
            stopped=bool(columns["stopped"][row]),
            link=LinkSettings(up=up, down=down, jitter=jitter, loss=loss),
            anchor=bool(columns["anchor"][row]),
        )
        steps = int(columns["steps"][row])
        level = Level(members=int(columns["members"][row]), steps=steps or None, every=int(steps >= 0), scale=1.0)
        seen = teleoperation.fulfil(teleoperation.exchange(wish), at_level(predictor, level))
        real, shown, _ = _moment(seen.report.seen, shown_picture(seen, size))
    return Replay(periods=periods, frames_equal=frames, predictions_equal=None if predictor is None else predictions)


def at_level(predictor: Predictor | None, level: Level) -> Predictor | None:
    """The predictor, set to a level; None where the level is not to predict."""
    if predictor is None or not level.every:
        return None
    if isinstance(predictor, Imagined):
        predictor.set(members=level.members, steps=level.steps)
    return predictor


def shown_picture(shown: Shown, size: tuple[int, int]) -> Tensor:
    """What the operator is shown, `c h w` at one size."""
    return fitted(Observation(frames={CAMERA: shown.picture[None, None]}), size).frames[CAMERA][0, 0]


def _moment(seen: Observation, shown: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    state = None if seen.state is None else seen.state[0, -1].numpy()
    return _picture(seen.frames[CAMERA][0, -1]), _picture(shown), state


def _picture(frame: Tensor) -> np.ndarray:
    return np.ascontiguousarray(frame.to(torch.uint8).permute(1, 2, 0).numpy())


def _link_row(link: LinkSettings) -> tuple[float, float, float, float]:
    return link.up, link.down, link.jitter, link.loss
