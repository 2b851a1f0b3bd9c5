"""A link with delay, jitter and loss: what is sent arrives later, out of order, or not at all, by a seed."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from dreamdojo.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """What the link between operator and robot does to messages."""

    up: float = 0.0
    """Delay from the operator to the robot, seconds."""
    down: float = 0.0
    """Delay from the robot to the operator, seconds."""
    jitter: float = 0.0
    """Mean of the further delay of each message, exponentially distributed, seconds."""
    loss: float = 0.0
    """Probability that a message is lost."""

    def __post_init__(self) -> None:
        if not (0 <= self.up <= 10 and 0 <= self.down <= 10 and 0 <= self.jitter <= 5 and 0 <= self.loss < 1):
            raise ConfigError(
                "expected delays of 0 to 10 s, a jitter of 0 to 5 s and a loss of 0 up to 1, got "
                f"up={self.up}, down={self.down}, jitter={self.jitter}, loss={self.loss}"
            )

    @classmethod
    def of_round_trip(cls, seconds: float, *, fps: float, jitter: float = 0.0, loss: float = 0.0) -> LinkSettings:
        """A round trip of `seconds`, the way up in whole periods of control, so that nothing waits for the next one."""
        up = int(seconds * fps / 2 + 1e-9) / fps
        return cls(up=up, down=seconds - up, jitter=jitter, loss=loss)

    @property
    def round_trip(self) -> float:
        """Both delays, seconds."""
        return self.up + self.down


class Link(Generic[T]):
    """One direction. Times are the caller's, in seconds, and never go back."""

    def __init__(self, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._travelling: list[tuple[float, int, T]] = []
        self._sent = 0
        self.lost = 0
        """Messages that will never arrive."""

    def send(self, item: T, now: float, *, delay: float, jitter: float = 0.0, loss: float = 0.0) -> None:
        """Send something, or lose it. Every message draws the same numbers, whatever the link is set to."""
        chance, wait = self._rng.random(), self._rng.exponential()
        self._sent += 1
        if chance < loss:
            self.lost += 1
        else:
            heapq.heappush(self._travelling, (now + delay + jitter * wait, self._sent, item))

    def receive(self, now: float) -> list[T]:
        """What has arrived by now, first come first."""
        arrived = []
        while self._travelling and self._travelling[0][0] <= now + 1e-9:
            arrived.append(heapq.heappop(self._travelling)[2])
        return arrived
