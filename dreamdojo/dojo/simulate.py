"""Write datasets of simulated episodes, in parallel; the same settings give the same bytes for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.parallel import map_in_order
from dreamdojo.dataset.schema import CameraSpec
from dreamdojo.dataset.write import DatasetWriter, EncodedEpisode, encode_episode
from dreamdojo.dojo.actors import Actor
from dreamdojo.dojo.difficulty import CLUTTER, GENTLE, NORMAL
from dreamdojo.dojo.layout import CAMERA
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.splits import Split, seed_of
from dreamdojo.dojo.truth import truth_row, write_truth
from dreamdojo.errors import ConfigError, SimulationError

DIFFICULTIES = {"gentle": GENTLE, "normal": NORMAL, "clutter": CLUTTER}
MAX_UNSTABLE = 0.2
"""Share of seeds with unstable physics above which simulating is given up."""

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """What a simulated dataset holds."""

    body: Literal["human", "arm"]
    """Whose episodes. Human video has no actions."""
    episodes: int
    """How many."""
    split: Split = "train"
    """Which seeds, and so which shapes, colours, layouts and lights."""
    frames: int = 64
    """Frames of an episode."""
    difficulty: Literal["gentle", "normal", "clutter"] = "gentle"
    """How hard the scenes are."""
    control: str = "end_effector_velocity"
    """What an action means."""
    size: int = 128
    """Side of a frame in pixels."""
    fps: float = 10.0
    """Frames (and actions) per second."""
    depth: bool = False
    """Whether to record metric depth video."""
    truth: Literal["full", "poses"] = "full"
    """What the ground-truth table holds; `poses` leaves segmentation out, which saves a third of the time."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.frames < 2:
            raise ConfigError(f"expected episodes >= 1 and frames >= 2, got {self.episodes} and {self.frames}")


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What was written, and which seeds were passed over."""

    root: Path
    episodes: int
    unstable: tuple[str, ...]
    """One message per seed whose physics became unstable; another seed took its place."""


@dataclass(frozen=True)
class _Job:
    settings: SimulateSettings
    number: int
    scratch: Path


@dataclass(frozen=True)
class _Outcome:
    encoded: EncodedEpisode | None
    truth: list[dict[str, object]]
    error: str


def simulate(
    settings: SimulateSettings, root: Path, *, workers: int | None = None, progress: Report | None = None
) -> Simulated:
    """Write a dataset of simulated episodes under `root`.

    An episode whose physics becomes unstable is counted and never written; the split's next seed takes its place.

    Raises:
        DataError: if `root` exists or the disk is full; nothing stands under `root` then.
        SimulationError: if more than a fifth of the seeds are unstable.
    """
    body = Simulation(settings.body, control=settings.control).embodiment
    spec = CameraSpec(height=settings.size, width=settings.size, depth=settings.depth)
    extra = {"mujoco": mujoco.__version__, "difficulty": settings.difficulty, "split": settings.split}
    unstable: list[str] = []
    truth: list[dict[str, object]] = []
    with DatasetWriter(
        root, fps=settings.fps, embodiment=recorded(body, settings), cameras={CAMERA: spec}, extra_info=extra
    ) as writer:
        for outcome in _outcomes(settings, writer.scratch, workers):
            if outcome.encoded is None:
                unstable.append(outcome.error)
                if len(unstable) > MAX_UNSTABLE * settings.episodes + 5:
                    raise SimulationError(
                        f"{len(unstable)} of {len(unstable) + writer.num_episodes} episodes became unstable, the last: "
                        f"{unstable[-1]}. The scenes of this difficulty do not hold together."
                    )
                continue
            episode = writer.num_episodes
            writer.add(outcome.encoded)
            truth += [{**row, "episode_index": episode} for row in outcome.truth]
            if progress is not None:
                words = f"episodes, {len(unstable)} unstable passed over" if unstable else "episodes"
                progress(writer.num_episodes, settings.episodes, words)
        write_truth(writer.folder, truth)
    return Simulated(root=root, episodes=settings.episodes, unstable=tuple(unstable))


def recorded(body: Embodiment, settings: SimulateSettings) -> Embodiment:
    """The embodiment as the dataset declares it: human video knows neither actions nor proprioception."""
    return replace(body, name="human", action=(), state=()) if settings.body == "human" else body


def _outcomes(settings: SimulateSettings, scratch: Path, workers: int | None) -> Iterator[_Outcome]:
    """Outcomes in the order of their seeds until enough of them are good."""
    good, first = 0, 0
    while good < settings.episodes:
        missing = settings.episodes - good
        jobs = [_Job(settings, number, scratch) for number in range(first, first + missing)]
        first += missing
        for outcome in map_in_order(_simulate_episode, jobs, workers=workers):
            good += outcome.encoded is not None
            yield outcome


_simulations: dict[tuple[str, str, str, float], Simulation] = {}


def _simulate_episode(job: _Job) -> _Outcome:
    settings = job.settings
    key = (settings.body, settings.control, settings.difficulty, settings.fps)
    if key not in _simulations:
        _simulations[key] = Simulation(
            settings.body,
            control=settings.control,
            difficulty=DIFFICULTIES[settings.difficulty],
            fps=settings.fps,
        )
    simulation = _simulations[key]
    seed = seed_of(settings.split, job.number)
    try:
        return _record(simulation, seed, job)
    except SimulationError as error:
        return _Outcome(None, [], str(error))


def _record(simulation: Simulation, seed: int, job: _Job) -> _Outcome:
    settings = job.settings
    simulation.reset(seed)
    actor = Actor(simulation, np.random.default_rng([seed, 1]))
    frames, depths, actions, states, truth = [], [], [], [], []
    for index in range(settings.frames):
        picture = simulation.picture(settings.size, depth=settings.depth, segmentation=settings.truth == "full")
        truth.append(truth_row(job.number, index, simulation.moment(), picture.segmentation))
        frames.append(picture.rgb)
        depths.append(picture.depth)
        states.append(simulation.state())
        action = actor.act()
        actions.append(action.astype(np.float32))
        if index + 1 < settings.frames:
            simulation.step(actions[-1])
    human = settings.body == "human"
    encoded = encode_episode(
        scratch=job.scratch,
        index=job.number,
        fps=settings.fps,
        cameras={CAMERA: CameraSpec(height=settings.size, width=settings.size, depth=settings.depth)},
        frames={CAMERA: np.stack(frames)},
        columns={} if human else {"action": np.stack(actions), "observation.state": np.stack(states)},
        task=actor.task_name,
        depth={CAMERA: np.stack(depths)} if settings.depth else None,
        meta={"seed": seed, "split": settings.split},
    )
    return _Outcome(encoded, truth, "")


def simulate_all(
    wanted: Sequence[tuple[SimulateSettings, Path]],
    *,
    workers: int | None,
    progress: Callable[[str], AbstractContextManager[Report]],
) -> None:
    """Write several datasets, passing over those that are there already."""
    for settings, root in wanted:
        if not root.exists():
            with progress(f"simulate {root.name}") as report:
                simulate(settings, root, workers=workers, progress=report)
