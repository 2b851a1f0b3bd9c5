"""How hard the tabletop is to predict, as one setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dreamdojo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Ranges from which each episode is drawn."""

    objects: tuple[int, int]
    """Fewest and most objects on the table, both possible."""
    speed: tuple[float, float]
    """Range of an actor's cruising speed, m/s."""
    top_speed: float
    """Actors never ask for more than this, m/s (the body itself can do more)."""
    turn_rate: float
    """Actors never ask for a faster yaw than this, rad/s."""
    tremor: float
    """Standard deviation of the velocity noise of an actor's hand, m/s."""
    clumsiness: float
    """Standard deviation of an actor's aim at objects, metres; large values miss the grasp."""
    gap: float
    """Free space between the objects at the start, metres."""
    camera_shift: float
    """Standard deviation of the camera's place per episode, metres."""
    camera_turn: float
    """Standard deviation of the camera's direction per episode, radians."""
    texture_contrast: float
    """Contrast of the table's pattern, 0 (plain) to 1."""

    def __post_init__(self) -> None:
        fewest, most = self.objects
        if not 1 <= fewest <= most:
            raise ConfigError(f"objects must be a range (fewest, most) with 1 <= fewest <= most, got {self.objects}")
        slow, fast = self.speed
        if not 0 < slow <= fast <= self.top_speed:
            raise ConfigError(f"speed must be a range within (0, top_speed={self.top_speed}], got {self.speed}")


GENTLE = Difficulty(
    objects=(1, 3),
    speed=(0.17, 0.25),
    top_speed=0.27,
    turn_rate=0.9,
    tremor=0.012,
    clumsiness=0.010,
    gap=0.025,
    camera_shift=0.008,
    camera_turn=0.015,
    texture_contrast=0.25,
)
"""Few objects and slow hands: two to three pixels a frame at 64 px and 10 Hz. The default of `nano`."""

NORMAL = Difficulty(
    objects=(2, 5),
    speed=(0.2, 0.34),
    top_speed=0.38,
    turn_rate=1.3,
    tremor=0.02,
    clumsiness=0.012,
    gap=0.015,
    camera_shift=0.015,
    camera_turn=0.025,
    texture_contrast=0.5,
)
"""What a person's hands do on a tidy table."""

CLUTTER = Difficulty(
    objects=(5, 8),
    speed=(0.28, 0.5),
    top_speed=0.6,
    turn_rate=2.0,
    tremor=0.03,
    clumsiness=0.014,
    gap=0.004,
    camera_shift=0.025,
    camera_turn=0.04,
    texture_contrast=0.9,
)
"""Many objects that touch each other and hands in a hurry."""

DIFFICULTIES: Mapping[str, Difficulty] = {"gentle": GENTLE, "normal": NORMAL, "clutter": CLUTTER}
"""The named difficulties."""


def find_difficulty(difficulty: Difficulty | str) -> Difficulty:
    """A difficulty by its name, or itself.

    Raises:
        ConfigError: if there is none of that name.
    """
    if isinstance(difficulty, Difficulty):
        return difficulty
    if difficulty not in DIFFICULTIES:
        raise ConfigError(f"expected a difficulty of {', '.join(DIFFICULTIES)}, got {difficulty!r}")
    return DIFFICULTIES[difficulty]
