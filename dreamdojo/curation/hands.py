"""Hands at work: is there one, and does something that is not the hand move under it?

Contact is not seen directly. The evidence is a thing that moves with the hand: pixels around the hand whose colour
changes between two moments, where neither the old nor the new colour is the hand's. A hand that passes over a still
object swaps skin for object colour, and its shadow darkens without a change of hue; neither counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamdojo.curation.extras import require
from dreamdojo.curation.motion import Motion, led_back, threshold

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in [0, 1] of the picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hand:
    """A hand in a picture."""

    box: Box
    """Around the hand, without the forearm."""
    score: float = 1.0
    """How sure its finder is, up to 1."""
    side: str = ""
    """`left` or `right`, where known."""
    landmarks: np.ndarray | None = None
    """`(21, 2)` in [0, 1] in MediaPipe's order, where known."""

    def to_json(self) -> dict[str, Any]:
        """Box, score and side."""
        return {"box": [round(x, 4) for x in self.box], "score": round(self.score, 3), "side": self.side}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Hand:
        """The inverse of `to_json`; landmarks are not kept."""
        left, top, right, bottom = raw["box"]
        return cls(box=(left, top, right, bottom), score=raw["score"], side=raw["side"])


FindHands = Callable[[np.ndarray, float], Sequence[Hand]]
"""Hands in a picture `h w 3` that is shown at a time in seconds."""


@dataclass(frozen=True, kw_only=True)
class HandSettings:
    """What counts as a hand at work."""

    min_score: float = 0.8
    """Certainty of a detected hand, at least: so high, because two views of every picture would else let in robots."""
    min_present: float = 0.25
    """Share of the looks at a clip in which a hand is seen, at least."""
    min_contact: float = 0.004
    """Contact evidence in the mean of the two looks that have most: area that moves, in areas of the hand's box."""
    require_contact: bool = True
    """Whether a clip without contact evidence is dropped."""


_REACH = 0.25
"""How far around the hand's box is looked, in its longer side."""
_SKIN = 0.03
"""Colours closer than this are one: distance of the shares of red and green."""
_CHANGED = 0.04
"""Colours further than this are two."""
_LIKE_HAND = 0.1
"""Share of what stands still around a hand that has the hand's colour, from which colour alone does not tell a hand."""
_FEW = 20
"""Pixels that are too few to tell a colour."""


def contact_evidence(first: np.ndarray, second: np.ndarray, motion: Motion, hands: Sequence[Hand]) -> float:
    """How much of what is not hand moves around a hand: area in areas of the hand's box, the largest over the hands.

    Args:
        first: `h w 3` uint8, the picture in which the hands were found.
        second: `h w 3` uint8, a moment later.
        motion: from first to second.
        hands: those in `first`.

    Raises:
        MissingDependencyError: without OpenCV.
    """
    if not hands:
        return 0.0
    cv2 = require("cv2", needed_for="The hands stage")
    colours = [_chroma(cv2, picture) for picture in (first, led_back(cv2, second, motion.camera_flow))]
    moves = np.linalg.norm(motion.residual, axis=-1) > threshold(first.shape[1])
    skin = _skin_like(cv2, first)
    return max(_evidence(cv2, hand.box, colours, moves, skin) for hand in hands)


def _evidence(cv2: Any, box: Box, colours: list[np.ndarray], moves: np.ndarray, skin: np.ndarray) -> float:
    inside, around = _window(box, 0.0, moves.shape), _window(box, _REACH, moves.shape)
    candidates = [mask for mask in (skin[inside] & moves[inside], skin[inside]) if mask.sum() > _FEW]
    own = colours[0][inside]
    hand_colour = np.median(own[candidates[0]] if candidates else own.reshape(-1, 2), axis=0)
    before, after = (picture[around] for picture in colours)
    moving = moves[around]
    like_hand = [np.linalg.norm(picture - hand_colour, axis=-1) < _SKIN for picture in (before, after)]
    if not moving.all() and like_hand[0][~moving].mean() > _LIKE_HAND:
        near_motion = _grown(cv2, moving)
        like_hand = [mask & near_motion for mask in like_hand]
    moved = np.linalg.norm(before - after, axis=-1) > _CHANGED
    for mask in like_hand:
        moved &= ~_grown(cv2, mask)
    left = cv2.morphologyEx(moved.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return float(left.sum()) / max(moves[inside].size, 1)


def _grown(cv2: Any, mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels beside it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _chroma(cv2: Any, picture: np.ndarray) -> np.ndarray:
    """Shares of red and green `h w 2`, which a shadow leaves alone; darkness counts as grey."""
    smooth = cv2.GaussianBlur(picture, (3, 3), 0).astype(np.float32) + 3
    return (smooth / smooth.sum(axis=-1, keepdims=True))[..., :2]


def _skin_like(cv2: Any, picture: np.ndarray) -> np.ndarray:
    """Where skin of any tone may be: a box in the plane of chroma ([Chai and Ngan 1999](https://doi.org/10.1109/76.767122))."""
    planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    red, blue = planes[..., 1], planes[..., 2]
    return (red > 136) & (red < 182) & (blue > 75) & (blue < 128)


def _window(box: Box, reach: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The pixels of a box, enlarged on all sides by `reach` times its longer side."""
    height, width = shape
    left, right, top, bottom = box[0] * width, box[2] * width, box[1] * height, box[3] * height
    more = reach * max(right - left, bottom - top)
    rows = slice(max(0, int(top - more)), min(height, int(bottom + more) + 1))
    return rows, slice(max(0, int(left - more)), min(width, int(right + more) + 1))
