"""Depth as a picture for people: near is warm, far is cold, on a scale that is even in log(metres)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np


def colour_depth(metres: np.ndarray, near: float, far: float) -> np.ndarray:
    """`*t h w` metres -> `*t h w 3` uint8; black where nothing was measured (0, below 2 cm, or not finite)."""
    missing = ~np.isfinite(metres) | (metres <= 0.02)
    inside = np.clip(np.where(missing, far, metres), near, far)
    share = np.log(inside / near) / math.log(far / near)
    colours = _colours()[np.rint(255 * (1 - share)).astype(np.uint8)]
    return np.where(missing[..., None], np.uint8(0), colours)


@cache
def _colours() -> np.ndarray:
    from matplotlib import colormaps

    return np.rint(255 * colormaps["turbo"](np.arange(256))[:, :3]).astype(np.uint8)
