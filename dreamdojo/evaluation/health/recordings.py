"""Pairs from a dataset: frames from a cache, true motion and actions where the dataset has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import DataError
from dreamdojo.evaluation.health.pairs import PairModel, Pairs, Targets, make_pairs

if TYPE_CHECKING:
    from dreamdojo.dojo.truth import GroundTruth

MOTION = ("x", "y", "z", "yaw", "opening")
"""What a hand or gripper does between two frames: metres, radians, and shares of its opening."""


def gather(
    name: str,
    dataset: Dataset,
    indices: Sequence[int],
    frames: SideCache,
    model: PairModel,
    *,
    rate: float,
    patch_size: int = 1,
    device: torch.device | None = None,
) -> Pairs:
    """Every neighbouring pair of some episodes at `rate`, with the latent action that `model` infers.

    Args:
        name: what to call the set.
        dataset: where the episodes are from; true motion is taken from a `ground_truth.parquet` in its folder.
        indices: which episodes.
        frames: uint8 `t h w c` of each episode at `rate`.
        model: infers the latent actions.
        rate: frames per second of `frames`.
        patch_size: height and width are cropped to multiples of it, as the model does.
        device: where the model is.

    Raises:
        DataError: if frames and other columns do not fit each other, or there are too few episodes.
    """
    truth = open_truth(dataset)
    episodes, motion, actions = [], [], []
    for index in indices:
        pictures = np.moveaxis(frames[index], -1, 1)
        height, width = (side // patch_size * patch_size for side in pictures.shape[-2:])
        episodes.append(torch.from_numpy(np.ascontiguousarray(pictures[..., :height, :width])))
        resampled = resample(dataset, index, rate)
        if len(resampled.frame_indices) != len(pictures):
            raise DataError(
                f"{dataset.root}, episode {index}: expected {len(resampled.frame_indices)} frames at {rate:g} per "
                f"second, found {len(pictures)}. Delete the cache of its frames and decode it again."
            )
        if truth is not None:
            motion.append(true_motion(truth, index, resampled.frame_indices))
        if resampled.actions is not None:
            actions.append(resampled.actions)
    return make_pairs(
        name,
        episodes,
        model,
        motion=None if truth is None else Targets(names=MOTION, values=_joined(motion)),
        actions=_actions(dataset, actions),
        device=device,
    )


def open_truth(dataset: Dataset) -> GroundTruth | None:
    """The true motion beside a dataset, or None where it has none."""
    from dreamdojo.dojo.truth import FILE_NAME, GroundTruth

    return GroundTruth.open(dataset.root) if (dataset.root / FILE_NAME).exists() else None


def true_motion(truth: GroundTruth, index: int, kept: np.ndarray | None = None) -> np.ndarray:
    """What the hand or gripper does from each frame to the next, `(t - 1, 5)` in the order of `MOTION`.

    Args:
        truth: the table.
        index: the episode.
        kept: the frames that count; all where not given.
    """
    rows = slice(None) if kept is None else kept
    place, yaw, opening = truth.effector_position(index), truth.effector_yaw(index), truth.effector_opening(index)
    return np.diff(np.concatenate([place, yaw[:, None], opening[:, None]], axis=1)[rows], axis=0)


def _actions(dataset: Dataset, actions: Sequence[np.ndarray]) -> Targets | None:
    if not actions:
        return None
    return Targets(names=tuple(dataset.embodiment.action_names()), values=_joined(actions))


def _joined(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
