"""The one thread that steps what is driven.

Worlds and robots are bound by computation and not thread-safe, so everything that touches them happens here; every
other method only says what is wanted and returns. One turn takes the newest command, advances the vehicle under it and
publishes a frame per action. Of several vehicles one is driven at a time: its name is the session's mode.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.messages import Command, Frame, SessionState
from dreamdojo.apps.play.settings import PlaySettings, Start
from dreamdojo.apps.play.vehicle import Shot, Vehicle
from dreamdojo.errors import DreamDojoError

log = logging.getLogger(__name__)

MAX_RATE = 240.0
"""Frames per second that "as fast as possible" stops at: more than any screen shows."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A frame and when to show it, in seconds from now: the `k` frames of one step are one after the other in time."""

    frame: Frame
    delay: float


class Driver:
    """Drives one vehicle at a time, under one command, while somebody watches. The first is the one to begin with."""

    def __init__(self, vehicles: Mapping[str, Vehicle], starts: Sequence[Start], settings: PlaySettings) -> None:
        self._vehicles = dict(vehicles)
        self._starts = starts
        self._settings = settings
        first = next(iter(self._vehicles.values()))
        self._controls = first.controls
        self._rate = settings.rate or first.fps

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
        self._mode = next(iter(self._vehicles))
        self._rest = self._controls.rest(None)
        self._command = Command(values=self._rest)
        self._command_at = -math.inf

        # only the driving thread touches these
        self._sequence = 0
        self._index = 0
        self._moving: Vehicle | None = None

    @property
    def controls(self) -> Controls:
        """What the operator's commands mean."""
        return self._controls

    @property
    def vehicles(self) -> Mapping[str, Vehicle]:
        """What can be driven, by mode."""
        return self._vehicles

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

    def switch(self, mode: str) -> None:
        """Drive the vehicle of this name, from the start where the session last started."""
        with self._changed:
            self._mode, self._reset_to = mode, self._start
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
                mode=self._mode,
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
                must_halt = self._moving is not None and not self._may_step()
                if not must_halt:
                    if not self._has_work():
                        self._changed.wait_for(self._has_work)
                        turn_at = time.monotonic()
                    while self._may_step() and (wait := turn_at - time.monotonic()) > 0:
                        self._changed.wait(wait)
                    if self._stopping and self._moving is None:
                        return
                    if not self._has_work() or self._stopping:
                        continue
                start, mode = self._reset_to, self._mode
            try:
                if must_halt:
                    self._halt()
                elif start is not None:
                    self._begin(start, mode, publish)
                    turn_at = time.monotonic()
                else:
                    # a step that took longer than its turn is not made up for: the worlds fall behind the clock
                    turn_at = max(turn_at + self._turn(mode, publish), time.monotonic())
            except DreamDojoError as error:
                self._fail(str(error), start, mode, publish)
            except Exception as error:
                # a world is other people's code: whatever it raises is shown, and a reset tries again
                log.exception("a world failed")
                self._fail(f"{type(error).__name__}: {error}", start, mode, publish)

    def _has_work(self) -> bool:
        return self._stopping or (self._watched and self._reset_to is not None) or self._may_step()

    def _may_step(self) -> bool:
        stands = self._stopping or self._paused or self._failure is not None or self._reset_to is not None
        return self._watched and not stands

    def _halt(self) -> None:
        vehicle, self._moving = self._moving, None
        if vehicle is not None:
            vehicle.halt()

    def _begin(self, start: int, mode: str, publish: Callable[[Timed | SessionState], None]) -> None:
        rest, shot = self._vehicles[mode].begin(self._starts[start])
        with self._changed:
            self._failure = None
            self._episode += 1
            self._start = start
            self._rest = rest
            self._command = Command(values=rest)
            if self._reset_to == start and self._mode == mode:
                self._reset_to = None
            command = self._command
        self._index = 0
        publish(self.state())
        publish(Timed(frame=self._frame(mode, command, shot), delay=0.0))

    def _turn(self, mode: str, publish: Callable[[Timed | SessionState], None]) -> float:
        """Advance the vehicle; returns the seconds that the turn should take."""
        with self._changed:
            if time.monotonic() - self._command_at > self._settings.command_timeout:
                self._let_go()
            command, unlimited = self._command, self._unlimited
        vehicle = self._moving = self._vehicles[mode]
        began = time.perf_counter()
        shots = vehicle.advance(command)
        took = time.perf_counter() - began
        interval = took / len(shots) if unlimited else 1 / self._rate
        for i, shot in enumerate(shots):
            self._index += 1
            publish(Timed(frame=self._frame(mode, command, shot), delay=i * interval))
        return len(shots) / (MAX_RATE if unlimited else self._rate)

    def _frame(self, mode: str, command: Command, shot: Shot) -> Frame:
        self._sequence += 1
        return Frame(
            sequence=self._sequence,
            episode=self._episode,
            index=self._index,
            time=self._index / self._vehicles[mode].fps,
            command=command,
            views=shot.views,
            notes=shot.notes,
        )

    def _let_go(self) -> None:
        relaxed = self._controls.relaxed(self._command.values)
        if not np.array_equal(relaxed, self._command.values):
            self._command = Command(values=relaxed, id=self._command.id, time=self._command.time)

    def _fail(self, reason: str, start: int | None, mode: str, publish: Callable[[Timed | SessionState], None]) -> None:
        with self._changed:
            self._failure = reason
            if (self._reset_to, self._mode) == (start, mode):  # what was asked for meanwhile is still to come
                self._reset_to = None
        publish(self.state())
