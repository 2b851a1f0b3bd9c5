"""Did an episode succeed? Four ways to tell from its frames, and a baseline that only compares pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from dreamdojo.apps.policy_eval.act import Trials, act
from dreamdojo.apps.policy_eval.starts import Starts, on_table
from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import choose_frames, resample
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.reward import LAST, JudgeError, Outcome, RewardModel, judge_error
from dreamdojo.metrics import unit_range
from dreamdojo.policies.scripted import ObjectFinder
from dreamdojo.policies.simple import RecordedPolicy
from dreamdojo.rollout.session import CAMERA
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation, World

SUCCESS_COLUMN = "next.success"
"""A dataset's own word on whether the task is done after a row."""

NEIGHBOURS = 5
"""Episodes whose pictures are most alike, asked by the baseline."""


Judge = Callable[[Trials, Starts], Tensor]
"""Says of each episode whether it succeeded, `b` bool."""


class RewardJudge:
    """The reward model finds success likelier than failure in the last frames."""

    def __init__(self, model: RewardModel) -> None:
        self._model = model

    def __call__(self, trials: Trials, starts: Starts) -> Bool[Tensor, " b"]:
        """One answer per start."""
        del starts
        return self._model.probability(trials.frames) > 0.5


class PoseJudge:
    """A probe finds the marked object at least `distance` metres along the table from where it stood.

    Asked of the last frames, the latest in which the object is found; where it is found in none, the episode failed.
    """

    def __init__(self, probe: ObjectProbe, *, distance: float) -> None:
        self._probe, self._distance = probe, distance

    def __call__(self, trials: Trials, starts: Starts) -> Bool[Tensor, " b"]:
        """One answer per start.

        Raises:
            ConfigError: if the starts do not say which object is meant.
        """
        marked = starts.marked
        if marked is None:
            raise ConfigError("object positions can be read only where the starts mark an object; use a reward model")
        moved = torch.zeros(len(starts), dtype=torch.bool)
        for frame in trials.frames[:, -LAST:].unbind(1):
            seen = self._probe.locate(trials.frames[:, 0], marked.mask, frame)
            place = on_table(marked.to_table, seen.position)
            far = (place - marked.place).norm(dim=1) >= self._distance
            moved = torch.where(seen.found, far, moved)
        return moved


class FinderJudge:
    """A finder sees the one object at least `distance` metres along the table from where it saw it first.

    Asked of the last frames, on average over those in which the object is seen; where it is seen in none, the episode
    failed.
    """

    def __init__(self, finder: ObjectFinder, *, distance: float) -> None:
        self._finder, self._distance = finder, distance

    def __call__(self, trials: Trials, starts: Starts) -> Bool[Tensor, " b"]:
        """One answer per start."""
        del starts
        asked = torch.cat([trials.frames[:, :1], trials.frames[:, 1:][:, -LAST:]], dim=1)
        place, seen = (each.unflatten(0, asked.shape[:2]) for each in self._finder.find(asked.flatten(0, 1)))
        moved = (place[:, 1:] - place[:, :1]).norm(dim=2)
        seen = seen[:, 1:].float()
        return (moved * seen).sum(dim=1) >= self._distance * seen.sum(dim=1).clamp(min=1)


class FunctionJudge:
    """A user's function: frames `b t 3 h w` uint8 and state `b t s` or None -> `b` true or false."""

    def __init__(self, function: Callable[[Tensor, Tensor | None], Any]) -> None:
        self._function = function

    def __call__(self, trials: Trials, starts: Starts) -> Bool[Tensor, " b"]:
        """One answer per start.

        Raises:
            DataError: if the function does not give one.
        """
        said = torch.as_tensor(self._function(trials.frames, trials.state))
        if said.shape != (len(starts),):
            raise DataError(f"expected the success function to return {len(starts)} values, got {tuple(said.shape)}")
        return said.bool()


class PixelJudge:
    """The baseline: the majority of the known episodes whose first and last frames look most like these."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        known = [outcome for outcome in outcomes if np.isfinite(outcome.success[-1])]
        self._pictures = torch.stack([_ends(torch.from_numpy(each.frames[[0, -1]])[None])[0] for each in known])
        self._success = torch.tensor([float(each.success[-1]) for each in known])

    def __call__(self, trials: Trials, starts: Starts) -> Bool[Tensor, " b"]:
        """One answer per start."""
        del starts
        near = torch.cdist(_ends(trials.frames), self._pictures).topk(
            min(NEIGHBOURS, len(self._success)), largest=False
        )
        return self._success[near.indices].mean(dim=1) > 0.5


def known_outcomes(
    dataset: Dataset,
    indices: Sequence[int],
    frames: SideCache,
    *,
    rate: float,
    goal: Callable[[np.ndarray], np.ndarray] | None,
    length: int,
) -> list[Outcome]:
    """Recorded episodes of at most `length` frames with what is known of their success at each frame.

    In the dojo's datasets the true poses tell, by `goal`; every episode is cut into pieces that begin half a `length`
    apart, each a new start. Others say so in the column `next.success`.

    Raises:
        DataError: if the dataset says nothing about success.
    """
    found = []
    for index in indices:
        kept, _ = choose_frames(dataset.timestamps(index), rate, source_rate=dataset.fps)
        pictures = np.moveaxis(np.asarray(frames[index]), -1, 1)
        if goal is not None:
            from dreamdojo.dojo.truth import GroundTruth

            poses = GroundTruth.open(dataset.root).object_poses(index)[kept]
            for first in range(0, max(len(kept) - length // 2, 1), max(length // 2, 1)):
                part = slice(first, first + length)
                done = goal(poses[part]).astype(np.float32)
                found.append(Outcome(frames=pictures[part], success=done))
            continue
        if SUCCESS_COLUMN not in dataset.columns:
            raise DataError(
                f"{dataset.root}: expected a column {SUCCESS_COLUMN!r} that says when the task is done, found "
                f"{', '.join(dataset.columns)}. Give a dataset that has it, or a success function."
            )
        done = np.asarray(dataset.column(SUCCESS_COLUMN, index), dtype=np.float32).reshape(-1)
        after = np.concatenate([[np.nan], done[kept[1:] - 1]]).astype(np.float32)[:length]
        found.append(Outcome(frames=pictures[:length], success=after))
    return found


def error_on(judge: Judge, frames: Tensor, truth: Tensor) -> JudgeError:
    """How often a judge that looks at frames alone is wrong about episodes `b t c h w` that ended as `truth` says."""
    none = torch.zeros(len(frames), frames.shape[1] - 1, 0)
    trials = Trials(frames=frames, actions=none, state=None, world_seconds=0.0, policy_seconds=0.0)
    starts = Starts(names=tuple(range(len(frames))), observation=Observation(frames={CAMERA: frames[:, :1]}))
    return judge_error(judge(trials, starts), truth.bool())


def replay(
    world: World,
    dataset: Dataset,
    indices: Sequence[int],
    frames: SideCache,
    *,
    steps: int,
    seed: int = 0,
    report: Report = silent,
) -> Trials:
    """What a model predicts when recorded actions are carried out from recorded starts.

    Raises:
        DataError: if an episode is shorter than `steps` actions.
    """
    recorded = [resample(dataset, index, world.fps) for index in indices]
    short = [len(each.frame_indices) - 1 for each in recorded if len(each.frame_indices) <= steps]
    if short or any(each.actions is None for each in recorded):
        raise DataError(
            f"{dataset.root}: expected episodes with at least {steps} actions to replay, found "
            f"{min(short, default=0)}. "
            "Record longer ones, or evaluate for fewer steps."
        )
    actions = torch.from_numpy(np.stack([each.actions[:steps] for each in recorded if each.actions is not None]))
    states = [each.states for each in recorded]
    known = [torch.from_numpy(state[:1]) for state in states if state is not None]
    pictures = np.stack([np.asarray(frames[index][:1]) for index in indices])
    start = Observation(
        frames={CAMERA: torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).contiguous()},
        state=torch.stack(known) if len(known) == len(indices) else None,
    )
    return act(world, RecordedPolicy(actions), start, steps=steps, seed=seed, report=report)


def _ends(frames: Tensor) -> Tensor:
    """First and last frame in a row, `b p` in [0, 1]."""
    return unit_range(frames[:, [0, -1]]).flatten(1)
