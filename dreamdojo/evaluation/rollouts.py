"""Scores of predicted clips against what truly happened.

Everything is kept per clip, and every method is scored on the same clips, so that differences can be paired:
`against` is a method minus the copied last frame (or any other method), `controllability` is a method under the true
actions minus the same method under another episode's actions from the same start. A model that ignores its actions has
a controllability of 0, however sharp it is.

Position errors come from probes (`effector`, `objects`) and exist only where the probe passes its gate. They are
measured on the true frames too: the row `truth` is what the probe itself gets wrong on these very clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.keypoints import Located, ProbeError, position_error
from dreamdojo.evaluation.objects import MIN_VISIBLE_PIXELS
from dreamdojo.evaluation.perceptual import PictureDistance
from dreamdojo.metrics import (
    Interval,
    depth_error,
    gradient_energy_ratio,
    mean_interval,
    moving_pixels,
    moving_psnr,
    paired_interval,
    psnr,
    ssim,
    unit_range,
)

COPY = "copy last frame"
"""The baseline that every method is compared with: nothing moves."""

TRUTH = "truth"
"""The true frames seen through a probe: the probe's own error on these clips."""

HORIZONS = (1, 4, 8, 16)
"""Frames after the last context frame at which methods are compared."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quantity that every method has for every clip and horizon."""

    key: str
    name: str
    unit: str
    decimals: int
    """How many of them mean something."""
    better: Literal["higher", "lower", "none"]
    """`none` where 1 is ideal and both sides of it are worse."""


METRICS = (
    Metric(key="psnr", name="PSNR", unit="dB", decimals=2, better="higher"),
    Metric(key="ssim", name="SSIM", unit="", decimals=3, better="higher"),
    Metric(key="lpips", name="ST-LPIPS", unit="", decimals=3, better="lower"),
    Metric(key="moving_psnr", name="PSNR of moving pixels", unit="dB", decimals=2, better="higher"),
    Metric(key="sharpness", name="Sharpness where it moves", unit="", decimals=2, better="none"),
    Metric(key="effector_error", name="Gripper or hand position error", unit="px", decimals=1, better="lower"),
    Metric(key="effector_found", name="Gripper or hand found", unit="", decimals=2, better="higher"),
    Metric(key="object_error", name="Position error of moved objects", unit="px", decimals=1, better="lower"),
    Metric(key="object_found", name="Moved objects found", unit="", decimals=2, better="higher"),
    Metric(key="depth_error", name="Depth error", unit="cm", decimals=2, better="lower"),
    Metric(key="moving_depth_error", name="Depth error of moving pixels", unit="cm", decimals=1, better="lower"),
)
METRIC_BY_KEY = {metric.key: metric for metric in METRICS}


@dataclass(frozen=True, kw_only=True)
class SceneTruth:
    """Where things truly are, at the last context frame and after it. Positions are (u, v) in [0, 1]."""

    effector: Float[Tensor, "b t 2"]
    effector_visible: Bool[Tensor, "b t"]
    masks: Bool[Tensor, "b o h w"]
    """Which pixels of the last context frame belong to each object; empty where it is hidden or does not exist."""
    objects_start: Float[Tensor, "b o 2"]
    """Positions at the last context frame."""
    objects: Float[Tensor, "b t o 2"]
    objects_visible: Bool[Tensor, "b t o"]


@dataclass(frozen=True, kw_only=True)
class DepthTruth:
    """How far everything truly is, in metres, and which of it counts."""

    last_context: Float[Tensor, "b 1 h w"]
    truth: Float[Tensor, "b t 1 h w"]
    counted: Bool[Tensor, "b t 1 h w"]
    """Where depth was measured, within what a model can say."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Held-out clips: the last frame that a model was given, and the frames that truly came after it."""

    last_context: UInt8[Tensor, "b c h w"]
    truth: UInt8[Tensor, "b t c h w"]
    scene: SceneTruth | None = None
    """True positions, where the recording comes from a simulator."""
    depth: DepthTruth | None = None
    """True depth, where it was recorded and methods predict it."""


@runtime_checkable
class EffectorFinder(Protocol):
    """Says where the hand or gripper is in each frame, and how well it does so."""

    @property
    def error(self) -> ProbeError:
        """Its own error on rendered frames."""
        ...

    def locate(self, frames: UInt8[Tensor, "n c h w"]) -> Located:
        """Where the hand or gripper is."""
        ...


@runtime_checkable
class ObjectFinder(Protocol):
    """Says where an object that is marked in one frame is in another, and how well it does so."""

    @property
    def error(self) -> ProbeError:
        """Its own error on rendered frames."""
        ...

    def locate(
        self, start: UInt8[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], frames: UInt8[Tensor, "n c h w"]
    ) -> Located:
        """Where the object marked by `mask` in `start` is in `frames`."""
        ...


Table = Mapping[str, Mapping[str, Float[Tensor, "b t"]]]
"""Metric key -> method -> one number per clip and horizon, NaN where a clip has none."""


@dataclass(frozen=True, kw_only=True)
class RolloutScores:
    """Every metric of every method, per clip and horizon."""

    horizons: tuple[int, ...]
    """Frames after the last context frame, the second axis of every table."""
    clips: int
    true_actions: Table
    """Scores of each method under the actions that were truly taken; also of `COPY`, and of `TRUTH` for positions."""
    other_actions: Table
    """Scores of the same methods from the same starts under the actions of another episode, against the same truth."""
    probes: Mapping[str, ProbeError]
    """The own error of the `effector` and `object` probe; one that fails its gate leaves no metric behind."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The predictions that were scored, in the order they were given, without `COPY` and `TRUTH`."""
        return tuple(method for method in self.true_actions["psnr"] if method != COPY)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that could be measured here."""
        return tuple(metric for metric in METRICS if metric.key in self.true_actions)

    def mean(self, metric: str, method: str, horizon: int) -> Interval:
        """The mean over clips of one metric of one method."""
        return mean_interval(self._column(self.true_actions, metric, method, horizon))

    def against(self, metric: str, method: str, horizon: int, *, baseline: str = COPY) -> Interval:
        """`method` minus `baseline`, paired by clip."""
        first = self._column(self.true_actions, metric, method, horizon)
        return paired_interval(first, self._column(self.true_actions, metric, baseline, horizon))

    def controllability(self, metric: str, method: str, horizon: int) -> Interval:
        """`method` under the true actions minus `method` under another episode's, paired by clip."""
        first = self._column(self.true_actions, metric, method, horizon)
        return paired_interval(first, self._column(self.other_actions, metric, method, horizon))

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file: intervals, paired differences and the numbers of every clip."""
        everywhere = [
            (metric.key, method, horizon)
            for metric in self.metrics
            for method in self.true_actions[metric.key]
            for horizon in self.horizons
        ]
        return {
            "horizons": list(self.horizons),
            "clips": self.clips,
            "mean": _nested({where: self.mean(*where).to_json() for where in everywhere}),
            "against_copy": _nested(
                {where: self.against(*where).to_json() for where in everywhere if where[1] in self.methods}
            ),
            "controllability": _nested(
                {
                    where: self.controllability(*where).to_json()
                    for where in everywhere
                    if where[1] in self.other_actions[where[0]]
                }
            ),
            "probes": {name: error.to_json() for name, error in self.probes.items()},
            "per_clip": {"true_actions": _plain(self.true_actions), "other_actions": _plain(self.other_actions)},
        }

    def _column(self, table: Table, metric: str, method: str, horizon: int) -> Float[Tensor, " b"]:
        if metric not in table or method not in table[metric] or horizon not in self.horizons:
            raise ConfigError(
                f"no {metric} of {method!r} at horizon {horizon}: measured are {sorted(table)}, "
                f"of {sorted({name for methods in table.values() for name in methods})}, at {list(self.horizons)}."
            )
        return table[metric][method][:, self.horizons.index(horizon)]


def score_rollouts(
    clips: Clips,
    predictions: Mapping[str, UInt8[Tensor, "b t c h w"]],
    *,
    other_actions: Mapping[str, UInt8[Tensor, "b t c h w"]],
    horizons: Sequence[int] = HORIZONS,
    effector_probe: EffectorFinder | None = None,
    object_probe: ObjectFinder | None = None,
    moved: float = 3.0,
    depths: Mapping[str, Float[Tensor, "b t 1 h w"]] | None = None,
    other_depths: Mapping[str, Float[Tensor, "b t 1 h w"]] | None = None,
    lpips: PictureDistance | None = None,
) -> RolloutScores:
    """Score predicted clips frame by frame.

    Args:
        clips: the truth; without `scene` there are no position errors.
        predictions: what each method predicts after the last context frame, under the true actions.
        other_actions: what some of the methods predict from the same start under another episode's actions.
        horizons: frames after the last context frame to score, counted from 1.
        effector_probe: finds the hand or gripper; used if it passes its own gate.
        object_probe: finds marked objects; used if it passes its own gate.
        moved: an object counts from the time it is this many pixels from where it started.
        depths: the depth in metres that each method predicts; scored where the clips have the true one.
        other_depths: the depth of those in `other_actions`.
        lpips: a distance between pictures that was fitted to what people see.

    Raises:
        DataError: if a prediction's shape is not that of the truth, or depth is given of some methods only.
        ConfigError: if a horizon lies beyond the truth, or other actions are given for an unknown method.
    """
    length = clips.truth.shape[1]
    if not horizons or min(horizons) < 1 or max(horizons) > length:
        raise ConfigError(f"horizons must lie between 1 and the {length} true frames, got {list(horizons)}.")
    if unknown := set(other_actions) - set(predictions):
        raise ConfigError(f"other_actions names {sorted(unknown)}, but predictions are of {sorted(predictions)}.")
    for name, frames in [*predictions.items(), *other_actions.items()]:
        if frames.shape != clips.truth.shape:
            raise DataError(
                f"the prediction of {name!r} has shape {tuple(frames.shape)}, the truth {tuple(clips.truth.shape)}. "
                "Predict every frame after the last context frame, and only those."
            )
    index = torch.tensor(horizons) - 1
    truth = clips.truth[:, index]
    copied = clips.last_context[:, None].expand_as(truth)
    methods = {name: frames[:, index] for name, frames in predictions.items()} | {COPY: copied}
    others = {name: frames[:, index] for name, frames in other_actions.items()}

    true_table, other_table = (_picture_scores(clips.last_context, truth, group, lpips) for group in (methods, others))
    if clips.depth is not None:
        depths, other_depths = depths or {}, other_depths or {}
        if depths.keys() != predictions.keys() or other_depths.keys() != other_actions.keys():
            raise DataError(
                f"expected the depth of {sorted(predictions)}, and under other actions of {sorted(other_actions)}, got "
                f"{sorted(depths)} and {sorted(other_depths)}"
            )
        moving = moving_pixels(unit_range(truth), unit_range(clips.last_context))
        still = clips.depth.last_context[:, None].expand_as(clips.depth.truth)
        for table, group in ((true_table, {**depths, COPY: still}), (other_table, other_depths)):
            table.update(_depth_scores(clips.depth, moving, index, group))
    probes: dict[str, ProbeError] = {}
    if clips.scene is not None and effector_probe is not None:
        probes["effector"] = effector_probe.error
        if effector_probe.error.valid:
            for table, group in ((true_table, methods | {TRUTH: truth}), (other_table, others)):
                table.update(_effector_scores(effector_probe, clips.scene, index, group))
    if clips.scene is not None and object_probe is not None:
        probes["object"] = object_probe.error
        if object_probe.error.valid:
            for table, group in ((true_table, methods | {TRUTH: truth}), (other_table, others)):
                table.update(_object_scores(object_probe, clips, clips.scene, index, group, moved))
    return RolloutScores(
        horizons=tuple(horizons),
        clips=len(truth),
        true_actions=true_table,
        other_actions=other_table,
        probes=probes,
    )


def _picture_scores(
    last_context: UInt8[Tensor, "b c h w"],
    truth: UInt8[Tensor, "b t c h w"],
    group: Mapping[str, Tensor],
    lpips: PictureDistance | None,
) -> dict[str, dict[str, Tensor]]:
    true = unit_range(truth)
    moving = moving_pixels(true, unit_range(last_context))
    table: dict[str, dict[str, Tensor]] = {"psnr": {}, "ssim": {}, "moving_psnr": {}, "sharpness": {}}
    table |= {} if lpips is None else {"lpips": {}}
    for name, frames in group.items():
        predicted = unit_range(frames)
        table["psnr"][name] = psnr(predicted, true)
        table["ssim"][name] = ssim(predicted, true)
        table["moving_psnr"][name] = moving_psnr(predicted, true, moving).frame
        table["sharpness"][name] = gradient_energy_ratio(predicted, true, moving)
        if lpips is not None:
            table["lpips"][name] = lpips(predicted.flatten(0, 1), true.flatten(0, 1)).unflatten(0, true.shape[:2])
    return table


def _depth_scores(
    depth: DepthTruth, moving: Bool[Tensor, "b t h w"], index: Tensor, group: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Over all pixels that count, and over those that move in the true picture, as `moving_psnr` has them."""
    true, counted = depth.truth[:, index, 0], depth.counted[:, index, 0]
    found = {name: metres[:, index, 0] for name, metres in group.items()}
    return {
        "depth_error": {name: depth_error(metres, true, counted) for name, metres in found.items()},
        "moving_depth_error": {name: depth_error(metres, true, counted & moving) for name, metres in found.items()},
    }


def _effector_scores(
    probe: EffectorFinder, scene: SceneTruth, index: Tensor, group: Mapping[str, UInt8[Tensor, "b t c h w"]]
) -> dict[str, dict[str, Tensor]]:
    table: dict[str, dict[str, Tensor]] = {"effector_error": {}, "effector_found": {}}
    visible = scene.effector_visible[:, index]
    for name, frames in group.items():
        located = probe.locate(frames.flatten(0, 1))
        height, width = frames.shape[-2:]
        error = position_error(
            located, scene.effector[:, index].flatten(0, 1), height=height, width=width, undetected="farthest"
        )
        table["effector_error"][name] = torch.where(visible, error.view_as(visible), torch.nan)
        table["effector_found"][name] = torch.where(visible, located.found.view_as(visible).float(), torch.nan)
    return table


def _object_scores(
    probe: ObjectFinder,
    clips: Clips,
    scene: SceneTruth,
    index: Tensor,
    group: Mapping[str, UInt8[Tensor, "b t c h w"]],
    moved: float,
) -> dict[str, dict[str, Tensor]]:
    """Mean over the moved objects of each clip; a clip in which none has moved yet has no number."""
    height, width = clips.truth.shape[-2:]
    true = scene.objects[:, index]
    shift = ((true - scene.objects_start[:, None]) * true.new_tensor([width, height])).norm(dim=-1)
    marked = scene.masks.sum(dim=(-2, -1)) >= MIN_VISIBLE_PIXELS
    asked = scene.objects_visible[:, index] & marked[:, None] & (shift >= moved)
    clip, time, which = asked.nonzero(as_tuple=True)
    table: dict[str, dict[str, Tensor]] = {"object_error": {}, "object_found": {}}
    for name, frames in group.items():
        located = probe.locate(clips.last_context[clip], scene.masks[clip, which], frames[clip, time])
        error = position_error(located, true[clip, time, which], height=height, width=width, undetected="farthest")
        for key, value in (("object_error", error), ("object_found", located.found.float())):
            spread = torch.full(asked.shape, torch.nan)
            spread[asked] = value
            table[key][name] = spread.nanmean(dim=-1)
    return table


def _nested(flat: Mapping[tuple[str, str, int], object]) -> dict[str, dict[str, dict[str, object]]]:
    nested: dict[str, dict[str, dict[str, object]]] = {}
    for (metric, method, horizon), value in flat.items():
        nested.setdefault(metric, {}).setdefault(method, {})[str(horizon)] = value
    return nested


def _plain(table: Table) -> dict[str, dict[str, list[list[float | None]]]]:
    return {
        metric: {
            method: [[round(x, 5) if math.isfinite(x) else None for x in row] for row in values.tolist()]
            for method, values in methods.items()
        }
        for metric, methods in table.items()
    }
