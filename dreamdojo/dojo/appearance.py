"""Colours, table patterns and light. Colours are RGB in [0, 1]; a patterned table is as fast to draw as a plain one."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

TEXTURE_SIZE = 128
"""Side of the table's pattern in texels."""

HUES = {"red": 0.0, "orange": 0.075, "yellow": 0.145, "green": 0.34, "teal": 0.47, "blue": 0.60}
"""Names and hues of the objects in training."""

HELD_OUT_HUES = {"lime": 0.235, "purple": 0.75, "pink": 0.87}
"""Names and hues of the objects in `ood_colour`, each far from any in training."""


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """One directional lamp and the light that comes from everywhere."""

    direction: tuple[float, float, float]
    """Where the lamp shines to."""
    colour: Colour
    """Of the lamp's light."""
    ambient: float
    """Brightness of the light from everywhere."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything about an episode that only changes its pictures."""

    texture: np.ndarray
    """Table pattern, `(TEXTURE_SIZE, TEXTURE_SIZE, 3)` uint8."""
    floor: Colour
    """Colour of what lies behind the table."""
    lighting: Lighting
    """The lamp."""
    camera_position: tuple[float, float, float]
    """Of the head camera, metres."""
    camera_target: tuple[float, float, float]
    """Point it looks at, metres."""
    camera_roll: float
    """Radians about its line of sight."""
    materials: dict[str, Colour]
    """Colour of each material of the body."""


def object_colour(rng: np.random.Generator, *, held_out: bool) -> tuple[str, Colour]:
    """Name and value of a random object colour."""
    hues = HELD_OUT_HUES if held_out else HUES
    name = str(rng.choice(list(hues)))
    hue, saturation, value = rng.uniform((-0.018, 0.62, 0.62), (0.018, 0.95, 0.95))
    return name, colorsys.hsv_to_rgb((hues[name] + hue) % 1, saturation, value)


def table_texture(rng: np.random.Generator, *, contrast: float, held_out: bool) -> np.ndarray:
    """A random table top, `(TEXTURE_SIZE, TEXTURE_SIZE, 3)` uint8: plain, wood, cloth, tiles or speckled stone.

    Args:
        rng: where the randomness comes from.
        contrast: strength of the pattern, 0 to 1.
        held_out: strong colours that no table in training has, instead of woods, whites and greys.
    """
    pattern = _PATTERNS[int(rng.integers(len(_PATTERNS)))](rng)
    if held_out:
        hue, saturation, value = rng.uniform((0.70, 0.35, 0.45), (0.95, 0.6, 0.75))
    elif rng.random() < 0.5:
        hue, saturation, value = rng.uniform((0.06, 0.18, 0.50), (0.11, 0.45, 0.85))  # woods
    else:
        hue, saturation, value = rng.uniform((0.50, 0.0, 0.45), (0.62, 0.10, 0.88))  # whites and greys
    base = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    shaded = base * (1 + 0.5 * contrast * pattern[..., None])
    return np.clip(shaded * 255, 0, 255).astype(np.uint8)


def lighting(rng: np.random.Generator, *, held_out: bool) -> Lighting:
    """A lamp above the table; held-out lamps are low, coloured or dim, and cast long shadows."""
    around = rng.uniform(-np.pi, np.pi)
    if held_out:
        low, colour, ambient = rng.uniform(1.2, 2.4), rng.uniform(0.3, 0.9, 3), rng.uniform(0.15, 0.3)
    else:
        low, colour, ambient = rng.uniform(0.05, 0.35), np.full(3, rng.uniform(0.45, 0.65)), rng.uniform(0.34, 0.46)
    red, green, blue = (float(channel) for channel in colour)
    return Lighting(
        direction=(float(low * np.cos(around)), float(low * np.sin(around)), -1.0),
        colour=(red, green, blue),
        ambient=float(ambient),
    )


def _smooth(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Noise in about [-1, 1] that varies over `cells` cells along each side and wraps around at the edges."""
    coarse = rng.uniform(-1, 1, cells)
    for axis, count in enumerate(cells):
        place = np.arange(TEXTURE_SIZE) * count / TEXTURE_SIZE
        left = place.astype(int)
        share = (place - left) ** 2 * (3 - 2 * (place - left))
        share = share[:, None] if axis == 0 else share[None]
        first, second = np.take(coarse, left % count, axis), np.take(coarse, (left + 1) % count, axis)
        coarse = first * (1 - share) + second * share
    return coarse


def _plain(rng: np.random.Generator) -> np.ndarray:
    return 0.25 * _smooth(rng, (4, 4))


def _wood(rng: np.random.Generator) -> np.ndarray:
    rings = int(rng.integers(5, 12))
    across = np.arange(TEXTURE_SIZE)[:, None] / TEXTURE_SIZE
    grain = np.sin(2 * np.pi * (rings * across + 0.35 * _smooth(rng, (4, 2))))
    return 0.55 * grain + 0.35 * _smooth(rng, (64, 3))


def _cloth(rng: np.random.Generator) -> np.ndarray:
    stripes = int(rng.integers(6, 14))
    line = np.sin(2 * np.pi * stripes * np.arange(TEXTURE_SIZE) / TEXTURE_SIZE)
    return 0.5 * (line[:, None] + line[None])


def _tiles(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(4, 9))
    index = np.arange(TEXTURE_SIZE) * count // TEXTURE_SIZE
    return 0.7 * rng.uniform(-1, 1, (count, count))[index[:, None], index[None]]


def _stone(rng: np.random.Generator) -> np.ndarray:
    return 0.5 * _smooth(rng, (8, 8)) + 0.5 * _smooth(rng, (40, 40))


_PATTERNS = (_plain, _wood, _cloth, _tiles, _stone)
