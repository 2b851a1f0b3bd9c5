"""Keeping up with the clock: when a period costs more than it lasts, the prediction becomes cheaper, never late."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much is done for a prediction."""

    members: int
    """Futures side by side, whose spread says how sure it is; below 2 it does not say."""
    steps: int | None
    """Denoising steps a frame; None for those of the model."""
    every: int
    """Real frames are anchored on every so many periods; 0 shows the late picture alone."""
    scale: float
    """Size of the pictures sent."""


LEVELS = (
    Level(members=4, steps=None, every=1, scale=1.0),
    Level(members=1, steps=None, every=1, scale=1.0),
    Level(members=1, steps=1, every=1, scale=1.0),
    Level(members=1, steps=1, every=3, scale=0.75),
    Level(members=1, steps=1, every=8, scale=0.5),
    Level(members=1, steps=1, every=0, scale=0.5),
)
"""From what is wanted to what always works."""


def levels_for(steps: int) -> tuple[Level, ...]:
    """The levels that differ for a model of so many steps a frame: one of a single step has no fewer to take."""
    own = (replace(level, steps=None if (level.steps or steps) >= steps else level.steps) for level in LEVELS)
    return tuple(dict.fromkeys(own))


_MEMORY = 0.8  # of the mean load, from period to period
_TOO_MUCH, _LITTLE = 0.9, 0.35  # share of the period
_WORSE_AFTER, _BETTER_AFTER = 4, 40  # periods


class Pace:
    """Chooses the level from how long periods take."""

    def __init__(self, period: float, levels: tuple[Level, ...] = LEVELS) -> None:
        self._period = period
        self.levels = levels
        """From what is wanted to what always works."""
        self.index = 0
        """Number of the level, 0 for the best."""
        self._load = 0.0
        self._periods = 0
        self._patience = _BETTER_AFTER

    @property
    def level(self) -> Level:
        """What to do now."""
        return self.levels[self.index]

    @property
    def load(self) -> float:
        """Mean share of a period that the work takes; above 1 the clock is lost."""
        return self._load

    def took(self, seconds: float) -> None:
        """A period's work took so long."""
        share = seconds / self._period
        self._load = share if not self._periods else _MEMORY * self._load + (1 - _MEMORY) * share
        self._periods += 1
        if self._load > _TOO_MUCH and self._periods >= _WORSE_AFTER and self.index + 1 < len(self.levels):
            self._patience = min(16 * _BETTER_AFTER, 2 * self._patience)  # a level that failed is tried again later
            self._go(self.index + 1)
        elif self._load < _LITTLE and self._periods >= self._patience and self.index:
            self._go(self.index - 1)

    def _go(self, index: int) -> None:
        self.index, self._periods = index, 0
