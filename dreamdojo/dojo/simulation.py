"""One episode's physics: a body and objects on the table, stepped by actions, looked at by a camera."""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.body import EFFECTOR
from dreamdojo.dojo.control import (
    CONTROL_MODES,
    Command,
    Plant,
    Wish,
    advance,
    clip_action,
    demonstrate,
    embodiment_of,
    held_back,
)
from dreamdojo.dojo.difficulty import GENTLE, Difficulty
from dreamdojo.dojo.dynamics import Dynamics
from dreamdojo.dojo.geometry import wrap, yaw_of
from dreamdojo.dojo.kinematics import Kinematics
from dreamdojo.dojo.layout import CAMERA, Layout, draw_layout
from dreamdojo.dojo.render import Picture, shared_renderer
from dreamdojo.dojo.scene import TABLE_HIGH, TABLE_LOW, TIMESTEP, build_model, num_objects
from dreamdojo.errors import ConfigError, DataError, SimulationError

_SETTLE = 0.4  # seconds that objects get to come to rest before an episode begins
_GRIPPER_RATE = 3.0  # openings per second
_FASTEST_OBJECT = 4.0  # m/s; anything faster was thrown by the solver, not by a hand
_HIGHEST_OBJECT = 0.6  # metres


class UnstablePhysics(SimulationError):
    """A scene that no longer obeys physics, or can no longer be used."""

    def __init__(self, seed: int, reason: str) -> None:
        super().__init__(f"the physics of seed {seed} ended: {reason}. Use another seed.")
        self.reason = reason
        """The same words for the same kind of failure, so that they can be counted."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The truth at one frame, without pictures."""

    effector_position: np.ndarray
    """`(3,)` metres."""
    effector_yaw: float
    """Radians about the vertical."""
    opening: float
    """0 closed to 1 open."""
    joint_position: np.ndarray
    """`(j,)` radians; metres for the slides of a mobile base, which come first."""
    object_poses: np.ndarray
    """`(n, 7)` position in metres and quaternion `(w, x, y, z)`."""
    touched: np.ndarray
    """`(n,)` bool: any part of the body touches the object."""
    grasped: np.ndarray
    """`(n,)` bool: both sides of the hand touch it."""
    effector_pixel: np.ndarray
    """`(2,)` u to the right and v down, in [0, 1] inside the picture."""
    object_pixels: np.ndarray
    """`(n, 2)` where the objects' origins are in the picture."""


class Simulation:
    """A scene that is running.

    Args:
        body: a name of `BODIES`.
        control: a name of `CONTROL_MODES`.
        difficulty: what scenes are drawn from.
        fps: actions and frames per second.
    """

    def __init__(
        self,
        body: str,
        *,
        control: str = "end_effector_velocity",
        difficulty: Difficulty = GENTLE,
        fps: float = 10.0,
    ) -> None:
        if body not in BODIES:
            raise ConfigError(f"expected a body of {', '.join(BODIES)}, got {body!r}")
        substeps = 1 / (fps * TIMESTEP)
        if not math.isclose(substeps, round(substeps)):
            raise ConfigError(f"a frame must last a multiple of {TIMESTEP} s, got fps={fps}")
        self.body = BODIES[body]
        self.embodiment = embodiment_of(self.body, control)
        self.difficulty = difficulty
        self.fps = fps
        self._mode = CONTROL_MODES[control]
        self._substeps = round(substeps)

    def reset(self, seed: int) -> None:
        """Build the scene of a seed and let its objects come to rest.

        Raises:
            UnstablePhysics: if they do not.
        """
        self.reset_to(draw_layout(seed, self.difficulty, self.body))

    def reset_to(self, layout: Layout) -> None:
        """Build a scene and let its objects come to rest.

        Raises:
            UnstablePhysics: if they do not.
        """
        self.layout = layout
        self.model = build_model(self.body, self.layout)
        self.data = mujoco.MjData(self.model)
        kinematics = Kinematics(self.model, self.body)
        dynamics = Dynamics(self.model, self.data, self.body)
        self._plant = Plant(body=self.body, kinematics=kinematics, dynamics=dynamics, dt=1 / self.fps)
        self._look_up()
        position = np.array(self.layout.start)
        rest = np.array(self.body.rest)
        joints = kinematics.inverse(rest, position, self.layout.start_yaw, steps=150)
        opening = self.layout.start_opening
        self.command = Command(position=position, yaw=self.layout.start_yaw, joints=joints, opening=opening)
        self.data.qpos[self._joint_address] = joints
        self.data.qpos[self._finger_address] = self._finger_open - (1 - opening) * (
            self._finger_open - self._finger_closed
        )
        self._run(self.command, round(_SETTLE / TIMESTEP))

    def step(self, action: np.ndarray) -> None:
        """Advance by one frame under an action `(a,)`, which is clipped to the embodiment's ranges.

        Raises:
            DataError: if the action has another width or is not finite.
            UnstablePhysics: if positions, velocities or MuJoCo itself say that the physics broke down.
        """
        if action.shape != (self.embodiment.action_dim,) or not np.isfinite(action).all():
            raise DataError(
                f"expected {self.embodiment.action_dim} finite numbers "
                f"({', '.join(self.embodiment.action_names())}), got {action!r}"
            )
        clipped = clip_action(self.embodiment, action)
        command = advance(self._mode, self.commanded(), clipped, self._plant)
        reach = _GRIPPER_RATE / self.fps  # fingers take time, whatever is asked
        opening = self.command.opening + float(np.clip(command.opening - self.command.opening, -reach, reach))
        self._run(replace(command, opening=opening), self._substeps)

    def commanded(self) -> Command:
        """Where the controller wants the body, held back to where it really is."""
        return held_back(self.command, self.data.site_xpos[self._site], self.data.qpos[self._joint_address])

    def demonstrate(self, wish: Wish) -> np.ndarray:
        """The action `(a,)` float32 of this control mode that moves the effector as wished."""
        action = demonstrate(self._mode, self.commanded(), wish, self._plant)
        return clip_action(self.embodiment, action).astype(np.float32)

    def state(self) -> np.ndarray:
        """Proprioception `(s,)` float32, as the embodiment declares it."""
        opening = [self.opening()]
        pose = [*self.data.site_xpos[self._site], self._yaw()]
        return np.array([*pose, *opening, *self.data.qpos[self._joint_address]], dtype=np.float32)

    def object_poses(self) -> np.ndarray:
        """`(n, 7)` position in metres and quaternion `(w, x, y, z)` of every object."""
        return self.data.qpos[self._object_address]

    def put_object(self, index: int, place: tuple[float, float]) -> None:
        """Stand an object elsewhere on the table, as it is turned and as high: for pictures of how it should be."""
        self.data.qpos[self._object_address[index, :2]] = place
        mujoco.mj_forward(self.model, self.data)

    def has_lost_object(self) -> bool:
        """Whether an object has left the table, over its edge or into the air."""
        places = self.object_poses()[:, :3]
        low, high = (*TABLE_LOW, -0.01), (*TABLE_HIGH, _HIGHEST_OBJECT)
        return bool((places < low).any() or (places > high).any())

    def moment(self) -> Moment:
        """The truth now."""
        position = self.data.site_xpos[self._site].copy()
        poses = self.object_poses()
        touched, grasped = self._contacts()
        return Moment(
            effector_position=position,
            effector_yaw=self._yaw(),
            opening=self.opening(),
            joint_position=self.data.qpos[self._joint_address].copy(),
            object_poses=poses,
            touched=touched,
            grasped=grasped,
            effector_pixel=self.pixel(position),
            object_pixels=self.pixel(poses[:, :3]),
        )

    def picture(self, size: int, *, depth: bool = False, segmentation: bool = False) -> Picture:
        """What the head camera sees, `size` pixels square."""
        renderer = shared_renderer(self.body.name, size)
        return renderer.draw(self.model, self.data, self.layout.look, depth=depth, segmentation=segmentation)

    def pixel(self, points: np.ndarray) -> np.ndarray:
        """World points `(..., 3)` in metres -> `(..., 2)` u to the right and v down, in [0, 1] inside the picture."""
        place, axes = self.data.cam_xpos[self._camera], self.data.cam_xmat[self._camera].reshape(3, 3)
        local = (points - place) @ axes
        focal = 0.5 / math.tan(math.radians(self.model.cam_fovy[self._camera]) / 2)
        return 0.5 + focal * local[..., :2] * (1, -1) / -local[..., 2:]

    def on_plane(self, pixel: np.ndarray, height: float) -> np.ndarray:
        """The world point `(3,)` at `height` metres above the table that is seen at `pixel` `(2,)`."""
        place, axes = self.data.cam_xpos[self._camera], self.data.cam_xmat[self._camera].reshape(3, 3)
        focal = 0.5 / math.tan(math.radians(self.model.cam_fovy[self._camera]) / 2)
        ray = axes @ np.array([pixel[0] - 0.5, 0.5 - pixel[1], -focal])
        return place + ray * (height - place[2]) / ray[2]

    def opening(self) -> float:
        """How far the fingers are open, 0 to 1, as measured."""
        fingers = self.data.qpos[self._finger_address]
        share = (fingers - self._finger_closed) / (self._finger_open - self._finger_closed)
        return float(np.clip(share.mean(), 0, 1))

    def pose(self, position: np.ndarray, yaw: float, opening: float) -> np.ndarray:
        """Put the effector at `position` (`(3,)` metres) without physics, through whatever stands there.

        Only the picture is of use afterwards. Returns the joints `(j,)`.
        """
        joints = self._plant.kinematics.inverse(self.data.qpos[self._joint_address], position, yaw, steps=12)
        self.data.qpos[self._joint_address] = joints
        self.data.qpos[self._finger_address] = self._finger_closed + opening * (self._finger_open - self._finger_closed)
        mujoco.mj_forward(self.model, self.data)
        return joints

    def fork(self) -> Simulation:
        """An independent copy at the same instant; it continues exactly as this one would."""
        other = copy.copy(self)
        other.data = copy.copy(self.data)
        dynamics = Dynamics(self.model, other.data, self.body)
        other._plant = replace(self._plant, kinematics=Kinematics(self.model, self.body), dynamics=dynamics)
        return other

    def _look_up(self) -> None:
        model = self.model
        self._site = model.site(EFFECTOR).id
        self._camera = model.camera(CAMERA).id
        self._joint_address = np.array([model.joint(name).qposadr[0] for name in self.body.joints])
        self._joint_actuators = np.array([model.actuator(name).id for name in self.body.joints])
        fingers = self.body.fingers
        self._finger_address = np.array([model.joint(finger.joint).qposadr[0] for finger in fingers])
        self._finger_actuators = np.array([model.actuator(finger.joint).id for finger in fingers])
        self._finger_open = np.array([finger.open for finger in fingers])
        self._finger_closed = np.array([finger.closed for finger in fingers])
        self._lag = np.array([link.damping / link.stiffness for link in self.body.links])
        self._stiffness = np.array([link.stiffness for link in self.body.hinges])
        joints = [model.joint(f"object_{index}") for index in range(num_objects(model))]
        self._object_address = np.array([joint.qposadr[0] + np.arange(7) for joint in joints])
        self._object_dofs = np.array([joint.dofadr[0] + np.arange(3) for joint in joints])
        # For every geom: the object it belongs to or -1; and 1 or 2 for the sides of the hand, 3 for other body parts.
        self._object_of = np.full(model.ngeom, -1)
        for index in range(len(joints)):
            self._object_of[model.geom_bodyid == model.body(f"object_{index}").id] = index
        self._side_of = np.where(self._object_of < 0, 3, 0)
        self._side_of[[model.geom("table").id, model.geom("floor").id]] = 0
        for side, names in enumerate(self.body.pads):
            self._side_of[[model.geom(name).id for name in sorted(names)]] = 1 + side

    def _run(self, command: Command, substeps: int) -> None:
        """Move the servo targets along a straight line from the last command to this one."""
        before, ctrl, base = self.command, self.data.ctrl, len(self.body.base)
        rate = (command.joints - before.joints) / (substeps * TIMESTEP)
        with _without_log_file():
            for index in range(substeps):
                share = (index + 1) / substeps
                # Damping holds a moving servo back by damping / stiffness seconds; aim that much ahead.
                target = before.joints + share * (command.joints - before.joints)
                target = target + self._lag * rate
                if command.torque is not None:  # the servo's force, but for its damping, becomes the torque
                    hinges = self.data.qpos[self._joint_address[base:]]
                    target[base:] = hinges + command.torque / self._stiffness
                ctrl[self._joint_actuators] = target
                opening = before.opening + share * (command.opening - before.opening)
                ctrl[self._finger_actuators] = self._finger_closed + opening * (self._finger_open - self._finger_closed)
                mujoco.mj_step(self.model, self.data)
            self.command = command
            self._check()
            mujoco.mj_forward(self.model, self.data)  # positions and contacts of this instant, not of the last substep
        if command.torque is not None:  # nothing is held, so what was commanded is where the body came to
            joints = np.concatenate([command.joints[:base], self.data.qpos[self._joint_address[base:]]])
            position = self.data.site_xpos[self._site].copy()
            self.command = replace(command, position=position, yaw=self._yaw(), joints=joints)

    def _check(self) -> None:
        for kind in mujoco.mjtWarning.__members__.values():
            if kind != mujoco.mjtWarning.mjNWARNING and self.data.warning[kind].number:
                raise UnstablePhysics(self.layout.seed, f"MuJoCo warned of {kind.name.removeprefix('mjWARN_')}")
        if not (np.isfinite(self.data.qpos).all() and np.isfinite(self.data.qvel).all()):
            raise UnstablePhysics(self.layout.seed, "a position or velocity is not finite")
        if np.abs(self.data.qvel[self._object_dofs]).max() > _FASTEST_OBJECT:
            raise UnstablePhysics(self.layout.seed, f"an object moves faster than {_FASTEST_OBJECT} m/s")

    def _yaw(self) -> float:
        # Near the last command rather than in (-pi, pi], so that it has no jumps.
        yaw = yaw_of(self.data.site_xmat[self._site].reshape(3, 3))
        return self.command.yaw + wrap(yaw - self.command.yaw)

    def _contacts(self) -> tuple[np.ndarray, np.ndarray]:
        sides = np.zeros((len(self._object_address), 4), dtype=bool)
        for first, second in self.data.contact.geom:
            for thing, other in ((first, second), (second, first)):
                if self._object_of[thing] >= 0 and self._side_of[other]:
                    sides[self._object_of[thing], self._side_of[other]] = True
        return np.asarray(sides.any(axis=1)), sides[:, 1] & sides[:, 2]


@contextmanager
def _without_log_file() -> Iterator[None]:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the current folder: its warnings are counted and raised instead."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
