"""Whether a picture is worth looking at: exposure, sharpness, and whether it stands still. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)
_BLUR = 9
"""Pixels of the box with which a picture is blurred again."""


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """What a clip's pictures must be. Each share is over the looks at the clip."""

    min_brightness: float = 0.06
    """Mean brightness below which a picture is black, in [0, 1]."""
    max_clipped: float = 0.4
    """Share of a picture's pixels that are pure white, above which it is overexposed."""
    max_blur: float = 0.62
    """Blur above which a picture is not sharp, in [0, 1]."""
    still: float = 0.15
    """Mean change of a pixel within a look, in levels of 255, below which the picture is frozen."""
    max_bad: float = 0.5
    """Share of the looks that may be black, or overexposed, or blurred, or frozen."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What is measured on one look."""

    brightness: float
    """Mean, in [0, 1]."""
    clipped: float
    """Share of the pixels that are pure white."""
    blur: float
    """0 sharp to 1 blurred."""
    change: float | None
    """Mean change of a pixel to the look's second frame, in levels of 255; None without a second."""


def measure_quality(frames: np.ndarray) -> Quality:
    """Quality of a look `k h w 3` uint8, k = 1 or 2."""
    luma = frames.astype(np.float32) @ _LUMA
    change = float(np.abs(luma[1] - luma[0]).mean()) if len(luma) > 1 else None
    return Quality(
        brightness=float(luma[0].mean()) / 255,
        clipped=float((frames[0] >= 252).all(axis=-1).mean()),
        blur=blur(luma[0]),
        change=change,
    )


def blur(luma: np.ndarray) -> float:
    """How little is lost when a picture is blurred again ([Crete et al. 2007](https://doi.org/10.1117/12.702790)).

    0 is sharp, 1 is blurred; the worse of the two directions. A picture without any edge counts as blurred.
    """
    values = []
    for axis in (0, 1):
        again = _box_mean(luma, axis)
        before, after = (np.abs(np.diff(picture, axis=axis)) for picture in (luma, again))
        total = float(before.sum())
        lost = float(np.maximum(before - after, 0).sum())
        values.append(1 - lost / total if total > 0 else 1.0)
    return max(values)


def _box_mean(picture: np.ndarray, axis: int) -> np.ndarray:
    half = _BLUR // 2
    pads = [(half + 1, half) if a == axis else (0, 0) for a in range(2)]
    sums = np.cumsum(np.pad(picture, pads, mode="edge"), axis=axis, dtype=np.float64)
    later = np.take(sums, np.arange(_BLUR, sums.shape[axis]), axis)
    earlier = np.take(sums, np.arange(sums.shape[axis] - _BLUR), axis)
    return ((later - earlier) / _BLUR).astype(np.float32)
