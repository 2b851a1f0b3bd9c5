"""Cropping and resizing pictures without aliasing: Pillow's box filter, the exact area average when shrinking."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dreamdojo.errors import ConfigError, DataError

Size = int | tuple[int, int]
"""Height and width in pixels; one number means a square."""


def as_size(size: Size) -> tuple[int, int]:
    """`(height, width)` of a size.

    Raises:
        ConfigError: if a side is not positive.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ConfigError(f"a picture size must be positive, got height={height}, width={width}")
    return height, width


def center_crop_box(height: int, width: int, size: Size) -> tuple[float, float, float, float]:
    """The largest centred box of `size`'s aspect inside a `height` x `width` picture: left, top, right, bottom."""
    target_height, target_width = as_size(size)
    scale = min(height / target_height, width / target_width)
    box_height, box_width = target_height * scale, target_width * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def resize(frames: np.ndarray, size: Size, *, nearest: bool = False) -> np.ndarray:
    """Centre-crop pictures to the aspect of `size`, then resize them.

    Shrinking averages areas (rounded once per axis); enlarging is bilinear. `nearest` picks single pixels instead, for
    depth, where an average across an edge is a surface that does not exist.

    Args:
        frames: `h w 3` or `t h w 3` uint8, or `h w` or `t h w` float32 when `nearest`.
        size: target `(height, width)` or one number for a square.
        nearest: pick pixels instead of averaging.

    Returns:
        The same dtype and number of axes.

    Raises:
        DataError: if the array is not pictures of the kinds above.
    """
    target = as_size(size)
    picture_axes = 2 if nearest else 3
    if frames.ndim not in (picture_axes, picture_axes + 1) or (not nearest and frames.dtype != np.uint8):
        expected = "(t) h w" if nearest else "(t) h w 3 uint8"
        raise DataError(f"resize expects {expected}, got shape {frames.shape} of {frames.dtype}")
    height, width = frames.shape[-picture_axes : frames.ndim - picture_axes + 2]
    if (height, width) == target:
        return frames
    if nearest:
        return _pick(frames, target)
    if frames.ndim == picture_axes:
        return _resize_one(frames, target)
    out = np.empty((len(frames), *target, frames.shape[-1]), dtype=np.uint8)
    for index, frame in enumerate(frames):
        out[index] = _resize_one(frame, target)
    return out


def resize_plane(plane: np.ndarray, size: Size) -> np.ndarray:
    """One colour of a picture, `h w` uint8, the way `resize` does it with all of them: the same numbers."""
    target = as_size(size)
    return plane if plane.shape == target else _resize_one(plane, target)


def _resize_one(frame: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    box = center_crop_box(frame.shape[0], frame.shape[1], target)
    shrinks = box[3] - box[1] >= target[0] and box[2] - box[0] >= target[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(frame).resize((target[1], target[0]), method, box=box))


def _pick(frames: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    height, width = frames.shape[-2:]
    left, top, right, bottom = center_crop_box(height, width, target)
    rows = (top + (np.arange(target[0]) + 0.5) * (bottom - top) / target[0]).astype(int)
    columns = (left + (np.arange(target[1]) + 0.5) * (right - left) / target[1]).astype(int)
    return np.ascontiguousarray(frames[..., rows[:, None], columns])
