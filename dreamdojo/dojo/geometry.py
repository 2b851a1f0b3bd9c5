"""Rotations and primitives. Quaternions are `(w, x, y, z)`, lengths metres, angles radians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Kind = Literal["sphere", "capsule", "ellipsoid", "cylinder", "box"]

IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """One convex solid, placed in the frame of the object it is part of."""

    kind: Kind
    """What solid it is."""
    size: Vector
    """Half sizes in MuJoCo's order: radius first, then half length for a capsule (without caps) or cylinder."""
    position: Vector = (0.0, 0.0, 0.0)
    """Centre in the object's frame, metres."""
    quaternion: Quaternion = IDENTITY
    """Orientation in the object's frame."""
    shade: float = 1.0
    """Brightness relative to the object's colour."""


def axis_angle(axis: Sequence[float], angle: float) -> Quaternion:
    """The quaternion of a turn by `angle` radians about the unit vector `axis`."""
    half = math.sin(angle / 2)
    return (math.cos(angle / 2), axis[0] * half, axis[1] * half, axis[2] * half)


def multiply(first: Sequence[float], second: Sequence[float]) -> Quaternion:
    """The rotation that applies `second`, then `first`."""
    w1, x1, y1, z1 = first
    w2, x2, y2, z2 = second
    return (
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    )


def matrix(quaternion: Sequence[float] | np.ndarray) -> np.ndarray:
    """The `(3, 3)` rotation matrix of a unit quaternion."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def from_matrix(rotation: np.ndarray) -> Quaternion:
    """The unit quaternion with `w >= 0` of a `(3, 3)` rotation matrix."""
    # The eigenvector of the largest eigenvalue of this symmetric matrix (Bar-Itzhack 2000) is well conditioned
    # everywhere, unlike the textbook branches on the trace.
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    w, x, y, z = np.linalg.eigh(symmetric)[1][:, -1]
    sign = -1.0 if w < 0 else 1.0
    return (sign * float(w), sign * float(x), sign * float(y), sign * float(z))


def yaw_of(rotation: np.ndarray) -> float:
    """Turn about the vertical of a `(3, 3)` rotation matrix, radians in (-pi, pi]."""
    return math.atan2(rotation[1, 0], rotation[0, 0])


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def look_at(position: Sequence[float], target: Sequence[float], roll: float = 0.0) -> Quaternion:
    """Orientation of a camera at `position` that looks at `target`, turned by `roll` about its line of sight."""
    back = np.subtract(position, target)
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    upright = from_matrix(np.stack([right, np.cross(back, right), back], axis=1))
    return multiply(upright, axis_angle((0, 0, 1), roll))


def lowest_point(primitive: Primitive, quaternion: Sequence[float]) -> float:
    """Height of the lowest point above the object's origin when the object is turned by `quaternion`, metres."""
    a, b, c = primitive.size
    turned = matrix(multiply(quaternion, primitive.quaternion))
    down = np.abs(turned[2])  # the world's vertical in the primitive's axes
    match primitive.kind:
        case "sphere":
            reach = a
        case "ellipsoid":
            reach = float(np.linalg.norm(down * (a, b, c)))
        case "capsule":
            reach = a + b * down[2]
        case "cylinder":
            reach = a * math.sqrt(max(0.0, 1 - down[2] ** 2)) + b * down[2]
        case "box":
            reach = float(down @ (a, b, c))
    return float((matrix(quaternion) @ primitive.position)[2] - reach)
