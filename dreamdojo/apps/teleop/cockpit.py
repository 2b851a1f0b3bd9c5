"""The robot as a vehicle of the page: the late camera, the prediction over it, and everything that warns."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.messages import BadMessageError, Command, Message, Picture, View
from dreamdojo.apps.play.pictures import encode
from dreamdojo.apps.play.settings import PlaySettings, Start
from dreamdojo.apps.play.vehicle import Panel, Shot
from dreamdojo.apps.teleop.calibration import Calibration
from dreamdojo.apps.teleop.correct import Suggestion, suggest
from dreamdojo.apps.teleop.hand import HandSource
from dreamdojo.apps.teleop.hazards import Hazard, Lookout, contact, harm, hazards
from dreamdojo.apps.teleop.lerobot_arm import LeaderSource
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.messages import Hand, Hold, LinkChange, Release, Source, Stop
from dreamdojo.apps.teleop.onboard import Safeguards
from dreamdojo.apps.teleop.pace import LEVELS, Level, Pace
from dreamdojo.apps.teleop.predict import Imagined, Predictor
from dreamdojo.apps.teleop.record import Recorder, at_level
from dreamdojo.apps.teleop.robot import Robot
from dreamdojo.apps.teleop.teleoperation import Comparison, Shown, Teleoperation, Wish
from dreamdojo.rollout.session import CAMERA
from dreamdojo.rollout.starts import fitted
from dreamdojo.world import Observation, Prediction

log = logging.getLogger(__name__)

CAMERA_VIEW, PREDICTION_VIEW = "camera", "prediction"
"""Names of the two views."""

_COMPARED = 5  # real frames that the divergence alarm looks back on
_WATCHED_EVERY = 3  # periods between two looks for hazards
_HOLDS_FOR = 0.6  # seconds that a held deadman switch counts without being heard of again


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What warns; each may be missing."""

    calibration: Calibration | None = None
    """Turns spread into expected error."""
    lookout: Lookout | None = None
    """Finds gripper and objects."""
    masks: Callable[[], Tensor | None] | None = None
    """Where the objects are at the start, `o h w` bool at the predictor's size."""
    target: Callable[[], int | None] | None = None
    """The object that is meant to be touched."""
    leader: LeaderSource | None = None
    """A leader arm."""
    hand: HandSource | None = None
    """A hand before a webcam."""


class Cockpit:
    """Satisfies `Vehicle`; what pages ask for comes from other threads, everything else from the driver's."""

    def __init__(
        self,
        robot: Robot,
        predictor: Predictor | None,
        *,
        settings: PlaySettings,
        safeguards: Safeguards,
        link: LinkSettings,
        shown: tuple[int, int],
        instruments: Instruments | None = None,
        recorder: Recorder | None = None,
        levels: tuple[Level, ...] = LEVELS,
    ) -> None:
        """Put a robot behind a link, and a predictor before the operator.

        Args:
            robot: what is driven; it stays the caller's to close.
            predictor: what is drawn over the late picture; None shows the late picture alone.
            settings: of the page.
            safeguards: what the robot's end insists on.
            link: what the simulated link does at first.
            shown: size of the predicted picture.
            instruments: what warns.
            recorder: where the session is kept; closed by the caller.
            levels: what is given up when the clock is lost, one after the other.
        """
        self.controls = Controls.of(robot.embodiment, screen_right=settings.screen_right, screen_up=settings.screen_up)
        self.fps, self.actions_per_turn = robot.fps, 1
        self._robot, self._predictor, self._settings = robot, predictor, settings
        self._safeguards, self._shown_size = safeguards, shown
        self._teleoperation = Teleoperation(robot, self.controls, safeguards)
        self._instruments = instruments or Instruments()
        self._recorder = recorder
        self._pace = Pace(1 / robot.fps, levels)
        self._searching = ThreadPoolExecutor(1, "dreamdojo-suggestion")

        # what pages want
        self._wanted = threading.Lock()
        self._link = link
        self._stopped = False
        self._held_at = -np.inf
        self._source = "page"

        self._clear()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The late camera and the prediction."""
        names = tuple(self._robot.embodiment.state_names())
        labels = {CAMERA_VIEW: "Camera (late)", PREDICTION_VIEW: "Prediction (now)"}
        return tuple(
            Panel(name=name, label=label, cameras=(CAMERA,), depth=0, state=names) for name, label in labels.items()
        )

    @property
    def hello(self) -> dict[str, Any]:
        """What a page is told once."""
        return {
            "robot": self._robot.embodiment.name,
            "simulated": self._robot.simulated,
            "deadman": self._safeguards.deadman,
            "watchdog": self._safeguards.watchdog,
            "predicts": self._predictor is not None,
            "sources": [
                "page",
                *(["leader"] if self._instruments.leader else []),
                *(["hand"] if self._instruments.hand else []),
            ],
            "levels": len(self._pace.levels),
            "coverage": None if self._instruments.calibration is None else self._instruments.calibration.coverage,
            "link": {"round_trip": self._link.round_trip, "jitter": self._link.jitter, "loss": self._link.loss},
        }

    def obey(self, message: Message) -> None:
        """Do what a page asks; from the event loop.

        Raises:
            BadMessageError: if it asks for what is not there.
        """
        with self._wanted:
            match message:
                case Hold():
                    self._held_at = time.monotonic() if message.held else -np.inf
                case Stop():
                    self._stopped = True
                    if not self._robot.simulated:  # in a simulation time stands still until the next period
                        self._teleoperation.stop()
                case Release():
                    self._stopped = False
                case LinkChange():
                    self._link = LinkSettings.of_round_trip(
                        message.round_trip, fps=self.fps, jitter=message.jitter, loss=message.loss
                    )
                case Source():
                    if message.source not in self.hello["sources"]:
                        raise BadMessageError(f"source: {message.source}", f"one of {', '.join(self.hello['sources'])}")
                    self._source = message.source
                case Hand():
                    if self._instruments.hand is None:
                        raise BadMessageError("hand: no alignment was opened", "dreamdojo teleop --hand")
                    self._instruments.hand.hear(message.jpeg)

    def begin(self, start: Start) -> tuple[np.ndarray, Shot]:
        """Put the robot at its start."""
        self._clear()
        report = self._teleoperation.reset(seed=start.seed)
        if self._predictor is not None:
            self._predictor.reset(report.seen, seed=start.seed)
        if self._recorder is not None:
            self._recorder.begin(report.seen, seed=start.seed)
        small = fitted(report.seen, self._shown_size).frames[CAMERA][0, -1]
        if self._instruments.lookout is not None:
            masks = None if self._instruments.masks is None else self._instruments.masks()
            self._instruments.lookout.reset(small, masks)
        state = None if report.seen.state is None else report.seen.state[0, -1].numpy()
        rest = self.controls.rest(state)
        shown = Shown(report=report, late=report, fresh=True, ahead=0, prediction=None)
        return rest, self._shot(shown, None, rest, 0.0)

    def advance(self, command: Command) -> list[Shot]:
        """One period: an order to the robot, and what there is to see after it."""
        level = self._pace.level
        self._periods += 1
        with self._wanted:
            held = time.monotonic() - self._held_at < _HOLDS_FOR
            stopped, link, source = self._stopped, self._link, self._source
        values, gain = self._values(command, source), self._settings.gain if source == "page" else 1.0
        wish = Wish(
            action=self.controls.action(values, gain=gain),
            held=held or not self._safeguards.deadman,
            stopped=stopped,
            link=link,
            anchor=level.every > 0 and self._periods % level.every == 0,
        )
        began = time.perf_counter()
        request = self._teleoperation.exchange(wish)
        acted = time.perf_counter()
        self._ids.append((self._periods, command.id))
        shown = self._teleoperation.fulfil(request, at_level(self._predictor, level))
        self._last_action = wish.action
        compared = self._teleoperation.compare()
        if compared is not None:
            self._compared.append(compared)
        if self._recorder is not None:
            self._recorder.add(wish, level, shown)
        self._watch(shown, values, gain, level)
        shot = self._shot(shown, wish, values, 1000 * (time.perf_counter() - acted))
        # a real robot keeps its own time, so waiting for it is no work
        self._pace.took(time.perf_counter() - (began if self._robot.simulated else acted))
        return [shot]

    def halt(self) -> None:
        """Nobody looks: the robot stands still."""
        self._teleoperation.onboard.halt()

    def close(self) -> None:
        """Stop the robot and end the search."""
        self._teleoperation.onboard.halt()
        self._searching.shutdown(cancel_futures=True)

    def _clear(self) -> None:
        self._periods = 0
        self._compared: deque[Comparison] = deque(maxlen=_COMPARED)
        self._ids: deque[tuple[int, int]] = deque(maxlen=256)
        self._hazards: list[Hazard] = []
        self._suggestion: Future[Suggestion | None] | None = None
        self._last_action = np.zeros(self._robot.embodiment.action_dim, np.float32)

    def _values(self, command: Command, source: str) -> np.ndarray:
        if source == "leader" and self._instruments.leader is not None:
            return self._instruments.leader.command()
        if source == "hand" and self._instruments.hand is not None:
            seen = self._teleoperation.late.seen
            state = None if seen.state is None else seen.state[0, -1].numpy()
            told = self._instruments.hand.command(state, self._last_action)
            return self.controls.relaxed(command.values) if told is None else told
        return command.values

    def _watch(self, shown: Shown, values: np.ndarray, gain: float, level: Level) -> None:
        lookout, prediction = self._instruments.lookout, shown.prediction
        if lookout is None or prediction is None or self._pace.index > 1:
            self._hazards, self._suggestion = [], None
            return
        if self._periods % _WATCHED_EVERY:
            return
        late = fitted(shown.late.seen, self._shown_size)
        frames, depth = _future(late, prediction)
        target = None if self._instruments.target is None else self._instruments.target()
        tracks = lookout.follow(frames)
        self._hazards = hazards(tracks, fps=self.fps, opening=self._opening(shown), target=target)
        if depth is not None and (touch := contact(depth, tracks, fps=self.fps)):
            self._hazards.append(touch)
        if not self._hazards:
            self._suggestion = None
        elif isinstance(self._predictor, Imagined) and level.members > 1 and self._suggestion is None:
            self._suggestion = self._search(self._predictor, lookout, late, values, gain, target)

    def _search(
        self,
        predictor: Imagined,
        lookout: Lookout,
        late: Observation,
        values: np.ndarray,
        gain: float,
        target: int | None,
    ) -> Future[Suggestion | None]:
        branch, actions = predictor.branch()
        values = values.copy()

        def cost(told: Prediction) -> Tensor:
            futures = (_future(late, told, i) for i in range(len(told.frames[CAMERA])))
            return torch.stack([harm(lookout.follow(frames), depth, target=target) for frames, depth in futures])

        def search() -> Suggestion | None:
            try:
                for action in actions.unbind(1):
                    branch.step(action[:, None])
                return suggest(branch, values, self.controls, cost, gain=gain)
            except Exception:
                log.exception("the search for a safer motion failed")
                return None

        return self._searching.submit(search)

    def _opening(self, shown: Shown) -> float:
        """Of the gripper, 0 to 1, as measured or else as commanded; 1 where nothing tells."""
        body, state = self._robot.embodiment, shown.late.seen.state
        for fields, values in (
            (body.state, None if state is None else state[0, -1].numpy()),
            (body.action, self._last_action),
        ):
            for field in fields:
                if "gripper" in field.name and values is not None:
                    of = "state" if fields is body.state else "action"
                    value = float(values[body.columns(field.name, of=of)][0])
                    return (value - field.low[0]) / (field.high[0] - field.low[0])
        return 1.0

    def _shot(self, shown: Shown, wish: Wish | None, values: np.ndarray, ms: float) -> Shot:
        scale = self._pace.level.scale
        late, told = shown.late.seen, shown.prediction
        views = (
            _view(CAMERA_VIEW, encode(late.frames[CAMERA][0, -1], self._settings, scale=scale), None, late, None),
            _view(
                PREDICTION_VIEW,
                encode(shown.picture, self._settings, scale=scale),
                ms if told is not None else None,
                told if told is not None else late,
                shown.spread,
            ),
        )
        return Shot(views=views, notes=self._notes(shown, wish))

    def _notes(self, shown: Shown, wish: Wish | None) -> dict[str, Any]:
        arrived = shown.late.done[-1].order if shown.late.done else 0
        answered = [command for order, command in self._ids if order <= arrived]
        found = self._suggestion.result() if self._suggestion is not None and self._suggestion.done() else None
        return {
            "status": shown.report.status,
            "stopped": self._stopped,
            "held": wish is not None and wish.held,
            "fresh": shown.fresh,
            "late_ms": round(1000 * (shown.report.tick - shown.late.tick) / self.fps),
            "ahead": shown.ahead if shown.prediction is not None else 0,
            "camera_command": answered[-1] if answered else 0,
            "sure": self._sureness(shown),
            "divergence": self._divergence(),
            "hazards": [hazard.words for hazard in self._hazards],
            "suggestion": None if found is None or not found.helps else [round(float(v), 3) for v in found.command],
            "level": self._pace.index,
            "load": round(self._pace.load, 3),
            "source": self._source,
        }

    def _sureness(self, shown: Shown) -> dict[str, Any] | None:
        calibration, certain = self._instruments.calibration, shown.spread
        if calibration is None or certain is None or shown.ahead < 1:
            return None
        return {
            "expected": round(calibration.expected(certain, shown.ahead), 4),
            "bound": round(calibration.bound(certain, shown.ahead), 4),
            "knows": calibration.knows(certain, shown.ahead),
        }

    def _divergence(self) -> dict[str, Any] | None:
        """Whether the last real frames were farther from what was shown for them than they may be."""
        if not self._compared:
            return None
        return divergence(list(self._compared), self._instruments.calibration) | {
            "error": round(self._compared[-1].error, 4),
            "late": round(self._compared[-1].late, 4),
        }


def divergence(compared: list[Comparison], calibration: Calibration | None) -> dict[str, Any]:
    """The alarm over the last comparisons.

    With a calibration: the errors are on average above their bounds. Without one: the pictures shown were on average
    worse than the late ones by half, and by more than noise.
    """
    if calibration is None:
        error, late = (np.mean([getattr(each, name) for each in compared]) for name in ("error", "late"))
        return {"ratio": round(float(error / max(late, 0.03)), 3), "alarm": bool(error > max(1.5 * late, 0.03))}
    ratios = [each.error / calibration.bound(each.spread or 0.0, max(1, each.ahead)) for each in compared]
    return {"ratio": round(float(np.mean(ratios)), 3), "alarm": bool(np.mean(ratios) > 1)}


def _future(late: Observation, told: Prediction, i: int = 0) -> tuple[Tensor, Tensor | None]:
    """Frames `t c h w`, and depth `t h w` where both have it: the late picture, then those predicted."""
    frames = torch.cat([late.frames[CAMERA][0, -1:], told.frames[CAMERA][i]])
    if late.depth is None or told.depth is None:
        return frames, None
    return frames, torch.cat([late.depth[CAMERA][0, -1:, 0], told.depth[CAMERA][i, :, 0]])


def _view(name: str, picture: bytes, ms: float | None, told: Any, uncertainty: float | None) -> View:
    return View(
        world=name,
        pictures=(Picture(camera=CAMERA, data=picture),),
        step_ms=ms,
        state=None if told.state is None else tuple(told.state[0, -1].tolist()),
        state_source=None if isinstance(told, Observation) else told.state_source,
        uncertainty=uncertainty,
    )
