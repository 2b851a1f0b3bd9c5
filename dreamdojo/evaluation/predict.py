"""Held-out clips and what worlds predict for them: the same starts, context and actions for every method."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.rollout.session import CAMERA, Session
from dreamdojo.world import Observation


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One held-out episode at the model's size and rate."""

    frames: np.ndarray
    """`t c h w` uint8."""
    actions: np.ndarray
    """`t-1 a` in the embodiment's units."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Which frames are given, which are predicted, and under which actions."""

    recording: tuple[int, ...]
    """Number of the recording that each clip is from."""
    start: tuple[int, ...]
    """First given frame of each clip in its recording."""
    context: int
    """Given frames."""
    horizon: int
    """Predicted frames."""
    given: Tensor
    """`b context c h w` uint8."""
    truth: Tensor
    """`b horizon c h w` uint8."""
    actions: Tensor
    """`b context-1+horizon a` true actions."""
    other_actions: Tensor
    """The same with the actions of another recording after the context."""


def plan_clips(
    recordings: Sequence[Recording], *, context: int, horizon: int, seed: int, least_clips: int = 16
) -> ClipPlan:
    """One clip from each recording at a place drawn by `seed`; from few recordings, several that do not overlap.

    The other actions of a clip are those of a clip of another recording. Clips of one recording are not independent,
    so intervals over them are narrower than they should be; the data sheet says how many recordings there are.

    Raises:
        DataError: if there are fewer than two recordings that are long enough.
    """
    length = context + horizon
    usable = [number for number, recording in enumerate(recordings) if len(recording.frames) >= length]
    if len(usable) < 2:
        longest = max((len(recording.frames) for recording in recordings), default=0)
        raise DataError(
            f"expected at least two held-out episodes of {length} frames ({context} given, {horizon} predicted), found "
            f"{len(usable)}; the longest has {longest}. Hold out more episodes, or use a shorter horizon."
        )
    random = np.random.default_rng(seed)
    wanted = max(1, -(-least_clips // len(usable)))
    places = []
    for turn in range(wanted):
        for number in usable:
            clips = min(wanted, len(recordings[number].frames) // length)
            if turn < clips:
                room = len(recordings[number].frames) // clips
                places.append((number, turn * room + int(random.integers(room - length + 1))))

    def cut(number: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        recording = recordings[number]
        return recording.frames[start : start + length], recording.actions[start : start + length - 1]

    frames, actions = (np.stack(parts) for parts in zip(*(cut(*place) for place in places), strict=True))
    following = [
        next(j % len(places) for j in range(i + 1, i + 1 + len(places)) if places[j % len(places)][0] != number)
        for i, (number, _) in enumerate(places)
    ]
    other = np.concatenate([actions[:, : context - 1], actions[following, context - 1 :]], axis=1)
    return ClipPlan(
        recording=tuple(number for number, _ in places),
        start=tuple(start for _, start in places),
        context=context,
        horizon=horizon,
        given=torch.from_numpy(frames[:, :context].copy()),
        truth=torch.from_numpy(frames[:, context:].copy()),
        actions=torch.from_numpy(actions),
        other_actions=torch.from_numpy(other),
    )


def predict(session: Session, plan: ClipPlan, *, other_actions: bool = False, seed: int = 0, batch: int = 16) -> Tensor:
    """What the session predicts after the context: `b horizon c h w` uint8."""
    actions = plan.other_actions if other_actions else plan.actions
    k = session.actions_per_step
    if (plan.context - 1) % k or plan.horizon % k:
        raise DataError(
            f"expected 1 + {k} n given and {k} n predicted frames for a model with {k} actions per step, got "
            f"{plan.context} and {plan.horizon}"
        )
    clips = []
    for start in range(0, len(plan.given), batch):
        rows = slice(start, start + batch)
        session.reset(Observation(frames={CAMERA: plan.given[rows, :1]}), seed=seed)
        if plan.context > 1:
            given = Observation(frames={CAMERA: plan.given[rows, 1:]})
            session.observe(given, actions[rows, : plan.context - 1])
        future = actions[rows, plan.context - 1 :]
        steps = [session.step(future[:, i : i + k]).frames[CAMERA] for i in range(0, plan.horizon, k)]
        clips.append(torch.cat(steps, dim=1))
    return torch.cat(clips)


def frames_per_second(session: Session, plan: ClipPlan, *, steps: int = 30) -> float:
    """Predicted frames per second of one live session, decoding included, after a few steps of warm-up."""
    k = session.actions_per_step
    session.reset(Observation(frames={CAMERA: plan.given[:1, :1]}))
    chunk = plan.actions[:1, :1].expand(1, k, -1)
    for _ in range(5):
        session.step(chunk)
    started = time.perf_counter()
    for _ in range(steps):
        session.step(chunk)
    return steps * k / (time.perf_counter() - started)
