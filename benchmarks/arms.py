"""The arms that benchmarks compare: world models and baselines trained alike, from the same data, in one folder.

    none                         robot data only, for as many steps as the others take in all
    action-free                  pre-trained on human video with no action at all
    latent                       pre-trained on human video with the latent actions of a model that saw no label
    ideal                        pre-trained on human video with the hand's true motion, as a tracker would tell it
    latent, fresh adapter        `latent` whose adapter starts at random, as published
    none, more                   `none` with more steps
    deterministic                the baseline of prior work (`dreamdojo.evaluation.regression`), robot data only
    deterministic, human video   the same, first trained on human video without actions

    FOLDER/data/human  robot            simulated where missing
    FOLDER/cache                        frames, latents and latent actions, shared by all arms
    FOLDER/models/SEED/ARM/pretrained   after human video, shared by all amounts of robot data
    FOLDER/models/SEED/ARM/MINUTES/teacher

The deterministic arms are trained for as many floating-point operations as the others, not for as many steps.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dreamdojo import stages
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.windows import Source
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.health.recordings import true_motion
from dreamdojo.evaluation.predict import Recording
from dreamdojo.evaluation.regression import (
    LatentPredictor,
    PredictorConfig,
    PredictorTraining,
    load_regression_session,
    predictor_flops,
    train_predictor,
)
from dreamdojo.metrics.ridge import fit_ridge
from dreamdojo.presets import NANO, Preset
from dreamdojo.rollout.session import load_session
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import choose_compute
from dreamdojo.training.fit import FitConfig, is_finished
from dreamdojo.training.progress import progress_line
from dreamdojo.training.resume import saved_step
from dreamdojo.world import World
from dreamdojo.world_model.budget import Grid, pass_flops
from dreamdojo.world_model.model import LATENT_ACTION, ActionAdapter, WorldModel, WorldModelConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

ARMS = ("none", "action-free", "latent", "ideal")
MORE, FRESH = "none, more", "latent, fresh adapter"
REGRESSION, REGRESSION_HUMAN = "deterministic", "deterministic, human video"
SAMPLER = NANO.student.teacher
"""Of every arm."""
SETS = {
    "human": SimulateSettings(body="human", episodes=562, truth="poses"),
    "robot": SimulateSettings(body="arm", episodes=188),
}
"""What arms are trained on: an hour of human video and twenty minutes of a robot."""


def datasets(folder: Path, sets: Mapping[str, SimulateSettings], *, workers: int = 2) -> dict[str, Episodes]:
    """Simulate what is missing."""
    found = {}
    for name, settings in sets.items():
        root = folder / "data" / name
        if not (root / "meta" / "info.json").exists():
            with progress_line(f"simulate {name}") as report:
                simulate(settings, root, workers=workers, progress=report)
        dataset = open_dataset(root)
        found[name] = Episodes(dataset=dataset, indices=tuple(episode.index for episode in dataset.episodes))
    return found


def motion_of(episodes: Episodes) -> dict[int, np.ndarray]:
    """Velocity of the hand or gripper in x, y, z, its turn and its opening, per step: `t-1 5`."""
    truth = GroundTruth.open(episodes.dataset.root)
    return {index: true_motion(truth, index).astype(np.float32) for index in episodes.indices}


def ideal_labels(motion: Mapping[int, np.ndarray], like: Mapping[int, np.ndarray], width: int) -> dict[int, np.ndarray]:
    """Motion standardised by the human's own spread and padded to the latent action's width."""
    spread = np.concatenate(list(like.values())).std(axis=0)
    return {i: np.pad(rows / spread, ((0, 0), (0, width - rows.shape[1]))) for i, rows in motion.items()}


def human_source(arm: str, run: Run, human: Episodes) -> Source:
    """Latents of human video with what the arm is told of its motion."""
    if arm == "latent":
        return stages.latent_action_source(run, human)
    width, latents = run.preset.latent_action.latent_dim, run.latents(human)
    motion = motion_of(human)
    labels = ideal_labels(motion, motion, width)
    if arm == "action-free":
        labels = {index: np.zeros_like(rows) for index, rows in labels.items()}
    return Source(embodiment=LATENT_ACTION, episodes=[latent_episode(latents[i], labels[i], 1) for i in human.indices])


def pretrain(arm: str, run: Run, human: Episodes) -> WorldModel:
    """The arm's model after human video; a finished one is loaded."""
    if arm == "latent":
        return stages.pretrain_stage(run, human)
    preset = run.preset
    torch.manual_seed(preset.pretraining.fit.seed)
    model = WorldModel(WorldModelConfig(dit=preset.world_model, size=preset.size, rate=preset.rate))
    with run.progress(f"pre-train {arm}") as report:
        return train_world_model(
            model,
            preset.pretraining,
            [human_source(arm, run, human)],
            run.folder / "pretrained",
            compute=run.compute,
            about=stages.sampling(preset.student.teacher),
            report=report,
        )


def posttrain(arm: str, run: Run, start: WorldModel | None, robot: Episodes, human: Episodes) -> None:
    """The arm's model after the robot's episodes, in the run's `teacher`."""
    preset, body = run.preset, robot.dataset.embodiment
    torch.manual_seed(preset.posttraining.fit.seed)
    if start is None:
        start = WorldModel(WorldModelConfig(dit=preset.world_model, size=preset.size, rate=preset.rate))
    model = start.with_embodiments(body)
    front = model.adapter(body.name)
    assert isinstance(front, ActionAdapter)
    if arm == "latent":
        front.start_from(*stages.align_adapter(run, model, robot, body))
    if arm == "ideal":
        front.start_from(*align_to_truth(run, robot, human, body))
    with run.progress(f"post-train {arm}") as report:
        train_world_model(
            model,
            preset.posttraining,
            [stages.robot_source(run, robot, body)],
            run.folder / "teacher",
            compute=run.compute,
            about=stages.sampling(preset.student.teacher),
            report=report,
        )


def align_to_truth(run: Run, robot: Episodes, human: Episodes, body: Embodiment) -> tuple[torch.Tensor, torch.Tensor]:
    """The adapter's start for the ideal arm: from the robot's actions to its true motion, in the human's units."""
    labels = ideal_labels(motion_of(robot), motion_of(human), run.preset.latent_action.latent_dim)
    actions = np.concatenate([stages.robot_motion(run, robot, index, body)[0] for index in robot.indices])
    target = np.concatenate([labels[index] for index in robot.indices])
    fit = fit_ridge(torch.from_numpy(actions), torch.from_numpy(target).float(), strength=1e-2)
    return fit.weight.T, fit.bias


def first_minutes(robot: Episodes, minutes: float) -> Episodes:
    """The first episodes that fill so many minutes."""
    per_episode = robot.dataset.episode(robot.indices[0]).length / robot.dataset.fps / 60
    return replace(robot, indices=robot.indices[: max(1, round(minutes / per_episode))])


class Arms:
    """All arms in one folder, trained where they are missing.

    Args:
        folder: where data, caches and models lie.
        models: a folder with the `tokenizer` and the `latent_action` model that all arms share.
        steps: of pre-training and of post-training; arms without pre-training take all of them afterwards.
        more: further steps of the arm `none, more`.
        preset: everything else.
        sets: what is simulated as `human` and `robot`.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        steps: tuple[int, int],
        more: int = 0,
        preset: Preset = NANO,
        sets: Mapping[str, SimulateSettings] = SETS,
        workers: int = 2,
    ) -> None:
        self.folder, self.models, self.steps, self.more = folder, models, steps, more
        self.preset, self.sets, self.workers = preset, sets, workers
        self.compute = choose_compute("auto")

    @cached_property
    def data(self) -> dict[str, Episodes]:
        """Human video and the robot's episodes."""
        return datasets(self.folder, self.sets, workers=self.workers)

    def run_of(self, name: str, *, seed: int, post: int | None = None) -> Run:
        """A run folder that shares the caches, the tokenizer and the latent action model."""
        folder = self.folder / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        for link, target in {
            "cache": self.folder / "cache",
            "tokenizer": self.models / "tokenizer",
            "latent_action": self.models / "latent_action",
        }.items():
            target.mkdir(parents=True, exist_ok=True)
            if not (folder / link).exists():
                (folder / link).symlink_to(target.resolve(), target_is_directory=True)
        before, after = self.steps
        given = self.preset
        pretraining = replace(given.pretraining, fit=replace(given.pretraining.fit, steps=before, seed=seed))
        fit = replace(given.posttraining.fit, steps=after if post is None else post, seed=seed)
        preset = replace(given, pretraining=pretraining, posttraining=replace(given.posttraining, fit=fit))
        return Run(folder=folder, preset=preset, compute=self.compute, workers=self.workers)

    def train(self, arm: str, seed: int, minutes: int) -> World:
        """The arm's model, trained where it is missing.

        Raises:
            ConfigError: if the folder holds that arm trained for another number of steps.
        """
        robot = first_minutes(self.data["robot"], minutes)
        if arm in (REGRESSION, REGRESSION_HUMAN):
            return self._regress(arm, seed, minutes, robot)
        before_robot = "latent" if arm == FRESH else arm
        pretrained = before_robot in ARMS[1:]
        before, after = self.steps
        post = after + (0 if pretrained else before) + (self.more if arm == MORE else 0)
        run = self.run_of(f"{seed}/{arm}/{minutes}", seed=seed, post=post)
        if not finished(run.folder / "teacher", run.preset.posttraining.fit):
            start, human = None, self.data["human"]
            if pretrained:
                pre = self.run_of(f"{seed}/{before_robot}", seed=seed)
                finished(pre.folder / "pretrained", pre.preset.pretraining.fit)
                start = pretrain(before_robot, pre, human)
            posttrain(arm, run, start, robot, human)
        body, device = robot.dataset.embodiment.name, self.compute.device.type
        return load_session(run.folder / "teacher", embodiment=body, sampler=SAMPLER, device=device)  # pyright: ignore[reportArgumentType]

    def _regress(self, arm: str, seed: int, minutes: int, robot: Episodes) -> World:
        before, after = self.steps
        pre = self.run_of(f"{seed}/{arm}", seed=seed)
        body, preset, ratio = robot.dataset.embodiment, pre.preset, self.regression_steps
        training = regression_training(round(ratio * after), preset, seed)
        if arm == REGRESSION:
            training = regression_training(round(ratio * (before + after)), preset, seed)
        run = self.run_of(f"{seed}/{arm}/{minutes}", seed=seed)
        if not finished(run.folder / "teacher", training.fit):
            torch.manual_seed(seed)
            model = LatentPredictor(regression_config(preset, body))
            if arm == REGRESSION_HUMAN:
                model = self._regress_human(pre, model, regression_training(round(ratio * before), preset, seed))
            with run.progress(f"train {arm}") as report:
                source = stages.robot_source(run, robot, body)
                train_predictor(model, training, [source], run.folder / "teacher", compute=self.compute, report=report)
        return load_regression_session(run.folder / "teacher", device=self.compute.device.type)  # pyright: ignore[reportArgumentType]

    def _regress_human(self, run: Run, model: LatentPredictor, training: PredictorTraining) -> LatentPredictor:
        folder = run.folder / "pretrained"
        if finished(folder, training.fit):
            return load_model(folder, LatentPredictor)
        with run.progress("train deterministic on human video") as report:
            source = human_source("action-free", run, self.data["human"])
            return train_predictor(model, training, [source], folder, compute=self.compute, report=report)

    @cached_property
    def regression_steps(self) -> float:
        """Steps of a deterministic arm that take as many operations as one step of the world model."""
        preset = self.preset
        rows, columns = (side // preset.tokenizer.spatial_factor for side in preset.size)
        frames = preset.posttraining.latent_frames
        ours = pass_flops(preset.world_model, Grid(rows=rows, columns=columns), frames=frames)
        config = regression_config(preset, self.data["robot"].dataset.embodiment)
        window = regression_training(1, preset, 0).frames
        return ours / predictor_flops(config, rows, columns, frames=window)


def finished(folder: Path, fit: FitConfig) -> bool:
    """Whether a model was trained in `folder` for just as many steps.

    Raises:
        ConfigError: if it was trained for another number, so that arms would not be alike.
    """
    if not (folder / "model.safetensors").exists():
        return False
    if (found := saved_step(folder)) != fit.steps:
        raise ConfigError(
            f"{folder} was trained for {found} steps, {fit.steps} are asked for. Give the steps it was trained for, or "
            "another folder."
        )
    return is_finished(folder, fit)


def regression_config(preset: Preset, body: Embodiment) -> PredictorConfig:
    """The deterministic predictor of a preset."""
    return PredictorConfig(
        latent_channels=preset.tokenizer.latent_channels,
        size=preset.size,
        rate=preset.rate,
        embodiment=body,
        actions_per_latent=preset.tokenizer.temporal_factor,
    )


def regression_training(steps: int, preset: Preset, seed: int) -> PredictorTraining:
    """How it is trained: batches as large as the world model's, the same emphasis on what moves."""
    fit = replace(preset.posttraining.fit, steps=max(1, steps), seed=seed, compile=False)
    return PredictorTraining(fit=fit, emphasis=preset.posttraining.emphasis)


def recordings(run: Run, episodes: Episodes) -> list[Recording]:
    """Frames and the body's own actions of each episode."""
    frames, body = run.frames(episodes), episodes.dataset.embodiment
    return [
        Recording(
            frames=stages.channels_first(frames[index]),
            actions=body.denormalize_action(stages.robot_motion(run, episodes, index, body)[0]),
        )
        for index in episodes.indices
    ]


def today() -> dict[str, str]:
    """The commit that is checked out, and the date."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"commit": commit.stdout.strip(), "date": date.today().isoformat()}
