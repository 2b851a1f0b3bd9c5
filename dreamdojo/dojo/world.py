"""The dojo as a `World`: the same protocol as a dream, with real physics behind it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.errands import ErrandTask, Outcome, Trial, start_errand
from dreamdojo.dojo.layout import CAMERA
from dreamdojo.dojo.render import Picture
from dreamdojo.dojo.scene import GOAL
from dreamdojo.dojo.simulation import Moment, Simulation, UnstablePhysics
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
        task: every scene has this errand to be done (`dreamdojo.dojo.errands`); None for free play.
        show_goal: whether the errand's disc is seen. A model that never saw one should not be shown one.

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
        task: ErrandTask | None = None,
        show_goal: bool = True,
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
        self._task: ErrandTask | None = task
        self._show_goal = show_goal
        self._blind = self._tolerant = False
        self._simulations: list[Simulation] = []
        self._trials: list[Trial] = []
        self._broken: set[int] = set()

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
        """The head camera; none in a rehearsal without pictures."""
        return () if self._blind else (CAMERA,)

    @property
    def moments(self) -> list[Moment]:
        """The truth now, one per scene of the batch."""
        return [simulation.moment() for simulation in self._running()]

    @property
    def simulations(self) -> Sequence[Simulation]:
        """The scenes themselves, one per row of the batch: for who may see the truth, such as a scripted policy."""
        return self._running()

    @property
    def seed(self) -> int:
        """Of the first scene."""
        return self._running()[0].layout.seed

    @property
    def trials(self) -> Sequence[Trial]:
        """The errand of each scene.

        Raises:
            ConfigError: if the world was made without a task.
        """
        if self._task is None:
            raise ConfigError('there is nothing to be done in free play: make the world with task="push" or another')
        return self._trials

    @property
    def outcomes(self) -> list[Outcome]:
        """How the errand of each scene stands."""
        return [trial.look() for trial in self.trials]

    @property
    def broken(self) -> frozenset[int]:
        """Scenes of a rehearsal whose physics became unstable: they stand still since."""
        return frozenset(self._broken)

    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Build the scene of `seed` (see `dreamdojo.dojo.splits`) and return its first observation, batch 1.

        Raises:
            ConfigError: if an observation is given, from which no scene can be built, the seed is of no split, or its
                scene has no errand of the world's task in it.
            SimulationError: if the scene of this seed does not come to rest.
        """
        if observation is not None:
            raise ConfigError(
                "the dojo starts from a seed and cannot be reset to an observation; call reset(seed=...) without one"
            )
        self._simulations = []
        self._trials, self._broken = [], set()
        simulation = self._new()
        if self._task is None:
            simulation.reset(seed)
        else:
            trial = start_errand(simulation, seed, self._task)
            if trial is None:
                raise ConfigError(f"scene {seed} has nothing to {self._task} in it; choose another (errand_seeds)")
            self._trials = [trial]
            if not self._show_goal:
                simulation.model.geom(GOAL).rgba[3] = 0
        self._simulations = [simulation]
        frames, depth = self._stack([[self._look(simulation)]])
        state = torch.from_numpy(simulation.state())[None, None]
        return Observation(frames=frames, state=state, depth=depth)

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
        pictures: list[list[Picture | None]] = []
        states: list[list[np.ndarray]] = []
        for row, chunk in enumerate(actions.cpu().numpy()):
            pictures.append([])
            states.append([])
            for action in chunk:
                self._advance(row, action)
                pictures[-1].append(self._look(self._simulations[row]))
                states[-1].append(self._simulations[row].state())
        frames, depth = self._stack(pictures)
        state = torch.from_numpy(np.array(states))
        return Prediction(frames=frames, state=state, state_source="simulator", depth=depth)

    def fork(self, n: int) -> DojoWorld:
        """`n` exact and independent copies of a world of batch 1, as one world of batch `n`; one copy of any batch.

        Raises:
            ConfigError: if the batch is not 1 and `n` is not either, or `n` is not positive.
        """
        simulations = self._running()
        if n < 1 or 1 not in (n, len(simulations)):
            raise ConfigError(f"expected a world of batch 1 and n of 1 or more, got batch {len(simulations)} and n={n}")
        other = self._alike()
        rows = range(len(simulations)) if n == 1 else [0] * n
        other._simulations = [simulations[row].fork() for row in rows]
        if self._trials:
            pairs = zip(rows, other._simulations, strict=True)
            other._trials = [self._trials[row].fork(simulation) for row, simulation in pairs]
        other._broken = set(range(n)) if n > 1 and self._broken else set(self._broken)
        return other

    def rehearsal(self, *, pictures: bool = False) -> DojoWorld:
        """This very moment for trying things out: a fork that draws only where asked to, and breaks quietly.

        Many wild attempts are made in it. One whose physics becomes unstable stands still from then on and is named in
        `broken`, so that the others go on.
        """
        other = self.fork(1)
        other._blind, other._tolerant = not pictures, True
        return other

    def close(self) -> None:
        """Drop the scenes. The OpenGL context stays for the process's other worlds."""
        self._simulations, self._trials = [], []

    def _alike(self) -> DojoWorld:
        other = object.__new__(DojoWorld)
        other.__dict__.update(self.__dict__)
        return other

    def _advance(self, row: int, action: np.ndarray) -> None:
        if row in self._broken:
            return
        try:
            self._simulations[row].step(action)
        except UnstablePhysics:
            if not self._tolerant:
                raise
            self._broken.add(row)
        if self._trials:
            self._trials[row].look()  # it remembers what has been lifted

    def _running(self) -> Sequence[Simulation]:
        if not self._simulations:
            raise ConfigError("the world has no scene yet; call reset(seed=...) first")
        return self._simulations

    def _look(self, simulation: Simulation) -> Picture | None:
        return None if self._blind else simulation.picture(self._size, depth=self._depth)

    def _check(self, actions: Tensor, *, length: int) -> None:
        expected = (len(self._running()), length, self.embodiment.action_dim)
        if tuple(actions.shape) != expected:
            raise DataError(f"expected actions of shape b k a = {expected}, got {tuple(actions.shape)}")
        if not torch.isfinite(actions).all():
            raise DataError("expected finite actions, got NaN or infinity")

    def _stack(self, pictures: list[list[Picture | None]]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """By camera: frames `b t c h w` uint8, and depth `b t 1 h w` float32 where it was drawn."""
        rows = [[picture for picture in row if picture is not None] for row in pictures]
        if not rows[0]:
            return {}, None
        frames = torch.from_numpy(np.stack([[picture.rgb for picture in row] for row in rows]))
        depths = [[picture.depth for picture in row if picture.depth is not None] for row in rows]
        depth = {CAMERA: torch.from_numpy(np.stack(depths))[:, :, None]} if self._depth else None
        return {CAMERA: frames.permute(0, 1, 4, 2, 3).contiguous()}, depth
