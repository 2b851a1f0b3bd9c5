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

    start: tuple[int, ...]
    """First given frame of each clip, one clip per recording."""
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


def plan_clips(recordings: Sequence[Recording], *, context: int, horizon: int, seed: int) -> ClipPlan:
    """One clip from each recording at a place drawn by `seed`; the other actions are those of the next recording.

    Raises:
        DataError: if there are fewer than two recordings that are long enough.
    """
    length = context + horizon
    usable = [recording for recording in recordings if len(recording.frames) >= length]
    if len(usable) < 2:
        longest = max((len(recording.frames) for recording in recordings), default=0)
        raise DataError(
            f"expected at least two held-out episodes of {length} frames ({context} given, {horizon} predicted), found "
            f"{len(usable)}; the longest has {longest}. Hold out more episodes, or use a shorter horizon."
        )
    random = np.random.default_rng(seed)
    starts = [int(random.integers(len(r.frames) - length + 1)) for r in usable]
    frames = np.stack([r.frames[s : s + length] for r, s in zip(usable, starts, strict=True)])
    actions = np.stack([r.actions[s : s + length - 1] for r, s in zip(usable, starts, strict=True)])
    other = np.concatenate([actions[:, : context - 1], np.roll(actions, -1, axis=0)[:, context - 1 :]], axis=1)
    return ClipPlan(
        start=tuple(starts),
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
