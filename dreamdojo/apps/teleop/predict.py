"""What the operator is shown instead of waiting: where the commands on their way will lead.

A predictor stands at the newest real frame (`anchor`). `predict` goes on from there under all pending commands, and
`extend` goes on from what was predicted last, by one more. Three of them:

    Imagined    a world model; several members with noise of their own say how sure it is
    Ghost       the arm drawn from the commands, everything else as it was seen: the baseline, in the dojo only
    Oracle      the true simulator: the ceiling, in the dojo only
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.teleop.robot import DojoRobot
from dreamdojo.errors import ConfigError
from dreamdojo.metrics import unit_range
from dreamdojo.rollout.session import CAMERA, Session
from dreamdojo.rollout.starts import fitted
from dreamdojo.world import Observation, Prediction, StateSource

if TYPE_CHECKING:
    from dreamdojo.dojo.simulation import Simulation


@runtime_checkable
class Predictor(Protocol):
    """Looks ahead of the newest real frame."""

    def reset(self, seen: Observation, *, seed: int, tick: int = 0) -> None:
        """Stand at one frame, of a tick, and know of nothing before."""
        ...

    def anchor(self, seen: Observation, actions: Tensor, tick: int) -> None:
        """Stand at real frames `b t` that `actions` (`b t a`) led to from the last anchor; the newest is of `tick`."""
        ...

    def predict(self, actions: Tensor) -> Prediction:
        """The frames that `actions` (`b n a`, n of 1 or more) lead to from the anchor."""
        ...

    def extend(self, action: Tensor) -> Prediction:
        """The frame that one more action (`b 1 a`) leads to after those predicted last, or after the anchor."""
        ...


class Imagined:
    """A world model's prediction, with the spread of its members as `Prediction.uncertainty`."""

    def __init__(self, session: Session, *, members: int = 1) -> None:
        """Hold a session that goes on frame by frame.

        Raises:
            ConfigError: if it predicts several actions at once, as a teacher of whole clips does.
        """
        if session.actions_per_step != 1:
            raise ConfigError(
                f"a prediction follows every command, so the model must go on by one action a step; this one takes "
                f"{session.actions_per_step}. Use a student."
            )
        self.session = session
        self.members = members
        """Futures that are drawn side by side; needs a batch of 1 where above 1."""
        self._steps = session.sampler.steps
        self._ahead, self._drawn = session, 1
        self._since = torch.zeros(1, 0, session.embodiment.action_dim)

    def reset(self, seen: Observation, *, seed: int, tick: int = 0) -> None:
        """Start the session."""
        del tick
        self.session.reset(fitted(seen, self.session.size), seed=seed)
        self._begin_ahead(len(seen.frames[CAMERA]))

    def anchor(self, seen: Observation, actions: Tensor, tick: int) -> None:
        """Re-anchor the session without a reset."""
        del tick
        self.session.observe(fitted(seen, self.session.size), actions)
        self._begin_ahead(len(seen.frames[CAMERA]))

    def predict(self, actions: Tensor) -> Prediction:
        """Go on from the anchor."""
        # with one member the session itself goes ahead: what it predicted is forgotten at the next anchor
        self._drawn, self._since = self.members, actions
        self._ahead = self.session.fork(self.members) if self.members > 1 else self.session
        return self._go(actions)

    def extend(self, action: Tensor) -> Prediction:
        """Go on from the last prediction."""
        self._since = torch.cat([self._since, action], dim=1)
        return self._go(action)

    def set(self, *, members: int, steps: int | None) -> None:
        """Draw so many futures from the next anchor on, with so many steps a frame (None: the model's) from now on."""
        self.members = members
        for session in {id(each): each for each in (self.session, self._ahead)}.values():
            session.use_steps(steps or self._steps)

    def branch(self) -> tuple[Session, Tensor]:
        """A copy of the session for others to explore, and the actions `1 n a` that take it to the predicted now."""
        copy = self.session.fork(1)
        return copy, self._since if self._drawn > 1 else self._since[:, :0]

    def _begin_ahead(self, batch: int) -> None:
        self._ahead, self._drawn = self.session, 1
        self._since = torch.zeros(batch, 0, self.session.embodiment.action_dim)

    def _go(self, actions: Tensor) -> Prediction:
        members = self._drawn
        steps = [
            self._ahead.step(action[:, None].expand(members * len(actions), -1, -1)) for action in actions.unbind(1)
        ]
        frames = torch.cat([step.frames[CAMERA] for step in steps], dim=1)
        depth = [step.depth[CAMERA] for step in steps if step.depth is not None]
        state = [step.state for step in steps if step.state is not None]
        shown = len(actions)
        return Prediction(
            frames={CAMERA: frames[:shown]},
            depth={CAMERA: torch.cat(depth, dim=1)[:shown]} if depth else None,
            state=torch.cat(state, dim=1)[:shown] if state else None,
            state_source=steps[0].state_source,
            uncertainty=spread(frames)[None] if members > 1 else None,
        )


def spread(frames: Tensor) -> Tensor:
    """Root mean square over the pixels of the members' standard deviation, `m t c h w` uint8 -> `t`, in [0, 1]."""
    return unit_range(frames).var(dim=0).mean(dim=(1, 2, 3)).sqrt()


class _Simulated(ABC):
    """What ghost and oracle share: they start from the dojo's own past."""

    _source: StateSource

    def __init__(self, robot: DojoRobot, size: int | None = None) -> None:
        self._robot = robot
        self._size = size or robot.size
        self._tick = 0
        self._ahead: Simulation | None = None

    def reset(self, seen: Observation, *, seed: int, tick: int = 0) -> None:
        """Stand at a tick."""
        del seen, seed
        self._tick, self._ahead = tick, None

    def anchor(self, seen: Observation, actions: Tensor, tick: int) -> None:
        """Stand at a tick."""
        del seen, actions
        self._tick, self._ahead = tick, None

    def predict(self, actions: Tensor) -> Prediction:
        """Go on from the anchor."""
        self._ahead = None
        return self.extend(actions)

    def extend(self, action: Tensor) -> Prediction:
        """Go on."""
        if (ahead := self._ahead) is None:
            ahead = self._ahead = self._robot.at(self._tick)
            self._begin(ahead)
        states, pictures, depths = [], [], []
        for row in action[0].numpy():
            states.append(self._go(ahead, row))
            picture = ahead.picture(self._size, depth=self._robot.depth)
            pictures.append(picture.rgb)
            depths += [] if picture.depth is None else [picture.depth]
        return Prediction(
            frames={CAMERA: torch.from_numpy(np.stack(pictures)[None]).permute(0, 1, 4, 2, 3).contiguous()},
            depth={CAMERA: torch.from_numpy(np.stack(depths)[None, :, None])} if depths else None,
            state=torch.from_numpy(np.stack(states)[None].astype(np.float32)),
            state_source=self._source,
        )

    @abstractmethod
    def _begin(self, simulation: Simulation) -> None:
        """A prediction begins at this copy of the past."""

    @abstractmethod
    def _go(self, simulation: Simulation, action: np.ndarray) -> np.ndarray:
        """Let the copy follow an action `(a,)`; returns the state `(s,)` after it."""


class Oracle(_Simulated):
    """The true simulator goes on: no prediction can be better."""

    _source = "simulator"

    def _begin(self, simulation: Simulation) -> None: ...

    def _go(self, simulation: Simulation, action: np.ndarray) -> np.ndarray:
        simulation.step(action)
        return simulation.state()


class Ghost(_Simulated):
    """The arm follows the commands; nothing else moves, whatever it touches."""

    _source = "integrator"

    def _begin(self, simulation: Simulation) -> None:
        self._told = simulation.state()

    def _go(self, simulation: Simulation, action: np.ndarray) -> np.ndarray:
        body = simulation.embodiment
        told = body.integrate(self._told, action, 1 / simulation.fps)
        assert told is not None  # the dojo's velocities declare what they integrate
        opening = action[body.columns("gripper_opening", of="action")]
        told[body.columns("gripper_opening", of="state")] = opening
        place = told[body.columns("effector_position", of="state")].astype(np.float64)
        yaw = float(told[body.columns("effector_yaw", of="state")][0])
        told[body.columns("joint_position", of="state")] = simulation.pose(place, yaw, float(opening[0]))
        self._told = told
        return told
