"""What travels between page and server.

A page sends JSON texts; the classes below are all of them. The server sends JSON texts of type `hello` (once: worlds,
controls, starts), `session` (whenever it changes), `pong` and `error`, and each frame as one binary message:

    4 bytes    length of the header, little-endian
    header     JSON: sequence, episode, index, time, command, and per world its step time, state and pictures
    pictures   the encoded images back to back, in the header's order, of the header's sizes
"""

from __future__ import annotations

import functools
import json
import math
import operator
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dreamdojo.errors import DataError

Counter = Annotated[int, Field(ge=0, le=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Normalized = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class Message(BaseModel):
    """A message from a page; `type` tells which."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    form: ClassVar[str]
    """What one looks like, for the answer to one that does not."""


class Drive(Message):
    """The operator's command from now on."""

    form = (
        '{"type": "drive", "episode": count, "id": count, "time": milliseconds, '
        '"values": [one number in -1..1 per action column]}'
    )
    type: Literal["drive"]
    values: list[Normalized]
    episode: Counter
    """The episode it is meant for: what was asked of the last one does not move the next."""
    id: Counter
    """Counts the page's commands; a frame says which command made it."""
    time: Finite
    """The page's own clock, returned with the frame."""


class Reset(Message):
    """Start anew, from `start` or from where the session last started."""

    form = '{"type": "reset", "start": number of a start, or null for the same one}'
    type: Literal["reset"]
    start: Counter | None = None


class Pause(Message):
    """Stop the worlds, or let them go on."""

    form = '{"type": "pause", "paused": true or false}'
    type: Literal["pause"]
    paused: bool


class Speed(Message):
    """Real time, or as fast as the worlds go."""

    form = '{"type": "speed", "unlimited": true or false}'
    type: Literal["speed"]
    unlimited: bool


class Take(Message):
    """A viewer asks to drive; granted when nobody does."""

    form = '{"type": "take"}'
    type: Literal["take"]


class Shown(Message):
    """The page has shown this frame and those before it; only then do more follow."""

    form = '{"type": "shown", "sequence": number of a frame}'
    type: Literal["shown"]
    sequence: Counter


class Offer(Message):
    """A page offers a WebRTC data channel for frames; the answer is a text of type `answer`. Once per connection."""

    form = '{"type": "offer", "sdp": a session description}'
    type: Literal["offer"]
    sdp: Annotated[str, Field(max_length=12_000)]


class Ping(Message):
    """Asks for a `pong` with the same time."""

    form = '{"type": "ping", "time": milliseconds}'
    type: Literal["ping"]
    time: Finite


MESSAGES: tuple[type[Message], ...] = (Drive, Reset, Pause, Speed, Take, Shown, Ping)
"""Those of `dreamdojo play`; `Offer` is taken where frames may travel over WebRTC."""


class BadMessageError(DataError):
    """A message from a page that is not one of those above."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}. Expected {expected}")
        self.found = found
        self.expected = expected


class Parser:
    """Reads the messages of a page: those of play, and `more` that an app adds."""

    def __init__(self, more: Sequence[type[Message]] = ()) -> None:
        kinds = (*MESSAGES, *more)
        self._forms = {get_args(kind.model_fields["type"].annotation)[0]: kind.form for kind in kinds}
        union: Any = functools.reduce(operator.or_, kinds)
        self._adapter: TypeAdapter[Message] = TypeAdapter(Annotated[union, Field(discriminator="type")])  # pyright: ignore

    def parse(self, text: str, *, max_bytes: int) -> Message:
        """A page's message.

        Raises:
            BadMessageError: saying what was found and what was expected.
        """
        size = len(text.encode())
        if size > max_bytes:
            raise BadMessageError(f"a message of {size} bytes", f"at most {max_bytes}")
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            kind, *where = [str(part) for part in first["loc"]] or [""]
            if kind in self._forms:
                place = ".".join(where)
                found = f"{kind}{'.' + place if place else ''}: {first['msg']}"
                raise BadMessageError(found, self._forms[kind]) from error
            raise BadMessageError(
                f"not a message: {first['msg']}", "one of " + ", ".join(self._forms.values())
            ) from error


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One camera's encoded image."""

    camera: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class View:
    """What one world shows at one frame."""

    world: str
    pictures: tuple[Picture, ...]
    step_ms: float | None
    """How long the step took that made the frame; None for the first of an episode."""
    state: tuple[float, ...] | None
    state_source: str | None
    uncertainty: float | None


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the operator asks for, normalised, and the page's own stamp on it."""

    values: np.ndarray
    id: int = 0
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All worlds at one moment, under one command."""

    sequence: int
    """Counts every frame made, across episodes; a gap is what a page has missed."""
    episode: int
    index: int
    """Actions since the reset."""
    time: float
    """Seconds since the reset, in the world."""
    command: Command
    views: tuple[View, ...]
    notes: Mapping[str, Any] | None = None
    """What else the vehicle tells the page."""


@dataclass(frozen=True, kw_only=True)
class SessionState:
    """Where the session stands, apart from its pictures."""

    state: Literal["resetting", "running", "paused", "failed"]
    mode: str
    """Which vehicle is driven."""
    paused: bool
    unlimited: bool
    episode: int
    start: int
    rest: tuple[float, ...]
    """The command an episode begins with, to which velocities spring back."""
    command: tuple[float, ...]
    """The command in force, for a page that joins or takes over."""
    command_id: int
    """Its number; the page's own commands count on from it."""
    failure: str | None = None
    """Why the worlds stand still, where `state` is `failed`."""


def pack(frame: Frame) -> bytes:
    """A frame as one binary message."""
    header = {
        "type": "frame",
        "sequence": frame.sequence,
        "episode": frame.episode,
        "index": frame.index,
        "time": round(frame.time, 4),
        "command": {
            "id": frame.command.id,
            "time": frame.command.time,
            "values": [round(float(value), 4) for value in frame.command.values],
        },
        "views": [
            {
                "world": view.world,
                "step_ms": None if view.step_ms is None else round(view.step_ms, 3),
                "state": None if view.state is None else [_number(value) for value in view.state],
                "state_source": view.state_source,
                "uncertainty": None if view.uncertainty is None else _number(view.uncertainty),
                "pictures": [{"camera": picture.camera, "bytes": len(picture.data)} for picture in view.pictures],
            }
            for view in frame.views
        ],
        "notes": frame.notes,
    }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    pictures = [picture.data for view in frame.views for picture in view.pictures]
    return b"".join([struct.pack("<I", len(encoded)), encoded, *pictures])


def _number(value: float) -> float | None:
    """A number as JSON has it: what is not finite becomes null, which the page shows as a dash."""
    return round(value, 4) if math.isfinite(value) else None


def unpack(message: bytes) -> tuple[dict[str, Any], Sequence[bytes]]:
    """The header and the pictures of a binary message; what the page does, for clients in Python."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    at, pictures = 4 + length, []
    for view in header["views"]:
        for picture in view["pictures"]:
            pictures.append(message[at : at + picture["bytes"]])
            at += picture["bytes"]
    return header, pictures
