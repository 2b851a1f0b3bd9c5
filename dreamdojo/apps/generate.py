"""Predict a recorded episode from its first frame and its actions, and lay the prediction beside the recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.metrics import depth_error, psnr, ssim, unit_range
from dreamdojo.rollout.session import CAMERA, Session, observation
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.training.progress import Report, silent
from dreamdojo.video import colour_depth, encode, resize


@dataclass(frozen=True, kw_only=True)
class Generated:
    """How close a prediction came to its recording; PSNR and SSIM are means over the predicted frames."""

    frames: int
    """Predicted frames; the given one is not among them and does not count."""
    psnr: float
    """dB."""
    ssim: float
    psnr_copy: float
    """dB of repeating the given frame."""
    ssim_copy: float
    depth_error: float | None
    """cm, mean absolute error over measured pixels, of a model that predicts depth."""
    depth_error_copy: float | None
    """cm of repeating the given frame's depth."""
    seconds: float
    """Time of prediction, decoding included."""
    frames_per_second: float


def generate(
    session: Session,
    dataset: Dataset,
    episode: int,
    out: Path,
    *,
    camera: str | None = None,
    start: int = 0,
    frames: int | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Generated:
    """Predict `frames` frames after frame `start` (at the model's rate) and write videos to `out`.

    Every prediction follows from the first frame and the recorded actions alone. Whole steps of the model are
    predicted, as many as `frames` and the recording hold; on Ctrl-C those so far are written.

    Raises:
        ConfigError: if `start` is negative, or the recording does not go on for one step of the model after it.
        DataError: if the dataset has no actions, or no depth where the model sees it.
    """
    recorded = resample(dataset, episode, session.fps)
    if recorded.actions is None:
        raise DataError(f"{dataset.root}: expected a robot dataset with an 'action' column, found none")
    k = session.actions_per_step
    there = len(recorded.actions) - start
    steps = (there if frames is None else min(frames, there)) // k
    if steps < 1 or start < 0:
        raise ConfigError(
            f"episode {episode} has {max(there, 0)} actions after frame {start} at {session.fps:g} per second, and "
            f"{'all' if frames is None else frames} frames were asked for; one step of {session} takes {k}"
        )
    wanted = recorded.frame_indices[start : start + steps * k + 1]
    truth = dataset.frames(episode, [int(index) for index in wanted], camera)
    state = None if recorded.states is None else recorded.states[start]
    metres = None
    if session.depth is not None:
        metres = dataset.depth(episode, [int(index) for index in wanted], camera, size=session.size)
    session.reset(observation(truth[0], state, session.size, None if metres is None else metres[0]), seed=seed)
    actions = torch.from_numpy(recorded.actions[start : start + steps * k])[None].unflatten(1, (steps, k))
    began = time.monotonic()
    predicted, depths = [], []
    try:
        for index in range(steps):
            step = session.step(actions[:, index])
            predicted.append(step.frames[CAMERA][0])
            depths += [step.depth[CAMERA][0, :, 0]] if step.depth else []
            report(index + 1, steps, "steps")
    except KeyboardInterrupt:
        if not predicted:
            raise
    seconds = time.monotonic() - began
    prediction = torch.cat(predicted)
    true = torch.from_numpy(np.stack([resize(frame, session.size) for frame in truth])).permute(0, 3, 1, 2)
    true = true[: len(prediction) + 1]
    result = _score(prediction, true, seconds)
    write_videos(out, prediction, true, session.fps)
    if session.depth is None or metres is None:
        return result
    depth, true_depth = torch.cat(depths), torch.from_numpy(metres)[: len(prediction) + 1]
    write_depth(out, depth, true_depth, session.depth, session.fps)
    counted = session.depth.within(true_depth[1:])
    errors = (depth_error(guess, true_depth[1:], counted) for guess in (depth, true_depth[:1].expand_as(depth)))
    own, copied = (float(error.nanmean()) for error in errors)
    return replace(result, depth_error=own, depth_error_copy=copied)


def _score(prediction: torch.Tensor, true: torch.Tensor, seconds: float) -> Generated:
    def mean(metric: Callable, frames: torch.Tensor) -> float:
        pairs = zip(frames.split(8), true[1:].split(8), strict=True)
        return float(torch.cat([metric(unit_range(a), unit_range(b)) for a, b in pairs]).mean())

    copy = true[:1].expand(len(prediction), -1, -1, -1)
    return Generated(
        frames=len(prediction),
        psnr=mean(psnr, prediction),
        ssim=mean(ssim, prediction),
        psnr_copy=mean(psnr, copy),
        ssim_copy=mean(ssim, copy),
        depth_error=None,
        depth_error_copy=None,
        seconds=seconds,
        frames_per_second=len(prediction) / seconds,
    )


def write_videos(out: Path, prediction: torch.Tensor, true: torch.Tensor, fps: float) -> None:
    """`prediction.mp4`, which begins with the given frame, and `truth_prediction.mp4`, side by side."""
    out.mkdir(parents=True, exist_ok=True)
    shown = torch.cat([true[:1], prediction]).permute(0, 2, 3, 1).numpy()
    beside = np.concatenate([true.permute(0, 2, 3, 1).numpy(), shown], axis=2)
    encode(out / "prediction.mp4", shown, fps)
    encode(out / "truth_prediction.mp4", beside, fps)


def write_depth(out: Path, predicted: torch.Tensor, true: torch.Tensor, coding: DepthCoding, fps: float) -> None:
    """`truth_prediction_depth.mp4`, side by side in colours, from metres `t h w`; the given frame begins both."""
    shown = torch.cat([true[:1], predicted])
    beside = torch.cat([true, shown], dim=2).numpy()
    encode(out / "truth_prediction_depth.mp4", colour_depth(beside, coding.near, coding.far), fps)
