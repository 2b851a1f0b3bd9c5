"""One robot at the far end of a link, period by period, and what the operator's end makes of it.

    orders ──up──▶ onboard ──▶ robot
    reports ◀─down── camera, state, the actions really done

The operator's end anchors its predictor on every real frame that arrives, and asks it for the frames of the orders that
no report speaks of yet. Nothing in here looks at a clock: the same seed, orders, link and predictor give the same
frames, bit for bit, on one machine. That is what replaying a session rests on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.teleop.calibration import rms
from dreamdojo.apps.teleop.link import Link, LinkSettings
from dreamdojo.apps.teleop.onboard import REMEMBERED, Onboard, Order, Report, Safeguards, limited
from dreamdojo.apps.teleop.predict import Predictor
from dreamdojo.apps.teleop.robot import Robot
from dreamdojo.rollout.session import CAMERA
from dreamdojo.rollout.starts import fitted
from dreamdojo.world import Observation, Prediction


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one period is given: all that a session's course depends on, besides its seed."""

    action: np.ndarray
    """`(a,)` what the operator asks for, in the embodiment's units."""
    held: bool = True
    """Whether the deadman switch is held."""
    stopped: bool = False
    """Whether the emergency stop is in force."""
    link: LinkSettings = LinkSettings()  # noqa: RUF009  it is frozen
    """What the link does to messages sent now."""
    anchor: bool = True
    """Whether frames that have arrived are taken in now, or wait for a later period that has the time."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the predictor is asked for in one period."""

    anchor: Observation | None
    """Real frames since the last anchor, at the robot's size; None where none came."""
    actions: Tensor | None
    """`1 t a` that led to them; None where too much was lost to know them, and the prediction starts anew."""
    tick: int
    """Of the newest anchored frame."""
    pending: Tensor
    """`1 n a`, actions from there on; only the newest where nothing was anchored. n may be 0."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the operator sees after a period."""

    report: Report
    """The robot's end now, which the operator does not know yet."""
    late: Report
    """The newest report that has arrived."""
    fresh: bool
    """Whether it arrived in this period."""
    ahead: int
    """Periods between it and the prediction."""
    prediction: Prediction | None
    """Frames up to now; None where there is nothing to predict, or nothing that predicts."""

    @property
    def picture(self) -> Tensor:
        """`c h w`: the prediction where there is one, else the late picture."""
        if self.prediction is None:
            return self.late.seen.frames[CAMERA][0, -1]
        return self.prediction.frames[CAMERA][0, -1]

    @property
    def spread(self) -> float | None:
        """Of the members, at the last predicted frame."""
        told = None if self.prediction is None else self.prediction.uncertainty
        return None if told is None else float(told[0, -1])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A real frame beside what was shown for it before it came."""

    tick: int
    """Which frame."""
    ahead: int
    """How far ahead it was predicted."""
    error: float
    """Root mean square over the pixels, in [0, 1]."""
    late: float
    """The same of the last picture before."""
    spread: float | None
    """Of the members then."""


class Teleoperation:
    """A robot behind its safeguards and a link."""

    def __init__(self, robot: Robot, controls: Controls, safeguards: Safeguards) -> None:
        self.onboard = Onboard(robot, safeguards, controls)
        self._controls = controls
        self._fps = robot.fps
        self._was_stopped = False

    def reset(self, *, seed: int) -> Report:
        """Put the robot at its start; the seed also decides what the link loses and when."""
        return self._begin(self.onboard.reset(seed=seed), seed)

    def begin(self, seen: Observation, *, seed: int) -> Report:
        """Begin with a robot that is at its start already."""
        return self._begin(self.onboard.begin(seen), seed)

    def stop(self) -> None:
        """Emergency stop: at once, from any thread; a later period whose wish is not to be stopped releases it."""
        self._was_stopped = True
        self.onboard.stop()

    def exchange(self, wish: Wish) -> Request:
        """Send an order, let the robot act for a period, receive what arrives; returns what to predict."""
        now, link, dt = self._tick / self._fps, wish.link, 1 / self._fps
        self._tick += 1
        order = Order(number=self._tick, action=np.asarray(wish.action, np.float32), held=wish.held)
        self._up.send(order, now, delay=link.up, jitter=link.jitter, loss=link.loss)
        if wish.stopped and not self.onboard.stopped:
            self.stop()
        elif self._was_stopped and not wish.stopped:  # a stop that comes from elsewhere meanwhile is not released
            self.onboard.release(since=order.number)
            self._was_stopped = False
        self.onboard.hear(self._up.receive(now), now)
        self.report = self.onboard.period(now)
        self._down.send(self.report, now + dt, delay=link.down, jitter=link.jitter, loss=link.loss)
        arrived = [each for each in self._down.receive(now + dt) if each.tick > self.late.tick]
        self.fresh = bool(arrived)
        for each in sorted(arrived, key=lambda report: report.tick):
            self._reports[each.tick] = each
            self.late = each
        self._forget()
        if self._tick == 1:  # until the first order gets there, the robot stands still
            still = self._controls.still(order.action, self._measured())
            self._waits = round(link.up * self._fps)
            self._pending = [(1 - before, still) for before in range(self._waits, 0, -1)]
        self._pending.append((order.number, self._expected(order, wish)))
        return self._request(wish.anchor)

    def accept(self, prediction: Prediction | None) -> Shown:
        """What was predicted on request; returns what the operator sees."""
        if prediction is not None:
            depth = None if prediction.depth is None else {CAMERA: prediction.depth[CAMERA][:, -1:]}
            last = Observation(frames={CAMERA: prediction.frames[CAMERA][:, -1:]}, depth=depth)
            certain = prediction.uncertainty
            told = None if certain is None else float(certain[0, -1])
            ahead = self._shown_tick - self.late.tick
            self._told[self._shown_tick] = (last, ahead, told, self.late.seen.frames[CAMERA][:, -1:])
        return Shown(
            report=self.report,
            late=self.late,
            fresh=self.fresh,
            ahead=max(0, self._shown_tick - self.late.tick),
            prediction=prediction,
        )

    def fulfil(self, request: Request, predictor: Predictor | None) -> Shown:
        """Ask a predictor, and accept its answer."""
        return self.accept(None if predictor is None else fulfil(request, predictor))

    def compare(self) -> Comparison | None:
        """The real frame that arrived in this period beside what was shown for it; None where there is nothing."""
        found = self._told.get(self.late.tick)
        if not self.fresh or found is None:
            return None
        shown, ahead, told, before = found
        picture = shown.frames[CAMERA]
        real = _sized(self.late.seen, picture)
        return Comparison(
            tick=self.late.tick,
            ahead=ahead,
            error=float(rms(picture[0], real)[0]),
            late=float(rms(_sized(Observation(frames={CAMERA: before}), picture), real)[0]),
            spread=told,
        )

    def _begin(self, report: Report, seed: int) -> Report:
        self._up: Link[Order] = Link(seed=2 * seed)
        self._down: Link[Report] = Link(seed=2 * seed + 1)
        self._tick = self._anchored = self._shown_tick = self._waits = 0
        self.report = self.late = report
        self.fresh = True
        self._reports: dict[int, Report] = {}
        self._pending: list[tuple[int, np.ndarray]] = []
        self._told: dict[int, tuple[Observation, int, float | None, Tensor]] = {}
        return report

    def _expected(self, order: Order, wish: Wish) -> np.ndarray:
        """What the robot will do about an order, as far as this end can know."""
        safeguards = self.onboard.safeguards
        if wish.stopped or (safeguards.deadman and not order.held):
            return self._controls.still(order.action, self._measured())
        body = self.onboard.robot.embodiment
        return limited(order.action, order.action, None, body, safeguards, dt=1 / self._fps)

    def _forget(self) -> None:
        """What no later anchor asks for: where none comes for long, the session must not grow."""
        oldest = self.late.done[0].tick if self.late.done else 0
        self._reports = {tick: report for tick, report in self._reports.items() if tick >= oldest}
        self._told = {tick: told for tick, told in self._told.items() if tick > self._shown_tick - REMEMBERED}

    def _measured(self) -> np.ndarray | None:
        state = self.late.seen.state
        return None if state is None else state[0, -1].numpy()

    def _request(self, anchor: bool) -> Request:
        done = {each.tick: each for each in self.late.done}
        if not (anchor and self.late.tick > self._anchored):
            new = self._pending[-1:] if self._tick > 1 else self._pending
            self._shown_tick += len(new)
            pending = _stacked([action for _, action in new])
            return Request(anchor=None, actions=None, tick=self._anchored, pending=pending)
        ticks = range(self._anchored + 1, self.late.tick + 1)
        known = all(tick in done for tick in ticks)
        looks = [self._look(tick) for tick in ticks] if known else [self.late.seen]
        actions = _stacked([done[tick].action for tick in ticks]) if known else None
        # before the first order has arrived, periods count the still ones that stand before it
        order = done[self.late.tick].order
        first = order if order else self.late.tick - self._waits
        self._pending = [each for each in self._pending if each[0] > first]
        self._anchored = self.late.tick
        self._shown_tick = self._anchored + len(self._pending)
        self._reports.clear()
        self._told = {tick: told for tick, told in self._told.items() if tick >= self._anchored}
        depths = [look.depth[CAMERA] for look in looks if look.depth is not None]
        seen = Observation(
            frames={CAMERA: torch.cat([look.frames[CAMERA] for look in looks], dim=1)},
            state=self.late.seen.state,
            depth={CAMERA: torch.cat(depths, dim=1)} if depths else None,
        )
        pending = _stacked([action for _, action in self._pending], width=self.onboard.robot.embodiment.action_dim)
        return Request(anchor=seen, actions=actions, tick=self._anchored, pending=pending)

    def _look(self, tick: int) -> Observation:
        """The real frame of a tick; where it was lost, what was shown for it, else the one that came next."""
        if tick in self._reports:
            return self._reports[tick].seen
        late = self.late.seen
        if tick in self._told:
            size = (late.frames[CAMERA].shape[-2], late.frames[CAMERA].shape[-1])
            shown = fitted(self._told[tick][0], size)
            return shown if late.depth is None or shown.depth is not None else replace(shown, depth=late.depth)
        return late


def fulfil(request: Request, predictor: Predictor) -> Prediction | None:
    """Anchor and predict as asked; None where nothing is pending."""
    if request.anchor is not None:
        if request.actions is None:
            predictor.reset(request.anchor, seed=request.tick, tick=request.tick)
        else:
            predictor.anchor(request.anchor, request.actions, request.tick)
        return predictor.predict(request.pending) if request.pending.shape[1] else None
    return predictor.extend(request.pending)


def _stacked(actions: list[np.ndarray], width: int = 0) -> Tensor:
    return torch.from_numpy(np.stack(actions))[None] if actions else torch.zeros(1, 0, width)


def _sized(seen: Observation, like: Tensor) -> Tensor:
    """The last frame, `1 c h w`, at the size of another."""
    size = (like.shape[-2], like.shape[-1])
    return fitted(Observation(frames={CAMERA: seen.frames[CAMERA][:, -1:]}), size).frames[CAMERA][0]
