"""What moves in a picture besides the camera: dense optical flow minus the camera's own affine motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamdojo.curation.extras import require

_POINTS = 2000
"""Flow vectors to which the camera's motion is fitted, about."""
_ROUNDS = 6
_EDGE = 12.0
"""Second differences of brightness, of both pictures together, from which there is texture."""
_SAME, _BETTER = 12, 0.05
"""Levels of 255 within which a pixel stays the same, and by which share of them a moving camera must explain more."""
_CELLS, _TOLD = 8, 8
"""Cells along each side of a picture, and textured pixels that a cell must have to be asked."""
_CHANCE = ((0.31, 0.0), (-0.31, 0.0), (0.0, 0.31), (0.0, -0.31))
"""Shifts, in sides of the picture, under which what stays the same does so by chance."""
_TELLS = 0.9
"""Share that stays the same by chance from which staying the same tells nothing."""
_NOISE = 0.35
"""Pixels of flow that are not told from none."""


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """How much has to happen, and how calm the camera has to be."""

    min_moving: float = 0.004
    """Share of the picture that moves on its own, at least in the liveliest fifth of the looks."""
    max_camera: float = 1.2
    """Picture widths per second that the camera turns, in the middle of the looks; more is a blur."""
    min_explained: float = 0.3
    """Share of the texture found again a moment later, beyond chance, in the middle of the looks; below, the camera
    turns faster than can be followed."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Motion between two frames."""

    camera: float
    """Picture widths per second that the scene moves by, the camera's doing, averaged over the picture."""
    moving: float
    """Share of the pixels that move otherwise than the camera makes them."""
    residual: np.ndarray
    """`h w 2` float32: flow without the camera's part, in pixels."""
    camera_flow: np.ndarray
    """`h w 2` float32: the camera's part."""
    explained: float
    """Share of the first frame's texture that the best camera motion leads back to in the second, beyond what a wrong
    one does: 1 all of it, 0 no more than chance; 1 also where there is nothing to go by."""


def measure_motion(first: np.ndarray, second: np.ndarray, *, gap: float) -> Motion:
    """Camera-compensated motion from `first` to `second`.

    The flow is DIS ([Kroeger et al. 2016](https://arxiv.org/abs/1603.03590)). Its camera part is the affine motion that
    explains most of the textured pixels: none at all, or one fitted by least squares whose weights fall with the
    residual, so that hands and objects have no part in it.

    Args:
        first: `h w 3` uint8.
        second: `h w 3` uint8.
        gap: seconds between them.

    Raises:
        MissingDependencyError: without OpenCV.
    """
    cv2 = require("cv2", needed_for="The motion stage")
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    flow = _dis(cv2).calc(grey[0], grey[1], None)
    camera_flow, explained = _camera_flow(cv2, grey[0], grey[1], flow)
    residual = flow - camera_flow
    width = flow.shape[1]
    return Motion(
        camera=float(np.linalg.norm(camera_flow, axis=-1).mean()) / width / max(gap, 1e-6),
        moving=float((np.linalg.norm(residual, axis=-1) > threshold(width)).mean()),
        residual=residual,
        camera_flow=camera_flow,
        explained=explained,
    )


def _camera_flow(cv2: Any, first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, float]:
    """The best of no motion and two fits, by how many textured pixels stay the same under it, and what it explains.

    Every cell of a grid has one vote, so that an arm, however large and textured, does not speak for the room: a camera
    moves only if more than half of the cells say so. What the best one explains is counted beyond chance, as in Cohen's
    kappa, so that a dull picture is not taken for one that is found again.
    """
    texture = np.abs(cv2.Laplacian(first, cv2.CV_32F, ksize=3)) + np.abs(cv2.Laplacian(second, cv2.CV_32F, ksize=3))
    textured = texture > _EDGE
    still = np.zeros_like(flow)
    cells = _in_cells(np.ones_like(first, dtype=np.float32), textured)
    told = cells >= _TOLD
    if not told.any():
        return still, 1.0

    def same(found: np.ndarray) -> np.ndarray:
        """Share of each cell's texture that is the same in `first` and in `found`."""
        return _in_cells((cv2.absdiff(found, first) < _SAME).astype(np.float32), textured)[told] / cells[told]

    candidates = [still, *(fit_camera(flow, textured, start) for start in (np.zeros(2), np.median(flow, axis=(0, 1))))]
    explained = [same(led_back(cv2, second, one)) for one in candidates]
    best = max(range(len(candidates)), key=lambda number: float(explained[number].sum()))
    gain = explained[best] - explained[0]
    clear = int((gain > _BETTER).sum()) > 2 * int((gain < -_BETTER).sum())
    chosen = best if clear and (gain > _BETTER).mean() > 0.5 else 0
    height, width = first.shape
    wrong = (np.roll(second, (round(y * height), round(x * width)), axis=(0, 1)) for x, y in _CHANCE)
    chance = float(np.mean([same(one).mean() for one in wrong]))
    beyond = (float(explained[best].mean()) - chance) / (1 - chance) if chance < _TELLS else 1.0
    return candidates[chosen], max(0.0, beyond)


def led_back(cv2: Any, picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The earlier picture as `picture` `h w ...` shows it: its pixels, fetched from where `flow` `h w 2` took them."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _in_cells(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sums of `values` under `mask` over the cells of a grid."""
    rows, columns = (np.linspace(0, side, _CELLS + 1).astype(int)[:-1] for side in values.shape)
    return np.add.reduceat(np.add.reduceat(values * mask, rows, axis=0), columns, axis=1)


def threshold(width: int) -> float:
    """Pixels of residual flow that count as motion: a third of a pixel, or 0.4 % of the width where that is more."""
    return max(_NOISE, 0.004 * width)


def fit_camera(flow: np.ndarray, textured: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The affine motion that most of the flow at textured places near a grid follows: `h w 2`.

    Args:
        flow: `h w 2` pixels.
        textured: `h w` bool, where flow can be trusted.
        start: `(2,)` the shift from which the fit begins.
    """
    height, width = flow.shape[:2]
    y, x = np.nonzero(textured)
    chosen = slice(None, None, max(1, len(y) // _POINTS))
    y, x = y[chosen], x[chosen]
    vectors = flow[y, x].astype(np.float64)
    terms = _affine_terms(x, y, width, height)
    fit = np.zeros((3, 2))
    fit[0] = start
    for _ in range(_ROUNDS):
        error = np.linalg.norm(vectors - terms @ fit, axis=1)
        scale = max(float(np.median(error)), _NOISE) if len(error) else 1.0
        weighted = terms * (1 / (1 + (error / scale) ** 2) ** 2)[:, None]
        fit = np.linalg.solve(weighted.T @ terms + 1e-6 * np.eye(3), weighted.T @ vectors)
    every_y, every_x = np.mgrid[:height, :width]
    return (_affine_terms(every_x.ravel(), every_y.ravel(), width, height) @ fit).reshape(height, width, 2).astype("f4")


def _affine_terms(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.stack([np.ones(len(x)), x / width - 0.5, y / height - 0.5], axis=1)


_flow: Any = None


def _dis(cv2: Any) -> Any:
    global _flow
    if _flow is None:
        _flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return _flow
