"""What torque moves a chain as wished: hinges that a drive turns against its own viscous damping.

With inertia M, damping D and a torque that is held for a step of t seconds, gravity being compensated,

    M dv/dt = torque - D v,    E = integral over the step of exp(-s M^-1 D) ds
    displacement = E v0 + (t - E) D^-1 torque

which is solved for the torque. Contacts and the change of M within a step are left to the next step.
"""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np
from scipy.linalg import expm

from dreamdojo.dojo.body import Body


class Dynamics:
    """The hinges of a running scene as they are now."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, body: Body) -> None:
        self._model, self._data = model, data
        joints = [model.joint(link.joint) for link in body.hinges]
        self._address = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._damping = np.array([link.damping for link in body.hinges])

    def torque(self, joints: np.ndarray, dt: float) -> np.ndarray:
        """`(j,)` N m that, held for `dt` seconds, bring the hinges to `joints` `(j,)`, as far as nothing is touched."""
        full = np.empty((self._model.nv, self._model.nv))
        mujoco.mj_fullM(self._model, self._data, full)
        decay = np.linalg.solve(full[np.ix_(self._dofs, self._dofs)], np.diag(self._damping))
        reached = np.linalg.solve(decay, np.eye(len(decay)) - expm(-decay * dt))  # E
        missing = joints - self._data.qpos[self._address] - reached @ self._data.qvel[self._dofs]
        return self._damping * np.linalg.solve(dt * np.eye(len(decay)) - reached, missing)
