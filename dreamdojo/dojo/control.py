"""Control modes: what an action means, and what joint positions it asks for.

A mode is three functions: one declares the fields of an action, one turns an action into the next command, and one
finds the action that moves the effector as wished, so that one scripted actor demonstrates every mode.
`CONTROL_MODES` is the table of them.

A body on a mobile base takes the velocity of the base as the last field of every mode's action. Demonstrations drive it
so that the arm keeps the reach it has at rest: the arm moves first, the base follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dojo.body import Body, Link
from dreamdojo.dojo.dynamics import Dynamics
from dreamdojo.dojo.geometry import wrap, yaw_of
from dreamdojo.dojo.kinematics import Kinematics
from dreamdojo.errors import ConfigError

SPEED_LIMIT = 0.4
"""Of the effector along each axis, m/s."""
TURN_LIMIT = 1.5
"""Of the effector about the vertical, rad/s."""
JOINT_LIMIT = 2.0
"""Of each hinge, rad/s."""
BASE_LIMIT = 0.25
"""Of a mobile base along each axis, m/s."""
BASE_GAIN = 1.5
"""How fast a demonstration's base follows the arm: m/s per metre that the reach is off."""
LEAD = 0.02
"""How far the commanded effector may run ahead of the real one when something blocks it, metres."""
JOINT_LEAD = 0.15
"""How far each commanded joint may, radians."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Where the controller wants the body: the part of a simulation's state that is not physics."""

    position: np.ndarray
    """`(3,)` of the effector, metres."""
    yaw: float
    """Of the effector, radians, not wrapped."""
    joints: np.ndarray
    """`(j,)` radians; metres for the slides of a base."""
    opening: float
    """0 closed to 1 open."""
    torque: np.ndarray | None = None
    """`(h,)` N m that drive the hinges; None where they are held at `joints`."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How an actor wants the effector to move during one step."""

    velocity: np.ndarray
    """`(3,)` m/s."""
    turn: float
    """About the vertical, rad/s."""
    opening: float
    """Of the hand at the end, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What a mode needs to know besides the command."""

    body: Body
    """The body."""
    kinematics: Kinematics
    """Its kinematics in this scene."""
    dynamics: Dynamics
    """Its dynamics in this scene."""
    dt: float
    """Length of a step, seconds."""


@dataclass(frozen=True, kw_only=True)
class ControlMode:
    """What the numbers of an action mean, a mobile base left aside."""

    fields: Callable[[Body], tuple[Field, ...]]
    """Declared fields of one action."""
    advance: Callable[[Command, np.ndarray, Plant], Command]
    """The command at the end of the step that an action asks for, the base being there already."""
    demonstrate: Callable[[Command, Wish, Plant], np.ndarray]
    """The action that moves the effector as wished, the base being there already."""


def embodiment_of(body: Body, control: str) -> Embodiment:
    """The declaration of a body under a control mode.

    Raises:
        ConfigError: if there is no such mode.
    """
    if control not in CONTROL_MODES:
        raise ConfigError(f"expected a control mode of {', '.join(CONTROL_MODES)}, got {control!r}")
    low, high = body.workspace_low, body.workspace_high
    state = (
        Field(name="effector_position", axes=("x", "y", "z"), unit="m", low=low, high=high),
        Field(name="effector_yaw", axes=("yaw",), unit="rad", low=body.yaw_range[:1], high=body.yaw_range[1:]),
        Field(name="gripper_opening", axes=("opening",), unit="1", low=(0.0,), high=(1.0,)),
        *_base_position(body),
        _joint_position(body),
    )
    action = (*CONTROL_MODES[control].fields(body), *_base_velocity(body))
    return Embodiment(name=f"dojo_{body.name}/{control}", action=action, state=state)


def clip_action(embodiment: Embodiment, action: np.ndarray) -> np.ndarray:
    """The action within the declared ranges, as a real controller would saturate it."""
    low = [value for field in embodiment.action for value in field.low]
    high = [value for field in embodiment.action for value in field.high]
    return np.clip(action, low, high)


def held_back(command: Command, position: np.ndarray, joints: np.ndarray) -> Command:
    """The command, kept close to where the effector and the joints really are, so that it does not wind up."""
    ahead = command.position - position
    share = min(1.0, LEAD / max(float(np.linalg.norm(ahead)), 1e-9))
    near = np.clip(command.joints, joints - JOINT_LEAD, joints + JOINT_LEAD)
    return Command(position=position + share * ahead, yaw=command.yaw, joints=near, opening=command.opening)


def advance(mode: ControlMode, command: Command, action: np.ndarray, plant: Plant) -> Command:
    """The command at the end of the step that an action `(a,)` of a body, with its base, asks for."""
    count = len(plant.body.base)
    arm, base = action[: len(action) - count], action[len(action) - count :]
    if count:
        low, high = plant.kinematics.low[:count], plant.kinematics.high[:count]
        moved = np.clip(command.joints[:count] + base * plant.dt, low, high)
        command = replace(command, joints=np.concatenate([moved, command.joints[count:]]))
    return mode.advance(command, arm, plant)


def demonstrate(mode: ControlMode, command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    """The action `(a,)` of a body, with its base, that moves the effector as wished."""
    count = len(plant.body.base)
    if not count:
        return mode.demonstrate(command, wish, plant)
    # At rest the effector stands in its place above the base; slides move along x and y.
    reach = plant.kinematics.forward(np.array(plant.body.rest))[0][:count] - plant.body.rest[:count]
    place = command.position[:count] + wish.velocity[:count] * plant.dt - reach
    base = np.clip(BASE_GAIN * (place - command.joints[:count]), -BASE_LIMIT, BASE_LIMIT)
    there = np.clip(
        command.joints[:count] + base * plant.dt, plant.kinematics.low[:count], plant.kinematics.high[:count]
    )
    carried = replace(command, joints=np.concatenate([there, command.joints[count:]]))
    return np.concatenate([mode.demonstrate(carried, wish, plant), (there - command.joints[:count]) / plant.dt])


def _joint_position(body: Body) -> Field:
    axes, low, high = _declared(body.hinges)
    return Field(name="joint_position", axes=axes, unit="rad", low=low, high=high)


def _base_position(body: Body) -> tuple[Field, ...]:
    axes, low, high = _declared(body.base)
    return (Field(name="base_position", axes=axes, unit="m", low=low, high=high),) if axes else ()


def _declared(links: tuple[Link, ...]) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Names, lower and upper limits of joints."""
    names, limits = tuple(link.joint for link in links), [link.limit for link in links]
    return names, tuple(low for low, _ in limits), tuple(high for _, high in limits)


def _base_velocity(body: Body) -> tuple[Field, ...]:
    count = len(body.base)
    if not count:
        return ()
    return (
        Field(
            name="base_velocity",
            axes=tuple(link.joint for link in body.base),
            unit="m/s",
            low=(-BASE_LIMIT,) * count,
            high=(BASE_LIMIT,) * count,
            resampling="mean",
            integrates="base_position",
        ),
    )


def _opening() -> Field:
    return Field(name="gripper_opening", axes=("target",), unit="1", low=(0.0,), high=(1.0,))


def _effector_velocity_fields(body: Body) -> tuple[Field, ...]:
    del body
    return (
        Field(
            name="effector_velocity",
            axes=("x", "y", "z"),
            unit="m/s",
            low=(-SPEED_LIMIT,) * 3,
            high=(SPEED_LIMIT,) * 3,
            resampling="mean",
            integrates="effector_position",
        ),
        Field(
            name="effector_yaw_rate",
            axes=("yaw",),
            unit="rad/s",
            low=(-TURN_LIMIT,),
            high=(TURN_LIMIT,),
            resampling="mean",
            integrates="effector_yaw",
        ),
        _opening(),
    )


def _advance_effector_velocity(command: Command, action: np.ndarray, plant: Plant) -> Command:
    body = plant.body
    position = np.clip(command.position + action[:3] * plant.dt, body.workspace_low, body.workspace_high)
    yaw = float(np.clip(command.yaw + action[3] * plant.dt, *body.yaw_range))
    joints = plant.kinematics.inverse(command.joints, position, yaw)
    return Command(position=position, yaw=yaw, joints=joints, opening=float(action[4]))


def _demonstrate_effector_velocity(command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    del command, plant
    return np.array([*wish.velocity, wish.turn, wish.opening])


def _joint_position_fields(body: Body) -> tuple[Field, ...]:
    return (_joint_position(body), _opening())


def _advance_joint_position(command: Command, action: np.ndarray, plant: Plant) -> Command:
    reach, base = JOINT_LIMIT * plant.dt, len(plant.body.base)
    hinges = command.joints[base:] + np.clip(action[:-1] - command.joints[base:], -reach, reach)
    return _at_joints(command, hinges, float(action[-1]), plant)


def _demonstrate_joint_position(command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    return np.array([*_wished_hinges(command, wish, plant), wish.opening])


def _joint_velocity_fields(body: Body) -> tuple[Field, ...]:
    count = len(body.hinges)
    rate = Field(
        name="joint_velocity",
        axes=tuple(link.joint for link in body.hinges),
        unit="rad/s",
        low=(-JOINT_LIMIT,) * count,
        high=(JOINT_LIMIT,) * count,
        resampling="mean",
        integrates="joint_position",
    )
    return (rate, _opening())


def _advance_joint_velocity(command: Command, action: np.ndarray, plant: Plant) -> Command:
    hinges = command.joints[len(plant.body.base) :]
    return _at_joints(command, hinges + action[:-1] * plant.dt, float(action[-1]), plant)


def _demonstrate_joint_velocity(command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    hinges = command.joints[len(plant.body.base) :]
    return np.array([*(_wished_hinges(command, wish, plant) - hinges) / plant.dt, wish.opening])


def _joint_torque_fields(body: Body) -> tuple[Field, ...]:
    limit = tuple(link.damping * JOINT_LIMIT for link in body.hinges)  # what holds a free hinge at its fastest
    torque = Field(
        name="joint_torque",
        axes=tuple(link.joint for link in body.hinges),
        unit="N m",
        low=tuple(-value for value in limit),
        high=limit,
        resampling="mean",
    )
    return (torque, _opening())


def _advance_joint_torque(command: Command, action: np.ndarray, plant: Plant) -> Command:
    del plant
    return replace(command, torque=action[:-1], opening=float(action[-1]))


def _demonstrate_joint_torque(command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    torque = plant.dynamics.torque(_wished_hinges(command, wish, plant), plant.dt)
    return np.array([*torque, wish.opening])


def _wished_hinges(command: Command, wish: Wish, plant: Plant) -> np.ndarray:
    action = _demonstrate_effector_velocity(command, wish, plant)
    return _advance_effector_velocity(command, action, plant).joints[len(plant.body.base) :]


def _at_joints(command: Command, hinges: np.ndarray, opening: float, plant: Plant) -> Command:
    joints = np.concatenate([command.joints[: len(plant.body.base)], hinges])
    joints = np.clip(joints, plant.kinematics.low, plant.kinematics.high)
    position, rotation = plant.kinematics.forward(joints)
    yaw = command.yaw + wrap(yaw_of(rotation) - command.yaw)
    return Command(position=position, yaw=yaw, joints=joints, opening=opening)


CONTROL_MODES: dict[str, ControlMode] = {
    "end_effector_velocity": ControlMode(
        fields=_effector_velocity_fields,
        advance=_advance_effector_velocity,
        demonstrate=_demonstrate_effector_velocity,
    ),
    "joint_position": ControlMode(
        fields=_joint_position_fields,
        advance=_advance_joint_position,
        demonstrate=_demonstrate_joint_position,
    ),
    "joint_velocity": ControlMode(
        fields=_joint_velocity_fields,
        advance=_advance_joint_velocity,
        demonstrate=_demonstrate_joint_velocity,
    ),
    "joint_torque": ControlMode(
        fields=_joint_torque_fields,
        advance=_advance_joint_torque,
        demonstrate=_demonstrate_joint_torque,
    ),
}
"""Control modes by name."""
