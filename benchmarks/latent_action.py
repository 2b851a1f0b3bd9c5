"""What makes a latent action carry the action: one factor at a time. `python benchmarks/latent_action.py --run FOLDER`.

Every arm trains a latent action model on the same human video (no labels) for the same number of steps and is probed on
episodes that no arm trained on: a straight line from the latent action to the hand's true motion. Arms are a queue:
each result is written when it ends, a rerun skips what is there, `--only ARM` runs one. Data are simulated once into
the run folder (60 minutes to train on, held-out and out-of-distribution episodes).

`--only alignment` takes a finished model (`--model FOLDER`, by default the one that ships) and aligns it with every
body and control mode of the dojo (`benchmarks/alignment.py`).
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

import numpy as np
import torch

from benchmarks.alignment import (
    ALIGNMENTS,
    AMOUNTS,
    QUICK_AMOUNTS,
    ROBOT_TEST,
    alignment_data,
    alignment_run,
    run_alignment,
    summary_lines,
)
from dreamdojo import foundation
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.windows import Source
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.evaluation.health.pairs import Pairs
from dreamdojo.evaluation.health.probing import transfer_probe
from dreamdojo.evaluation.health.recordings import MOTION, gather, true_motion
from dreamdojo.evaluation.linear_probe import linear_probe
from dreamdojo.judge import HealthData, probe_latent_actions, write_health
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import train_latent_action_model, travelled
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes, Run, frame_source
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.training.checkpoint import load_model, model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line

RESULTS = Path(__file__).parent / "results" / "latent_action.json"
SETS = {"train": 562, "test": 64, "ood_colour": 32, "ood_shape": 32, "ood_lighting": 32}


@dataclass(frozen=True)
class Arm:
    """Changes to the base, which is the recipe of the preset."""

    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    labelled: float = 0.0
    """Share of the episodes whose true motion is given as labels."""
    robot_share: float = 0.0
    """Share of the samples that come from a robot's video, without its actions."""


TRANSFORMER = {"convolutional": False}
VIEWS_OFF = {"contrastive_weight": 0.0, "shift": 0.0, "zoom": 0.0}
ARMS = {
    "base": Arm(),
    "transformer": Arm(TRANSFORMER),
    "not antisymmetric": Arm({"antisymmetric": False}),
    "no contrastive term": Arm({}, VIEWS_OFF),
    "contrastive, light only": Arm({}, {"shift": 0.0, "zoom": 0.0}),
    "contrastive 1e-2": Arm({}, {"contrastive_weight": 1e-2}),
    "transfer 1e-3": Arm({}, {**VIEWS_OFF, "transfer_weight": 1e-3}),
    "features 0.1": Arm({}, {"feature_weight": 0.1}),
    "features 1": Arm({}, {"feature_weight": 1.0}),
    "features 0.1, more light": Arm({}, {"feature_weight": 0.1, "brightness": 0.2, "contrast": 0.5}),
    "mean": Arm({}, {"sample": False}),
    "kl 1e-5": Arm({}, {"kl_weight": 1e-5}),
    "kl 1e-7": Arm({}, {"kl_weight": 1e-7}),
    "stride 1": Arm({}, {"strides": (1,)}),
    "strides 1 to 4": Arm({}, {"strides": (1, 2, 3, 4)}),
    "no emphasis": Arm({}, {"motion_emphasis": 0.0}),
    "labels on 5 %": Arm({}, {"label_weight": 1e-3}, labelled=0.05),
    "labels on all": Arm({}, {"label_weight": 1e-2}, labelled=1.0),
    "transformer, late fusion": Arm({**TRANSFORMER, "early_fusion": False}),
    "transformer, no residual": Arm({**TRANSFORMER, "residual": False}),
    "published": Arm(
        {**TRANSFORMER, "early_fusion": False, "residual": False, "antisymmetric": False},
        {**VIEWS_OFF, "strides": (1, 2, 3, 4), "motion_emphasis": 0.0, "brightness": 0.0, "contrast": 0.0},
    ),
    "more light": Arm({}, {"brightness": 0.2, "contrast": 0.5}),
    "robot video too": Arm(robot_share=0.25),
    "128 px": Arm({}, size=128),
}
"""One factor at a time. Transfer to another scene stands in place of the contrastive term."""


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
    config = replace(NANO.latent_action, **arm.model)
    fit = replace(NANO.latent_action_training.fit, steps=steps, seed=seed, warmup_steps=100, ema_decay=0.998)
    training = replace(NANO.latent_action_training, **{**arm.training, "fit": fit})
    size = (arm.size, arm.size)
    preset = replace(NANO, latent_action=config, latent_action_training=training, latent_action_size=size)
    compute = choose_compute("auto")
    shared = Run(folder=folder, preset=preset, compute=compute)
    source = frame_source(shared, data["train"], size)
    if arm.labelled:
        source = with_labels(source, data["train"], arm.labelled)
    sources = [source]
    if arm.robot_share:
        robot = alignment_data(folder, "arm-end_effector_velocity-train", AMOUNTS, body="arm")
        sources = [
            replace(source, weight=1 - arm.robot_share),
            replace(frame_source(shared, robot, size), weight=arm.robot_share),
        ]
    tokenizer = load_tokenizer(shipped_models() / "tokenizer") if training.feature_weight else None
    own = folder / "arms" / f"{name.replace(' ', '_')}-{steps}-{seed}"
    started = time.monotonic()
    with progress_line(name) as report:
        train_latent_action_model(
            config, training, sources, own / "latent_action", compute=compute, tokenizer=tokenizer, report=report
        )
    seconds = time.monotonic() - started
    own.joinpath("cache").symlink_to(folder / "cache") if not own.joinpath("cache").exists() else None
    probed = Run(folder=own, preset=preset, compute=compute)
    probes = {split: probe_latent_actions(probed, data[split], seed=0).to_json() for split in SETS if split != "train"}
    rows = [json.loads(line) for line in (own / "latent_action" / "metrics.jsonl").read_text().splitlines()][-10:]
    last = {key: sum(row[key] for row in rows) / len(rows) for key in ("reconstruction", "kl", "contrastive")}
    short_probes = {split: short(probe) for split, probe in probes.items()}
    on_robot = on_the_robot(probed, data["test"], alignment_data(folder, ROBOT_TEST, AMOUNTS, body="arm"))
    short_probes |= {"robot": on_robot["own"], "human's line on the robot": on_robot["human's"]}
    return {"r2": short_probes, "probes": probes, "loss": last, "seconds": round(seconds)}


def on_the_robot(run: Run, human: Episodes, robot: Episodes) -> dict[str, dict[str, float]]:
    """R2 of a robot's held-out motion, on standardised latent actions: by its own line and by the human's."""
    model = load_model(run.folder / "latent_action", LatentActionModel)

    def pairs(name: str, episodes: Episodes) -> Pairs:
        frames = run.frames(episodes, run.preset.latent_action_size)
        return gather(name, episodes.dataset, episodes.indices, frames, model, rate=run.preset.rate)

    found = transfer_probe(pairs("human", human), pairs("robot", robot), seed=0, standardised=True)
    assert found is not None  # the dojo has true motion
    own, humans = ({name: round(r2.mean, 3) for name, r2 in each.items()} for each in (found.own, found.r2))
    return {"own": own, "human's": humans}


def with_labels(source: Source, episodes: Episodes, share: float) -> Source:
    """The first episodes carry their true motion, as video with tracked hands would; the others do not."""
    truth = GroundTruth.open(episodes.dataset.root)
    motion = [true_motion(truth, index) for index in episodes.indices]
    labelled = motion[: max(1, round(share * len(motion)))]
    spread = np.concatenate(labelled).std(axis=0)
    told = [travelled(rows / spread) for rows in labelled]
    told += [np.full((len(rows) + 1, len(spread)), np.nan, np.float32) for rows in motion[len(labelled) :]]
    parts = [{**episode, "travelled": rows} for episode, rows in zip(source.episodes, told, strict=True)]
    return replace(source, episodes=parts)


def shipped_models() -> Path:
    """The folder of the models that ship."""
    folder = foundation("nano")
    if folder is None:
        raise SystemExit("no models ship with this package: make them with `make weights`")
    return folder


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


def run_health(folder: Path, model: Path, data: dict[str, Episodes], amounts: dict[str, int], *, size: int) -> dict:
    """The health report of a model (`report.html` in the run folder): its numbers."""
    run = alignment_run(folder, model, size)
    robot = alignment_data(folder, ROBOT_TEST, amounts, body="arm")
    ood = tuple(data[name] for name in SETS if name.startswith("ood"))
    out = folder / "health" / model_hash(model)
    write_health(run, run.folder / "latent_action", HealthData(human=data["test"], robot=robot, ood=ood), out)
    return json.loads((out / "report.json").read_text())


HEALTH, CEILING = "health", "true motion in the picture"
AIMED_AT = {"x": 0.85, "y": 0.85, "z": 0.6, "opening": 0.5}
"""R2 on held-out clips."""


def goals(metrics: dict, shipped: str | None = None) -> dict:
    """The model that ships, by its hash, against what is aimed for; the latest examined one where that was not."""
    key = next((key for key in reversed(metrics) if key.startswith(HEALTH)), None)
    if f"{HEALTH}, model {shipped}" in metrics:
        key = f"{HEALTH}, model {shipped}"
    if key is None:
        names = [*(f"R2 {name}" for name in AIMED_AT), "decoder utilisation"]
        return {name: {"value": None, "bound": 0.0, "op": ">=", "reason": "not run"} for name in names}
    found = metrics[key]
    human = found["sets"][0]
    own = {name: entry["mean"] for name, entry in human["motion"]["linear"]["r2"].items()}
    elsewhere = {
        f"{told['target']} {name}": own[name] - told["r2"][name]["mean"]
        for told in found["out_of_distribution"]
        for name in ("x", "y", "z")
    }
    robot = next(told for told in found["transfer"] if told["target"] == "robot" and told["standardised"])
    on_robot = {name: robot["drop"][name] for name in ("x", "y", "z") if name in robot["drop"]}

    def goal(value: float, bound: float, op: str, reason: str = "") -> dict:
        return {"value": value, "bound": bound, "op": op, "reason": f"{key}{reason}"}

    return {
        **{f"R2 {name}": goal(own[name], bound, ">=") for name, bound in AIMED_AT.items()},
        "most R2 lost out of distribution": goal(max(elsewhere.values()), 0.15, "<=", f"; {worst(elsewhere)}"),
        "most R2 lost by the human's line on the robot": goal(
            max(on_robot.values()), 0.1, "<=", f"; {worst(on_robot)}"
        ),
        "decoder utilisation": goal(found["utilisation"]["share"]["mean"], 0.7, ">="),
        "effective rank": goal(human["spread"]["effective_rank"], found["degrees_of_freedom"], ">="),
        **alignment_goals(metrics),
    }


def alignment_goals(metrics: dict) -> dict:
    """Of every body and control mode that was aligned: how fast, and whether pushes carry over with all of its data."""
    found = {}
    for key, result in metrics.items():
        if not key.startswith("alignment"):
            continue
        name = key.partition(", model")[0]
        slowest = max(result["fit_seconds"].values())
        found[f"{name}: slowest fit, s"] = {"value": slowest, "bound": 30.0, "op": "<", "reason": key}
        above = result["retargeting"][max(result["retargeting"], key=float)]["above"]
        for against, gain in above.items():
            goal = f"{name}: agreement of pushes, aligned minus {against}, lower end"
            found[goal] = {"value": gain["low"], "bound": 0.0, "op": ">", "reason": key}
    return found


def worst(values: dict[str, float]) -> str:
    """The name of the largest."""
    return max(values, key=lambda name: values[name])


def short(probe: dict) -> dict[str, float]:
    """R2 by dimension."""
    return {name: round(entry["mean"], 3) for name, entry in probe["r2"].items()}


def write(key: str, result: dict, conditions: dict) -> None:
    """Put an arm into the results file."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "latent_action", "metrics": {}}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    stored["metrics"][key] = {**result, "conditions": {**conditions, "commit": commit.stdout.strip()}}
    stored |= {"commit": commit.stdout.strip(), "date": date.today().isoformat(), "conditions": conditions}
    shipped = foundation("nano")
    stored["goals"] = goals(stored["metrics"], model_hash(shipped / "latent_action") if shipped else None)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/latent_action"))
    names = (*ARMS, CEILING, HEALTH, "alignment", *ALIGNMENTS)
    parser.add_argument("--only", choices=names, action="append", help="run this arm; may be given again")
    parser.add_argument("--model", type=Path, help="latent action model to align; by default the one that ships")
    parser.add_argument("--size", type=int, default=64, help="side of the frames that this model sees")
    parser.add_argument("--quick", action="store_true", help="align on little data, for tests: writes no result")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    conditions = {"machine": f"{platform.machine()}, {arguments.threads} threads", "preset": "nano"}
    asked = [each for name in arguments.only or names for each in (ALIGNMENTS if name == "alignment" else (name,))]
    arms = [name for name in dict.fromkeys(asked) if name in ARMS and not arguments.quick]
    data = datasets(arguments.run) if arms or {CEILING, HEALTH} & set(asked) else {}
    if CEILING in asked and not arguments.quick:
        result = picture_ceiling(data)
        write(CEILING, result, conditions)
        print(CEILING, json.dumps(result["r2"]), flush=True)
    if HEALTH in asked and not arguments.quick:
        model = arguments.model or shipped_models() / "latent_action"
        health = run_health(arguments.run, model, data, AMOUNTS, size=arguments.size)
        write(f"{HEALTH}, model {model_hash(model)}", health, conditions)
        print(health["verdict"]["text"], flush=True)
    for seed in arguments.seeds:
        for name in arms:
            key = f"{name}, {arguments.steps} steps, seed {seed}"
            if done(key):
                continue
            result = run_arm(name, arguments.run, data, steps=arguments.steps, seed=seed)
            write(key, result, conditions)
            print(key, json.dumps(result["r2"]), json.dumps(result["loss"]), flush=True)
    align([name for name in dict.fromkeys(asked) if name in ALIGNMENTS], arguments, conditions)


def align(arms: list[str], arguments: argparse.Namespace, conditions: dict) -> None:
    """Run the alignment arms asked for."""
    model = arguments.model or shipped_models() / "latent_action"
    with tempfile.TemporaryDirectory() as scratch:
        folder, amounts = (Path(scratch), QUICK_AMOUNTS) if arguments.quick else (arguments.run, AMOUNTS)
        for seed in arguments.seeds:
            for name in arms:
                key = f"{name}, model {model_hash(model)}, seed {seed}"
                if not arguments.quick and done(key):
                    continue
                result = run_alignment(name, folder, model, amounts, size=arguments.size, seed=seed)
                if not arguments.quick:
                    write(key, result, conditions)
                print(key, *summary_lines(result), sep="\n", flush=True)


def done(key: str) -> bool:
    """Whether the results file has this arm."""
    return RESULTS.exists() and key in json.loads(RESULTS.read_text())["metrics"]


if __name__ == "__main__":
    main()
