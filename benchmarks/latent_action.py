"""What makes a latent action carry the action: one factor at a time. `python benchmarks/latent_action.py --run FOLDER`.

Every arm trains a latent action model on the same human video (no labels) for the same number of steps and is probed on
episodes that no arm trained on: a straight line from the latent action to the hand's true motion. Arms are a queue:
each result is written when it ends, a rerun skips what is there, `--only ARM` runs one. Data are simulated once into
the run folder (60 minutes to train on, held-out and out-of-distribution episodes).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.judge import probe_latent_actions
from dreamdojo.latent_action.train import train_latent_action_model
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes, Run, frame_source
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line

RESULTS = Path(__file__).parent / "results" / "latent_action.json"
SETS = {"train": 562, "test": 64, "ood_colour": 32, "ood_shape": 32, "ood_lighting": 32}


@dataclass(frozen=True)
class Arm:
    """Changes to the base."""

    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    size: int = 64


BASE_MODEL = {"early_fusion": True, "residual": True}
BASE_TRAINING: dict[str, Any] = {
    "strides": (1, 2),
    "kl_weight": 1e-6,
    "contrastive_weight": 0.0,
    "motion_emphasis": 10.0,
    "sample": True,
}

ARMS = {
    "base": Arm(),
    "128 px": Arm({"patch_size": 16}, size=128),
    "published": Arm(
        {"early_fusion": False, "residual": False}, {"strides": (1, 2, 3, 4), "motion_emphasis": 0.0, "contrast": 0.0}
    ),
    "late fusion": Arm({"early_fusion": False}),
    "no residual": Arm({"residual": False}),
    "kl 1e-5": Arm({}, {"kl_weight": 1e-5}),
    "kl 1e-7": Arm({}, {"kl_weight": 1e-7}),
    "mean": Arm({}, {"sample": False}),
    "strides 1 to 4": Arm({}, {"strides": (1, 2, 3, 4)}),
    "stride 1": Arm({}, {"strides": (1,)}),
    "no emphasis": Arm({}, {"motion_emphasis": 0.0}),
    "contrastive 1e-3": Arm({}, {"contrastive_weight": 1e-3}),
    "contrastive 1e-2": Arm({}, {"contrastive_weight": 1e-2}),
}


def datasets(run: Path) -> dict[str, Episodes]:
    """Simulate what is missing."""
    found = {}
    for name, count in SETS.items():
        root = run / "data" / name
        if not (root / "meta" / "info.json").exists():
            settings = SimulateSettings(body="human", split=name, episodes=count, size=128, truth="poses")
            with progress_line(f"simulate {name}") as report:
                simulate(settings, root, workers=2, progress=report)
        dataset = open_dataset(root)
        found[name] = Episodes(dataset=dataset, indices=tuple(e.index for e in dataset.episodes))
    return found


def run_arm(name: str, folder: Path, data: dict[str, Episodes], *, steps: int, seed: int) -> dict:
    """Train and probe one arm."""
    arm = ARMS[name]
    config = replace(NANO.latent_action, **{**BASE_MODEL, **arm.model})
    fit = replace(NANO.latent_action_training.fit, steps=steps, seed=seed, warmup_steps=100, ema_decay=0.998)
    training = replace(NANO.latent_action_training, **{**BASE_TRAINING, **arm.training}, fit=fit)
    size = (arm.size, arm.size)
    preset = replace(NANO, latent_action=config, latent_action_training=training, latent_action_size=size)
    compute = choose_compute("auto")
    shared = Run(folder=folder, preset=preset, compute=compute)
    source = frame_source(shared, data["train"], size)
    own = folder / "arms" / f"{name.replace(' ', '_')}-{steps}-{seed}"
    with progress_line(name) as report:
        train_latent_action_model(config, training, [source], own / "latent_action", compute=compute, report=report)
    own.joinpath("cache").symlink_to(folder / "cache") if not own.joinpath("cache").exists() else None
    probed = Run(folder=own, preset=preset, compute=compute)
    probes = {split: probe_latent_actions(probed, data[split], seed=0).to_json() for split in SETS if split != "train"}
    rows = [json.loads(line) for line in (own / "latent_action" / "metrics.jsonl").read_text().splitlines()][-10:]
    last = {key: sum(row[key] for row in rows) / len(rows) for key in ("reconstruction", "kl", "contrastive")}
    return {"r2": {split: short(probe) for split, probe in probes.items()}, "probes": probes, "loss": last}


def short(probe: dict) -> dict[str, float]:
    """R2 by dimension."""
    return {name: round(entry["mean"], 3) for name, entry in probe["r2"].items()}


def write(key: str, result: dict, conditions: dict) -> None:
    """Put an arm into the results file."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "latent_action", "metrics": {}}
    stored["metrics"][key] = result
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    stored |= {"commit": commit.stdout.strip(), "date": date.today().isoformat(), "conditions": conditions}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/latent_action"))
    parser.add_argument("--only", choices=ARMS, action="append", help="run this arm; may be given again")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = datasets(arguments.run)
    conditions = {"machine": f"{platform.machine()}, {arguments.threads} threads", "preset": "nano"}
    for seed in arguments.seeds:
        for name in arguments.only or ARMS:
            key = f"{name}, {arguments.steps} steps, seed {seed}"
            if RESULTS.exists() and key in json.loads(RESULTS.read_text())["metrics"]:
                continue
            result = run_arm(name, arguments.run, data, steps=arguments.steps, seed=seed)
            write(key, result, conditions)
            print(key, json.dumps(result["r2"]), json.dumps(result["loss"]), flush=True)


if __name__ == "__main__":
    main()
