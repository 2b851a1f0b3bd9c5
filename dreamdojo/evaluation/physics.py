"""What predicted frames say about physics, against the dojo's truth.

Trials come from `dreamdojo.dojo.trials`: a start, and the dojo's own answer to several courses of action from it.

    pose         where every object is and how it is turned, read by probes, objects that the body has touched since the
                 start apart from those it has not
    answer       two courses of action from one start: is the prediction nearer to the dojo's answer to its own actions?
    permanence   objects that the arm hid and that are to be seen again: are they there, and where?
    stillness    the robot is told to stay as it is: how much do the pictures change, how far do things drift?

The error of a pose is that of the object's points, in pixels: with a position that is `d` off, a heading that is `e`
off and points at root mean square distance `r` from the object's middle,

    pose error = sqrt(d^2 + (2 r sin(e / 2))^2)

Where a heading cannot be seen or is not measured it is `d`. An object that is in view and not found counts as the
largest error: the farthest corner of the frame, and for a heading half of what looks alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import FIRST_OBJECT_LABEL, position_error
from dreamdojo.evaluation.objects import MIN_VISIBLE_PIXELS
from dreamdojo.evaluation.orientation import heading_error
from dreamdojo.evaluation.predict import ClipPlan, Recording, plan_of
from dreamdojo.evaluation.rollouts import EffectorFinder, ObjectFinder
from dreamdojo.metrics import MIN_MOVING_FRACTION, MOVING_THRESHOLD, moving_pixels, moving_psnr, psnr, unit_range

if TYPE_CHECKING:
    from dreamdojo.dojo.trials import Trial

BINS = ("all", "contact", "no contact")
"""Which objects: all, those that the body has touched since the start, those that it has not."""

COVERED, SEEN_AGAIN = 0.3, 0.8
"""An object is covered where less than this share of what showed at the start shows, and seen again where more does."""

THERE = 4.0
"""An object that is seen again counts as there within so many pixels of its true place."""

Scores = dict[str, Float[Tensor, "b horizons"]]
"""Name of a metric -> one number per trial and horizon, NaN where a trial has none."""


@runtime_checkable
class HeadingFinder(Protocol):
    """Says which way an object that is marked in one frame points in another, where it is at a known place."""

    def heading(
        self,
        start: UInt8[Tensor, "n c h w"],
        mask: Bool[Tensor, "n h w"],
        frames: UInt8[Tensor, "n c h w"],
        position: Float[Tensor, "n 2"],
        fold: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """Radians, up to a circle over `fold`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What reads things off pictures. A probe that fails its gate is left out, and its metrics with it."""

    effector: EffectorFinder | None
    objects: ObjectFinder | None
    heading: HeadingFinder | None


@dataclass(frozen=True, kw_only=True)
class BranchTruth:
    """One branch of several trials; `o` is the largest number of objects."""

    last_given: UInt8[Tensor, "b c h w"]
    frames: UInt8[Tensor, "b t c h w"]
    masks: Bool[Tensor, "b o h w"]
    """Which pixels of the last given frame belong to each object; empty where it is hidden or does not exist."""
    areas: Int[Tensor, "b t o"]
    """Pixels that show each object."""
    positions: Float[Tensor, "b t o 2"]
    """(u, v) in [0, 1]."""
    headings: Float[Tensor, "b t o"]
    """Radians, NaN where they cannot be seen."""
    folds: Int[Tensor, "b o"]
    """0 where no turn can be seen."""
    touched: Bool[Tensor, "b t o"]
    """Touched by the body at this frame or before, since the last given one."""
    effector: Float[Tensor, "b t 2"]
    effector_visible: Bool[Tensor, "b t"]

    @property
    def marked(self) -> Bool[Tensor, "b o"]:
        """Objects that show enough of themselves in the last given frame to be asked for."""
        return self.masks.sum(dim=(-2, -1)) >= MIN_VISIBLE_PIXELS

    @property
    def asked(self) -> Bool[Tensor, "b t o"]:
        """Objects in frames that can be asked for: marked, their middle in view, and not hidden."""
        inside = ((self.positions >= 0) & (self.positions < 1)).all(dim=-1)
        return (self.areas >= MIN_VISIBLE_PIXELS) & inside & self.marked[:, None]

    @property
    def copied(self) -> UInt8[Tensor, "b t c h w"]:
        """The last given frame, again and again."""
        return self.last_given[:, None].expand_as(self.frames)


def branch_truth(trials: Sequence[Trial], branch: str) -> BranchTruth:
    """What truly happened in one branch of all trials.

    Raises:
        DataError: if a trial has no such branch.
    """
    for trial in trials:
        if branch not in trial.branches:
            raise DataError(f"the trial of seed {trial.seed} has the branches {', '.join(trial.branches)}, no {branch}")
    courses, most = [trial.branches[branch] for trial in trials], max(len(trial.folds) for trial in trials)

    def padded(parts: Sequence[np.ndarray], axis: int, fill: float = 0) -> Tensor:
        rows = []
        for part in parts:
            widths = [(0, 0)] * part.ndim
            widths[axis] = (0, most - part.shape[axis])
            rows.append(np.pad(part, widths, constant_values=fill))
        return torch.from_numpy(np.stack(rows))

    def stacked(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(parts))

    given = stacked([trial.given.labels[-1] for trial in trials])
    labels = stacked([course.labels for course in courses])
    numbers = [FIRST_OBJECT_LABEL + index for index in range(most)]
    return BranchTruth(
        last_given=_channels_first(stacked([trial.given.frames[-1] for trial in trials])),
        frames=_channels_first(stacked([course.frames for course in courses])),
        masks=torch.stack([given == number for number in numbers], dim=1),
        areas=torch.stack([(labels == number).sum(dim=(-2, -1)) for number in numbers], dim=-1),
        positions=padded([course.pixels for course in courses], 1).float(),
        headings=padded([course.headings for course in courses], 1, np.nan).float(),
        folds=padded([trial.folds for trial in trials], 0).long(),
        touched=padded([course.touched for course in courses], 1).cumsum(dim=1) > 0,
        effector=stacked([course.effector for course in courses]).float(),
        effector_visible=stacked([course.effector_visible for course in courses]),
    )


def trial_plan(trials: Sequence[Trial], branch: str) -> ClipPlan:
    """The given frames, the actions of a branch and its frames, as every session is asked for predictions.

    Raises:
        DataError: if there are fewer than two trials.
    """
    if len(trials) < 2:
        raise DataError(f"expected at least two trials, got {len(trials)}: one has no interval")
    cuts = []
    for trial in trials:
        course, given = trial.branches[branch], trial.given
        frames = np.moveaxis(np.concatenate([given.frames, course.frames]), -1, 1)
        cuts.append(Recording(frames=frames, actions=np.concatenate([given.actions[1:], course.actions])))
    context, horizon = len(trials[0].given.frames), len(trials[0].branches[branch].frames)
    places = [(number, 0) for number in range(len(trials))]
    return plan_of(places, cuts, context=context, horizon=horizon)


def score_poses(
    truth: BranchTruth, frames: UInt8[Tensor, "b t c h w"], horizons: Sequence[int], instruments: Instruments
) -> Scores:
    """Errors of position (px), heading (degrees) and pose (px), and the share of objects found, in every bin.

    Also the position error of the hand. Each is the mean over the objects of a trial's bin at that horizon.
    """
    index, scores = torch.tensor(horizons) - 1, Scores()
    seen = frames[:, index]
    if instruments.effector is not None:
        located = instruments.effector.locate(seen.flatten(0, 1))
        true, shown = truth.effector[:, index], truth.effector_visible[:, index]
        error = position_error(located, true.flatten(0, 1), **_size(frames), undetected="farthest")
        scores["effector_error"] = torch.where(shown, error.view_as(shown), torch.nan)
    if instruments.objects is None:
        return scores
    asked = truth.asked[:, index]
    clip, time, which = asked.nonzero(as_tuple=True)
    start, mask, now = truth.last_given[clip], truth.masks[clip, which], seen[clip, time]
    true = truth.positions[:, index][clip, time, which]
    located = instruments.objects.locate(start, mask, now)
    position = position_error(located, true, **_size(frames), undetected="farthest")
    values = {"position_error": position, "found": located.found.float(), "pose_error": position}
    if instruments.heading is not None:
        heading, fold = truth.headings[:, index][clip, time, which], truth.folds[clip, which]
        known = heading.isfinite() & (fold > 0)
        some = fold.clamp(min=1)
        said = instruments.heading.heading(start, mask, now, located.position, some)
        off = torch.where(located.found, heading_error(said, heading, some), torch.pi / some)
        off = torch.where(known, off, torch.nan)
        turned = 2 * _spread(mask) * (off / 2).sin()
        both = (position.square() + turned.square()).sqrt()
        values["heading_error"] = off.rad2deg()
        values["pose_error"] = torch.where(known & located.found, both, position)
    touched = truth.touched[:, index][clip, time, which]
    for name, value in values.items():
        for kind, chosen in zip(BINS, (torch.ones_like(touched), touched, ~touched), strict=True):
            spread = torch.full(asked.shape, torch.nan)
            spread[clip[chosen], time[chosen], which[chosen]] = value[chosen]
            scores[f"{name}, {kind}"] = spread.nanmean(dim=-1)
    return scores


def score_pictures(truth: BranchTruth, frames: UInt8[Tensor, "b t c h w"], horizons: Sequence[int]) -> Scores:
    """PSNR in dB, of all pixels and of those that move."""
    index = torch.tensor(horizons) - 1
    true, predicted = unit_range(truth.frames[:, index]), unit_range(frames[:, index])
    moving = moving_pixels(true, unit_range(truth.last_given))
    return {"psnr": psnr(predicted, true), "moving_psnr": moving_psnr(predicted, true, moving).frame}


def score_answer(
    truth: BranchTruth,
    frames: UInt8[Tensor, "b t c h w"],
    instead: UInt8[Tensor, "b t c h w"],
    horizons: Sequence[int],
) -> Scores:
    """Whether a prediction is the answer to its own actions and not `instead`, the dojo's answer to others.

    Over the pixels in which the two answers differ: how many dB it is nearer to its own, and whether it is nearer at
    all (1 or 0; a tie, as that of a copied frame between two answers, is 0). NaN where they hardly differ.
    """
    index = torch.tensor(horizons) - 1
    own, other, predicted = (unit_range(each[:, index]) for each in (truth.frames, instead, frames))
    differ = (own - other).abs().amax(dim=2) > MOVING_THRESHOLD
    nearer = moving_psnr(predicted, own, differ).frame - moving_psnr(predicted, other, differ).frame
    enough = differ.float().mean(dim=(-2, -1)) >= MIN_MOVING_FRACTION
    right = torch.where(nearer.isfinite(), (nearer > 0).float(), torch.nan)
    return {
        "answer_margin": torch.where(enough, nearer, torch.nan),
        "answer_right": torch.where(enough, right, torch.nan),
    }


def score_permanence(truth: BranchTruth, frames: UInt8[Tensor, "b t c h w"], instruments: Instruments) -> Scores:
    """Objects that were covered, in the first frame in which they are to be seen again; one number per trial.

    The share that is there (found within `THERE` pixels of the true place), the share that is found, and the error of
    their position, a missing one counting as the largest.
    """
    if instruments.objects is None:
        return {}
    clip, time, which = seen_again(truth).nonzero(as_tuple=True)
    true = truth.positions[clip, time, which]
    located = instruments.objects.locate(truth.last_given[clip], truth.masks[clip, which], frames[clip, time])
    error = position_error(located, true, **_size(frames), undetected="farthest")
    values = {"there": (error <= THERE).float(), "there_found": located.found.float(), "there_error": error}
    scores = Scores()
    for name, value in values.items():
        spread = torch.full(truth.areas.shape, torch.nan)
        spread[clip, time, which] = value
        scores[name] = spread.flatten(1).nanmean(dim=1, keepdim=True)
    return scores


def seen_again(truth: BranchTruth) -> Bool[Tensor, "b t o"]:
    """The first frame in which an object that was covered, and that nothing touched, is to be seen again."""
    full = truth.masks.sum(dim=(-2, -1))[:, None]
    was_covered = (truth.areas < COVERED * full).cumsum(dim=1) > 0
    again = was_covered & (truth.areas > SEEN_AGAIN * full) & truth.asked & ~truth.touched
    return again & (again.cumsum(dim=1) == 1)


def score_stillness(
    truth: BranchTruth, frames: UInt8[Tensor, "b t c h w"], horizons: Sequence[int], instruments: Instruments
) -> Scores:
    """How much a scene in which nothing is to move changes.

    `change` is the mean absolute difference to the last given frame in grey levels (of 255), `energy` the mean squared
    difference between neighbouring frames in squared grey levels; the positions of hand and objects are those of
    `score_poses`.
    """
    index = torch.tensor(horizons) - 1
    all_frames = torch.cat([truth.last_given[:, None], frames], dim=1).float()
    change = (all_frames[:, 1:] - all_frames[:, :1]).abs().mean(dim=(2, 3, 4))
    energy = all_frames.diff(dim=1).square().mean(dim=(2, 3, 4))
    poses = score_poses(truth, frames, horizons, instruments)
    kept = {name: value for name, value in poses.items() if name in ("effector_error", "position_error, all")}
    return {"change": change[:, index], "energy": energy[:, index], **kept}


def within(horizons: Sequence[int], length: int) -> tuple[int, ...]:
    """The horizons that a branch of so many frames has."""
    return tuple(horizon for horizon in horizons if horizon <= length)


def to_plain(scores: Mapping[str, Tensor]) -> dict[str, list[list[float | None]]]:
    """Numbers of every trial, rounded for a file; NaN becomes None."""
    return {
        name: [[None if x != x else round(x, 3) for x in row] for row in value.tolist()]
        for name, value in scores.items()
    }


def _spread(mask: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Root mean square distance of the marked pixels from their middle, in pixels."""
    height, width = mask.shape[-2:]
    marked = mask.float()
    total = marked.sum(dim=(-2, -1)).clamp(min=1)
    square = torch.zeros(len(mask))
    for count, axis in ((height, 2), (width, 1)):
        profile, places = marked.sum(dim=axis), torch.arange(count).float()
        middle = (profile * places).sum(dim=1) / total
        square = square + (profile * (places - middle[:, None]).square()).sum(dim=1) / total
    return square.sqrt()


def _size(frames: Tensor) -> dict[str, int]:
    return {"height": frames.shape[-2], "width": frames.shape[-1]}


def _channels_first(frames: UInt8[Tensor, "*b h w c"]) -> UInt8[Tensor, "*b c h w"]:
    return frames.movedim(-1, -3).contiguous()
