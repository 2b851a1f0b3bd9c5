"""Held-out clips and what worlds predict for them: the same starts, context and actions for every method."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.world import Observation, World


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One held-out episode at the model's size and rate."""

    frames: np.ndarray
    """`t c h w` uint8."""
    actions: np.ndarray
    """`t-1 a` in the embodiment's units."""
    depth: np.ndarray | None = None
    """`t h w` metres, for models that see depth."""
    states: np.ndarray | None = None
    """`t s` in the embodiment's units, for models that see them."""

    def cut(self, start: int, length: int) -> Recording:
        """`length` frames of it from `start` on, with the actions between them."""
        stop = start + length
        return Recording(
            frames=self.frames[start:stop],
            actions=self.actions[start : stop - 1],
            depth=None if self.depth is None else self.depth[start:stop],
            states=None if self.states is None else self.states[start:stop],
        )


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
    given_depth: Tensor | None = None
    """`b context 1 h w` metres, float32, where the recordings have depth."""
    true_depth: Tensor | None = None
    """`b horizon 1 h w` metres, float32."""
    given_states: Tensor | None = None
    """`b context s` in the embodiment's units, where the recordings have states."""

    def seen(self, rows: slice, times: slice) -> Observation:
        """Given frames of some clips, with their depth and states."""
        depth, states = self.given_depth, self.given_states
        return Observation(
            frames={CAMERA: self.given[rows, times]},
            depth=None if depth is None else {CAMERA: depth[rows, times]},
            state=None if states is None else states[rows, times],
        )


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a session says comes after the context of each clip."""

    frames: Tensor
    """`b horizon c h w` uint8."""
    depth: Tensor | None = None
    """`b horizon 1 h w` metres, of a model that predicts depth."""


def plan_clips(
    recordings: Sequence[Recording], *, context: int, horizon: int, seed: int, least_clips: int = 16
) -> ClipPlan:
    """One clip from each recording at a place drawn by `seed`; from few recordings, several that do not overlap.

    The other actions of a clip are those of a clip of another recording. Clips of one recording are not independent,
    so intervals over them are narrower than they should be; the data sheet says how many recordings there are.

    Raises:
        DataError: if there are fewer than two recordings that are long enough.
    """
    lengths = [len(recording.frames) for recording in recordings]
    places = draw_places(lengths, context=context, horizon=horizon, seed=seed, least_clips=least_clips)
    cuts = [recordings[number].cut(start, context + horizon) for number, start in places]
    return plan_of(places, cuts, context=context, horizon=horizon)


def draw_places(
    lengths: Sequence[int], *, context: int, horizon: int, seed: int, least_clips: int = 16, clips: int | None = None
) -> list[tuple[int, int]]:
    """Recording and first frame of each clip: as `plan_clips` says, or, with `clips`, exactly so many.

    Raises:
        ConfigError: if fewer than two clips are asked for.
        DataError: if there are fewer than two recordings that are long enough, or they do not hold `clips` clips.
    """
    length = context + horizon
    usable = [number for number, frames in enumerate(lengths) if frames >= length]
    if clips is not None and clips < 2:
        raise ConfigError(f"expected at least 2 clips, got {clips}: one clip has no interval and no other's actions")
    if len(usable) < 2:
        raise DataError(
            f"expected at least two held-out episodes of {length} frames ({context} given, {horizon} predicted), found "
            f"{len(usable)}; the longest has {max(lengths, default=0)}. Hold out more episodes, or use a shorter "
            "horizon."
        )
    most = sum(lengths[number] // length for number in usable)
    if clips is not None and clips > most:
        raise DataError(
            f"expected {clips} clips of {length} frames that do not overlap, the {len(usable)} held-out episodes that "
            f"are long enough hold {most}. Ask for fewer clips, a shorter horizon, or hold out more."
        )
    wanted = max(1, -(-(clips or least_clips) // len(usable)))
    while clips is not None and sum(min(wanted, lengths[number] // length) for number in usable) < clips:
        wanted += 1
    random = np.random.default_rng(seed)
    places = []
    for turn in range(wanted):
        for number in usable:
            of_this = min(wanted, lengths[number] // length)
            if turn < of_this:
                room = lengths[number] // of_this
                places.append((number, turn * room + int(random.integers(room - length + 1))))
    return places[:clips]


def plan_of(places: Sequence[tuple[int, int]], cuts: Sequence[Recording], *, context: int, horizon: int) -> ClipPlan:
    """The plan whose clips are `cuts`, each of `context + horizon` frames, from `places` of at least two recordings."""
    frames, actions = np.stack([cut.frames for cut in cuts]), np.stack([cut.actions for cut in cuts])
    following = [
        next(j % len(places) for j in range(i + 1, i + 1 + len(places)) if places[j % len(places)][0] != number)
        for i, (number, _) in enumerate(places)
    ]
    other = np.concatenate([actions[:, : context - 1], actions[following, context - 1 :]], axis=1)
    depths = [cut.depth for cut in cuts if cut.depth is not None]
    whole = None
    if len(depths) == len(cuts):
        whole = torch.from_numpy(np.stack(depths).astype(np.float32))[:, :, None]
    states = [cut.states for cut in cuts if cut.states is not None]
    given_states = None
    if len(states) == len(cuts):
        given_states = torch.from_numpy(np.stack(states)[:, :context].astype(np.float32))
    return ClipPlan(
        recording=tuple(number for number, _ in places),
        start=tuple(start for _, start in places),
        context=context,
        horizon=horizon,
        given=torch.from_numpy(frames[:, :context].copy()),
        truth=torch.from_numpy(frames[:, context:].copy()),
        actions=torch.from_numpy(actions),
        other_actions=torch.from_numpy(other),
        given_depth=None if whole is None else whole[:, :context],
        true_depth=None if whole is None else whole[:, context:],
        given_states=given_states,
    )


def predict(session: World, plan: ClipPlan, *, other_actions: bool = False, seed: int = 0, batch: int = 16) -> Tensor:
    """What the session predicts after the context: `b horizon c h w` uint8."""
    return predict_all(session, plan, other_actions=other_actions, seed=seed, batch=batch).frames


def predict_all(
    session: World, plan: ClipPlan, *, other_actions: bool = False, seed: int = 0, batch: int = 16
) -> Predicted:
    """What the session predicts after the context, frames and, if it predicts it, depth.

    Raises:
        DataError: if context or horizon do not fit the session, or it sees depth and the recordings have none.
    """
    actions = plan.other_actions if other_actions else plan.actions
    k = session.actions_per_step
    if (plan.context - 1) % k or plan.horizon % k:
        raise DataError(
            f"expected 1 + {k} n given and {k} n predicted frames for a model with {k} actions per step, got "
            f"{plan.context} and {plan.horizon}"
        )
    frames, depths = [], []
    for start in range(0, len(plan.given), batch):
        rows = slice(start, start + batch)
        session.reset(plan.seen(rows, slice(1)), seed=seed)
        if plan.context > 1:
            session.observe(plan.seen(rows, slice(1, None)), actions[rows, : plan.context - 1])
        future = actions[rows, plan.context - 1 :]
        steps = [session.step(future[:, i : i + k]) for i in range(0, plan.horizon, k)]
        frames.append(torch.cat([step.frames[CAMERA] for step in steps], dim=1))
        depths += [torch.cat([step.depth[CAMERA] for step in steps if step.depth], dim=1)] if steps[0].depth else []
    return Predicted(frames=torch.cat(frames), depth=torch.cat(depths) if depths else None)


def frames_per_second(session: World, plan: ClipPlan, *, steps: int = 30) -> float:
    """Predicted frames per second of one live session, decoding included, after a few steps of warm-up."""
    k = session.actions_per_step
    session.reset(plan.seen(slice(1), slice(1)))
    chunk = plan.actions[:1, :1].expand(1, k, -1)
    for _ in range(5):
        session.step(chunk)
    started = time.perf_counter()
    for _ in range(steps):
        session.step(chunk)
    return steps * k / (time.perf_counter() - started)
