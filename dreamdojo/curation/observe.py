"""Looking at a recording: what was measured at which moment, and at which moments to measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamdojo.curation.clips import Piece
from dreamdojo.curation.hands import FindHands, Hand, contact_evidence
from dreamdojo.curation.motion import measure_motion
from dreamdojo.curation.quality import measure_quality
from dreamdojo.curation.settings import CurateSettings, LookSettings, StageName
from dreamdojo.video import Look


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one look, or one keyframe, has shown. A number is None where its stage was off or had nothing to go by."""

    time: float
    """Seconds since the video's first frame."""
    brightness: float | None = None
    clipped: float | None = None
    blur: float | None = None
    change: float | None = None
    camera: float | None = None
    moving: float | None = None
    explained: float | None = None
    contact: float | None = None
    hands: tuple[Hand, ...] | None = None
    keyframe: bool = False
    """Only asked for hands."""

    def to_json(self) -> dict[str, Any]:
        """Numbers that JSON knows, rounded; what is None is left out."""
        raw: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name == "hands":
                value = None if value is None else [hand.to_json() for hand in value]
            elif isinstance(value, float):
                value = round(value, 5)
            if value is not None and value is not False:
                raw[each.name] = value
        return raw

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Observation:
        """The inverse of `to_json`."""
        hands = raw.get("hands")
        return cls(**{**raw, "hands": None if hands is None else tuple(Hand.from_json(hand) for hand in hands)})


def observe(
    look: Look, stages: Sequence[StageName], find_hands: FindHands | None, settings: CurateSettings
) -> Observation:
    """Measure what the stages need.

    Args:
        look: one or two frames.
        stages: those that judge.
        find_hands: asked for the hands in the first frame; None where the hands stage is off.
        settings: thresholds that decide what is worth measuring.
    """
    values: dict[str, Any] = {}
    if "quality" in stages:
        values |= dataclasses.asdict(measure_quality(look.frames))
    hands = None if find_hands is None else tuple(find_hands(look.frames[0], look.timestamp))
    if len(look.frames) > 1 and ("motion" in stages or hands):
        motion = measure_motion(look.frames[0], look.frames[1], gap=look.gap)
        values |= {"camera": motion.camera, "moving": motion.moving, "explained": motion.explained}
        if hands is not None and settings.hands.require_contact:
            values["contact"] = contact_evidence(look.frames[0], look.frames[1], motion, hands)
    return Observation(time=look.timestamp, hands=hands, **values)


def even_times(duration: float, spans: Sequence[tuple[float, float]], looks: LookSettings) -> np.ndarray:
    """Moments `every` seconds apart inside spans of a recording."""
    times = np.arange(looks.every / 2, max(duration - looks.gap, looks.every / 2 + 1e-6), looks.every)
    inside = np.zeros(len(times), dtype=bool)
    for start, end in spans:
        inside |= (times >= start) & (times < end)
    return times[inside]


def further_times(pieces: Sequence[Piece], seen: np.ndarray, looks: LookSettings) -> np.ndarray:
    """Moments that are still missing where a piece was looked at fewer than `per_clip` times.

    Args:
        pieces: those that are still in.
        seen: moments already looked at.
        looks: how many are wanted.
    """
    more: list[float] = []
    for piece in pieces:
        have = ((seen >= piece.start) & (seen < piece.end)).sum()
        if have < looks.per_clip:
            last = max(piece.start, piece.end - looks.gap - 0.05)
            step = (last - piece.start) / looks.per_clip
            more += [piece.start + step * (number + 0.5) for number in range(looks.per_clip)]
    return np.unique(np.round(more, 3))


def without_hands(times: np.ndarray, keyframes: Sequence[Observation], looks: LookSettings) -> np.ndarray:
    """`(t,)` bool: enough keyframes around a moment were asked, and none showed a hand."""
    at = np.array([keyframe.time for keyframe in keyframes])
    has = np.array([bool(keyframe.hands) for keyframe in keyframes])
    result = np.zeros(len(times), dtype=bool)
    for number, time in enumerate(times):
        near = np.abs(at - time) <= looks.around if len(at) else np.zeros(0, bool)
        result[number] = near.sum() >= looks.enough_keyframes and not has[near].any()
    return result
