"""Metric depth as LeRobot's 12-bit depth video: metres <-> codes 0 to 4095, evenly spaced in log(metres + shift).

    code = round(4095 * (log(d + shift) - log(min + shift)) / (log(max + shift) - log(min + shift)))

With the default range a code is 1.2 mm wide at 0.1 m, 1.5 mm at 1 m and 4.4 mm at 10 m; a depth comes back within half
of that. Depth outside the range comes back as the end of the range. The stream itself is lossless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamdojo.errors import ConfigError, DataError

MAX_CODE = 4095


@dataclass(frozen=True, kw_only=True)
class DepthRange:
    """How metres map to 12-bit codes. The defaults are LeRobot's."""

    min: float = 0.01
    """Metres of code 0."""
    max: float = 10.0
    """Metres of code 4095."""
    shift: float = 3.5
    """Metres added before the logarithm: larger spreads the codes more evenly."""
    log: bool = True
    """Logarithmic codes (finer when near); otherwise linear ones."""

    def __post_init__(self) -> None:
        if not self.max > self.min or (self.log and self.min + self.shift <= 0):
            raise ConfigError(
                f"a depth range needs max > min and min + shift > 0, got min={self.min}, max={self.max}, "
                f"shift={self.shift}"
            )

    def quantize(self, depth: np.ndarray) -> np.ndarray:
        """Metres (any shape) -> codes 0 to 4095, uint16.

        Raises:
            DataError: if a depth is NaN.
        """
        if np.isnan(depth).any():
            raise DataError("expected depth in metres, found NaN. Write a depth of 0 where nothing was measured.")
        bounded = np.clip(np.asarray(depth, dtype=np.float64), self.min, self.max)
        low, high = self._ends()
        value = np.log(bounded + self.shift) if self.log else bounded
        return np.rint((value - low) / (high - low) * MAX_CODE).astype(np.uint16)

    def dequantize(self, codes: np.ndarray) -> np.ndarray:
        """Codes -> metres, float32; the inverse of `quantize` within `error`."""
        low, high = self._ends()
        value = low + codes.astype(np.float64) * ((high - low) / MAX_CODE)
        return (np.exp(value) - self.shift if self.log else value).astype(np.float32)

    def error(self, depth: np.ndarray) -> np.ndarray:
        """The most by which a depth inside the range can come back wrong, in metres: half a code, widened by 1 um."""
        low, high = self._ends()
        step = (high - low) / MAX_CODE
        if not self.log:
            return np.full_like(depth, step / 2 + 1e-6)
        return (np.asarray(depth) + self.shift) * (math.exp(step / 2) - 1) + 1e-6

    def to_info(self) -> dict[str, Any]:
        """The entries of a depth feature's `info`, as LeRobot names them."""
        return {
            "is_depth_map": True,
            "video.is_depth_map": True,
            "depth_unit": "m",
            "video.depth_min": self.min,
            "video.depth_max": self.max,
            "video.shift": self.shift,
            "video.use_log": self.log,
        }

    @classmethod
    def from_info(cls, info: Mapping[str, Any], *, of: str) -> DepthRange:
        """The range that a depth feature of LeRobot 0.6 or later declares.

        Raises:
            DataError: naming `of`, the feature, if it does not say how its codes map to metres.
        """
        try:
            return cls(
                min=info["video.depth_min"],
                max=info["video.depth_max"],
                shift=info["video.shift"],
                log=info["video.use_log"],
            )
        except KeyError as error:
            raise DataError(
                f"{of}: expected {error} in the depth feature's info, found {sorted(info)}. "
                "Without it the 12-bit codes have no unit."
            ) from error

    def _ends(self) -> tuple[float, float]:
        if self.log:
            return math.log(self.min + self.shift), math.log(self.max + self.shift)
        return self.min, self.max


def stream_info(feature: Mapping[str, Any]) -> dict[str, Any]:
    """What a video feature of `info.json` says about its stream, under either of LeRobot's names for that."""
    return {**(feature.get("video_info") or {}), **(feature.get("info") or {})}


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Whether a feature of `info.json` is a depth stream, in any of LeRobot's spellings."""
    info = stream_info(feature)
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))
