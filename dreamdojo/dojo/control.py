"""Control modes: what an action means, and what joint positions it asks for.

A mode is a pair of functions: one turns an action into the next joint targets, the other finds the action that asks
for given targets, so that one scripted actor can demonstrate every mode. `CONTROL_MODES` is the table of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dojo.body import Body
from dreamdojo.dojo.geometry import wrap, yaw_of
from dreamdojo.dojo.kinematics import Kinematics
from dreamdojo.errors import ConfigError

SPEED_LIMIT = 0.4
"""Of the effector along each axis, m/s."""
TURN_LIMIT = 1.5
"""Of the effector about the vertical, rad/s."""
JOINT_LIMIT = 2.0
"""Of each joint, rad/s."""
LEAD = 0.05
"""How far the commanded effector may run ahead of the real one when something blocks it, metres."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Where the controller wants the body: the part of a simulation's state that is not physics."""

    position: np.ndarray
    """`(3,)` of the effector, metres."""
    yaw: float
    """Of the effector, radians, not wrapped."""
    joints: np.ndarray
    """`(j,)` radians."""
    opening: float
    """0 closed to 1 open."""


Advance = Callable[[Command, np.ndarray, float, Kinematics, Body], Command]
"""(command, action, seconds, kinematics, body) -> the command at the end of the step."""

Explain = Callable[[Command, Command, float], np.ndarray]
"""(command before, command after, seconds) -> the action that leads from one to the other."""


@dataclass(frozen=True, kw_only=True)
class ControlMode:
    """What the numbers of an action mean."""

    fields: Callable[[Body], tuple[Field, ...]]
    """Declared fields of one action."""
    advance: Advance
    """From an action to the next command."""
    explain: Explain
    """From the next command to the action."""


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
        Field(name="joint_position", axes=body.joints, unit="rad", low=body.joint_low, high=body.joint_high),
    )
    return Embodiment(name=f"dojo_{body.name}/{control}", action=CONTROL_MODES[control].fields(body), state=state)


def clip_action(embodiment: Embodiment, action: np.ndarray) -> np.ndarray:
    """The action within the declared ranges, as a real controller would saturate it."""
    low = [value for field in embodiment.action for value in field.low]
    high = [value for field in embodiment.action for value in field.high]
    return np.clip(action, low, high)


def effector_command(
    command: Command, velocity: np.ndarray, turn: float, opening: float, dt: float, kinematics: Kinematics, body: Body
) -> Command:
    """The command after `dt` seconds of an effector velocity, within the workspace."""
    position = np.clip(command.position + velocity * dt, body.workspace_low, body.workspace_high)
    yaw = float(np.clip(command.yaw + turn * dt, *body.yaw_range))
    joints = kinematics.inverse(command.joints, position, yaw)
    return Command(position=position, yaw=yaw, joints=joints, opening=opening)


def held_back(command: Command, position: np.ndarray) -> Command:
    """The command, no further than `LEAD` from where the effector really is, so that it does not wind up."""
    ahead = command.position - position
    distance = float(np.linalg.norm(ahead))
    if distance <= LEAD:
        return command
    return Command(
        position=position + ahead * (LEAD / distance), yaw=command.yaw, joints=command.joints, opening=command.opening
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


def _advance_effector_velocity(
    command: Command, action: np.ndarray, dt: float, kinematics: Kinematics, body: Body
) -> Command:
    return effector_command(command, action[:3], float(action[3]), float(action[4]), dt, kinematics, body)


def _explain_effector_velocity(before: Command, after: Command, dt: float) -> np.ndarray:
    return np.array([*(after.position - before.position) / dt, (after.yaw - before.yaw) / dt, after.opening])


def _joint_position_fields(body: Body) -> tuple[Field, ...]:
    target = Field(name="joint_position", axes=body.joints, unit="rad", low=body.joint_low, high=body.joint_high)
    return (target, _opening())


def _advance_joint_position(
    command: Command, action: np.ndarray, dt: float, kinematics: Kinematics, body: Body
) -> Command:
    reach = JOINT_LIMIT * dt
    joints = command.joints + np.clip(action[:-1] - command.joints, -reach, reach)
    return _at_joints(command, joints, float(action[-1]), kinematics)


def _explain_joint_position(before: Command, after: Command, dt: float) -> np.ndarray:
    del before, dt
    return np.array([*after.joints, after.opening])


def _joint_velocity_fields(body: Body) -> tuple[Field, ...]:
    count = len(body.joints)
    rate = Field(
        name="joint_velocity",
        axes=body.joints,
        unit="rad/s",
        low=(-JOINT_LIMIT,) * count,
        high=(JOINT_LIMIT,) * count,
        resampling="mean",
        integrates="joint_position",
    )
    return (rate, _opening())


def _advance_joint_velocity(
    command: Command, action: np.ndarray, dt: float, kinematics: Kinematics, body: Body
) -> Command:
    del body
    return _at_joints(command, command.joints + action[:-1] * dt, float(action[-1]), kinematics)


def _explain_joint_velocity(before: Command, after: Command, dt: float) -> np.ndarray:
    return np.array([*(after.joints - before.joints) / dt, after.opening])


def _at_joints(command: Command, joints: np.ndarray, opening: float, kinematics: Kinematics) -> Command:
    joints = np.clip(joints, kinematics.low, kinematics.high)
    position, rotation = kinematics.forward(joints)
    yaw = command.yaw + wrap(yaw_of(rotation) - command.yaw)
    return Command(position=position, yaw=yaw, joints=joints, opening=opening)


CONTROL_MODES: dict[str, ControlMode] = {
    "end_effector_velocity": ControlMode(
        fields=_effector_velocity_fields,
        advance=_advance_effector_velocity,
        explain=_explain_effector_velocity,
    ),
    "joint_position": ControlMode(
        fields=_joint_position_fields, advance=_advance_joint_position, explain=_explain_joint_position
    ),
    "joint_velocity": ControlMode(
        fields=_joint_velocity_fields, advance=_advance_joint_velocity, explain=_explain_joint_velocity
    ),
}
"""Control modes by name."""
