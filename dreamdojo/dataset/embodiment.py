"""Embodiments: a body declared by named fields with units and ranges, never guessed from a folder name.

An embodiment travels with its dataset as `meta/embodiment.json`. Actions reach a model normalised field by field to
about [-1, 1] with the declared range: `2 (x - low) / (high - low) - 1`, not clipped, and 0 where low equals high. The
bodies of the published system are declared in `dataset/published.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from dreamdojo.errors import ConfigError, DataError, reading

Resampling = Literal["mean", "last", "first"]


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
    """How several source steps become one at a lower rate: rates are averaged (`mean`), targets keep their last value
    (`last`), or the command given at the kept frame stands for all (`first`)."""
    integrates: str | None = None
    """The state field that this field is the time derivative of, where it is one."""
    source: tuple[int, int] | None = None
    """First and one-past-last column of the dataset's action or state that hold the field; None where the fields stand
    side by side in the declared order."""

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.low) == len(self.high):
            raise ConfigError(
                f"field {self.name}: expected one low and one high per axis, got {len(self.axes)} axes, "
                f"{len(self.low)} low and {len(self.high)} high values"
            )
        if self.resampling not in get_args(Resampling):
            raise ConfigError(f"field {self.name}: expected resampling {get_args(Resampling)}, got {self.resampling!r}")
        if self.source is not None and (self.source[0] < 0 or self.source[1] - self.source[0] != self.size):
            raise ConfigError(
                f"field {self.name}: expected a source of {self.size} columns, got columns {self.source[0]} to "
                f"{self.source[1]}"
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
    relative: bool = False
    """Whether the model is given each normalised action minus the last one before its chunk."""
    slot: int | None = None
    """First column of this body in a wide action of fixed slots; None where the body has an adapter of its own."""

    def __post_init__(self) -> None:
        for part, fields in (("action", self.action), ("state", self.state)):
            placed = [field.name for field in fields if field.source is not None]
            if placed and len(placed) != len(fields):
                raise ConfigError(
                    f"embodiment {self.name}: expected a source for every {part} field or for none, got one for "
                    f"{', '.join(placed)} only"
                )
        if self.slot is not None and self.slot < 0:
            raise ConfigError(f"embodiment {self.name}: expected a slot from 0 on, got {self.slot}")

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

    def side_by_side(self) -> Embodiment:
        """The same body in a dataset of its own, whose columns are its fields in the declared order."""
        parts = {
            part: tuple(dataclasses.replace(field, source=None) for field in fields)
            for part, fields in (("action", self.action), ("state", self.state))
        }
        return dataclasses.replace(self, **parts)

    def normalize_action(self, action: np.ndarray) -> np.ndarray:
        """Actions `(..., action_dim)` in the body's units -> about [-1, 1], float32."""
        return self._normalize(action, "action")

    def normalize_state(self, state: np.ndarray) -> np.ndarray:
        """States `(..., state_dim)` in the body's units -> about [-1, 1], float32."""
        return self._normalize(state, "state")

    def denormalize_action(self, action: np.ndarray) -> np.ndarray:
        """The inverse of `normalize_action`; constant columns come back as their constant."""
        low, high = _range(self.action)
        self._check_width(action, "action")
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

    def within_limits(self, state: np.ndarray, action: np.ndarray, dt: float) -> np.ndarray:
        """What a body that stops at its limits carries out of an action `(..., a)` from a state `(..., s)` in `dt`.

        What would lead further than the declared range of the state that it moves is cut to what is left, at the limit
        or beyond it to nothing; what leads back and every other column stays as it is.

        Raises:
            DataError: if the actions have another width.
        """
        self._check_width(action, "action")
        limits = {field.name: (field.low, field.high) for field in self.state}
        carried = np.array(action, copy=True)
        for field in self.action:
            if field.integrates is not None:
                now = state[..., self.columns(field.integrates, of="state")]
                columns = self.columns(field.name, of="action")
                low, high = (np.asarray(limit, dtype=carried.dtype) for limit in limits[field.integrates])
                carried[..., columns] = np.clip(
                    carried[..., columns], np.minimum((low - now) / dt, 0), np.maximum((high - now) / dt, 0)
                )
        return carried

    def integrated(self) -> np.ndarray:
        """Which state columns `integrate` moves: `s` bool."""
        found = np.zeros(self.state_dim, dtype=bool)
        for field in self.action:
            if field.integrates is not None:
                found[self.columns(field.integrates, of="state")] = True
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for `meta/embodiment.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Embodiment:
        """The inverse of `to_dict`.

        Raises:
            DataError: if a key is missing or unknown.
        """
        with reading(
            "an embodiment, which has the keys name, action and state, each field with name, axes, unit, low and high"
        ):
            body = cls(
                name=str(raw["name"]),
                **{part: tuple(map(_field, raw[part])) for part in ("action", "state")},
                **{key: raw[key] for key in ("relative", "slot") if key in raw},  # older declarations have neither
            )
            if not all(np.isfinite(side).all() for fields in (body.action, body.state) for side in _range(fields)):
                raise ValueError(f"a low or high of {body.name} that is not finite")
            return body

    def _normalize(self, values: np.ndarray, part: Literal["action", "state"]) -> np.ndarray:
        low, high = _range(self.action if part == "action" else self.state)
        self._check_width(values, part)
        span = np.where(high > low, high - low, 1.0)
        return np.where(high > low, 2 * (values - low) / span - 1, 0.0).astype(np.float32)

    def _check_width(self, values: np.ndarray, part: Literal["action", "state"]) -> None:
        names = self.action_names() if part == "action" else self.state_names()
        if values.shape[-1] != len(names):
            raise DataError(
                f"embodiment {self.name} takes {part}s of width {len(names)} ({', '.join(names)}), "
                f"got {values.shape[-1]}"
            )


def _range(fields: tuple[Field, ...]) -> tuple[np.ndarray, np.ndarray]:
    low = [value for field in fields for value in field.low]
    high = [value for field in fields for value in field.high]
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def _field(raw: dict[str, Any]) -> Field:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Field(**values)
