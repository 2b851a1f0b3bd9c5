"""Gymnasium environments: bring the object in the colour of the disc to the disc, by pushing or by carrying."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.errands import ErrandTask, start_errand
from dreamdojo.dojo.layout import Errand
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import SEEDS_PER_SPLIT, seed_of
from dreamdojo.errors import ConfigError

ObservationDict = dict[str, np.ndarray]

_STATE_LIMIT = 10.0  # metres or radians: no state comes near


class ErrandEnv(gymnasium.Env[Any, np.ndarray]):
    """A scene with an errand.

    Observation: `pixels`, `(size, size, 3)` uint8, and `state`, the body's proprioception as its embodiment declares
    it. Action: the embodiment's, every number scaled from its declared range to [-1, 1]. Reward: minus the distance of
    the object from the disc in metres. The episode terminates with success, or when an object leaves the table, and is
    truncated when the physics becomes unstable. `info` holds `success`, `distance` (m), `lifted`, `unstable` and
    `scene`, the dojo seed; `reset(options={"scene": seed})` builds that very scene.

    Args:
        body: a name of `BODIES`.
        control: what the actions mean.
        difficulty: what scenes are drawn from, itself or by name.
        split: which range of seeds scenes come from.
        size: side of the pictures in pixels.
        render_mode: `rgb_array` or None.
        render_size: side of what `render` returns, pixels.

    Raises:
        ConfigError: if a setting is unknown.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # pyright: ignore[reportIncompatibleVariableOverride]

    task: ClassVar[ErrandTask]
    """What an expert would call it."""

    def __init__(
        self,
        *,
        body: str = "arm",
        control: str = "end_effector_velocity",
        difficulty: Difficulty | str = GENTLE,
        split: str = "train",
        size: int = 128,
        render_mode: str | None = None,
        render_size: int = 256,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"expected render_mode rgb_array or None, got {render_mode!r}")
        self.simulation = Simulation(body, control=control, difficulty=find_difficulty(difficulty))
        self.render_mode = render_mode
        self._split, self._size, self._render_size = split, size, render_size
        embodiment = self.simulation.embodiment
        self.action_space = spaces.Box(-1.0, 1.0, (embodiment.action_dim,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": spaces.Box(-_STATE_LIMIT, _STATE_LIMIT, (embodiment.state_dim,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationDict, dict[str, Any]]:
        """Draw a scene, or build the one of `options["scene"]`.

        Raises:
            ConfigError: if `options` asks for a scene in which there is nothing to do, or for anything else.
        """
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"scene"}:
            raise ConfigError(f'reset takes options={{"scene": seed}}, got {sorted(unknown)}')
        if options:
            if not self._start(int(options["scene"])):
                raise ConfigError(f"scene {options['scene']} has nothing to do in it; choose another")
        else:
            while not self._start(seed_of(self._split, int(self.np_random.integers(SEEDS_PER_SPLIT)))):
                pass
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[ObservationDict, float, bool, bool, dict[str, Any]]:
        """One action in [-1, 1]; it takes a tenth of a second."""
        unstable = False
        try:
            self.simulation.step(self.simulation.embodiment.denormalize_action(np.asarray(action, np.float32)))
        except UnstablePhysics:
            unstable = True
        info = {**self._info(), "unstable": unstable}
        if unstable:
            info["success"] = False
            return self._blank(), 0.0, False, True, info
        terminated = info["success"] or self.simulation.has_lost_object()
        return self._observation(), -info["distance"], terminated, False, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the head camera sees, `(render_size, render_size, 3)` uint8, in mode `rgb_array`."""
        return self.simulation.picture(self._render_size).rgb if self.render_mode else None

    @property
    def errand(self) -> Errand:
        """What is to be done in this scene."""
        return self._trial.errand

    def _start(self, seed: int) -> bool:
        """Build the scene of a seed, unless there is nothing to do in it."""
        trial = start_errand(self.simulation, seed, self.task)
        if trial is not None:
            self._trial = trial
        return trial is not None

    def _info(self) -> dict[str, Any]:
        outcome = self._trial.look()
        return {
            "success": outcome.success,
            "distance": outcome.distance,
            "lifted": outcome.lifted,
            "unstable": False,
            "scene": self.simulation.layout.seed,
        }

    def _observation(self) -> ObservationDict:
        return {"pixels": self.simulation.picture(self._size).rgb, "state": self.simulation.state()}

    def _blank(self) -> ObservationDict:
        """What there is to see when the physics has broken down."""
        return {name: np.zeros(space.shape, space.dtype) for name, space in self.observation_space.items()}  # pyright: ignore


class PushEnv(ErrandEnv):
    """`dreamdojo/Push-v0`: the object's centre is to come to the disc, by whatever means."""

    task = "push"


class PickPlaceEnv(ErrandEnv):
    """`dreamdojo/PickPlace-v0`: the object is to be lifted, and to stand on the disc with the hand off it."""

    task = "pick_place"
