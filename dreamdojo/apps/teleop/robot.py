"""Robots behind one small protocol: something that acts for one period of control and looks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import ConfigError, MissingDependencyError
from dreamdojo.rollout.session import CAMERA
from dreamdojo.world import Observation


@runtime_checkable
class Robot(Protocol):
    """A robot with a camera, driven from one thread."""

    @property
    def embodiment(self) -> Embodiment:
        """What its actions and its state mean."""
        ...

    @property
    def fps(self) -> float:
        """Periods of control in a second: actions, and pictures."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether its time is the caller's: then a period passes in `act` alone, and a seed decides everything."""
        ...

    def reset(self, *, seed: int) -> Observation:
        """Connect where needed, go to the start, and look: batch 1, one frame of the camera `head`, and the state."""
        ...

    def act(self, action: np.ndarray) -> Observation:
        """Do an action `(a,)` in the embodiment's units for one period, and look at its end."""
        ...

    def halt(self) -> None:
        """Stop all motion now. May be called from any thread, and more than once."""
        ...

    def close(self) -> None:
        """Let go of the robot."""
        ...


def seen(picture: np.ndarray, state: np.ndarray | None, depth: np.ndarray | None = None) -> Observation:
    """One look: a picture `h w 3` uint8, the state `(s,)`, and depth `h w` in metres where it is measured."""
    frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None, None].contiguous()
    told = None if state is None else torch.from_numpy(np.asarray(state, np.float32))[None, None]
    metres = None if depth is None else {CAMERA: torch.from_numpy(depth)[None, None, None]}
    return Observation(frames={CAMERA: frame}, state=told, depth=metres)


class DojoRobot:
    """A body of the dojo in a scene of its own; the default.

    It remembers its last moments (`at`), from which the kinematic ghost and the oracle start.
    """

    simulated = True

    def __init__(self, simulation: Any, *, size: int = 128, depth: bool = False, remember: int = 64) -> None:
        """Hold a simulation.

        Args:
            simulation: a `dreamdojo.dojo.Simulation`, whose scenes `reset` builds.
            size: side of its pictures in pixels.
            depth: whether its camera measures depth as well.
            remember: moments that `at` can go back to.
        """
        self.simulation = simulation
        self.size = size
        self.depth = depth
        self._remember = remember
        self._moments: OrderedDict[int, Any] = OrderedDict()
        self._ticks = 0

    @property
    def embodiment(self) -> Embodiment:
        """The body's."""
        return self.simulation.embodiment

    @property
    def fps(self) -> float:
        """The simulation's."""
        return self.simulation.fps

    def reset(self, *, seed: int) -> Observation:
        """Build the scene of a seed.

        Raises:
            SimulationError: if it does not come to rest.
        """
        self.simulation.reset(seed)
        return self.begin()

    def begin(self) -> Observation:
        """Begin in the scene that the simulation holds."""
        self._moments.clear()
        self._ticks = 0
        return self._look()

    def act(self, action: np.ndarray) -> Observation:
        """One frame of physics.

        Raises:
            SimulationError: if the physics breaks down.
        """
        self.step(action)
        self._ticks += 1
        return self._look()

    def step(self, action: np.ndarray) -> None:
        """Let the scene go on for one period."""
        self.simulation.step(action)

    def at(self, tick: int) -> Any:
        """A copy of the simulation as it was after `tick` actions.

        Raises:
            ConfigError: if that is too long ago.
        """
        if tick not in self._moments:
            raise ConfigError(f"the dojo remembers the last {self._remember} actions, and action {tick} is not of them")
        return self._moments[tick].fork()

    def halt(self) -> None:
        """The dojo moves in `act` alone."""

    def close(self) -> None:
        """Forget the scene."""
        self._moments.clear()

    def _look(self) -> Observation:
        self._moments[self._ticks] = self.simulation.fork()
        while len(self._moments) > self._remember:
            self._moments.popitem(last=False)
        picture = self.simulation.picture(self.size, depth=self.depth)
        return seen(picture.rgb, self.simulation.state(), picture.depth)


class GymRobot:
    """Any Gymnasium environment with continuous actions and pictures.

    Pictures are the observation itself, its entry `pixels`, or what `render` returns. An environment that ends begins
    again only at a reset.
    """

    simulated = True

    def __init__(self, environment: str | Any, *, fps: float | None = None, **options: Any) -> None:
        """Make an environment by its id, with `options`, or hold one.

        Raises:
            ConfigError: if it has no continuous actions, no rate, or no pictures.
        """
        import gymnasium
        from gymnasium import spaces

        self._env = gymnasium.make(environment, **options) if isinstance(environment, str) else environment
        action = self._env.action_space
        if not isinstance(action, spaces.Box) or len(action.shape) != 1 or not action.is_bounded():
            raise ConfigError(f"expected an environment whose actions are a bounded row of numbers, got {action}")
        rate = fps or self._env.metadata.get("render_fps")
        if not rate:
            raise ConfigError("the environment declares no render_fps: give fps")
        self.fps = float(rate)
        self.embodiment = self._declare(action)
        self._ended = False
        self._last: Observation | None = None

    def reset(self, *, seed: int) -> Observation:
        """Start the environment anew from a seed."""
        found, _ = self._env.reset(seed=seed)
        self._ended = False
        self._last = self._seen(found)
        return self._last

    def act(self, action: np.ndarray) -> Observation:
        """One step; after the end of the episode nothing moves any more."""
        if self._last is None:
            raise ConfigError("the environment has not been reset")
        if not self._ended:
            found, _, terminated, truncated, _ = self._env.step(action.astype(self._env.action_space.dtype))
            self._ended = bool(terminated or truncated)
            self._last = self._seen(found)
        return self._last

    def halt(self) -> None:
        """An environment moves in `step` alone."""

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _declare(self, action: Any) -> Embodiment:
        low, high = (tuple(float(value) for value in side) for side in (action.low, action.high))
        axes = tuple(str(index) for index in range(len(low)))
        name = self._env.spec.id if self._env.spec is not None else type(self._env.unwrapped).__name__
        return Embodiment(
            name=name, action=(Field(name="action", axes=axes, unit="1", low=low, high=high, resampling="mean"),)
        )

    def _seen(self, found: Any) -> Observation:
        if isinstance(found, dict):
            found = found.get("pixels")
        if not _is_picture(found):
            found = self._env.render()
        if not _is_picture(found):
            raise ConfigError(
                "expected an environment that shows pictures: uint8 observations h w 3, an entry `pixels` of such, or "
                'render_mode="rgb_array"'
            )
        return seen(found, None)


def _is_picture(thing: Any) -> bool:
    return isinstance(thing, np.ndarray) and thing.dtype == np.uint8 and thing.ndim == 3 and thing.shape[2] == 3


def require_lerobot() -> None:
    """Check that the `lerobot` package is there.

    Raises:
        MissingDependencyError: saying how to get it.
    """
    try:
        import lerobot  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "a LeRobot arm is driven through the package lerobot, which is not installed. Run: pip install lerobot "
            "(0.4 needs Python 3.10 to 3.12; see its page for the extra of your motors, e.g. lerobot[feetech])"
        ) from error
