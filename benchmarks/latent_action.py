"""What makes a latent action carry the action: one factor at a time. `python benchmarks/latent_action.py --run FOLDER`.

Every arm trains a latent action model on the same human video (no labels) for the same number of steps and is probed on
episodes that no arm trained on: a straight line from the latent action to the hand's true motion. Arms are a queue:
each result is written when it ends, a rerun skips what is there, `--only ARM` runs one. Data are simulated once into
the run folder (60 minutes to train on, held-out and out-of-distribution episodes).

`--only alignment` takes a finished model (`--model FOLDER`, by default the one that ships) and aligns it with every
body and control mode of the dojo: R2 of the robot's actions on held-out episodes against seconds of robot data, the
same alignment on the other body, and a person's pushes repeated by the robot on scenes that no alignment has seen.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from dreamdojo import foundation
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.control import CONTROL_MODES
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.evaluation.health.recordings import MOTION, true_motion
from dreamdojo.evaluation.linear_probe import linear_probe
from dreamdojo.judge import probe_latent_actions
from dreamdojo.latent_action.align import SECONDS, alignment_curve, fit_alignment, transfer_r2
from dreamdojo.latent_action.retarget import FRAMES, find_push, score_retargeting
from dreamdojo.latent_action.train import train_latent_action_model
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes, Run, frame_source, paired_episodes
from dreamdojo.training.checkpoint import model_hash
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
    "antisymmetric": Arm({"antisymmetric": True}),
    "antisymmetric, views": Arm({"antisymmetric": True}, {"contrastive_weight": 1e-3, "shift": 0.1, "zoom": 0.1}),
    "transfer 1e-3": Arm({}, {"transfer_weight": 1e-3}),
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


ROBOTS = ("arm", "mobile_arm")
ALIGNMENTS = {f"alignment {body} {control}": (body, control) for control in CONTROL_MODES for body in ROBOTS}
"""Bodies and control modes by the name of their arm."""

AMOUNTS = {"train": 188, "test": 48, "pushes": 120}
"""Episodes of each robot to align with and to score on, and of people who push; 6.4 seconds each."""
QUICK_AMOUNTS = {"train": 10, "test": 4, "pushes": 12}
FIRST = {"train": 10_000, "test": 10_000, "pushes": 50_000}
"""First scenes within their splits: pushes are seen in scenes of their own."""
REPLAYED_AT = (30.0, 120.0, 600.0, 1200.0)
"""Seconds of robot data after which pushes are replayed."""


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


def alignment_data(folder: Path, name: str, amounts: dict[str, int], **settings: Any) -> Episodes:
    """Episodes of a robot or of pushes, simulated where missing."""
    root = folder / "data" / name
    split = name.rsplit("-", 1)[-1]
    if not (root / "meta" / "info.json").exists():
        wanted = SimulateSettings(
            split="train" if split == "train" else "test",
            first_index=FIRST[split],
            episodes=amounts[split],
            truth="poses",
            **settings,
        )
        with progress_line(f"simulate {name}") as report:
            simulate(wanted, root, workers=2, progress=report)
    dataset = open_dataset(root)
    return Episodes(dataset=dataset, indices=tuple(e.index for e in dataset.episodes))


def run_alignment(
    name: str, folder: Path, model: Path, amounts: dict[str, int], *, size: int, seed: int
) -> dict[str, Any]:
    """Align a model with one body in one control mode; score it, also on the other body, and replay pushes."""
    body, control = ALIGNMENTS[name]
    own = folder / "alignment" / model_hash(model)
    own.mkdir(parents=True, exist_ok=True)
    for link, target in (("latent_action", model), ("cache", folder / "cache")):
        target.mkdir(exist_ok=True)
        if not (own / link).exists():
            (own / link).symlink_to(target.resolve(), target_is_directory=True)
    run = Run(folder=own, preset=replace(NANO, latent_action_size=(size, size)), compute=choose_compute("auto"))

    def robot(other: str, split: str) -> Episodes:
        return alignment_data(folder, f"{other}-{control}-{split}", amounts, body=other, control=control)

    train, test = robot(body, "train"), robot(body, "test")
    embodiment, rate = train.dataset.embodiment, run.preset.rate
    paired, held_out = paired_episodes(run, train), paired_episodes(run, test)
    result: dict[str, Any] = {"curve": {}, "fit": {}, "answer": {}, "fit_seconds": {}, "transfer": {}}
    fits = {}
    for kind in ("ridge", "mlp"):
        started = time.monotonic()
        fits[kind] = fit_alignment(paired, held_out, embodiment, kind=kind, seed=seed)
        result["fit_seconds"][kind] = time.monotonic() - started
        curve = alignment_curve(paired, held_out, embodiment, rate=rate, kind=kind, seed=seed, seconds=SECONDS)
        result["fit"][kind], result["curve"][kind] = fits[kind].to_json(), curve.to_json()
        result["answer"][kind] = curve.sufficiency().text
    for other in set(ROBOTS) - {body}:
        theirs = robot(other, "test")
        told = transfer_r2(fits["mlp"].alignment, paired_episodes(run, theirs), theirs.dataset.embodiment, seed=seed)
        result["transfer"][other] = {column: r2.to_json() for column, r2 in told.items()}
    human = alignment_data(folder, "pushes", amounts, body="human", tasks={"push": 1.0})
    truth, inferred = GroundTruth.open(human.dataset.root), run.latent_actions(human)
    found = [find_push(truth, episode.index, episode.meta["seed"]) for episode in human.dataset.episodes]
    pushes = [push for push in found if push is not None]
    latent_actions = [inferred[push.episode][push.start :][: FRAMES - 1] for push in pushes]
    result["retargeting"] = {}
    lengths = [len(episode.action) / rate for episode in paired]
    for seconds in REPLAYED_AT:
        count = sum(sum(lengths[: i + 1]) <= seconds for i in range(len(lengths)))
        if count < 2 or f"{sum(lengths[:count]):.0f}" in result["retargeting"]:
            continue
        alignment = fit_alignment(paired[:count], held_out, embodiment, seed=seed).alignment
        scores = score_retargeting(pushes, latent_actions, alignment, Simulation(body, control=control))
        result["retargeting"][f"{sum(lengths[:count]):.0f}"] = scores.to_json()
    return result


def picture_ceiling(data: dict[str, Episodes]) -> dict:
    """What a straight line reads of the hand's motion in space off its true motion in the picture, two numbers.

    One camera sees forward and upward motion alike; what an arm reaches above this it reads from size and shadow.
    """
    r2 = {}
    for split in SETS:
        if split == "train":
            continue
        truth, seen, motion, episodes = GroundTruth.open(data[split].dataset.root), [], [], []
        for index in data[split].indices:
            seen.append(torch.from_numpy(truth.effector_pixel(index)).diff(dim=0))
            motion.append(torch.from_numpy(true_motion(truth, index)))
            episodes.append(torch.full((len(seen[-1]),), index))
        probe = linear_probe(
            torch.cat(seen).float(), torch.cat(motion).float(), torch.cat(episodes), names=MOTION, seed=0
        )
        r2[split] = short(probe.to_json())
    return {"r2": r2}


CEILING = "true motion in the picture"
GOALS = {"x": 0.85, "y": 0.85, "z": 0.6, "opening": 0.5}
"""R2 on held-out clips."""
NOT_RUN = {"loss of R2 out of distribution": (0.15, "<="), "decoder utilisation": (0.7, ">=")}


def goals(metrics: dict) -> dict:
    """The best arm's R2 against what is aimed for."""
    arms = {key: arm["r2"]["test"] for key, arm in metrics.items() if "seed" in key}
    best = max(arms, key=lambda key: sum(arms[key][name] for name in GOALS), default=None)
    found: dict[str, dict] = {
        f"R2 {name}, best arm": {
            "value": None if best is None else arms[best][name],
            "bound": bound,
            "op": ">=",
            "reason": f"arm: {best}",
        }
        for name, bound in GOALS.items()
    }
    for name, (bound, op) in NOT_RUN.items():
        found[name] = {
            "value": None,
            "bound": bound,
            "op": op,
            "reason": "measured by `dreamdojo latent-action report`",
        }
    return found


def short(probe: dict) -> dict[str, float]:
    """R2 by dimension."""
    return {name: round(entry["mean"], 3) for name, entry in probe["r2"].items()}


def write(key: str, result: dict, conditions: dict) -> None:
    """Put an arm into the results file."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "latent_action", "metrics": {}}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    stored["metrics"][key] = {**result, "conditions": {**conditions, "commit": commit.stdout.strip()}}
    stored |= {"commit": commit.stdout.strip(), "date": date.today().isoformat(), "conditions": conditions}
    stored["goals"] = goals(stored["metrics"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/latent_action"))
    names = (*ARMS, CEILING, "alignment", *ALIGNMENTS)
    parser.add_argument("--only", choices=names, action="append", help="run this arm; may be given again")
    parser.add_argument("--model", type=Path, help="latent action model to align; by default the one that ships")
    parser.add_argument("--size", type=int, default=64, help="side of the frames that this model sees")
    parser.add_argument("--quick", action="store_true", help="align on little data, for tests: writes no result")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    conditions = {"machine": f"{platform.machine()}, {arguments.threads} threads", "preset": "nano"}
    asked = [each for name in arguments.only or names for each in (ALIGNMENTS if name == "alignment" else (name,))]
    arms = [name for name in dict.fromkeys(asked) if name in ARMS and not arguments.quick]
    data = datasets(arguments.run) if arms or CEILING in asked else {}
    if CEILING in asked and not arguments.quick:
        result = picture_ceiling(data)
        write(CEILING, result, conditions)
        print(CEILING, json.dumps(result["r2"]), flush=True)
    for seed in arguments.seeds:
        for name in arms:
            key = f"{name}, {arguments.steps} steps, seed {seed}"
            if RESULTS.exists() and key in json.loads(RESULTS.read_text())["metrics"]:
                continue
            result = run_arm(name, arguments.run, data, steps=arguments.steps, seed=seed)
            write(key, result, conditions)
            print(key, json.dumps(result["r2"]), json.dumps(result["loss"]), flush=True)
    align([name for name in dict.fromkeys(asked) if name in ALIGNMENTS], arguments, conditions)


def align(arms: list[str], arguments: argparse.Namespace, conditions: dict) -> None:
    """Run the alignment arms asked for."""
    shipped = foundation("nano")
    model = arguments.model or (shipped / "latent_action" if shipped else arguments.run / "latent_action")
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            for name in arms:
                key = f"{name}, model {model_hash(model)}, seed {seed}"
                if not arguments.quick and RESULTS.exists() and key in json.loads(RESULTS.read_text())["metrics"]:
                    continue
                folder, amounts = (Path(scratch), QUICK_AMOUNTS) if arguments.quick else (arguments.run, AMOUNTS)
                result = run_alignment(name, folder, model, amounts, size=arguments.size, seed=seed)
                if not arguments.quick:
                    write(key, result, conditions)
                for kind, answer in result["answer"].items():
                    print(f"{key}, {kind}: {answer}")
                for seconds, found in result["retargeting"].items():
                    means = {way: f"{score['agreement']['mean']:.2f}" for way, score in found["scores"].items()}
                    print(f"  pushes repeated after {seconds} s: agreement {means}, {found['clips']} clips", flush=True)


if __name__ == "__main__":
    main()
