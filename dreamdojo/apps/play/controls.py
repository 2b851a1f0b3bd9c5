"""From an embodiment's action fields to what a person's hands do.

A command is one number in [-1, 1] per action column, the embodiment's normalised action. A column moves in one of four
ways:

    rate     springs back to rest, which is standing still: velocities and torques
    target   stays where it was put, and keys move it: joint positions, poses
    toggle   one of two ends: a gripper
    fixed    low equals high, so there is nothing to move

Columns with a well-known axis (x, y, z, yaw, ...) take a role, and with it keys, a part of the on-screen stick and a
gamepad axis. Every other column is a slider, and one slider at a time is moved by keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dreamdojo.apps.play.settings import Direction
from dreamdojo.dataset.embodiment import Embodiment, Field

Mode = Literal["rate", "target", "toggle", "fixed"]
Role = Literal["right", "forward", "up", "yaw", "pitch", "roll", "gripper"]
Sign = Literal[1, -1]

KEYS: dict[Role, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "right": (("KeyA", "ArrowLeft"), ("KeyD", "ArrowRight")),
    "forward": (("KeyS", "ArrowDown"), ("KeyW", "ArrowUp")),
    "up": (("KeyF",), ("KeyR",)),
    "yaw": (("KeyE",), ("KeyQ",)),
    "pitch": (("KeyG",), ("KeyT",)),
    "roll": (("KeyZ",), ("KeyC",)),
    "gripper": ((), ("Space",)),
}
"""Role -> `KeyboardEvent.code` of the keys against it and along it; a positive yaw turns counter-clockwise."""

ROTATIONS: dict[str, Role] = {
    **dict.fromkeys(("yaw", "rz", "wz"), "yaw"),
    **dict.fromkeys(("pitch", "ry", "wy"), "pitch"),
    **dict.fromkeys(("roll", "rx", "wx"), "roll"),
}
GRIPPER_AXES = ("opening", "gripper", "aperture")
_NO_ROLE: tuple[Role | None, Sign] = (None, 1)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One action column as an operator meets it."""

    field: str
    """Name of the action field."""
    axis: str
    """Name of the axis within it."""
    unit: str
    """Unit of `low` and `high`."""
    low: float
    """What a command of -1 means."""
    high: float
    """What a command of +1 means."""
    mode: Mode
    """How the column moves; see the module."""
    role: Role | None
    """What the column does in the picture, where that is known."""
    sign: Sign
    """Which way of the column is the way its role names."""
    negative: tuple[str, ...]
    """`KeyboardEvent.code` of the keys that drive the column towards -1."""
    positive: tuple[str, ...]
    """`KeyboardEvent.code` of the keys that drive the column towards +1, or flip a toggle."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """All columns of an embodiment's action, in order."""

    embodiment: Embodiment
    columns: tuple[Control, ...]

    @classmethod
    def of(cls, embodiment: Embodiment, *, screen_right: Direction, screen_up: Direction) -> Controls:
        """The controls of an embodiment, given which way its axes point in the picture."""
        planar: dict[str, tuple[Role, Sign]] = {
            screen_right[1]: ("right", 1 if screen_right[0] == "+" else -1),
            screen_up[1]: ("forward", 1 if screen_up[0] == "+" else -1),
        }
        columns: list[Control] = []
        taken: set[Role] = set()
        for field in embodiment.action:
            roles = [_role(field, axis, planar) for axis in field.axes]
            # a second arm does not move under the first one's keys: all of a field gets its roles, or nothing of it
            if any(role in taken for role, _ in roles):
                roles = [_NO_ROLE] * field.size
            taken.update(role for role, _ in roles if role is not None)
            columns += [_control(field, i, role, sign) for i, (role, sign) in enumerate(roles)]
        return cls(embodiment=embodiment, columns=tuple(columns))

    def rest(self, state: np.ndarray | None) -> np.ndarray:
        """The command that changes nothing, `(a,)` float32 in [-1, 1].

        Rates rest at a physical zero. Targets rest at the state (`(s,)`, in the embodiment's units) where a state field
        has the same name or the same axes and unit, else in mid-range; a gripper without a state rests open.
        """
        physical = self.embodiment.denormalize_action(np.zeros(self.embodiment.action_dim, dtype=np.float32))
        for field in self.embodiment.action:
            columns = self.embodiment.columns(field.name, of="action")
            if _is_rate(field):
                physical[columns] = 0.0
            elif state is not None and (source := self._measured_by(field)) is not None:
                physical[columns] = state[self.embodiment.columns(source, of="state")]
            elif all(column.mode == "toggle" for column in self.columns[columns]):
                physical[columns] = field.high
        return np.clip(self.embodiment.normalize_action(physical), -1.0, 1.0)

    def relaxed(self, command: np.ndarray) -> np.ndarray:
        """`command` with its rates at rest; targets and toggles stay where they are."""
        springs = np.array([column.mode == "rate" for column in self.columns], dtype=bool)
        return np.where(springs, self.rest(None), command).astype(np.float32)

    def action(self, command: np.ndarray, *, gain: float = 1.0) -> np.ndarray:
        """The action `(a,)` float32, in the embodiment's units, of a command whose rates are taken `gain` times."""
        at_rest = self.relaxed(command)
        return self.embodiment.denormalize_action(at_rest + gain * (command - at_rest))

    def still(self, action: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """The action that stops a body which did `action` and is in `state` (both in its units).

        Rates are at rest, targets stay where the body is measured to be (where they were put, if nothing measures
        them), and a gripper keeps its hold.
        """
        before = np.clip(self.embodiment.normalize_action(action), -1.0, 1.0)
        stopped = self.relaxed(before)
        if state is not None:
            targets = np.array([column.mode == "target" for column in self.columns], dtype=bool)
            measured = np.concatenate(
                [[self._measured_by(field) is not None] * field.size for field in self.embodiment.action]
            ).astype(bool)
            stopped = np.where(targets & measured, self.rest(state), stopped)
        return self.embodiment.denormalize_action(stopped.astype(np.float32))

    def _measured_by(self, field: Field) -> str | None:
        for other in self.embodiment.state:
            same = other.name == field.name and other.size == field.size
            if same or (other.axes == field.axes and other.unit == field.unit):
                return other.name
        return None


def _role(field: Field, axis: str, planar: dict[str, tuple[Role, Sign]]) -> tuple[Role | None, Sign]:
    if field.size == 1 and (axis in GRIPPER_AXES or "gripper" in field.name):
        return "gripper", 1
    if axis in planar:
        return planar[axis]
    return ("up" if axis == "z" else ROTATIONS.get(axis)), 1


def _control(field: Field, index: int, role: Role | None, sign: Sign) -> Control:
    against, along = KEYS[role] if role is not None else ((), ())
    if field.low[index] == field.high[index]:
        mode: Mode = "fixed"
    elif role == "gripper":
        mode = "toggle"
    else:
        mode = "rate" if _is_rate(field) else "target"
    return Control(
        field=field.name,
        axis=field.axes[index],
        unit=field.unit,
        low=field.low[index],
        high=field.high[index],
        mode=mode,
        role=role,
        sign=sign,
        negative=against if sign > 0 else along,
        positive=along if sign > 0 else against,
    )


def _is_rate(field: Field) -> bool:
    return field.integrates is not None or field.resampling == "mean"
