"""The dojo as a `World`: the same protocol as a dream, with real physics behind it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.layout import CAMERA
from dreamdojo.dojo.render import Picture
from dreamdojo.dojo.simulation import Moment, Simulation
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.world import Observation, Prediction


class DojoWorld:
    """One or more running scenes of a body; satisfies `dreamdojo.world.World`.

    Pictures come from the camera `head`. Actions outside the embodiment's declared range are clipped to it, as a real
    controller would saturate them.

    Args:
        body: a name of `dreamdojo.dojo.bodies.BODIES`.
        control: what the actions mean, a name of `dreamdojo.dojo.control.CONTROL_MODES`.
        difficulty: what scenes are drawn from, itself or by name.
        size: side of the square pictures in pixels.
        fps: frames and actions per second.
        actions_per_step: `k`, the actions that one `step` takes.
        depth: whether observations and predictions carry metric depth.

    Raises:
        ConfigError: if there is no such body, control mode or difficulty.
    """

    def __init__(
        self,
        body: str = "arm",
        *,
        control: str = "end_effector_velocity",
        difficulty: Difficulty | str = GENTLE,
        size: int = 128,
        fps: float = 10.0,
        actions_per_step: int = 1,
        depth: bool = False,
    ) -> None:
        if actions_per_step < 1 or size < 16:
            raise ConfigError(
                f"expected actions_per_step of 1 or more and size of 16 or more, got {actions_per_step} and {size}"
            )
        self._size, self._depth, self._actions_per_step = size, depth, actions_per_step
        self._new = functools.partial(
            Simulation, body, control=control, difficulty=find_difficulty(difficulty), fps=fps
        )
        self._template = self._new()
        self._simulations: list[Simulation] = []

    @property
    def embodiment(self) -> Embodiment:
        """The body whose actions the world takes."""
        return self._template.embodiment

    @property
    def fps(self) -> float:
        """Frames and actions per second."""
        return self._template.fps

    @property
    def actions_per_step(self) -> int:
        """`k`, the actions that one `step` takes."""
        return self._actions_per_step

    @property
    def cameras(self) -> tuple[str, ...]:
        """The head camera."""
        return (CAMERA,)

    @property
    def moments(self) -> list[Moment]:
        """The truth now, one per scene of the batch."""
        return [simulation.moment() for simulation in self._running()]

    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Build the scene of `seed` (see `dreamdojo.dojo.splits`) and return its first observation, batch 1.

        Raises:
            ConfigError: if an observation is given, from which no scene can be built, or the seed is of no split.
            SimulationError: if the scene of this seed does not come to rest.
        """
        if observation is not None:
            raise ConfigError(
                "the dojo starts from a seed and cannot be reset to an observation; call reset(seed=...) without one"
            )
        self._simulations = []
        simulation = self._new()
        simulation.reset(seed)
        self._simulations = [simulation]
        frames, depth = self._stack([[self._look(simulation)]])
        state = torch.from_numpy(simulation.state())[None, None]
        return Observation(frames={CAMERA: frames}, state=state, depth=None if depth is None else {CAMERA: depth})

    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Check the shapes and otherwise do nothing: the dojo is the truth, so real frames tell it nothing new.

        Raises:
            DataError: if the shapes do not fit.
        """
        frames = observation.frames.get(CAMERA)
        if frames is None or frames.ndim != 5 or frames.shape[1] % self.actions_per_step:
            found = sorted(observation.frames) if frames is None else tuple(frames.shape)
            raise DataError(
                f"expected frames of the camera {CAMERA!r} of shape b t c h w with t a multiple of "
                f"{self.actions_per_step}, got {found}"
            )
        self._check(actions, length=frames.shape[1])

    def step(self, actions: Tensor) -> Prediction:
        """Advance by one action chunk `b k a`; one frame after each action.

        Raises:
            DataError: if the shape does not fit or an action is not finite.
            ConfigError: if the world has not been reset.
            SimulationError: if the physics of a scene becomes unstable.
        """
        self._check(actions, length=self.actions_per_step)
        pictures: list[list[Picture]] = []
        states: list[list[np.ndarray]] = []
        for simulation, chunk in zip(self._simulations, actions.cpu().numpy(), strict=True):
            pictures.append([])
            states.append([])
            for action in chunk:
                simulation.step(action)
                pictures[-1].append(self._look(simulation))
                states[-1].append(simulation.state())
        frames, depth = self._stack(pictures)
        return Prediction(
            frames={CAMERA: frames},
            state=torch.from_numpy(np.array(states)),
            state_source="simulator",
            depth=None if depth is None else {CAMERA: depth},
        )

    def fork(self, n: int) -> DojoWorld:
        """`n` exact and independent copies of a world of batch 1, as one world of batch `n`.

        Raises:
            ConfigError: if the batch is not 1, or `n` is not positive.
        """
        simulations = self._running()
        if len(simulations) != 1 or n < 1:
            raise ConfigError(f"expected a world of batch 1 and n of 1 or more, got batch {len(simulations)} and n={n}")
        other = object.__new__(DojoWorld)
        other.__dict__.update(self.__dict__)
        other._simulations = [simulations[0].fork() for _ in range(n)]
        return other

    def close(self) -> None:
        """Drop the scenes. The OpenGL context stays for the process's other worlds."""
        self._simulations = []

    def _running(self) -> Sequence[Simulation]:
        if not self._simulations:
            raise ConfigError("the world has no scene yet; call reset(seed=...) first")
        return self._simulations

    def _look(self, simulation: Simulation) -> Picture:
        return simulation.picture(self._size, depth=self._depth)

    def _check(self, actions: Tensor, *, length: int) -> None:
        expected = (len(self._running()), length, self.embodiment.action_dim)
        if tuple(actions.shape) != expected:
            raise DataError(f"expected actions of shape b k a = {expected}, got {tuple(actions.shape)}")
        if not torch.isfinite(actions).all():
            raise DataError("expected finite actions, got NaN or infinity")

    def _stack(self, pictures: list[list[Picture]]) -> tuple[Tensor, Tensor | None]:
        """Frames `b t c h w` uint8 and depth `b t 1 h w` float32, where it was drawn."""
        frames = torch.from_numpy(np.stack([[picture.rgb for picture in row] for row in pictures]))
        depths = [[picture.depth for picture in row if picture.depth is not None] for row in pictures]
        depth = torch.from_numpy(np.stack(depths))[:, :, None] if self._depth else None
        return frames.permute(0, 1, 4, 2, 3).contiguous(), depth
