"""Trials of physics: a start, what truly came of it, and what would have come of other actions from that very state.

    trial = run_trial(TrialSettings(split="ood_shape", trials=64, horizon=24, other=24), index=0)
    trial.given.frames            # t h w 3: what a model is shown
    trial.branches["own"]         # what the robot did
    trial.branches["other"]       # another robot takes over from the same state
    trial.branches["still"]       # the robot is told to stay as it is

The simulator is forked where the given frames end, so every branch has the dojo's own answer. Where a trial begins is
decided by the truth alone: shortly before the hand first touches something, so that contact is what is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np

from dreamdojo.dataset.parallel import map_in_order
from dreamdojo.dojo.actors import TASK_WEIGHTS, Actor, check_tasks
from dreamdojo.dojo.control import Wish
from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.objects import Shape
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.truth import VISIBLE_SHARE
from dreamdojo.dojo.turns import folds, headings
from dreamdojo.errors import ConfigError, DataError, SimulationError
from dreamdojo.files import written_whole
from dreamdojo.video import resize

BranchName = Literal["own", "other", "still"]

_LEAD = 60  # frames in which something may be touched first
_BEFORE_TOUCH = 8  # frames between the end of what is given and that touch, at most
_SPARE_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """One set of trials."""

    split: str
    """A name of `SPLITS`: what may appear."""
    trials: int
    """How many."""
    horizon: int
    """Frames of what the robot did."""
    other: int = 0
    """Frames under another robot's actions; 0 for none."""
    still: int = 0
    """Frames in which the robot is to stay as it is; 0 for none."""
    first_index: int = 100_000
    """Number of the first seed within the split."""
    context: int = 5
    """Given frames."""
    body: str = "arm"
    """A name of `BODIES`."""
    control: str = "end_effector_velocity"
    """What the actions mean: a name of `CONTROL_MODES`."""
    size: int = 64
    """Side of the square pictures in pixels."""
    drawn: int = 128
    """Side at which they are drawn before they are made smaller, as those of datasets are."""
    fps: float = 10.0
    """Frames and actions per second."""
    tasks: Mapping[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))
    """How often each task is tried; where it is `cover` alone, a trial begins with the episode."""
    difficulty: Difficulty | str = GENTLE
    """What scenes and motions are drawn from, itself or by name."""

    def __post_init__(self) -> None:
        if self.trials < 1 or self.context < 1 or self.horizon < 1 or self.drawn < self.size:
            raise ConfigError(
                "expected at least 1 trial, 1 given frame and 1 predicted one, drawn no smaller than they are kept; "
                f"got trials={self.trials}, context={self.context}, horizon={self.horizon}, drawn={self.drawn} and "
                f"size={self.size}"
            )
        seed_of(self.split, self.first_index)
        check_tasks(self.tasks)
        self.simulation()

    def simulation(self) -> Simulation:
        """A simulation of these settings."""
        return Simulation(self.body, control=self.control, difficulty=find_difficulty(self.difficulty), fps=self.fps)


@dataclass(frozen=True, kw_only=True)
class Course:
    """What happened, frame by frame; row i of `actions` led to frame i."""

    frames: np.ndarray
    """`t h w 3` uint8."""
    labels: np.ndarray
    """`t h w` uint8: 0 background, 1 table, 2 body, 3 and up the objects."""
    actions: np.ndarray
    """`t a` in the embodiment's units; zeros where nothing led to a frame."""
    pixels: np.ndarray
    """`t n 2` u and v of the objects' centres."""
    headings: np.ndarray
    """`t n` radians about the vertical, NaN where they cannot be seen (`dreamdojo.dojo.turns`)."""
    touched: np.ndarray
    """`t n` bool: any part of the body touches the object."""
    effector: np.ndarray
    """`t 2` u and v of the hand."""
    effector_visible: np.ndarray
    """`t` bool."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A start and what came of it."""

    seed: int
    """Of the scene."""
    folds: np.ndarray
    """`n` whole numbers: turns of an object by a full circle over `fold` look alike; 0 where no turn can be seen."""
    given: Course
    """What a model is shown."""
    branches: dict[str, Course]
    """By `BranchName`, each from the state in which `given` ends."""


def run_trial(settings: TrialSettings, index: int) -> Trial:
    """Trial number `index` of a set; the same settings and index give the same bytes.

    Raises:
        UnstablePhysics: if the physics gives up, or an object leaves the table.
    """
    seed = seed_of(settings.split, settings.first_index + index)
    actions, start = _rehearse(settings, seed)
    end = start + settings.context
    simulation = settings.simulation()
    simulation.reset(seed)
    for action in actions[:start]:
        simulation.step(action)
    shapes = [placed.shape for placed in simulation.layout.objects]
    none = np.zeros_like(actions[0])
    given = _record(simulation, [none, *actions[start : end - 1]], shapes, settings, moving=False)
    branches = {"own": _record(simulation.fork(), actions[end - 1 :][: settings.horizon], shapes, settings)}
    if settings.other:
        fork = simulation.fork()
        actor = Actor(fork, np.random.default_rng([seed, 4]), tasks=settings.tasks)
        branches["other"] = _record(fork, [actor.act] * settings.other, shapes, settings)
    if settings.still:
        fork = simulation.fork()
        stay = Wish(velocity=np.zeros(3), turn=0.0, opening=fork.command.opening)
        branches["still"] = _record(fork, [lambda: fork.demonstrate(stay)] * settings.still, shapes, settings)
    return Trial(seed=seed, folds=folds(shapes), given=given, branches=branches)


def run_trials(
    settings: TrialSettings, *, workers: int | None = None, progress: Callable[[int, int, str], None] | None = None
) -> list[Trial]:
    """A set of trials; a scene whose physics becomes unstable is left out and the next one takes its place.

    Raises:
        SimulationError: if most scenes become unstable.
    """
    trials, dropped = [], 0
    jobs = [(settings, index) for index in range(_SPARE_SEEDS * settings.trials)]
    for trial in map_in_order(_run_job, jobs, workers=workers):
        if trial is None:
            dropped += 1
            continue
        trials.append(trial)
        if progress is not None:
            progress(len(trials), settings.trials, f"{dropped} dropped" if dropped else "")
        if len(trials) == settings.trials:
            return trials
    raise SimulationError(
        f"expected {settings.trials} stable trials of {settings.split}, found {len(trials)} among {len(jobs)} scenes."
    )


def save_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write trials as one compressed file, whole."""
    arrays: dict[str, np.ndarray] = {"count": np.array(len(trials))}
    for number, trial in enumerate(trials):
        arrays |= {f"{number}/seed": np.array(trial.seed), f"{number}/folds": trial.folds}
        for name, course in {"given": trial.given, **trial.branches}.items():
            arrays |= {f"{number}/{name}/{key}": value for key, value in asdict(course).items()}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_trials(path: Path) -> list[Trial]:
    """Read what `save_trials` wrote.

    Raises:
        DataError: if it is not such a file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        return [_trial(arrays, number) for number in range(int(arrays["count"]))]
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise DataError(
            f"{path}: expected trials of the dojo, found {error}. Delete it to simulate them again."
        ) from error


def _trial(arrays: Mapping[str, np.ndarray], number: int) -> Trial:
    def course(name: str) -> Course:
        return Course(**{each.name: arrays[f"{number}/{name}/{each.name}"] for each in fields(Course)})

    there = [name for name in ("own", "other", "still") if f"{number}/{name}/frames" in arrays]
    return Trial(
        seed=int(arrays[f"{number}/seed"]),
        folds=arrays[f"{number}/folds"],
        given=course("given"),
        branches={name: course(name) for name in there},
    )


def _run_job(job: tuple[TrialSettings, int]) -> Trial | None:
    try:
        return run_trial(*job)
    except UnstablePhysics:
        return None


def _rehearse(settings: TrialSettings, seed: int) -> tuple[list[np.ndarray], int]:
    """All actions of the episode, and its frame at which the trial begins; nothing is drawn."""
    simulation = settings.simulation()
    simulation.reset(seed)
    actor = Actor(simulation, np.random.default_rng([seed, 1]), tasks=settings.tasks)
    actions, touches = [], []
    for frame in range(_LEAD + settings.context + settings.horizon):
        if frame < _LEAD and simulation.moment().touched.any():
            touches.append(frame)
        actions.append(actor.act())
        simulation.step(actions[-1])
        _check(simulation)
    if not touches or set(settings.tasks) == {"cover"}:
        return actions, 0
    before = int(np.random.default_rng([seed, 5]).integers(1, _BEFORE_TOUCH + 1))
    return actions, max(0, touches[0] - before - settings.context + 1)


def _record(
    simulation: Simulation,
    actions: Sequence[np.ndarray | Callable[[], np.ndarray]],
    shapes: Sequence[Shape],
    settings: TrialSettings,
    *,
    moving: bool = True,
) -> Course:
    """One frame after each action, which may be asked for when its turn comes.

    Unless `moving`, the first frame is that of the present, whatever its action.
    """
    rows, moments, pictures = [], [], []
    for number, each in enumerate(actions):
        action = each() if callable(each) else each
        if moving or number:
            simulation.step(action)
        _check(simulation)
        rows.append(action)
        moments.append(simulation.moment())
        pictures.append(simulation.picture(settings.drawn, segmentation=True))
    effector = np.stack([moment.effector_pixel for moment in moments])
    enough = VISIBLE_SHARE * settings.drawn**2
    shown = np.array([(picture.hand_pixels or 0) >= enough for picture in pictures])
    labels = np.stack([picture.segmentation for picture in pictures if picture.segmentation is not None])
    return Course(
        frames=resize(np.stack([picture.rgb for picture in pictures]), settings.size),
        labels=resize(labels, settings.size, nearest=True),
        actions=np.stack(rows).astype(np.float32),
        pixels=np.stack([moment.object_pixels for moment in moments]).astype(np.float32),
        headings=headings(shapes, np.stack([moment.object_poses for moment in moments])).astype(np.float32),
        touched=np.stack([moment.touched for moment in moments]),
        effector=effector.astype(np.float32),
        effector_visible=shown & ((effector >= 0) & (effector < 1)).all(axis=1),
    )


def _check(simulation: Simulation) -> None:
    if simulation.has_lost_object():
        raise UnstablePhysics(simulation.layout.seed, "an object left the table")
