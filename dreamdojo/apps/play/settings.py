"""What a play session is made of: its worlds, where they start, and how they are served."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.world import Observation, World

Encoding = Literal["webp-lossless", "webp", "jpeg"]
Direction = Literal["+x", "-x", "+y", "-y"]


@dataclass(frozen=True, kw_only=True)
class PlayWorld:
    """A world on the page. It is reset and stepped from one thread, which is not the thread that made it."""

    world: World
    """What is driven; it stays the caller's to close."""
    from_observation: bool
    """Whether a reset hands it the start's observation (a session) or the start's seed alone (the dojo)."""
    label: str
    """What the page calls it, e.g. `Dream`."""
    depth_span: tuple[float, float] | None = None
    """Show the world's depth beside each picture, coloured from so many metres to so many; None where it has none."""

    def __post_init__(self) -> None:
        if self.depth_span is not None and not 0 < self.depth_span[0] < self.depth_span[1]:
            raise ConfigError(f"world {self.label!r}: expected a depth span of 0 < near < far, got {self.depth_span}")

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The pictures that it shows: of each camera, then of each camera's depth."""
        cameras = self.world.cameras
        return cameras if self.depth_span is None else (*cameras, *(f"{camera} depth" for camera in cameras))


@dataclass(frozen=True, kw_only=True)
class Start:
    """A place to start from, the same scene for every world."""

    name: str
    """What the page calls it."""
    thumbnail: np.ndarray
    """`h w 3` uint8."""
    observation: Observation | None
    """What a world with `from_observation` is reset to."""
    seed: int
    """The dojo's scene and a session's noise."""

    def __post_init__(self) -> None:
        shape, dtype = self.thumbnail.shape, self.thumbnail.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise DataError(
                f"start {self.name!r}: expected a thumbnail of shape h w 3 in uint8, got {shape} in {dtype}"
            )


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """How the worlds are driven and served."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8642
    """Port to listen on; 0 takes a free one."""
    allow_remote: bool = False
    """Whether `host` may be reachable from other machines. Whoever knows the token can drive."""
    rate: float | None = None
    """Frames per second at normal speed; None is the worlds' own rate, which is real time."""
    screen_right: Direction = "-y"
    """Direction of the body's frame that moves to the right in the picture."""
    screen_up: Direction = "+x"
    """Direction of the body's frame that moves away from the viewer, up in the picture."""
    gain: float = 0.5
    """Share of a velocity's declared range that a held key asks for. A body can do more than it was ever seen doing,
    and a dream of motions that nobody showed falls apart soonest."""
    encoding: Encoding = "webp-lossless"
    """How frames travel. Lossless by default, so that what a person judges is the model and not a codec."""
    quality: int = 90
    """Quality of the two lossy encodings, 1 to 100."""
    frames_in_flight: int = 2
    """Frames sent to a page before it has shown the first of them; what is made meanwhile is dropped for that page."""
    webrtc: bool = False
    """Whether frames travel over WebRTC where the page can. It opens UDP ports that other machines reach, so it needs
    `allow_remote`."""
    command_timeout: float = 1.0
    """Seconds after which velocities fall to rest when the operator's page says nothing."""
    max_message_bytes: int = 16_384
    """Longest message taken from a page."""
    messages_per_second: int = 300
    """Messages taken from a page in a second; one that says more is hung up on."""
    token: str | None = None
    """What a page must know to connect, as `?token=` of its address; None lets everyone in who can reach it. Where
    other machines can, there is always one: a random one, unless it is given."""

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= 240:
            raise ConfigError(f"rate must be above 0 and at most 240 frames per second, got {self.rate}")
        if self.screen_right[1] == self.screen_up[1]:
            raise ConfigError(
                f"screen_right and screen_up must name different axes, got {self.screen_right} and {self.screen_up}"
            )
        if not 0 < self.gain <= 1:
            raise ConfigError(f"gain must be above 0 and at most 1, got {self.gain}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be 1 to 100, got {self.quality}")
        if self.frames_in_flight < 1:
            raise ConfigError(f"frames_in_flight must be at least 1, got {self.frames_in_flight}")
        if not self.allow_remote and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached from other machines, and whoever reaches the page drives. "
                "Use 127.0.0.1, or set allow_remote if that is what you want."
            )
        if self.webrtc and not self.allow_remote:
            raise ConfigError("webrtc opens ports that other machines can reach: set allow_remote too, or leave it out")
        if self.messages_per_second < 10:
            raise ConfigError(f"messages_per_second must be at least 10, got {self.messages_per_second}")
        if self.token is None and not is_loopback(self.host):
            object.__setattr__(self, "token", secrets.token_urlsafe(16))


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
