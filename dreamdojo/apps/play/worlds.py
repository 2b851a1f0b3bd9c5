"""Worlds side by side as one vehicle: stepped in lockstep, under the same command."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.messages import Command, Picture, View
from dreamdojo.apps.play.pictures import encode
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
from dreamdojo.apps.play.vehicle import Panel, Shot
from dreamdojo.errors import DataError
from dreamdojo.video import colour_depth
from dreamdojo.world import Observation, Prediction


class Worlds:
    """One or more worlds that take the same actions at the same rate; satisfies `Vehicle`."""

    def __init__(self, worlds: Mapping[str, PlayWorld], settings: PlaySettings) -> None:
        self._worlds = dict(worlds)
        self._settings = settings
        first = next(iter(self._worlds.values())).world
        self.controls = Controls.of(first.embodiment, screen_right=settings.screen_right, screen_up=settings.screen_up)
        self.fps = first.fps
        self.actions_per_turn = math.lcm(*(play.world.actions_per_step for play in self._worlds.values()))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """One per world."""
        return tuple(
            Panel(
                name=name,
                label=play.label,
                cameras=play.picture_names,
                depth=0 if play.depth_span is None else len(play.world.cameras),
                state=tuple(play.world.embodiment.state_names()),
            )
            for name, play in self._worlds.items()
        )

    def begin(self, start: Start) -> tuple[np.ndarray, Shot]:
        """Reset every world to the start."""
        observations = {
            name: play.world.reset(start.observation if play.from_observation else None, seed=start.seed)
            for name, play in self._worlds.items()
        }
        states = [observation.state for observation in observations.values() if observation.state is not None]
        rest = self.controls.rest(states[0][0, -1].cpu().numpy() if states else None)
        return rest, Shot(views=tuple(self._view(name, seen, -1, None) for name, seen in observations.items()))

    def advance(self, command: Command) -> list[Shot]:
        """Step every world by the same number of actions."""
        views = [self._advance(name, play, command) for name, play in self._worlds.items()]
        return [Shot(views=tuple(shown)) for shown in zip(*views, strict=True)]

    def halt(self) -> None:
        """Worlds stand still by themselves."""

    def _advance(self, name: str, play: PlayWorld, command: Command) -> list[View]:
        world = play.world
        action = torch.from_numpy(self.controls.action(command.values, gain=self._settings.gain))
        views = []
        for _ in range(self.actions_per_turn // world.actions_per_step):
            began = time.perf_counter()
            seen = world.step(action.repeat(1, world.actions_per_step, 1))
            step_ms = 1000 * (time.perf_counter() - began)
            views += [self._view(name, seen, i, step_ms) for i in range(world.actions_per_step)]
        return views

    def _view(self, name: str, seen: Observation | Prediction, i: int, step_ms: float | None) -> View:
        uncertainty = seen.uncertainty if isinstance(seen, Prediction) else None
        return View(
            world=name,
            pictures=tuple(
                Picture(camera=camera, data=encode(picture, self._settings))
                for camera, picture in shown(self._worlds[name], seen, i)
            ),
            step_ms=step_ms,
            state=self._state(name, seen, i),
            state_source=seen.state_source if isinstance(seen, Prediction) else None,
            uncertainty=None if uncertainty is None else float(uncertainty[0, i]),
        )

    def _state(self, name: str, seen: Observation | Prediction, i: int) -> tuple[float, ...] | None:
        """What is known of it: a world that integrates commands cannot know the rest, which is NaN."""
        if seen.state is None:
            return None
        state = seen.state[0, i].double().cpu().numpy()
        if isinstance(seen, Prediction) and seen.state_source == "integrator":
            state = np.where(self._worlds[name].world.embodiment.integrated(), state, np.nan)
        return tuple(state.tolist())


def shown(play: PlayWorld, seen: Observation | Prediction, i: int) -> list[tuple[str, Tensor]]:
    """The pictures `c h w` uint8 of frame i, each with its name, in the order of `picture_names`.

    Raises:
        DataError: if depth is to be shown and the world gives none.
    """
    pictures = [seen.frames[camera][0, i] for camera in play.world.cameras]
    if play.depth_span is not None:
        if seen.depth is None:
            raise DataError(f"world {play.label!r} is to show depth and gave none: leave its depth_span out")
        for camera in play.world.cameras:
            coloured = colour_depth(seen.depth[camera][0, i, 0].cpu().numpy(), *play.depth_span)
            pictures.append(torch.from_numpy(coloured).permute(2, 0, 1))
    return list(zip(play.picture_names, pictures, strict=True))
