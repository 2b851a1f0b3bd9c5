"""Where a video was cut. Only stretches between two looks that differ in colour are decoded frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdojo.curation.extras import require
from dreamdojo.video import Look, PacketTable, look_at

_SIDE = 128
_BINS = (16, 8)


@dataclass(frozen=True, kw_only=True)
class ShotSettings:
    """What counts as a cut. A recording by one camera worn on a head has none; edited film has many."""

    suspicion: float = 0.3
    """Difference of the colours of two looks from which the frames between them are decoded: 0 equal to 1 disjoint."""
    ratio: float = 3.0
    """A cut's change is at least so many times that of its neighbours (`adaptive_threshold` of PySceneDetect)."""
    min_change: float = 15.0
    """A cut's change in hue, saturation and brightness, in levels of 255, at least (`min_content_val`)."""


def find_cuts(path: Path | str, looks: Sequence[Look], packets: PacketTable, settings: ShotSettings) -> list[float]:
    """Seconds of the first frames after cuts.

    The frames of suspicious stretches go through PySceneDetect's adaptive detector. Two cuts between two looks that
    lead back to the same colours are not seen.

    Args:
        path: the video.
        looks: at the video, in their order; the closer, the fewer cuts are missed.
        packets: the file's timestamps.
        settings: what counts as a cut.

    Raises:
        MissingDependencyError: without PySceneDetect or OpenCV.
        DataError: if a stretch does not decode.
    """
    cuts = []
    colours = [(colour_histogram(look.frames[0]), colour_histogram(look.frames[-1])) for look in looks]
    for before, after, old, new in zip(looks, looks[1:], colours, colours[1:], strict=False):
        stretch = (before.timestamp, after.timestamp + after.gap)
        within = [(old[0], old[1]), (old[1], new[0]), (new[0], new[1])]
        if max(difference(first, second) for first, second in within) < settings.suspicion:
            continue
        inside = packets.times[(packets.times >= stretch[0]) & (packets.times <= stretch[1])]
        seen = list(look_at(path, inside, gap=0.0, long_side=_SIDE, packets=packets))
        places = detect_cuts(np.stack([look.frames[0] for look in seen]), settings) if len(seen) > 2 else []
        cuts += [seen[place].timestamp for place in places]
    return sorted(set(cuts))


def detect_cuts(frames: np.ndarray, settings: ShotSettings) -> list[int]:
    """Numbers of the first frames after cuts, in frames that follow each other: `t h w 3` uint8.

    Raises:
        MissingDependencyError: without PySceneDetect.
    """
    scenedetect = require("scenedetect", needed_for="The shots stage")
    detector = scenedetect.AdaptiveDetector(
        adaptive_threshold=settings.ratio, min_scene_len=1, min_content_val=settings.min_change
    )
    # what is before the first and after the last frame stands still: cuts near the ends are seen too
    padded = np.concatenate((frames[:1].repeat(4, axis=0), frames, frames[-1:].repeat(4, axis=0)))
    found: list[int] = []
    for number, frame in enumerate(padded):
        time = scenedetect.FrameTimecode(number, fps=30.0)
        found += [cut.frame_num for cut in detector.process_frame(time, np.ascontiguousarray(frame[..., ::-1]))]
    return sorted({place - 4 for place in found if 0 < place - 4 < len(frames)})


def colour_histogram(picture: np.ndarray) -> np.ndarray:
    """Shares of hues and saturations `(128,)` of a picture `h w 3` uint8."""
    cv2 = require("cv2", needed_for="The shots stage")
    small = cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA)
    planes = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([planes], [0, 1], None, list(_BINS), [0, 180, 0, 256]).ravel()
    return counts / counts.sum()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Hellinger distance of two histograms: 0 equal to 1 disjoint."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(first * second).sum())))
