"""Train the models that ship: a foundation from the dojo's human video, and a robot of the dojo on top of it.

    make weights        (resumable: Ctrl-C and run it again)

Everything comes from the dojo and a seed, so the weights can be made again by anyone. The foundation (tokenizer, latent
actions, pre-trained world model) goes into the package first; then a demo with two hours of the robot (`nano-robot`)
post-trains from it, and its teacher and student are packaged too, with a model card. The training state stays in the
run folders.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamdojo import stages
from dreamdojo.commands import PresetCommand, all_episodes, console
from dreamdojo.demo import STAGES, Demo, StageClock
from dreamdojo.dojo.simulate import simulate_demo
from dreamdojo.files import read_json, write_json
from dreamdojo.judge import describe, steps_of
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets import NANO_ROBOT
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.training.checkpoint import load_model, read_about, save_model
from dreamdojo.world_model.model import WorldModel

FOUNDATION = {"tokenizer": Tokenizer, "latent_action": LatentActionModel, "pretrained": WorldModel}
ROBOT = {"teacher": WorldModel, "student": WorldModel}
CARD = ("psnr", "moving_psnr", "effector_error", "effector_found", "object_error", "sharpness")
"""Metrics of the model card."""
SHIPPED = Path(__file__).parent / "weights" / "nano"


@dataclass(kw_only=True)
class TrainFoundation(PresetCommand):
    """Train and package the models that ship."""

    target: Path = SHIPPED
    """Where the packaged models go."""

    def run(self) -> None:
        """Train the foundation, package it, run the demo from it, package its models."""
        run = self.open_run()
        clock = StageClock(run.folder / "seconds.json", STAGES)
        with clock("data"):
            simulate_demo(run.folder / "data", run.preset.data, workers=run.workers, progress=run.progress)
        human, robot = (all_episodes(run.folder / "data" / name) for name in ("human", "arm"))
        with clock("tokenizer"):
            stages.tokenizer_stage(run, [human, robot])
        with clock("latent actions"):
            stages.latent_action_stage(run, human)
        with clock("pre-training"):
            stages.pretrain_stage(run, human)
        package(run.folder, self.target, FOUNDATION)
        steps = steps_of(run.preset)
        made = {
            "preset": run.preset.name,
            "machine": run.compute.reason,
            "seed": run.preset.pretraining.fit.seed,
            "steps": {name: steps[name] for name in ("tokenizer", "latent actions", "pre-training")},
            "data": {"human video": describe(human), "robot frames for the tokenizer": describe(robot)},
            "seconds": {name: round(seconds) for name, seconds in clock.seconds.items()},
        }
        write_json(self.target / "foundation.json", made)

        demo = run.folder / "robot"
        Demo(preset=NANO_ROBOT, run_folder=demo, device=self.device, workers=self.workers, play=False).run()
        package_robot(demo, self.target)


def package(run_folder: Path, target: Path, stages_by_name: dict[str, Any]) -> None:
    """Write a run's models as bfloat16, each with the log of its training."""
    for stage, model_class in stages_by_name.items():
        model = load_model(run_folder / stage, model_class)
        save_model(target / stage, model, about=read_about(run_folder / stage), dtype=torch.bfloat16)
        shutil.copy(run_folder / stage / "metrics.jsonl", target / stage / "metrics.jsonl")


def package_robot(demo_folder: Path, target: Path) -> None:
    """Package the teacher and student of a demo run that started from the packaged foundation, and write the card."""
    package(demo_folder, target, ROBOT)
    results = read_json(demo_folder / "results.json", of="the evaluation")
    made = read_json(target / "foundation.json", of="the foundation")
    (target / "README.md").write_text(model_card(made, results))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 2**20
    console.print(f"Packaged {size:.1f} MB under {target}")


def told(means: dict[str, Any], method: str, horizon: str) -> str:
    """A mean for the card; a dash where nothing was measured."""
    mean = means.get(method, {}).get(horizon, {}).get("mean")
    return "–" if mean is None else f"{mean:.1f}" if abs(mean) >= 10 else f"{mean:.2f}"


def model_card(made: dict[str, Any], results: dict[str, Any]) -> str:
    """What the weights are, what made them, what was measured, and what they cannot do."""
    conditions, rollouts = results["conditions"], results["rollouts"]
    rows = [
        f"| {horizon} | {method} | "
        + " | ".join(told(rollouts["mean"].get(key, {}), method, horizon) for key in CARD)
        + " |"
        for horizon in ("1", "4", "8", "16")
        for method in ("teacher", "student", "copy last frame")
    ]
    foundation_data = ", ".join(f"{name}: {words}" for name, words in made["data"].items())
    robot_data = ", ".join(f"{name}: {words}" for name, words in conditions["data"].items())
    return "\n".join(
        [
            "# DreamDojo `nano`",
            "",
            "Tokenizer, latent action model and pre-trained world model (the foundation), and a teacher and a student",
            "for the dojo's arm. Apache-2.0: trained on simulated data only. Made by `make weights`, which makes them",
            "again; stored as bfloat16, with the log of each training.",
            "",
            f"- foundation: {foundation_data}; steps {json.dumps(made['steps'])}; seed {made['seed']}",
            f"- robot: {robot_data}; steps {json.dumps(conditions['steps'])}, of which the last two here",
            f"- foundation on {made['machine']}; its seconds {json.dumps(made['seconds'])}",
            f"- robot on {conditions['machine']}",
            "",
            f"{rollouts['clips']} held-out robot clips. PSNR in dB, of all pixels and of those that move; how far",
            "gripper and moved objects are off, in pixels; gradient energy where things move, 1 is the truth's:",
            "",
            "| frames ahead | | PSNR | moving | gripper | found | object | sharpness |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Tokenizer {results['tokenizer_psnr']:.1f} dB. A demo from this foundation learns from five minutes",
            "of the robot instead; its figures, with intervals: `benchmarks/results/demo.json`.",
            "",
            "Limits: 64 px, one head camera, a dojo table with one to three objects and gentle motion. The arm keeps",
            "its shape for seconds. Small objects fade when it has covered them, and what is pushed stays behind more",
            "often than it follows: copying the last frame places touched objects better. Unseen shapes are",
            "drawn worse.",
            "",
        ]
    )
