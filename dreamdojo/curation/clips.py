"""From a recording to the spans and the frames of its clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dreamdojo.curation.settings import CurateSettings
from dreamdojo.curation.sources.recording import Segment
from dreamdojo.dataset.resample import choose_frames

SAME_RATE = 0.02
"""Sources this close to the dataset's rate keep all their frames."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A span of a recording that may become a clip."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    text: str = ""
    """What is being done."""
    segment: str = ""
    """The annotation it comes from."""
    reason: str = ""
    """Why it cannot become one, where that is known from its times alone."""


def cut_pieces(
    segments: Sequence[Segment] | None, duration: float, cuts: Sequence[float], settings: CurateSettings
) -> list[Piece]:
    """The pieces of a recording: its segments with `context`, cut at cuts and into equal parts of `max_seconds`.

    Where segments overlap, what they share belongs to the first. Nothing falls away: a piece that is too short, or lies
    outside the file, carries its reason.

    Args:
        segments: annotated parts by their starts; the whole recording where None.
        duration: seconds of the file.
        cuts: seconds of the first frames after cuts, rising.
        settings: lengths and margins.
    """
    parts = [Segment(start=0.0, end=duration)] if segments is None else list(segments)
    context = 0.0 if segments is None else settings.context
    pieces: list[Piece] = []
    taken = 0.0
    for part in parts:
        start, end = max(0.0, part.start - context, taken), min(part.end + context, duration)
        if part.start >= duration:
            reason = f"annotated from {part.start:.2f} s on, the video ends at {duration:.2f} s"
            pieces.append(_piece(part, part.start, part.end, reason))
            continue
        if end <= start:
            pieces.append(_piece(part, part.start, part.end, "lies within the annotation before it"))
            continue
        taken = max(taken, end)
        inside = [cut for cut in cuts if start < cut < end]
        edges = [start, *inside, end]
        for number, (left, right) in enumerate(pairwise(edges)):
            left += settings.margin if number else 0.0
            right -= settings.margin if number < len(inside) else 0.0
            if right - left < settings.min_seconds - 1e-6:
                reason = f"{max(0.0, right - left):.2f} s, shorter than {settings.min_seconds:g} s"
                pieces.append(_piece(part, left, max(left, right), reason))
                continue
            count = math.ceil((right - left) / settings.max_seconds - 1e-6)
            bounds = np.linspace(left, right, count + 1)
            pieces += [_piece(part, float(a), float(b)) for a, b in pairwise(bounds)]
    return pieces


def _piece(part: Segment, start: float, end: float, reason: str = "") -> Piece:
    return Piece(start=start, end=end, text=part.text, segment=part.name, reason=reason)


def frames_of(
    piece: Piece, timestamps: np.ndarray, source_fps: float, settings: CurateSettings
) -> tuple[list[np.ndarray], int]:
    """Which frames of a video make up a piece's clips, and at how many pauses it was cut.

    Args:
        piece: the span.
        timestamps: `(t,)` rising seconds of the video's frames.
        source_fps: average frames per second of the source.
        settings: rate and length of the clips.
    """
    first, last = np.searchsorted(timestamps, (piece.start - 1e-6, piece.end - 1e-6))
    if last - first < 2:
        return [], 0
    clips, pauses = plan_clips(timestamps[first:last], source_fps, settings)
    return [first + clip for clip in clips], pauses


def plan_clips(timestamps: np.ndarray, source_fps: float, settings: CurateSettings) -> tuple[list[np.ndarray], int]:
    """Which frames of a video make up its clips, and at how many pauses it was cut.

    A pause is a gap so long that the next frame would have to be a repeated one.

    Args:
        timestamps: `(t,)` rising seconds.
        source_fps: average frames per second of the source.
        settings: rate and length of the clips.
    """
    same_rate = source_fps <= settings.fps * (1 + SAME_RATE)
    longest = (1.5 if same_rate else 1 + SAME_RATE) / settings.fps
    cuts = np.flatnonzero(np.diff(timestamps) > longest) + 1
    per_clip = int(settings.max_seconds * settings.fps)
    clips = []
    for first, end in zip([0, *cuts], [*cuts, len(timestamps)], strict=True):
        kept = np.arange(end - first)
        if not same_rate:
            kept, _ = choose_frames(timestamps[first:end], settings.fps, source_rate=source_fps)
        clips += [first + kept[start : start + per_clip] for start in range(0, len(kept), per_clip)]
    return clips, len(cuts)
