"""Gymnasium environments: bring the object in the colour of the disc to the disc, by pushing or by carrying."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.layout import Errand, draw_layout, with_errand
from dreamdojo.dojo.plans import Task
from dreamdojo.dojo.scene import GOAL_RADIUS
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import SEEDS_PER_SPLIT, seed_of
from dreamdojo.errors import ConfigError

ObservationDict = dict[str, np.ndarray]

_STATE_LIMIT = 10.0  # metres or radians: no state comes near
_LIFTED = 0.03  # metres above where it stood


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

    task: ClassVar[Task]
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
        self._lifted |= bool(self._target_pose()[2] - self._stood_at > _LIFTED)
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
        errand = self.simulation.layout.errand
        assert errand is not None  # every scene is started with one
        return errand

    def _is_done(self, distance: float, lifted: bool) -> bool:
        raise NotImplementedError

    def _start(self, seed: int) -> bool:
        """Build the scene of a seed, unless there is nothing to do in it."""
        body = self.simulation.body
        layout = draw_layout(seed, self.simulation.difficulty, body)
        layout = with_errand(layout, body, grasp=self.task == "pick_place")
        if layout is None:
            return False
        try:
            self.simulation.reset_to(layout)
        except UnstablePhysics:
            return False
        self._stood_at, self._lifted = float(self._target_pose()[2]), False
        return not self._is_done(self._distance(), False)

    def _target_pose(self) -> np.ndarray:
        return self.simulation.object_poses()[self.errand.target]

    def _distance(self) -> float:
        return float(np.linalg.norm(self._target_pose()[:2] - self.errand.goal))

    def _info(self) -> dict[str, Any]:
        distance = self._distance()
        return {
            "success": self._is_done(distance, self._lifted),
            "distance": distance,
            "lifted": self._lifted,
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

    def _is_done(self, distance: float, lifted: bool) -> bool:
        return distance < GOAL_RADIUS


class PickPlaceEnv(ErrandEnv):
    """`dreamdojo/PickPlace-v0`: the object is to be lifted, and to stand on the disc with the hand off it."""

    task = "pick_place"

    def _is_done(self, distance: float, lifted: bool) -> bool:
        if not (lifted and distance < GOAL_RADIUS):
            return False
        resting = self._target_pose()[2] - self._stood_at < 0.01
        return bool(resting and not self.simulation.moment().touched[self.errand.target])
