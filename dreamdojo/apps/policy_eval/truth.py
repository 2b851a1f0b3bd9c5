"""The dojo from many starts at once, as a `World`: what really happens where a policy acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.policy_eval.starts import RECORDED
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.video import Size, resize
from dreamdojo.world import Observation, Prediction


class TrueWorld:
    """The scenes of `seeds`, side by side, seen at the model's size; satisfies `dreamdojo.world.World`.

    A scene whose physics becomes unstable stands still from then on, and its episode is no success (`lost`).
    """

    def __init__(
        self, new: Callable[[], Simulation], seeds: Sequence[int], *, size: Size, actions_per_step: int = 1
    ) -> None:
        self._new, self._seeds, self._size, self._actions_per_step = new, tuple(seeds), size, actions_per_step
        template = new()
        self._embodiment, self._fps = template.embodiment, template.fps
        self._simulations: list[Simulation] = []

    @property
    def embodiment(self) -> Embodiment:
        """The body whose actions the world takes."""
        return self._embodiment

    @property
    def fps(self) -> float:
        """Frames and actions per second."""
        return self._fps

    @property
    def actions_per_step(self) -> int:
        """`k`, the actions that one `step` takes."""
        return self._actions_per_step

    @property
    def cameras(self) -> tuple[str, ...]:
        """The head camera."""
        return (CAMERA,)

    @property
    def poses(self) -> list[np.ndarray]:
        """Of each scene `t n 7`: where the objects were at every frame since the reset."""
        return [np.stack(poses) for poses in self._poses]

    @property
    def simulations(self) -> Sequence[Simulation]:
        """The scenes themselves, one per row of the batch: for who may see the truth, such as a judge."""
        return self._simulations

    @property
    def lost(self) -> np.ndarray:
        """`b` bool: scenes whose physics gave up."""
        return np.array(self._lost)

    def reset(self, observation: Observation | None = None, *, seed: int = 0) -> Observation:
        """Build all scenes again; they say themselves what is to be seen, and nothing in them is random.

        Raises:
            ConfigError: if an observation is given.
        """
        del seed
        if observation is not None:
            raise ConfigError("the dojo starts from its seeds and cannot be reset to an observation; give none")
        self._simulations = [self._new() for _ in self._seeds]
        for simulation, number in zip(self._simulations, self._seeds, strict=True):
            simulation.reset(number)
        self._poses = [[simulation.object_poses().copy()] for simulation in self._simulations]
        self._lost = [False] * len(self._seeds)
        self._seen = [self._look(simulation) for simulation in self._simulations]
        frames, state = self._stacked([[seen] for seen in self._seen])
        return Observation(frames={CAMERA: frames}, state=state)

    def observe(self, observation: Observation, actions: Tensor) -> None:
        """Nothing: the dojo is the truth, and real frames tell it nothing new."""

    def step(self, actions: Tensor) -> Prediction:
        """Advance every scene by one action chunk `b k a`.

        Raises:
            DataError: if the shape does not fit or an action is not finite.
        """
        expected = (len(self._simulations), self._actions_per_step, self._embodiment.action_dim)
        if tuple(actions.shape) != expected or not torch.isfinite(actions).all():
            raise DataError(f"expected finite actions b k a = {expected}, got {tuple(actions.shape)}")
        seen = [
            [self._advance(number, action) for action in chunk] for number, chunk in enumerate(actions.cpu().numpy())
        ]
        frames, state = self._stacked(seen)
        return Prediction(frames={CAMERA: frames}, state=state, state_source="simulator")

    def fork(self, n: int) -> TrueWorld:
        """`n` copies of a world of one scene.

        Raises:
            ConfigError: if there are several scenes.
        """
        if len(self._simulations) != 1:
            raise ConfigError(f"only a world of batch 1 can be forked, this one has {len(self._simulations)}")
        other = TrueWorld(self._new, self._seeds * n, size=self._size, actions_per_step=self._actions_per_step)
        other._simulations = [self._simulations[0].fork() for _ in range(n)]
        other._poses = [list(self._poses[0]) for _ in range(n)]
        other._lost, other._seen = self._lost * n, self._seen * n
        return other

    def close(self) -> None:
        """Drop the scenes."""
        self._simulations = []

    def _advance(self, number: int, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        simulation = self._simulations[number]
        if not self._lost[number]:
            try:
                simulation.step(action)
                self._seen[number] = self._look(simulation)
            except UnstablePhysics:
                self._lost[number] = True
        still = self._poses[number][-1]
        self._poses[number].append(still if self._lost[number] else simulation.object_poses().copy())
        return self._seen[number]

    def _look(self, simulation: Simulation) -> tuple[np.ndarray, np.ndarray]:
        return resize(simulation.picture(RECORDED).rgb[None], self._size)[0], simulation.state()

    @staticmethod
    def _stacked(seen: list[list[tuple[np.ndarray, np.ndarray]]]) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(np.stack([[frame for frame, _ in row] for row in seen]))
        states = torch.from_numpy(np.stack([[state for _, state in row] for row in seen]))
        return frames.permute(0, 1, 4, 2, 3).contiguous(), states
