"""Distil the teacher into a causal student of few steps: warm-up, self-forcing, long rollouts.

FOLDER/               the student after the last stage: model.safetensors  config.json  metrics.jsonl  state/
FOLDER/warm_up/       the same of each stage before it
FOLDER/self_forcing/
FOLDER/stages.json    which stages these are

Each stage begins with the student that the one before wrote, and resumes where it was stopped. Who asks for further
stages later goes on from the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dreamdojo.dataset.windows import Source, WindowSampler
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.files import read_json, write_json
from dreamdojo.student.consistency import consistency_step
from dreamdojo.student.ode import regression_step
from dreamdojo.student.self_forcing import SelfForcing, self_force
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, fit, is_finished
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining

Stage = Literal["warm_up", "self_forcing", "long_rollout"]

STAGES = "stages.json"


@dataclass(frozen=True, kw_only=True)
class StudentTraining:
    """How the student is distilled."""

    fit: FitConfig
    """The warm-up's loop."""
    sampler: SamplerConfig
    """The few steps that the student takes."""
    teacher: SamplerConfig
    """The teacher's schedule."""
    stages: tuple[Stage, ...] = ("warm_up",)
    """What is done, in this order; the warm-up is always first."""
    warm_up: Literal["consistency", "ode"] = "consistency"
    """What teaches the few steps: consistency with a causal teacher's own path, or, as published, regression on the
    ends of the teacher's trajectories."""
    huber: float = 0.1
    """Where the consistency loss turns from quadratic to linear, in units of the latent's standard deviation."""
    window: int = 4
    """Of a teacher of whole clips, the frames that a frame of the causal student attends to, itself included."""
    self_forcing: SelfForcing | None = None
    """Distribution matching on the student's own rollouts."""
    long_rollout: SelfForcing | None = None
    """The same on rollouts several windows long."""

    def __post_init__(self) -> None:
        order = ("warm_up", "self_forcing", "long_rollout")
        if not self.stages or self.stages != tuple(stage for stage in order if stage in self.stages):
            raise ConfigError(f"expected some of {', '.join(order)} in this order, got {self.stages}")
        if self.stages[0] != "warm_up":
            raise ConfigError(f"the student begins with its warm_up, got {self.stages}")
        for stage in self.stages[1:]:
            if self.own_rollouts(stage) is None:
                raise ConfigError(f"stage {stage} is asked for and has no settings")

    def own_rollouts(self, stage: Stage) -> SelfForcing | None:
        """The settings of a stage after the warm-up."""
        return self.self_forcing if stage == "self_forcing" else self.long_rollout

    def fit_of(self, stage: Stage) -> FitConfig:
        """The loop's settings of a stage."""
        own = None if stage == "warm_up" else self.own_rollouts(stage)
        return self.fit if own is None else own.fit

    @property
    def longest(self) -> int:
        """Latent frames of the longest rollout; 0 where the warm-up is all."""
        asked = [own.longest for stage in self.stages[1:] if (own := self.own_rollouts(stage)) is not None]
        return max(asked, default=0)

    def folder_of(self, folder: Path, stage: Stage) -> Path:
        """Where a stage writes: the last one into `folder` itself."""
        return folder if stage == self.stages[-1] else folder / stage

    @property
    def about(self) -> dict[str, object]:
        """What a student's checkpoint says of its making."""
        return {"sampler": asdict(self.sampler), **self.pipeline}

    @property
    def pipeline(self) -> dict[str, Any]:
        """Its stages."""
        return {"stages": list(self.stages), "warm_up": self.warm_up}


def is_distilled(folder: Path, training: StudentTraining) -> bool:
    """Whether the last stage is finished.

    Raises:
        CheckpointError: if another pipeline's student is there, which these stages do not go on from.
    """
    return not _found(folder, training) and is_finished(folder, training.fit_of(training.stages[-1]))


def go_on_from(folder: Path, training: StudentTraining) -> None:
    """Prepare the folder: the last of fewer stages, which stands in `folder` itself, becomes one before the last.

    Raises:
        CheckpointError: if another pipeline's student is there, which these stages do not go on from.
    """
    if last := _found(folder, training):
        own = folder / last
        own.mkdir(exist_ok=True)
        for name in ("metrics.jsonl", "state", "model.safetensors", "config.json"):
            if (folder / name).exists():
                (folder / name).replace(own / name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STAGES, training.pipeline)


def _found(folder: Path, training: StudentTraining) -> Stage | None:
    """The last stage of a shorter pipeline that stands in the folder; None if it is this one's or empty.

    Raises:
        CheckpointError: if it is one which these stages do not go on from.
    """
    if (folder / STAGES).exists():
        found = read_json(folder / STAGES, of="stages of a student")
    elif (folder / "config.json").exists():
        found = {"stages": ["warm_up"], "warm_up": "consistency"} | read_about(folder)
    else:
        return None
    asked = training.pipeline
    if found["warm_up"] == asked["warm_up"]:
        if found["stages"] == asked["stages"]:
            return None
        if found["stages"] == asked["stages"][: len(found["stages"])]:
            return found["stages"][-1]
    name = "warm_up" if found["warm_up"] != asked["warm_up"] else "stages"
    raise CheckpointError(
        f"{folder} holds a student with {name}={found[name]}; {name}={asked[name]} was asked for. Use another run "
        "folder, or delete this one's student to distil it again."
    )


def distil(
    teacher: WorldModel,
    training: StudentTraining,
    data: WorldModelTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    long_sources: Sequence[Source] | None = None,
    tokenizer: VideoTokenizer | None = None,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> WorldModel:
    """Return the student; `data` says how windows are drawn and how the context is corrupted.

    A teacher of clips needs, for the student's own rollouts, sources of episodes as long as these (`long_sources`) and
    the tokenizer, which makes a clip's first frame.
    """
    if is_distilled(folder, training):
        return load_model(folder, WorldModel)
    if compute.processes.is_main:
        go_on_from(folder, training)
    compute.processes.wait()
    teacher = teacher.to(compute.device).eval()
    student = student_of(teacher, training.window)
    for number, stage in enumerate(training.stages):
        own = training.folder_of(folder, stage)
        say = partial(_say, report, stage.replace("_", " ")) if len(training.stages) > 1 else report
        if is_finished(own, training.fit_of(stage)):
            student = load_model(own, WorldModel)
            continue
        if stage == "warm_up":
            student = warm_up(
                student, teacher, training, data, sources, own, compute=compute, trackers=trackers, report=say
            )
            continue
        settings = training.own_rollouts(stage)
        assert settings is not None
        student = load_model(training.folder_of(folder, training.stages[number - 1]), WorldModel)
        student = self_force(
            student,
            teacher,
            settings,
            sources if long_sources is None else long_sources,
            own,
            sampler=training.sampler,
            schedule=training.teacher,
            compute=compute,
            about=training.about,
            tokenizer=tokenizer,
            trackers=trackers,
            report=say,
        )
    return student


def warm_up(
    student: WorldModel,
    teacher: WorldModel,
    training: StudentTraining,
    data: WorldModelTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> WorldModel:
    """Teach the few steps; the adapters stay the teacher's."""
    for parameter in student.adapters.parameters():
        parameter.requires_grad_(False)
    settings = {"sampler": training.sampler, "schedule": training.teacher, "device": compute.device}
    if training.warm_up == "consistency":
        step, length = (
            consistency_step(student, teacher, data, huber=training.huber, **settings),
            data.latent_frames + 1,
        )
    else:
        step, length = regression_step(student, teacher, data, **settings), data.latent_frames
    fit(
        student,
        step,
        WindowSampler(
            sources,
            length=length,
            batch_size=training.fit.batch_size,
            seed=training.fit.seed,
            reference="latent" if student.config.dit.reference_latent else None,
        ),
        config=training.fit,
        folder=folder,
        compute=compute,
        about=training.about,
        trackers=trackers,
        report=report,
    )
    return student


def student_of(teacher: WorldModel, window: int) -> WorldModel:
    """A causal model with the teacher's weights; of a teacher of whole clips it gets a window."""
    dit = teacher.config.dit
    if not dit.causal:
        dit = replace(dit, causal=True, window=window)
    student = WorldModel(replace(teacher.config, dit=dit))
    student.load_state_dict(teacher.state_dict())
    return student


def _say(report: Report, stage: str, done: int, total: int, words: str) -> None:
    report(done, total, f"{stage}, {words}" if words else stage)
