"""What the driver drives: something that begins at a start and goes on under commands, with pictures to show for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.messages import Command, View
from dreamdojo.apps.play.settings import Start


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What there is to see at one moment."""

    views: tuple[View, ...]
    """One per world, in the order of `Vehicle.panels`."""
    notes: Mapping[str, Any] | None = None
    """What else the page is told with the frame, as JSON has it."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A world's place on the page."""

    name: str
    """As in `View.world`."""
    label: str
    """What the page calls it."""
    cameras: tuple[str, ...]
    """Its pictures, in order."""
    depth: int
    """How many of them, at the end, show depth."""
    state: tuple[str, ...]
    """Names of its state's numbers."""


@runtime_checkable
class Vehicle(Protocol):
    """Something to drive. All of it happens on the driver's thread."""

    @property
    def controls(self) -> Controls:
        """What commands mean."""
        ...

    @property
    def fps(self) -> float:
        """Frames and actions per second."""
        ...

    @property
    def actions_per_turn(self) -> int:
        """Frames that one `advance` makes."""
        ...

    @property
    def panels(self) -> tuple[Panel, ...]:
        """What it shows."""
        ...

    def begin(self, start: Start) -> tuple[np.ndarray, Shot]:
        """Start anew: the command to begin with, normalised, and the first pictures."""
        ...

    def advance(self, command: Command) -> list[Shot]:
        """Go on under a command, for `actions_per_turn` frames."""
        ...

    def halt(self) -> None:
        """Nobody drives for now: whatever could still move is to stand still."""
        ...
