"""Does pre-training on latent actions help, and against what? `python benchmarks/pretraining_ablation.py --run FOLDER`.

The published comparison on our own ground truth. Four arms of equal compute for the world model, the same post-training
on minutes of robot data, the same tokenizer, scored on held-out robot episodes that nothing was tuned on:

    none          robot data only, for as many steps as the others take in all
    action-free   pre-trained on human video with no action at all
    latent        pre-trained on human video with the latent actions of a model that saw no label
    ideal         pre-trained on human video with the hand's true motion, as a person with a tracker would have it

The latent arm alone also costs a latent action model. It is one model for every robot and arm, so it is not counted;
with `--more-steps` the arm `none, more` shows robot data only with that compute added. `latent, fresh adapter` starts
the robot's adapter at random, as published, and not from an alignment with the latent actions.

A queue: every cell (seed, minutes) is written when it ends, a rerun skips what is there; `--seeds`, `--only-minutes`
run a part, `--train-only` trains some arms ahead. Pre-trained models of a seed are shared by its cells.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamdojo import foundation, stages
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.windows import Source
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.health.recordings import true_motion
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.predict import ClipPlan, Recording, plan_clips, predict
from dreamdojo.evaluation.rollouts import Clips, SceneTruth, score_rollouts
from dreamdojo.files import written_whole
from dreamdojo.judge import CONTEXT, scene_truth, train_probes
from dreamdojo.metrics import paired_interval
from dreamdojo.metrics.ridge import fit_ridge
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import Session, load_session
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world_model.model import LATENT_ACTION, ActionAdapter, WorldModel, WorldModelConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

RESULTS = Path(__file__).parent / "results" / "pretraining_ablation.json"
ARMS = ("none", "action-free", "latent", "ideal")
MORE, FRESH = "none, more", "latent, fresh adapter"
MINUTES = (1, 5, 20)
HORIZON = 8
HORIZONS = (1, 4, 8)
SAMPLER_STEPS = 2
"""Of every arm's sampler: on 16 clips of one arm eight predicted no better, and took two and a half times as long."""
LOWER_IS_BETTER = ("effector_error", "object_error")
SETS = {
    "human": SimulateSettings(body="human", episodes=562, truth="poses"),
    "robot": SimulateSettings(body="arm", episodes=188),
    "test": SimulateSettings(body="arm", split="test", first_index=2000, episodes=128),
    "ood": SimulateSettings(body="arm", split="ood_shape", first_index=2000, episodes=64),
}
"""Seeds from 2000 on were used by nothing else."""


def datasets(
    folder: Path, sets: Mapping[str, SimulateSettings] | None = None, *, workers: int = 2
) -> dict[str, Episodes]:
    """Simulate what is missing."""
    found = {}
    for name, settings in (sets or SETS).items():
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


class Bench:
    """What all cells share: data, probes, clips, the latent action model and the tokenizer."""

    def __init__(self, folder: Path, models: Path, *, steps: tuple[int, int], more: int) -> None:
        self.folder, self.models, self.steps, self.more = folder, models, steps, more
        self.data = datasets(folder)
        self.compute = choose_compute("auto")
        shared = self.run_of("shared", seed=0)
        self.plans = {name: self._plan(shared, self.data[name]) for name in ("test", "ood")}

    @cached_property
    def probes(self) -> tuple[EffectorProbe, ObjectProbe | None]:
        """What reads the gripper and the objects off a picture; trained when first asked for."""
        with progress_line("probes") as report:
            return train_probes(self.run_of("shared", seed=0), self.data["robot"], report)

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
        pretraining = replace(NANO.pretraining, fit=replace(NANO.pretraining.fit, steps=before, seed=seed))
        fit = replace(NANO.posttraining.fit, steps=after if post is None else post, seed=seed)
        preset = replace(NANO, pretraining=pretraining, posttraining=replace(NANO.posttraining, fit=fit))
        return Run(folder=folder, preset=preset, compute=choose_compute("auto"))

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, and the one with more steps where some were asked for."""
        return (*ARMS, FRESH, MORE) if self.more else (*ARMS, FRESH)

    def train(self, arm: str, seed: int, minutes: int) -> Session:
        """The arm's model, trained where it is missing."""
        robot, human = first_minutes(self.data["robot"], minutes), self.data["human"]
        before_robot = "latent" if arm == FRESH else arm
        pre = self.run_of(f"{seed}/{before_robot}", seed=seed)
        start = pretrain(before_robot, pre, human) if before_robot in ARMS[1:] else None
        before, after = self.steps
        post = after + (before if start is None else 0) + (self.more if arm == MORE else 0)
        run = self.run_of(f"{seed}/{arm}/{minutes}", seed=seed, post=post)
        posttrain(arm, run, start, robot, human)
        body = robot.dataset.embodiment.name
        device = self.compute.device.type
        return load_session(run.folder / "teacher", embodiment=body, steps=SAMPLER_STEPS, device=device)  # pyright: ignore[reportArgumentType]

    def cell(self, seed: int, minutes: int) -> dict:
        """Train what is missing and score all arms on the same clips."""
        sessions = {arm: self.train(arm, seed, minutes) for arm in self.arms}
        return {name: self._score(sessions, self.data[name], plan) for name, plan in self.plans.items()}

    def _plan(self, run: Run, held_out: Episodes) -> ClipPlan:
        return plan_clips(recordings(run, held_out), context=CONTEXT, horizon=HORIZON, seed=0)

    def _score(self, sessions: Mapping[str, Session], held_out: Episodes, plan: ClipPlan) -> dict:
        scene = scene_truth(plan, held_out, size=NANO.size)
        effector, objects = self.probes
        return score(sessions, plan, scene, effector=effector, objects=objects)


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


def score(
    sessions: Mapping[str, Session],
    plan: ClipPlan,
    scene: SceneTruth,
    *,
    effector: EffectorProbe | None,
    objects: ObjectProbe | None = None,
) -> dict:
    """Per clip: metric -> arm -> horizon -> values; and the same under another episode's actions for PSNR."""
    predictions, others = {}, {}
    with progress_line("score") as report:
        for number, (arm, session) in enumerate(sessions.items()):
            predictions[arm], others[arm] = predict(session, plan), predict(session, plan, other_actions=True)
            report(number + 1, len(sessions), arm)
    scores = score_rollouts(
        Clips(last_context=plan.given[:, -1], truth=plan.truth, scene=scene),
        predictions,
        other_actions=others,
        horizons=HORIZONS,
        effector_probe=effector,
        object_probe=objects,
    )
    return {"true": table(scores.true_actions), "other": table(scores.other_actions)}


def table(scores: Mapping[str, Mapping[str, torch.Tensor]]) -> dict:
    """Values per clip, rounded for the file."""
    return {
        metric: {
            method: {
                str(h): [None if x != x else round(x, 3) for x in values[:, i].tolist()] for i, h in enumerate(HORIZONS)
            }
            for method, values in methods.items()
        }
        for metric, methods in scores.items()
    }


def summarise(cells: Mapping[str, dict]) -> dict:
    """Differences between arms, paired by clip and seed, for each split, number of minutes, metric and horizon."""
    summary: dict[str, dict] = {}
    for split in ("test", "ood"):
        for minutes in MINUTES:
            mine = [cell[split]["true"] for key, cell in cells.items() if key.endswith(f", {minutes} min")]
            if not mine:
                continue
            for metric in mine[0]:
                for horizon in map(str, HORIZONS):
                    values = {
                        arm: torch.tensor(
                            [float("nan") if x is None else x for cell in mine for x in cell[metric][arm][horizon]]
                        )
                        for arm in mine[0][metric]
                        if all(arm in cell[metric] for cell in mine)
                    }
                    rows: dict[str, Any] = {arm: float(v.nanmean()) for arm, v in values.items()}
                    for against in ("none", "action-free", FRESH, MORE):
                        if {"latent", against} <= values.keys():
                            gap = paired_interval(values["latent"], values[against])
                            rows[f"latent minus {against}"] = gap.to_json()
                    for base in ("none", "action-free"):
                        if {"latent", "ideal", base} <= values.keys():
                            whole = paired_interval(values["ideal"], values[base])
                            clear = whole.high < 0 if metric in LOWER_IS_BETTER else whole.low > 0
                            got = float((values["latent"] - values[base]).nanmean())
                            rows[f"recovered of {base} to ideal"] = got / whole.mean if clear else None
                    if metric == "psnr":
                        for arm, told in values.items():
                            rows[f"{arm}, true minus other actions"] = obeyed(cells, split, minutes, arm, horizon, told)
                    summary.setdefault(split, {}).setdefault(f"{minutes} min", {}).setdefault(metric, {})[horizon] = (
                        rows
                    )
    return summary


def obeyed(cells: Mapping[str, dict], split: str, minutes: int, arm: str, horizon: str, true: torch.Tensor) -> Any:
    """dPSNR: how much better an arm predicts under the true actions than under another episode's; None for copying."""
    mine = [cell[split]["other"]["psnr"] for key, cell in cells.items() if key.endswith(f", {minutes} min")]
    if any(arm not in other for other in mine):
        return None
    other = [float("nan") if x is None else x for cell in mine for x in cell[arm][horizon]]
    return paired_interval(true, torch.tensor(other)).to_json()


def goals(summary: dict) -> dict:
    """Latent minus none and minus action-free on the test split, lower end of the interval, at 1 and 5 minutes."""
    found = {}
    for minutes in (1, 5):
        for against in ("none", "action-free"):
            rows = summary.get("test", {}).get(f"{minutes} min", {}).get("moving_psnr", {}).get("8", {})
            gap = rows.get(f"latent minus {against}")
            key = f"moving PSNR at 8 frames, latent minus {against}, {minutes} min, lower end, dB"
            found[key] = {"value": gap["low"] if gap else None, "bound": 0.0, "op": ">="}
            if gap is None:
                found[key]["reason"] = "not run"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/pretraining_ablation"))
    parser.add_argument("--models", type=Path, help="folder with tokenizer/ and latent_action/; the shipped ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only-minutes", type=int, nargs="+", default=list(MINUTES))
    parser.add_argument("--pretrain-steps", type=int, default=600)
    parser.add_argument("--posttrain-steps", type=int, default=300)
    parser.add_argument("--more-steps", type=int, default=0, help="also robot data only, for so many steps more")
    parser.add_argument(
        "--train-only", choices=(*ARMS, FRESH, MORE), nargs="+", help="train these arms and score nothing yet"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = arguments.models or foundation("nano")
    if models is None:
        raise SystemExit("no models ship with this package: make them with `make weights`, or give --models")
    steps = (arguments.pretrain_steps, arguments.posttrain_steps)
    bench = Bench(arguments.run, models, steps=steps, more=arguments.more_steps)
    cells_file = arguments.run / "cells.json"
    cells = json.loads(cells_file.read_text()) if cells_file.exists() else {}
    for seed in arguments.seeds:
        for minutes in arguments.only_minutes:
            key = f"seed {seed}, {minutes} min"
            if key in cells:
                continue
            if arguments.train_only:
                for arm in arguments.train_only:
                    bench.train(arm, seed, minutes)
                continue
            cells[key] = bench.cell(seed, minutes)
            cells_file.write_text(json.dumps(cells))
            write(cells, arguments)


def write(cells: dict, arguments: argparse.Namespace) -> None:
    """The summary of all cells so far."""
    summary = summarise(cells)
    conditions = {
        "machine": f"{platform.machine()}, {arguments.threads} threads",
        "preset": "nano",
        "pretrain_steps": arguments.pretrain_steps,
        "posttrain_steps": arguments.posttrain_steps,
        "more_steps": arguments.more_steps,
        "sampler_steps": SAMPLER_STEPS,
        "cells": sorted(cells),
        "clips": {name: settings.episodes for name, settings in SETS.items() if name in ("test", "ood")},
    }
    found = goals(summary)
    keep(summary, **today(), conditions=conditions, goals=found)
    print(json.dumps(found, indent=1), flush=True)


def keep(metrics: Mapping[str, Any], **facts: Any) -> None:
    """Put metrics and facts into the results file; what others keep there stays."""
    stored = {"name": "pretraining_ablation", **today(), "conditions": {}, "metrics": {}, "goals": goals({})}
    stored |= json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stored |= {**facts, "metrics": {**stored["metrics"], **metrics}}
    with written_whole(RESULTS) as path:
        path.write_text(json.dumps(stored, indent=1) + "\n")


def today() -> dict[str, str]:
    """The commit that is checked out, and the date."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"commit": commit.stdout.strip(), "date": date.today().isoformat()}


if __name__ == "__main__":
    main()
