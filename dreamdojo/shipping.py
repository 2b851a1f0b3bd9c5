"""Train the models that ship: tokenizer, latent actions, pre-trained world model, and a robot of the dojo on top.

    make weights        (resumable: Ctrl-C and run it again)

Everything comes from the dojo and a seed, so the weights can be made again by anyone. The result goes into the package
as bfloat16 with a model card; the training state stays in the run folder.
"""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from dreamdojo import stages
from dreamdojo.commands import PresetCommand, all_episodes, console
from dreamdojo.demo import STAGES, StageClock
from dreamdojo.dojo.simulate import simulate_demo
from dreamdojo.files import read_json
from dreamdojo.judge import Truths, describe, write_findings
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets import Preset
from dreamdojo.stages import Run
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.training.checkpoint import load_model, read_about, save_model
from dreamdojo.world_model.model import WorldModel

SHIPPED = {
    "tokenizer": Tokenizer,
    "latent_action": LatentActionModel,
    "pretrained": WorldModel,
    "teacher": WorldModel,
    "student": WorldModel,
}


@dataclass(kw_only=True)
class TrainFoundation(PresetCommand):
    """Train and package the models that ship."""

    package: bool = True
    """Whether to put the result into the package."""

    def run(self) -> None:
        """Train every stage, evaluate, and package."""
        run = self.open_run()
        preset = run.preset
        clock = StageClock(run.folder / "seconds.json", STAGES)
        folder = run.folder / "data"
        with clock("data"):
            simulate_demo(folder, preset.data, workers=run.workers, progress=run.progress)
        human, robot, held_out = (all_episodes(folder / name) for name in ("human", "arm", "arm_test"))
        with clock("tokenizer"):
            stages.tokenizer_stage(run, [human, robot])
        with clock("latent actions"):
            stages.latent_action_stage(run, human)
        with clock("pre-training"):
            stages.pretrain_stage(run, human)
        with clock("post-training"):
            stages.posttrain_stage(run, robot, human)
        with clock("student"):
            stages.student_stage(run, robot)
        sheet = {"human video": f"dojo, {describe(human)}", "robot": f"dojo, {describe(robot)}"}
        truths = Truths(robot=robot, held_out=held_out, held_out_human=all_episodes(folder / "human_test"))
        with clock("evaluation"):
            write_findings(run, held_out, truths, sheet, clock.seconds)
        if self.package:
            package_weights(run, Path(__file__).parent / "weights" / preset.name.removesuffix("-foundation"))


def package_weights(run: Run, target: Path) -> None:
    """Write the run's models as bfloat16 with a model card and the training logs."""
    target.mkdir(parents=True, exist_ok=True)
    for stage, model_class in SHIPPED.items():
        model = load_model(run.folder / stage, model_class)
        save_model(target / stage, model, about=read_about(run.folder / stage), dtype=torch.bfloat16)
        shutil.copy(run.folder / stage / "metrics.jsonl", target / stage / "metrics.jsonl")
    results = read_json(run.folder / "results.json", of="the evaluation")
    (target / "README.md").write_text(model_card(run.preset, results))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 2**20
    console.print(f"Packaged {size:.1f} MB under {target}")


def model_card(preset: Preset, results: dict) -> str:
    """What the weights are, what made them, what was measured, and what they cannot do."""
    conditions, rollouts = results["conditions"], results["rollouts"]
    rows = []
    for horizon in ("1", "4", "8", "16"):
        cells = [horizon]
        for method in ("teacher", "student", "copy last frame"):
            cells += [f"{rollouts['mean'][key][method][horizon]['mean']:.1f}" for key in ("psnr", "moving_psnr")]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(
        [
            f"# DreamDojo `{preset.name}` foundation",
            "",
            "Tokenizer, latent action model, pre-trained world model, and teacher and student for the dojo's arm. "
            "Apache-2.0: trained on simulated data only. Made by `make weights`, which makes them again.",
            "",
            f"- data: {json.dumps(conditions['data'])}",
            f"- steps: {json.dumps(conditions['steps'])}",
            f"- seed {conditions['seed']}, {conditions['machine']}, {platform.system()}",
            f"- seconds: {json.dumps({name: round(value) for name, value in conditions['seconds'].items()})}",
            "",
            f"Held-out robot episodes, {rollouts['clips']} clips, dB (PSNR / PSNR of moving pixels):",
            "",
            "| frames ahead | teacher | moving | student | moving | copy last frame | moving |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Tokenizer {results['tokenizer_psnr']:.1f} dB. Intervals, controllability and per-clip numbers: "
            "`make weights` writes them to its run folder's `results.json`.",
            "",
            "Limits: 64 px, one head camera, a dojo table with one to three objects and gentle motion. Contact and "
            "grasped objects blur; unseen shapes and colours are drawn worse than seen ones.",
            "",
        ]
    )
