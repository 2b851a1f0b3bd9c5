"""Arms through the `lerobot` API: a follower is a robot, a leader is a source of commands.

Both speak dictionaries: `action_features` names the numbers of an action (`shoulder_pan.pos`, ...), an observation has
the same names for what is measured, and cameras by name as `h w 3` uint8. Positions are in the package's own units,
-100 to 100 of each joint's calibrated range, and 0 to 100 for a gripper.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dreamdojo.apps.teleop.robot import require_lerobot, seen
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.world import Observation


@runtime_checkable
class Follower(Protocol):
    """The part of `lerobot.robots.Robot` that is used here."""

    name: str
    action_features: Mapping[str, Any]
    observation_features: Mapping[str, Any]
    is_connected: bool

    def connect(self) -> None:
        """Open the motors and the cameras."""
        ...

    def get_observation(self) -> Mapping[str, Any]:
        """Positions and pictures."""
        ...

    def send_action(self, action: Mapping[str, float]) -> Mapping[str, float]:
        """Go there."""
        ...

    def disconnect(self) -> None:
        """Let go."""
        ...


@runtime_checkable
class Leader(Protocol):
    """The part of `lerobot.teleoperators.Teleoperator` that is used here."""

    action_features: Mapping[str, Any]
    is_connected: bool

    def connect(self) -> None:
        """Open the motors."""
        ...

    def get_action(self) -> Mapping[str, float]:
        """Where it is held."""
        ...

    def disconnect(self) -> None:
        """Let go."""
        ...


def open_follower(kind: str, port: str, cameras: Mapping[str, Any], **options: Any) -> Follower:
    """A follower by its type in `lerobot` (e.g. `so101_follower`), on a serial port.

    Raises:
        MissingDependencyError: if `lerobot` is not installed.
        ConfigError: if it knows no such robot.
    """
    return _open("robots", kind, "make_robot_from_config", {"port": port, "cameras": dict(cameras), **options})


def open_leader(kind: str, port: str, **options: Any) -> Leader:
    """A leader by its type in `lerobot` (e.g. `so101_leader`), on a serial port.

    Raises:
        MissingDependencyError: if `lerobot` is not installed.
        ConfigError: if it knows no such leader.
    """
    return _open("teleoperators", kind, "make_teleoperator_from_config", {"port": port, **options})


def _open(family: str, kind: str, maker: str, settings: dict[str, Any]) -> Any:
    require_lerobot()
    package = importlib.import_module(f"lerobot.{family}")
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(f"lerobot.{family}.{kind}")  # registers its configuration
    config_class = package.RobotConfig if family == "robots" else package.TeleoperatorConfig
    known = config_class.get_known_choices()
    if kind not in known:
        raise ConfigError(f"lerobot knows no {kind!r} among its {family}; it has: {', '.join(sorted(known))}")
    utils = importlib.import_module(f"lerobot.{family}.utils")
    return getattr(utils, maker)(known[kind](**settings))


class LeRobotArm:
    """A follower arm as a `Robot`: its actions are joint positions, its period is kept by the wall clock."""

    simulated = False

    def __init__(self, follower: Follower, *, camera: str, fps: float = 10.0) -> None:
        """Hold a follower, connected or not, and name the camera that looks over its work.

        Raises:
            ConfigError: if it has no such camera or no joints.
        """
        self._follower = follower
        self._camera = camera
        self.fps = fps
        self._names = tuple(follower.action_features)
        cameras = [name for name, kind in follower.observation_features.items() if isinstance(kind, tuple)]
        if camera not in cameras or not self._names:
            raise ConfigError(
                f"expected a robot with joints and a camera {camera!r}, got joints {', '.join(self._names) or 'none'} "
                f"and cameras {', '.join(cameras) or 'none'}"
            )
        self.embodiment = Embodiment(
            name=f"lerobot/{follower.name}", action=_fields(self._names), state=_fields(self._names)
        )
        self._lock = threading.Lock()  # halt comes from other threads
        self._due: float | None = None

    def reset(self, *, seed: int) -> Observation:
        """Connect where needed and look; a real robot starts where it is, whatever the seed."""
        del seed
        with self._lock:
            if not self._follower.is_connected:
                self._follower.connect()
            self._due = None
            return self._look()

    def act(self, action: np.ndarray) -> Observation:
        """Send the positions, wait until the period is over, and look."""
        with self._lock:
            self._follower.send_action(dict(zip(self._names, map(float, action), strict=True)))
        now = time.monotonic()
        self._due = max(now, (self._due or now) + 1 / self.fps)
        time.sleep(max(0.0, self._due - now))
        with self._lock:
            return self._look()

    def halt(self) -> None:
        """Hold the arm where it is."""
        with self._lock:
            if self._follower.is_connected:
                found = self._follower.get_observation()
                self._follower.send_action({name: float(found[name]) for name in self._names})

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            if self._follower.is_connected:
                self._follower.disconnect()

    def _look(self) -> Observation:
        found = self._follower.get_observation()
        missing = [name for name in (*self._names, self._camera) if name not in found]
        if missing:
            raise DataError(f"the robot's observation lacks {', '.join(missing)}; it has {', '.join(found)}")
        measured = np.array([found[name] for name in self._names], np.float32)
        return seen(np.asarray(found[self._camera], np.uint8), measured)


class LeaderSource:
    """Commands from a leader arm with the joints of the robot."""

    def __init__(self, leader: Leader, embodiment: Embodiment) -> None:
        """Hold a leader, and connect it where needed.

        Raises:
            ConfigError: if it does not have the robot's joints.
        """
        wanted = _joint_names(embodiment)
        if set(wanted) != set(leader.action_features):
            raise ConfigError(
                f"expected a leader with the robot's joints ({', '.join(wanted)}), got one with "
                f"{', '.join(leader.action_features)}"
            )
        self._leader, self._names, self._embodiment = leader, wanted, embodiment
        if not leader.is_connected:
            leader.connect()

    def command(self) -> np.ndarray:
        """Where the leader is held, as a normalised command `(a,)`."""
        found = self._leader.get_action()
        values = np.array([found[name] for name in self._names], np.float32)
        return np.clip(self._embodiment.normalize_action(values), -1.0, 1.0)

    def close(self) -> None:
        """Disconnect."""
        if self._leader.is_connected:
            self._leader.disconnect()


def _fields(names: Sequence[str]) -> tuple[Field, ...]:
    def low(name: str) -> float:
        return 0.0 if "gripper" in name else -100.0

    return (
        Field(
            name="joint_position",
            axes=tuple(names),
            unit="1",
            low=tuple(low(name) for name in names),
            high=(100.0,) * len(names),
        ),
    )


def _joint_names(embodiment: Embodiment) -> tuple[str, ...]:
    return tuple(axis for field in embodiment.action for axis in field.axes)
