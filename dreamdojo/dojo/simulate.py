"""Datasets from the dojo: episodes simulated by worker processes, written as LeRobot datasets with their truth beside.

    simulate(SimulateSettings(body="arm", episodes=50), "data/arm", workers=2)

The same settings give the same bytes for any number of workers. An episode whose physics becomes unstable is dropped
and counted, and the next seed takes its place.
"""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import mujoco
import numpy as np
import pyarrow as pa

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.parallel import map_in_order
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, EncodedEpisode, MetaValue, encode_episode
from dreamdojo.dojo.actors import TASK_WEIGHTS, Actor, check_tasks
from dreamdojo.dojo.difficulty import GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.errands import LIFTED
from dreamdojo.dojo.layout import CAMERA
from dreamdojo.dojo.simulation import Moment, Simulation, UnstablePhysics
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.truth import Truth, TruthWriter, truth_table
from dreamdojo.errors import ConfigError, SimulationError
from dreamdojo.files import write_json

Progress = Callable[[int, int, str], None]
"""Called with episodes done, episodes wanted, and a few words."""

_SPARE_SEEDS = 3  # a dataset that rejects more than this many times its episodes is not worth waiting for


@dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """One dataset of one body."""

    body: str
    """A name of `BODIES`. Human episodes have no actions and no proprioception, like a person's video."""
    episodes: int
    """How many."""
    split: str = "train"
    """A name of `SPLITS`: which range of seeds, and with it what may appear."""
    first_index: int = 0
    """Number of the first seed within the split."""
    frames: int = 64
    """Frames of each episode."""
    fps: float = 10.0
    """Frames and actions per second."""
    size: int = 128
    """Side of the square pictures in pixels."""
    difficulty: Difficulty | str = GENTLE
    """What scenes and motions are drawn from, itself or by name."""
    control: str = "end_effector_velocity"
    """What the actions mean: a name of `CONTROL_MODES`."""
    tasks: Mapping[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))
    """How often each task is tried."""
    depth: bool = False
    """Whether to write metric depth video."""
    truth: Literal["full", "poses"] = "full"
    """`poses` leaves out the segmentation, which costs a third of the time."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.frames < 2 or self.size < 16:
            raise ConfigError(
                "expected at least 1 episode, 2 frames and 16 pixels, "
                f"got episodes={self.episodes}, frames={self.frames}, size={self.size}"
            )
        # Every name is checked here, before a process or a folder is made.
        seed_of(self.split, self.first_index)
        check_tasks(self.tasks)
        self.simulation()

    def simulation(self) -> Simulation:
        """A simulation of these settings."""
        return Simulation(self.body, control=self.control, difficulty=find_difficulty(self.difficulty), fps=self.fps)

    @property
    def cameras(self) -> dict[str, CameraSpec]:
        """What the dataset's cameras record."""
        return {CAMERA: CameraSpec(height=self.size, width=self.size, depth=self.depth)}


@dataclass(frozen=True, kw_only=True)
class SimulateResult:
    """What was written."""

    root: Path
    """The dataset."""
    episodes: int
    """In it."""
    frames: int
    """In it."""
    rejected: Mapping[str, int]
    """Reason -> episodes that ended for it and are not in the dataset."""
    seconds: float
    """It took."""

    def __str__(self) -> str:
        """One line for a person."""
        dropped = ", ".join(f"{count} dropped because {reason}" for reason, count in self.rejected.items())
        rate = self.frames / max(self.seconds, 1e-9)
        return f"{self.episodes} episodes, {self.frames} frames ({rate:.0f}/s) in {self.root}" + (
            f"; {dropped}" if dropped else ""
        )


def simulate(
    settings: SimulateSettings, root: Path | str, *, workers: int | None = None, progress: Progress | None = None
) -> SimulateResult:
    """Write a dataset; it stands under `root` when it is whole, and not at all after an error or Ctrl-C.

    Args:
        settings: what to simulate.
        root: the dataset's folder, which must not exist.
        workers: processes, one per core where not given; each draws with its own OpenGL context.
        progress: called after every episode.

    Raises:
        DataError: if `root` exists or the disk is full.
        SimulationError: if most episodes become unstable.
        MissingDependencyError: if no OpenGL library can be loaded.
    """
    root, started = Path(root), time.monotonic()
    writer = DatasetWriter(
        root,
        fps=settings.fps,
        embodiment=recorded_embodiment(settings),
        cameras=settings.cameras,
        extra_info=_facts(settings),
    )
    rejected: Counter[str] = Counter()
    frames = 0
    with writer, TruthWriter(writer.folder) as truth:
        jobs = [
            _Job(settings=settings, index=i, scratch=writer.scratch) for i in range(_SPARE_SEEDS * settings.episodes)
        ]
        for outcome in map_in_order(_run_job, jobs, workers=workers):
            if isinstance(outcome, _Rejected):
                rejected[outcome.reason] += 1
                continue
            writer.add(outcome.encoded)
            truth.add(outcome.truth)
            frames += outcome.encoded.length
            if progress is not None:
                rate = frames / (time.monotonic() - started)
                dropped = f", {rejected.total()} dropped" if rejected else ""
                progress(writer.num_episodes, settings.episodes, f"{rate:.0f} frames/s{dropped}")
            if writer.num_episodes == settings.episodes:
                break
        else:
            raise SimulationError(
                f"expected {settings.episodes} stable episodes, found {writer.num_episodes} among {len(jobs)} seeds: "
                f"{dict(rejected)}. The settings ask for motion that the physics cannot follow; slow the actors down."
            )
        write_json(writer.folder / "meta" / "rejected.json", dict(sorted(rejected.items())))
    return SimulateResult(
        root=root,
        episodes=settings.episodes,
        frames=frames,
        rejected=dict(rejected),
        seconds=time.monotonic() - started,
    )


def recorded_embodiment(settings: SimulateSettings) -> Embodiment:
    """The body as its dataset declares it: a person's video comes without numbers."""
    if settings.body == "human":
        return Embodiment(name="dojo_human")
    return settings.simulation().embodiment


@runtime_checkable
class Amounts(Protocol):
    """How much `simulate_demo` writes."""

    @property
    def human_minutes(self) -> float:
        """Minutes of human video."""
        ...

    @property
    def robot_minutes(self) -> float:
        """Minutes of robot episodes."""
        ...

    @property
    def episode_frames(self) -> int:
        """Frames of one episode."""
        ...

    @property
    def test_episodes(self) -> int:
        """Held-out episodes of each body."""
        ...


def simulate_demo(
    folder: Path,
    amounts: Amounts,
    *,
    depth: bool = False,
    workers: int | None = None,
    progress: Callable[[str], AbstractContextManager[Progress]] | None = None,
) -> None:
    """Write the datasets `human`, `arm`, `human_test` and `arm_test` into `folder`, those that are not there yet.

    Args:
        folder: where they go.
        amounts: how much of each.
        depth: whether they hold metric depth.
        workers: processes, one per core where not given.
        progress: given a title, opens a line of progress.

    Raises:
        MissingDependencyError: if no OpenGL library can be loaded.
    """
    seconds = amounts.episode_frames / SimulateSettings(body="arm", episodes=1).fps
    for body, minutes in (("human", amounts.human_minutes), ("arm", amounts.robot_minutes)):
        train = max(1, round(minutes * 60 / seconds))
        datasets: tuple[tuple[str, str, int], ...] = (
            (body, "train", train),
            (f"{body}_test", "test", amounts.test_episodes),
        )
        for name, split, episodes in datasets:
            if (folder / name).exists():
                continue
            settings = SimulateSettings(
                body=body, split=split, episodes=episodes, frames=amounts.episode_frames, depth=depth
            )
            with (progress or _no_progress)(f"simulate {name}") as report:
                simulate(settings, folder / name, workers=workers, progress=report)


@contextmanager
def _no_progress(title: str) -> Any:
    del title
    yield None


@dataclass(frozen=True, kw_only=True)
class _Job:
    settings: SimulateSettings
    index: int
    scratch: Path


@dataclass(frozen=True, kw_only=True)
class _Finished:
    encoded: EncodedEpisode
    truth: pa.Table


@dataclass(frozen=True, kw_only=True)
class _Rejected:
    reason: str


def _run_job(job: _Job) -> _Finished | _Rejected:
    """Simulate and encode one episode, in a worker process."""
    settings = job.settings
    seed = seed_of(settings.split, settings.first_index + job.index)
    simulation = settings.simulation()
    try:
        simulation.reset(seed)
        actor = Actor(simulation, np.random.default_rng([seed, 1]), tasks=settings.tasks)
        record, actions, states = record_episode(simulation, actor, settings)
    except UnstablePhysics as error:
        return _Rejected(reason=error.reason)
    columns = {} if settings.body == "human" else {"action": actions, "observation.state": states}
    depth = {CAMERA: np.stack([truth.picture.depth for truth in record])} if settings.depth else None  # pyright: ignore
    encoded = encode_episode(
        scratch=job.scratch,
        index=job.index,
        fps=settings.fps,
        cameras=settings.cameras,
        frames={CAMERA: np.stack([truth.picture.rgb for truth in record])},
        columns=columns,
        task=actor.plans[0].words,
        depth=depth,
        meta=_episode_facts(simulation, actor, [truth.moment for truth in record]),
    )
    return _Finished(encoded=encoded, truth=truth_table(record))


def record_episode(
    simulation: Simulation, actor: Actor, settings: SimulateSettings
) -> tuple[list[Truth], np.ndarray, np.ndarray]:
    """Let the actor act: the truth of every frame, the actions `(t, a)` after it and the states `(t, s)` at it.

    Raises:
        UnstablePhysics: if the physics gives up, or an object leaves the table, before the last frame.
    """
    record, actions, states = [], [], []
    for index in range(settings.frames):
        if index:
            simulation.step(actions[-1])
        if simulation.has_lost_object():
            raise UnstablePhysics(simulation.layout.seed, "an object left the table")
        picture = simulation.picture(settings.size, depth=settings.depth, segmentation=settings.truth == "full")
        record.append(Truth(moment=simulation.moment(), picture=picture))
        states.append(simulation.state())
        actions.append(actor.act())
    return record, np.stack(actions), np.stack(states)


def _episode_facts(simulation: Simulation, actor: Actor, moments: list[Moment]) -> dict[str, MetaValue]:
    heights = np.stack([moment.object_poses[:, 2] for moment in moments])
    places = np.stack([moment.object_poses[:, :2] for moment in moments])
    rise = heights - heights[0]
    held = np.stack([moment.grasped for moment in moments])
    return {
        "seed": simulation.layout.seed,
        "split": simulation.layout.split,
        "plans": ", ".join(plan.task for plan in actor.plans),
        "objects": ", ".join(thing.name for thing in simulation.layout.objects),
        "lifted": int(((rise > LIFTED) & held).any(axis=0).sum()),
        "farthest_moved": float(np.linalg.norm(places - places[0], axis=-1).max()),
        "frames_in_contact": int(sum(moment.touched.any() for moment in moments)),
    }


def _facts(settings: SimulateSettings) -> dict[str, Any]:
    return {
        "simulator": {"name": "mujoco", "version": mujoco.__version__},
        "simulate": {**asdict(settings), "difficulty": asdict(find_difficulty(settings.difficulty))},
    }
