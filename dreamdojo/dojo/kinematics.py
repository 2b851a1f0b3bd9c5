"""Inverse kinematics by damped least squares: joint positions that bring the effector to a pose.

Each step solves `dq = J^T (J J^T + damping^2 I)^-1 e` for the six errors `e` of position and orientation, and moves
the joint that is left over towards the body's rest posture within the null space of `J`.
"""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np

from dreamdojo.dojo.body import EFFECTOR, Body

_DAMPING = 0.016  # metres per radian
_POSTURE = 0.06  # share of the way to the rest posture per step
_LARGEST_STEP = 0.25  # radians
_ORIENTATION = 0.3  # metres of position error that weigh as much as a radian


class Kinematics:
    """Forward and inverse kinematics of a body in a compiled scene; holds no state between calls."""

    def __init__(self, model: mujoco.MjModel, body: Body) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site(EFFECTOR).id
        joints = [model.joint(name) for name in body.joints]
        self._address = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self.low = np.array([joint.range[0] for joint in joints])
        self.high = np.array([joint.range[1] for joint in joints])
        self._rest = np.array(body.rest)
        self._base = len(body.base)
        self._jacobian = np.zeros((6, model.nv))

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions `(j,)` -> the effector's position `(3,)` in metres and rotation `(3, 3)`."""
        self._data.qpos[self._address] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def inverse(self, start: np.ndarray, position: np.ndarray, yaw: float, *, steps: int = 4) -> np.ndarray:
        """Joint positions near `start` whose effector stands upright at `position`, turned by `yaw`.

        A mobile base stays where `start` has it.

        Args:
            start: `(j,)` radians; metres for the slides of a base.
            position: `(3,)` metres.
            yaw: radians.
            steps: iterations at most.
        """
        joints = start.copy()
        cos, sin = np.cos(yaw), np.sin(yaw)
        target = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        damping = _DAMPING**2 * np.eye(6)
        error = np.empty(6)
        for _ in range(steps):
            place, rotation = self.forward(joints)
            # The turn that is missing is the antisymmetric part of target @ rotation.T, for small angles.
            missing = target @ rotation.T
            error[:3] = position - place
            error[3:] = missing[2, 1] - missing[1, 2], missing[0, 2] - missing[2, 0], missing[1, 0] - missing[0, 1]
            error[3:] *= _ORIENTATION / 2
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            jacobian = self._jacobian[:, self._dofs]
            jacobian[3:] *= _ORIENTATION
            wish = _POSTURE * (self._rest - joints)
            jacobian[:, : self._base] = wish[: self._base] = 0.0
            step = wish + jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping, error - jacobian @ wish)
            step *= min(1.0, _LARGEST_STEP / (float(np.abs(step).max()) + 1e-9))
            joints = np.clip(joints + step, self.low, self.high)
        return joints
