"""`dreamdojo demo`: the whole chain, from video to a robot world model you can drive.

Without data of your own it simulates some: human video without actions, and five minutes of a robot. With
`--human VIDEOS_OR_DATASET --robot LEROBOT_DATASET` the same chain runs on yours. It starts from the foundation that
ships with the package unless told `--from-scratch`. Stopped with Ctrl-C, the same command goes on where it was.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

import dreamdojo
from dreamdojo import stages
from dreamdojo.commands import PresetCommand, all_episodes, console, play, train_and_test
from dreamdojo.curation.curate import CurateSettings, curate
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.world_model import build_report
from dreamdojo.judge import Truths, judge
from dreamdojo.presets import Preset
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """What the chain learns from and is judged on."""

    human: Episodes
    robot: Episodes
    held_out: Episodes
    truths: Truths | None
    """True positions, where the dojo made the data."""
    sheet: dict[str, str]
    """What the data is, in words."""


class StageClock:
    """Seconds per stage, kept in the run folder so that a resumed demo still knows them."""

    def __init__(self, path: Path, stages: tuple[str, ...]) -> None:
        self.path, self.stages = path, stages
        self.seconds: dict[str, float] = dict(read_json(path)) if path.exists() else {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage and announce it."""
        console.print(f"[bold]{self.stages.index(stage) + 1}/{len(self.stages)} {stage}[/bold]")
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
            write_json(self.path, self.seconds)


STAGES = ("data", "tokenizer", "latent actions", "pre-training", "post-training", "student", "evaluation")


@dataclass(kw_only=True)
class Demo(PresetCommand):
    """The whole chain."""

    human: Path | None = None
    """Your unlabelled video: a folder of videos, or a LeRobot dataset. Simulated by default."""
    robot: Path | None = None
    """Your robot: a LeRobot dataset with actions. Simulated by default."""
    human_camera: str | None = None
    """Camera of the human dataset, where it has several."""
    robot_camera: str | None = None
    """Camera of the robot dataset, where it has several."""
    robot_minutes: float = 5.0
    """Minutes of the robot's episodes to learn from."""
    from_scratch: bool = False
    """Train tokenizer, latent actions and pre-training too, instead of starting from the shipped foundation."""
    play: bool = True
    """Whether to start `dreamdojo play` at the end."""
    port: int = 8642
    """Port of the page."""

    def run(self) -> None:
        """Run the chain."""
        run = self.open_run()
        clock = StageClock(run.folder / "seconds.json", STAGES)
        foundation = None if self.from_scratch else dreamdojo.foundation(self.preset.name)
        with clock("data"):
            data = self._simulated(run) if self.human is None and self.robot is None else self._own(run)
        if foundation is not None and self.human is None:
            console.print(f"Starting from the shipped foundation ({foundation.name}); --from-scratch trains it here.")
            stages.adopt_foundation(run, foundation)
        else:
            with clock("tokenizer"):
                stages.tokenizer_stage(run, [data.human, data.robot])
            with clock("latent actions"):
                stages.latent_action_stage(run, data.human)
            with clock("pre-training"):
                stages.pretrain_stage(run, data.human)
        with clock("post-training"):
            stages.posttrain_stage(run, data.robot, data.human)
        with clock("student"):
            stages.student_stage(run, data.robot)
        with clock("evaluation"):
            write_findings(run, data.held_out, data.truths, data.sheet, clock.seconds)
        total = sum(clock.seconds.values())
        console.print(f"Done in {total / 60:.1f} minutes. Report: {run.folder / 'report.html'}")
        if self.play:
            play(run.folder / "student", data.held_out, port=self.port)

    def _simulated(self, run: Run) -> DemoData:
        folder = run.folder / "data"
        simulate_datasets(run, folder)
        human, held_out_human = all_episodes(folder / "human"), all_episodes(folder / "human_test")
        robot, held_out = all_episodes(folder / "arm"), all_episodes(folder / "arm_test")
        return DemoData(
            human=human,
            robot=robot,
            held_out=held_out,
            truths=Truths(robot=robot, held_out=held_out, held_out_human=held_out_human),
            sheet={
                "human video": f"dojo, {describe(human)}, no actions",
                "robot": f"dojo, {describe(robot)}, {robot.dataset.embodiment.name}",
                "held out": f"{len(held_out.indices)} robot episodes of other seeds",
            },
        )

    def _own(self, run: Run) -> DemoData:
        if self.human is None or self.robot is None:
            missing = "--human" if self.human is None else "--robot"
            raise ConfigError(f"to run on your own data give both --human and --robot; {missing} is missing")
        robot = open_dataset(self.robot)
        if not robot.embodiment.action_dim:
            raise DataError(f"{self.robot}: expected a robot dataset with actions, found none. It may suit --human.")
        if (self.human / "meta" / "info.json").exists():
            human = all_episodes(self.human, self.human_camera)
        else:
            folder = run.folder / "data" / "human"
            if not folder.exists():
                with run.progress("curate") as report:
                    settings = CurateSettings(fps=self.preset.rate)
                    curate(self.human, folder, settings, progress=lambda d, n: report(d, n, "videos"))
            human = all_episodes(folder)
        train, held_out = train_and_test(robot, test_fraction=0.2, minutes=self.robot_minutes, camera=self.robot_camera)
        return DemoData(
            human=human,
            robot=train,
            held_out=held_out,
            truths=None,
            sheet={
                "unlabelled video": f"{self.human}, {describe(human)}",
                "robot": f"{self.robot}, {describe(train)}, {robot.embodiment.name}",
                "held out": f"{len(held_out.indices)} other episodes of the robot",
            },
        )


def simulate_datasets(run: Run, folder: Path) -> None:
    """Write the dojo's datasets for a run, as much as its preset says; those that are there already are kept.

    Raises:
        MissingDependencyError: if MuJoCo or the system's GL library is missing.
    """
    from dreamdojo.dojo.simulate import SimulateSettings, simulate_all

    amounts = run.preset.data
    rate, length = run.preset.rate, amounts.episode_frames

    def episodes(minutes: float) -> int:
        return max(1, round(minutes * 60 * rate / length))

    common = {"frames": length, "fps": rate}
    human, robot, test = episodes(amounts.human_minutes), episodes(amounts.robot_minutes), amounts.test_episodes
    wanted = [
        (SimulateSettings(body="human", episodes=human, truth="poses", **common), folder / "human"),
        (SimulateSettings(body="human", episodes=test, truth="poses", split="test", **common), folder / "human_test"),
        (SimulateSettings(body="arm", episodes=robot, **common), folder / "arm"),
        (SimulateSettings(body="arm", episodes=test, split="test", **common), folder / "arm_test"),
    ]
    simulate_all(wanted, workers=run.workers, progress=run.progress)


def describe(episodes: Episodes) -> str:
    """How much there is, in words."""
    dataset = episodes.dataset
    frames = sum(dataset.episode(index).length for index in episodes.indices)
    return f"{len(episodes.indices)} episodes, {frames / dataset.fps / 60:.1f} minutes at {dataset.fps:g} fps"


def write_findings(
    run: Run, held_out: Episodes, truths: Truths | None, sheet: dict[str, str], seconds: dict[str, float]
) -> None:
    """Evaluate and write `report.html` and `results.json`."""
    started = time.monotonic()
    with run.progress("evaluate") as report:
        evaluation = judge(run, held_out, truths, report=report)
    seconds = {**seconds, "evaluation": seconds.get("evaluation", 0.0) + time.monotonic() - started}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {run.compute.reason}"
    conditions = {
        "preset": run.preset.name,
        "machine": machine,
        "seed": run.preset.posttraining.fit.seed,
        "steps": _steps(run.preset),
        "data": sheet,
        "seconds": seconds,
    }
    write_json(run.folder / "results.json", {"conditions": conditions, **evaluation.to_json()})
    write_report(
        run.folder / "report.html",
        build_report(
            evaluation,
            title="A robot world model, from video to the driver's seat",
            subtitle=f"DreamDojo {dreamdojo.__version__}, preset {run.preset.name}",
            facts=(date.today().isoformat(), machine),
            data_sheet={**sheet, **{f"steps, {k}": str(v) for k, v in _steps(run.preset).items()}},
            stage_seconds=seconds,
            rate=run.preset.rate,
        ),
    )


def _steps(preset: Preset) -> dict[str, int]:
    return {
        "tokenizer": preset.tokenizer_training.fit.steps,
        "latent actions": preset.latent_action_training.fit.steps,
        "pre-training": preset.pretraining.fit.steps,
        "post-training": preset.posttraining.fit.steps,
        "student": preset.student.fit.steps,
    }
