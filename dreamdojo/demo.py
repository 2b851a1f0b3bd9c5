"""`dreamdojo demo`: the whole chain, from video to a robot world model you can drive.

Without data of your own it simulates some: human video without actions, and five minutes of a robot. With
`--human VIDEOS_OR_DATASET --robot LEROBOT_DATASET` the same chain runs on yours. It starts from the foundation that
ships with the package unless told `--from-scratch`. Stopped with Ctrl-C, the same command goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dreamdojo
from dreamdojo import stages
from dreamdojo.commands import PresetCommand, all_episodes, console, train_and_test
from dreamdojo.curation import CurateSettings, curate
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.files import read_json, write_json
from dreamdojo.judge import Truths, describe, write_findings
from dreamdojo.presets import NANO, Preset
from dreamdojo.stages import Episodes, Run


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
        self.seconds: dict[str, float] = read_json(path, of="stage times") if path.exists() else {}

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


def latent_actions_for(preset: Preset) -> Path | None:
    """The foundation whose latent actions a preset can take as they are: `nano`'s, where the network, the size of
    picture it sees and the rate are the same. What the world model draws may be of another size."""
    wanted = (preset.latent_action, preset.latent_action_size or preset.size, preset.rate)
    return dreamdojo.foundation(NANO.name) if wanted == (NANO.latent_action, NANO.size, NANO.rate) else None


STAGES = ("data", "tokenizer", "latent actions", "pre-training", "post-training", "student", "evaluation")


@dataclass(kw_only=True)
class Demo(PresetCommand):
    """The whole chain."""

    human: Path | None = None
    """Your unlabelled video: a folder of videos, or a LeRobot dataset. Simulated by default."""
    robot: Path | None = None
    """Your robot: a LeRobot dataset with actions. Simulated by default."""
    rgb: Path | None = None
    """A tokenizer to keep, e.g. a converted one, where the preset's is not trained."""
    human_camera: str | None = None
    """Camera of the human dataset, where it has several."""
    robot_camera: str | None = None
    """Camera of the robot dataset, where it has several."""
    robot_minutes: float = 5.0
    """Minutes of the robot's episodes to learn from."""
    from_scratch: bool = False
    """Train tokenizer, latent actions and pre-training too, instead of starting from what ships."""
    play: bool = True
    """Whether to start `dreamdojo play` at the end."""
    port: int = 8642
    """Port of the page."""

    def run(self) -> None:
        """Run the chain."""
        run = self.open_run()
        clock = StageClock(run.folder / "seconds.json", STAGES)
        depth = self.preset.modality == "rgbd"
        foundation = None if self.from_scratch else dreamdojo.foundation(self.preset.foundation or self.preset.name)
        with clock("data"):
            data = self._simulated(run) if self.human is None and self.robot is None else self._own(run)
        if foundation is not None and self.human is None:
            console.print(f"Starting from the shipped foundation ({foundation.name}); --from-scratch trains it here.")
            data.sheet["foundation"] = "the one that ships with the package; its model card says how it was made"
            if depth:
                with clock("tokenizer"):
                    stages.tokenizer_stage(run, [data.human, data.robot], rgb=foundation / "tokenizer")
                stages.start_with_depth(run, foundation / "pretrained")
            else:
                stages.adopt_foundation(run, foundation)
        else:
            with clock("tokenizer"):
                stages.tokenizer_stage(run, [data.human, data.robot], rgb=self.rgb)
            shipped = None if self.from_scratch or self.human is not None else latent_actions_for(self.preset)
            if shipped is not None:
                console.print("Latent actions are those that ship with the package; --from-scratch trains them here.")
                data.sheet["latent actions"] = "those that ship with the package"
                stages.adopt_foundation(run, shipped, ["latent_action"])
            else:
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
            from dreamdojo.play import play

            play(run.folder / "student", data.held_out, port=self.port)

    def _simulated(self, run: Run) -> DemoData:
        from dreamdojo.dojo.simulate import simulate_demo

        folder = run.folder / "data"
        depth = run.preset.modality == "rgbd"
        simulate_demo(folder, run.preset.data, depth=depth, workers=run.workers, progress=run.progress)
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
                    settings = CurateSettings(fps=self.preset.rate, keep_work=False)
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
