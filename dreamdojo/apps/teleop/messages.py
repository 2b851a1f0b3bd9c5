"""What a page says to a cockpit, besides what it says to `dreamdojo play`.

The server's frames carry `notes`: the robot's status, how old the camera's picture is and how far the prediction looks
ahead, how sure it is, alarms, hazards, and a suggestion.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dreamdojo.apps.play.messages import Message

Seconds = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]


class Mode(Message):
    """Drive the dream, or the robot."""

    form = '{"type": "mode", "mode": "dream" or "robot"}'
    type: Literal["mode"]
    mode: Literal["dream", "robot"]


class Hold(Message):
    """The deadman switch is held, or not; said again and again while it is."""

    form = '{"type": "hold", "held": true or false}'
    type: Literal["hold"]
    held: bool


class Stop(Message):
    """Emergency stop. Every page may stop the robot."""

    form = '{"type": "stop"}'
    type: Literal["stop"]


class Release(Message):
    """End the emergency stop; only who drives may."""

    form = '{"type": "release"}'
    type: Literal["release"]


class LinkChange(Message):
    """What the simulated link does from now on."""

    form = '{"type": "link", "round_trip": seconds, "jitter": seconds, "loss": 0 up to 0.9}'
    type: Literal["link"]
    round_trip: Seconds
    jitter: Seconds
    loss: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)]


class Source(Message):
    """Who gives the commands: this page, a leader arm, or a hand before the page's webcam."""

    form = '{"type": "source", "source": "page", "leader" or "hand"}'
    type: Literal["source"]
    source: Literal["page", "leader", "hand"]


class Hand(Message):
    """The webcam's newest picture."""

    form = '{"type": "hand", "jpeg": a small JPEG file in base64}'
    type: Literal["hand"]
    jpeg: Annotated[str, Field(max_length=14_000)]


COCKPIT: tuple[type[Message], ...] = (Mode, Hold, Stop, Release, LinkChange, Source, Hand)
"""All of them."""
