"""The one thread that steps the worlds.

Worlds are bound by computation and not thread-safe, so everything that touches them happens here; every other method
only says what is wanted and returns. One turn takes the newest command, repeats it for the `k` actions of each world's
step, and publishes a frame per action.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.messages import Command, Frame, Picture, SessionState, View
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
from dreamdojo.errors import DataError, DreamDojoError
from dreamdojo.video import colour_depth
from dreamdojo.world import Observation, Prediction

log = logging.getLogger(__name__)

MAX_RATE = 240.0
"""Frames per second that "as fast as possible" stops at: more than any screen shows."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A frame and when to show it, in seconds from now: the `k` frames of one step are one after the other in time."""

    frame: Frame
    delay: float


class Driver:
    """Steps all worlds in lockstep, under one command, while somebody watches."""

    def __init__(
        self,
        worlds: Mapping[str, PlayWorld],
        starts: Sequence[Start],
        settings: PlaySettings,
        controls: Controls,
    ) -> None:
        self._worlds = dict(worlds)
        self._starts = starts
        self._settings = settings
        self._controls = controls
        first = next(iter(self._worlds.values())).world
        self._fps = first.fps
        self._rate = settings.rate or first.fps
        self._actions_per_turn = math.lcm(*(play.world.actions_per_step for play in self._worlds.values()))

        # what is wanted, and where things stand: guarded by the condition
        self._changed = threading.Condition()
        self._stopping = False
        self._watched = False
        self._paused = False
        self._unlimited = False
        self._reset_to: int | None = 0
        self._failure: str | None = None
        self._episode = 0
        self._start = 0
        self._rest = controls.rest(None)
        self._command = Command(values=self._rest)
        self._command_at = -math.inf

        # only the driving thread touches these
        self._sequence = 0
        self._index = 0

    @property
    def controls(self) -> Controls:
        """What the operator's commands mean."""
        return self._controls

    @property
    def rate(self) -> float:
        """Frames per second at normal speed."""
        return self._rate

    def watch(self, watched: bool) -> None:
        """Say whether anybody looks; the worlds stand still when nobody does."""
        with self._changed:
            self._watched = watched
            self._changed.notify_all()

    def drive(self, command: Command, *, episode: int) -> None:
        """Use this command from the next step on, unless its episode is over."""
        with self._changed:
            if episode == self._episode:
                self._command, self._command_at = command, time.monotonic()

    def release(self) -> None:
        """Let go: velocities fall to rest, targets and grippers stay."""
        with self._changed:
            self._let_go()

    def reset(self, start: int | None) -> None:
        """Start anew from the start of this number, or from the last one."""
        with self._changed:
            self._reset_to = self._start if start is None else start
            self._changed.notify_all()

    def pause(self, paused: bool) -> None:
        """Stand still, or go on."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def hurry(self, unlimited: bool) -> None:
        """Go as fast as the worlds can, or in time."""
        with self._changed:
            self._unlimited = unlimited
            self._changed.notify_all()

    def stop(self) -> None:
        """End `run` after the step it is in."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def state(self) -> SessionState:
        """Where the session stands."""
        with self._changed:
            if self._reset_to is not None:
                state = "resetting"
            elif self._failure is not None:
                state = "failed"
            else:
                state = "paused" if self._paused else "running"
            return SessionState(
                state=state,
                paused=self._paused,
                unlimited=self._unlimited,
                episode=self._episode,
                start=self._start if self._reset_to is None else self._reset_to,
                rest=tuple(self._rest.tolist()),
                command=tuple(self._command.values.tolist()),
                command_id=self._command.id,
                failure=self._failure,
            )

    def run(self, publish: Callable[[Timed | SessionState], None]) -> None:
        """Drive until `stop`. `publish` is called from this thread and must return at once."""
        turn_at = time.monotonic()
        while True:
            with self._changed:
                if not self._has_work():
                    self._changed.wait_for(self._has_work)
                    turn_at = time.monotonic()
                while self._may_step() and (wait := turn_at - time.monotonic()) > 0:
                    self._changed.wait(wait)
                if self._stopping:
                    return
                if not self._has_work():
                    continue
                start = self._reset_to
            try:
                if start is not None:
                    self._begin(start, publish)
                    turn_at = time.monotonic()
                else:
                    # a step that took longer than its turn is not made up for: the worlds fall behind the clock
                    turn_at = max(turn_at + self._turn(publish), time.monotonic())
            except DreamDojoError as error:
                self._fail(str(error), publish)
            except Exception as error:
                # a world is other people's code: whatever it raises is shown, and a reset tries again
                log.exception("a world failed")
                self._fail(f"{type(error).__name__}: {error}", publish)

    def _has_work(self) -> bool:
        return self._stopping or (self._watched and self._reset_to is not None) or self._may_step()

    def _may_step(self) -> bool:
        stands = self._stopping or self._paused or self._failure is not None or self._reset_to is not None
        return self._watched and not stands

    def _begin(self, start: int, publish: Callable[[Timed | SessionState], None]) -> None:
        chosen = self._starts[start]
        observations = {
            name: play.world.reset(chosen.observation if play.from_observation else None, seed=chosen.seed)
            for name, play in self._worlds.items()
        }
        states = [observation.state for observation in observations.values() if observation.state is not None]
        rest = self._controls.rest(states[0][0, -1].cpu().numpy() if states else None)
        with self._changed:
            self._failure = None
            self._episode += 1
            self._start = start
            self._rest = rest
            self._command = Command(values=rest)
            if self._reset_to == start:
                self._reset_to = None
            command = self._command
        self._index = 0
        publish(self.state())
        views = tuple(self._view(name, seen, -1, None) for name, seen in observations.items())
        publish(Timed(frame=self._frame(command, views), delay=0.0))

    def _turn(self, publish: Callable[[Timed | SessionState], None]) -> float:
        """Step every world by the same number of actions; returns the seconds that the turn should take."""
        with self._changed:
            if time.monotonic() - self._command_at > self._settings.command_timeout:
                self._let_go()
            command, unlimited = self._command, self._unlimited
        began = time.perf_counter()
        views = [self._advance(name, play, command) for name, play in self._worlds.items()]
        took = time.perf_counter() - began
        interval = took / self._actions_per_turn if unlimited else 1 / self._rate
        for i, shown in enumerate(zip(*views, strict=True)):
            self._index += 1
            publish(Timed(frame=self._frame(command, shown), delay=i * interval))
        return self._actions_per_turn / (MAX_RATE if unlimited else self._rate)

    def _advance(self, name: str, play: PlayWorld, command: Command) -> list[View]:
        world = play.world
        at_rest = self._controls.relaxed(command.values)
        scaled = at_rest + self._settings.gain * (command.values - at_rest)
        action = torch.from_numpy(world.embodiment.denormalize_action(scaled))
        views = []
        for _ in range(self._actions_per_turn // world.actions_per_step):
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
            state=None if seen.state is None else tuple(seen.state[0, i].tolist()),
            state_source=seen.state_source if isinstance(seen, Prediction) else None,
            uncertainty=None if uncertainty is None else float(uncertainty[0, i]),
        )

    def _frame(self, command: Command, views: tuple[View, ...]) -> Frame:
        self._sequence += 1
        return Frame(
            sequence=self._sequence,
            episode=self._episode,
            index=self._index,
            time=self._index / self._fps,
            command=command,
            views=views,
        )

    def _let_go(self) -> None:
        relaxed = self._controls.relaxed(self._command.values)
        if not np.array_equal(relaxed, self._command.values):
            self._command = Command(values=relaxed, id=self._command.id, time=self._command.time)

    def _fail(self, reason: str, publish: Callable[[Timed | SessionState], None]) -> None:
        with self._changed:
            self._failure = reason
            self._reset_to = None
        publish(self.state())


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


def encode(picture: Tensor, settings: PlaySettings) -> bytes:
    """A picture `c h w` uint8 in the session's encoding."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    buffer = io.BytesIO()
    if settings.encoding == "webp-lossless":
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    elif settings.encoding == "webp":
        image.save(buffer, "WEBP", quality=settings.quality, method=0)
    else:
        image.save(buffer, "JPEG", quality=settings.quality, subsampling=0)
    return buffer.getvalue()
