"""Embodiments: a body declared by named fields with units and ranges, never guessed from a folder name.

An embodiment travels with its dataset as `meta/embodiment.json`. Actions reach a model normalised field by field to
about [-1, 1] with the declared range: `2 (x - low) / (high - low) - 1`, not clipped, and 0 where low equals high.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dreamdojo.errors import ConfigError, DataError

Resampling = Literal["mean", "last"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """A named group of numbers in an action or a state, e.g. the gripper's velocity in m/s."""

    name: str
    """What the numbers are, e.g. `end_effector_velocity`."""
    axes: tuple[str, ...]
    """One name per number, e.g. `("x", "y", "z")`."""
    unit: str
    """SI unit or `"1"` for a pure number."""
    low: tuple[float, ...]
    """Value that normalises to -1, one per axis."""
    high: tuple[float, ...]
    """Value that normalises to +1, one per axis."""
    resampling: Resampling = "last"
    """How several source steps become one at a lower rate: rates are averaged, targets keep their last value."""
    integrates: str | None = None
    """The state field that this field is the time derivative of, where it is one."""

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.low) == len(self.high):
            raise ConfigError(
                f"field {self.name}: expected one low and one high per axis, got {len(self.axes)} axes, "
                f"{len(self.low)} low and {len(self.high)} high values"
            )

    @property
    def size(self) -> int:
        """How many numbers the field holds."""
        return len(self.axes)


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """A body: what its actions and its proprioceptive state mean."""

    name: str
    """Identifies the body and its control mode, e.g. `dojo_arm/end_effector_velocity`."""
    action: tuple[Field, ...] = ()
    """Fields of one action, in order; empty for video without actions."""
    state: tuple[Field, ...] = ()
    """Fields of the proprioceptive state, in order; may be empty."""

    @property
    def action_dim(self) -> int:
        """Width of one action."""
        return sum(field.size for field in self.action)

    @property
    def state_dim(self) -> int:
        """Width of the state."""
        return sum(field.size for field in self.state)

    def action_names(self) -> list[str]:
        """`field.axis` for each action column, in order."""
        return [f"{field.name}.{axis}" for field in self.action for axis in field.axes]

    def state_names(self) -> list[str]:
        """`field.axis` for each state column, in order."""
        return [f"{field.name}.{axis}" for field in self.state for axis in field.axes]

    def columns(self, field_name: str, *, of: Literal["action", "state"]) -> slice:
        """Columns that `field_name` takes in an action or a state.

        Raises:
            ConfigError: if the embodiment declares no such field.
        """
        start = 0
        fields = self.action if of == "action" else self.state
        for field in fields:
            if field.name == field_name:
                return slice(start, start + field.size)
            start += field.size
        known = ", ".join(field.name for field in fields) or "none"
        raise ConfigError(f"embodiment {self.name} has no {of} field {field_name!r}; it declares: {known}")

    def normalize_action(self, action: np.ndarray) -> np.ndarray:
        """Actions `(..., action_dim)` in the body's units -> about [-1, 1], float32."""
        low, high = self._action_range()
        self._check_width(action)
        span = np.where(high > low, high - low, 1.0)
        return np.where(high > low, 2 * (action - low) / span - 1, 0.0).astype(np.float32)

    def denormalize_action(self, action: np.ndarray) -> np.ndarray:
        """The inverse of `normalize_action`; constant columns come back as their constant."""
        low, high = self._action_range()
        self._check_width(action)
        return (low + (np.asarray(action) + 1) / 2 * (high - low)).astype(np.float32)

    def integrate(self, state: np.ndarray, action: np.ndarray, dt: float) -> np.ndarray | None:
        """The state `dt` seconds after `state` under `action`, from the fields that declare what they integrate.

        State columns that no action field integrates are kept, and an integrated one stays within its declared range,
        as a body stops at its limits. Returns None when no field integrates anything, so that a caller never mistakes
        a frozen state for a predicted one.
        """
        if not any(field.integrates for field in self.action):
            return None
        new_state = np.array(state, dtype=np.float32, copy=True)
        limits = {field.name: (field.low, field.high) for field in self.state}
        for field in self.action:
            if field.integrates is not None:
                target = self.columns(field.integrates, of="state")
                moved = new_state[..., target] + action[..., self.columns(field.name, of="action")] * dt
                new_state[..., target] = np.clip(moved, *limits[field.integrates])
        return new_state

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for `meta/embodiment.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Embodiment:
        """The inverse of `to_dict`.

        Raises:
            DataError: if a key is missing or unknown.
        """
        try:
            return cls(name=raw["name"], **{part: tuple(map(_field, raw[part])) for part in ("action", "state")})
        except (KeyError, TypeError) as error:
            raise DataError(
                f"not an embodiment declaration: {error}. Expected the keys name, action and state, each field with "
                "name, axes, unit, low and high."
            ) from error

    def _action_range(self) -> tuple[np.ndarray, np.ndarray]:
        low = [value for field in self.action for value in field.low]
        high = [value for field in self.action for value in field.high]
        return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)

    def _check_width(self, action: np.ndarray) -> None:
        if action.shape[-1] != self.action_dim:
            raise DataError(
                f"embodiment {self.name} takes actions of width {self.action_dim} "
                f"({', '.join(self.action_names())}), got {action.shape[-1]}"
            )


def _field(raw: dict[str, Any]) -> Field:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Field(**values)
