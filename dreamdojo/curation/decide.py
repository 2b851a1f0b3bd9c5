"""One decision per piece: its scores, whether it is kept, and the stage and the reason where it is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamdojo.curation.clips import Piece
from dreamdojo.curation.observe import Observation
from dreamdojo.curation.settings import CurateSettings, StageName


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A row of `decisions.parquet`."""

    clip: str
    """Recording and times, e.g. `kitchen/a.mp4@12.00-20.00`; recording or annotation where there is no clip."""
    recording: str
    """Name of the recording."""
    group: str
    """What is never split between train and test."""
    start: float
    """Seconds in the file."""
    end: float
    """Seconds in the file."""
    text: str = ""
    """What is being done."""
    segment: str = ""
    """The annotation it comes from."""
    kept: bool = True
    """Whether it is in the dataset."""
    stage: str = ""
    """Which stage dropped it."""
    kind: str = ""
    """The same few words for the same kind of failure, so that they can be counted."""
    reason: str = ""
    """In words and numbers."""
    scores: dict[str, float] = field(default_factory=dict)
    """What was measured over its looks."""

    def dropped(self, stage: str, kind: str, reason: str) -> Decision:
        """The same row, not kept."""
        return dataclasses.replace(self, kept=False, stage=stage, kind=kind, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def clip_name(recording: str, start: float, end: float) -> str:
    """By which a clip is known: `RECORDING@START-END`, in seconds."""
    return f"{recording}@{start:.2f}-{end:.2f}"


def measure(observations: Sequence[Observation], settings: CurateSettings) -> dict[str, float]:
    """The scores of a piece from the looks that fall into it.

    Keyframes count only where there was no closer look, and only for hands.
    """
    looks = [one for one in observations if not one.keyframe]
    scores: dict[str, float] = {"looks": float(len(looks))}
    bars = settings.quality
    bad = {
        "black": [one.brightness < bars.min_brightness for one in looks if one.brightness is not None],
        "overexposed": [one.clipped > bars.max_clipped for one in looks if one.clipped is not None],
        "blurred": [one.blur > bars.max_blur for one in looks if one.blur is not None],
        "frozen": [one.change < bars.still for one in looks if one.change is not None],
    }
    scores |= {name: float(np.mean(values)) for name, values in bad.items() if values}
    for name, share in (("brightness", 50), ("blur", 50), ("camera", 50), ("explained", 50), ("moving", 80)):
        values = [value for one in looks if (value := getattr(one, name)) is not None]
        if values:
            scores[name] = float(np.percentile(values, share))
    asked = [one for one in (looks or observations) if one.hands is not None]
    if asked:
        scores["hands"] = float(np.mean([bool(one.hands) for one in asked]))
        scores["asked"] = float(len(asked))
    contact = sorted((one.contact for one in looks if one.contact is not None), reverse=True)
    if contact:
        scores["contact"] = float(np.mean(contact[:2]))
    return scores


def decide(row: Decision, stages: Sequence[StageName], settings: CurateSettings) -> Decision:
    """The row with the first objection of the stages that judge single clips, or as it is."""
    scores = row.scores
    for stage in stages:
        objection = {"quality": _quality, "motion": _motion, "hands": _hands}.get(stage, _nothing)(scores, settings)
        if objection is not None:
            return row.dropped(stage, *objection)
    return row


def _nothing(scores: dict[str, float], settings: CurateSettings) -> None:
    return None


def _quality(scores: dict[str, float], settings: CurateSettings) -> tuple[str, str] | None:
    bars = settings.quality
    for kind in ("black", "overexposed", "blurred", "frozen"):
        if scores.get(kind, 0.0) > bars.max_bad:
            return (
                kind,
                f"{kind} in {scores[kind]:.0%} of {scores['looks']:.0f} looks, at most {bars.max_bad:.0%} may be",
            )
    return None


def _motion(scores: dict[str, float], settings: CurateSettings) -> tuple[str, str] | None:
    bars = settings.motion
    if scores.get("camera", 0.0) > bars.max_camera:
        words = f"the camera turns by {scores['camera']:.2f} picture widths a second, at most {bars.max_camera:g}"
        return "camera too fast", words
    if scores.get("explained", 1.0) < bars.min_explained:
        words = f"{scores['explained']:.0%} of the texture is found again a moment later, beyond chance, at least"
        words += f" {bars.min_explained:.0%}: the camera turns too fast to be followed"
        return "camera too fast", words
    if "moving" in scores and scores["moving"] < bars.min_moving:
        words = f"{scores['moving']:.2%} of the picture moves on its own, at least {bars.min_moving:.2%} has to"
        return "nothing moves", words
    return None


def _hands(scores: dict[str, float], settings: CurateSettings) -> tuple[str, str] | None:
    bars = settings.hands
    present = scores.get("hands", 0.0)
    if present < bars.min_present:
        asked = int(scores.get("asked", 0))
        return "no hands", f"a hand in {present:.0%} of {asked} frames asked, at least {bars.min_present:.0%}"
    if bars.require_contact and scores.get("contact", 0.0) < bars.min_contact:
        words = f"contact evidence {scores.get('contact', 0.0):.3f}, at least {bars.min_contact:g}"
        return "no contact", f"{words}: nothing but the hand moves under the hand"
    return None


def piece_row(recording: str, group: str, piece: Piece) -> Decision:
    """The row of a piece before anything is measured."""
    row = Decision(
        clip=clip_name(recording, piece.start, piece.end),
        recording=recording,
        group=group,
        start=piece.start,
        end=piece.end,
        text=piece.text,
        segment=piece.segment,
    )
    return (
        row.dropped("cut", "too short" if "shorter" in piece.reason else "annotation", piece.reason)
        if piece.reason
        else row
    )
