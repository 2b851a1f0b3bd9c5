"""One control rate for sources of every rate: frames are chosen by timestamp, actions follow their interval.

Kept frame i is the source frame nearest to i / rate. Action i is what the source did from kept frame i up to kept frame
i + 1: fields that declare `mean` (rates) are averaged over those source steps, fields that declare `last` (targets)
keep the last, and fields that declare `first` keep the command given at frame i. A source slower than the rate keeps
its own; frames are never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset
from dreamdojo.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """An episode at the control rate: `n` frames and the `n - 1` actions between them."""

    frame_indices: np.ndarray
    """`(n,)` int64: which frames of the source are kept."""
    actions: np.ndarray | None
    """`(n - 1, a)` float32 in the embodiment's units, or None where the source has none."""
    states: np.ndarray | None
    """`(n, s)` float32 at the kept frames, or None where the source has none."""
    timestamps: np.ndarray
    """`(n,)` float64 seconds of the kept frames since the episode's first."""
    rate: float
    """Frames per second of the kept frames: the rate asked for, or that of a slower source."""


def resample(dataset: Dataset, episode_index: int, rate: float) -> Resampled:
    """An episode's frames, actions and states at `rate` per second.

    Raises:
        DataError: if a column is missing, not finite or of the wrong length, or time does not advance evenly.
        ConfigError: if the rate is not positive.
    """
    kept, true_rate = kept_frames(dataset, episode_index, rate)
    body = dataset.embodiment
    actions = dataset.actions(episode_index) if body.action_dim else None
    return Resampled(
        frame_indices=kept,
        actions=None if actions is None else _between(actions, kept, body),
        states=dataset.states(episode_index)[kept] if body.state_dim else None,
        timestamps=dataset.timestamps(episode_index)[kept],
        rate=true_rate,
    )


def kept_frames(dataset: Dataset, episode_index: int, rate: float) -> tuple[np.ndarray, float]:
    """Which frames of an episode `rate` per second keeps, `(n,)` int64, and their rate; see `choose_frames`.

    Raises:
        DataError: naming the episode, if time does not advance evenly.
        ConfigError: if the rate is not positive.
    """
    times = dataset.timestamps(episode_index)
    try:
        return choose_frames(times, rate, source_rate=dataset.fps)
    except DataError as error:
        raise DataError(f"dataset {dataset.root}, episode {episode_index}: {error}") from error


def choose_frames(timestamps: np.ndarray, rate: float, *, source_rate: float) -> tuple[np.ndarray, float]:
    """The source frames nearest to 0, 1 / rate, 2 / rate, ... (of two equally near, the earlier), and their rate.

    Args:
        timestamps: `(t,)` rising seconds; the first counts as 0.
        rate: frames per second wanted.
        source_rate: frames per second of the source; where it is below `rate`, all frames are kept.

    Returns:
        `(n,)` int64, strictly rising, and the rate of the kept frames.

    Raises:
        ConfigError: if the rate is not positive.
        DataError: if a pause in the source would make a frame repeat.
    """
    if not rate > 0:
        raise ConfigError(f"the control rate must be positive, got {rate}")
    if source_rate <= rate:
        return np.arange(len(timestamps)), source_rate
    times = timestamps - timestamps[0]
    # Half a source step past the last frame would still be nearest to it, but is not in the recording.
    num_kept = int(np.floor(times[-1] * rate + 1e-3)) + 1
    targets = np.arange(num_kept) / rate
    after = np.searchsorted(times, targets).clip(1, max(len(times) - 1, 1))
    if len(times) == 1:
        return np.zeros(1, dtype=np.int64), rate
    margin = 1e-3 / source_rate
    earlier = targets - times[after - 1] <= times[after] - targets + margin
    kept = np.where(earlier, after - 1, after).astype(np.int64)
    repeated = np.flatnonzero(np.diff(kept) <= 0)
    if len(repeated):
        raise DataError(
            f"expected a frame about every {1 / rate:.3f} s, found a pause around {times[kept[repeated[0]]]:.3f} s. "
            "Cut the recording at the pause; a repeated frame would be a motion that did not happen."
        )
    return kept, rate


def _between(actions: np.ndarray, kept: np.ndarray, body: Embodiment) -> np.ndarray:
    """Source actions `t a` -> one per interval between kept frames, `n - 1 a`."""
    out = np.empty((max(len(kept) - 1, 0), actions.shape[1]), dtype=np.float32)
    if not len(out):
        return out
    counts = np.diff(kept)[:, None]
    sums = np.add.reduceat(actions[: kept[-1]].astype(np.float64), kept[:-1], axis=0)
    rows = {"mean": sums / counts, "last": actions[kept[1:] - 1], "first": actions[kept[:-1]]}
    for field in body.action:
        columns = body.columns(field.name, of="action")
        out[:, columns] = rows[field.resampling][:, columns]
    return out
