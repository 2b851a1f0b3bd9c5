"""Which recipe makes the best small world model for a given compute? `python -m benchmarks.recipe --run FOLDER`.

Every arm changes one thing of the preset's recipe and trains a world model from scratch on the same robot episodes with
the same floating-point operations (a smaller model takes more steps), then predicts the same held-out clips. PSNR
rewards a gripper that is blurred away, so arms are told apart by where the gripper is, how often it is found, and how
sharp moving regions are; PSNR stands beside. Each arm is sampled with few and with many steps.

A queue: every (arm, seed) is written when it ends, a rerun skips what is there; `--only ARM` runs one, and may be given
again. The summary goes to `metrics["recipe"]` of `results/physics.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.arms import datasets, recordings, today
from benchmarks.pretraining_ablation import HORIZON, score
from dreamdojo import foundation, stages
from dreamdojo.dojo.simulate import SimulateSettings
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.predict import ClipPlan, plan_clips
from dreamdojo.evaluation.rollouts import SceneTruth
from dreamdojo.files import written_whole
from dreamdojo.judge import CONTEXT, scene_truth, train_probes
from dreamdojo.metrics import mean_interval
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import load_session
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.device import choose_compute
from dreamdojo.world_model.budget import Grid, pass_flops
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import train_world_model

RESULTS = Path(__file__).parent / "results" / "physics.json"
SETS = {
    "robot": SimulateSettings(body="arm", episodes=188),
    "test": SimulateSettings(body="arm", split="test", first_index=3000, episodes=64),
}
"""Twenty minutes to train on. Clips of this search are used for nothing else, since choices are made on them."""
SAMPLED = (SamplerConfig(steps=2), SamplerConfig(steps=8), SamplerConfig(steps=8, shift=2.0))
METRICS = ("effector_error", "effector_found", "sharpness", "moving_psnr", "psnr")


@dataclass(frozen=True)
class Arm:
    """Changes to the base, which is the recipe of the preset."""

    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    """How much of the robot's data."""


ARMS = {
    "base": Arm(),
    "muon": Arm(fit={"optimizer": "muon"}),
    "learning rate x 2": Arm(fit={"learning_rate": 2 * NANO.posttraining.fit.learning_rate}),
    "shift 1": Arm(training={"shift": 1.0}),
    "shift 2": Arm(training={"shift": 2.0}),
    "sigma floor 0.1": Arm(training={"sigma_floor": 0.1}),
    "velocity": Arm({"prediction": "velocity", "previous_latent": False}),
    "no previous latent": Arm({"previous_latent": False}),
    "no context noise": Arm(training={"context_noise": 0.0}),
    "context half its own": Arm(training={"own_context": 0.5}),
    "no emphasis": Arm(training={"emphasis": 0.0}),
    "emphasis 4": Arm(training={"emphasis": 4.0}),
    "motion term": Arm(training={"motion_weight": 0.1}),
    "context not clean": Arm(training={"clean_fraction": 0.0}),
    "window 3": Arm({"window": 3}, {"latent_frames": 3}),
    "patch 2, narrower": Arm({"patch_size": 2, "dim": 192}),
    "no convolutions": Arm({"convolution_width": 0}),
    "convolutions of 96": Arm({"convolution_width": 96}),
    "convolutions of 48, width 192": Arm({"convolution_width": 48, "dim": 192}),
    "three blocks of each": Arm({"convolution_blocks": 3, "num_blocks": 3}),
    "wider": Arm({"dim": 384, "num_heads": 6}),
    "deeper": Arm({"num_blocks": 8}),
    "smaller": Arm({"dim": 192}),
    "4 latent channels": Arm({"latent_channels": 4}, tokenizer={"latent_channels": 4}),
    "latents of 8 x 8": Arm(
        {"latent_channels": 16, "patch_size": 2}, tokenizer={"latent_channels": 16, "spatial_factor": 8}
    ),
    "average 0.999": Arm(fit={"ema_decay": 0.999}),
    "a quarter of the data": Arm(share=0.25),
}


def dit_of(arm: Arm) -> DiTConfig:
    """The arm's network."""
    return replace(NANO.world_model, **arm.model)


def equal_steps(arm: Arm, steps: int) -> int:
    """Steps of the arm that take as many operations as `steps` of the base."""

    def cost(each: Arm) -> int:
        side = NANO.size[0] // replace(NANO.tokenizer, **each.tokenizer).spatial_factor
        training = replace(NANO.posttraining, **each.training)
        passes = 3 + (training.own_context > 0)  # backward is two, and predicting the context one more
        return passes * pass_flops(dit_of(each), Grid(rows=side, columns=side), frames=training.latent_frames)

    return round(steps * cost(Arm()) / cost(arm))


def run_of(name: str, arm: Arm, folder: Path, models: Path, *, steps: int, seed: int) -> Run:
    """The arm's run folder, with the caches of all arms and the shared tokenizer where the arm has none of its own."""
    own = folder / "recipe" / f"{name.replace(' ', '_')}-{steps}-{seed}"
    own.mkdir(parents=True, exist_ok=True)
    links = {"cache": folder / "cache"} | ({} if arm.tokenizer else {"tokenizer": models / "tokenizer"})
    for link, target in links.items():
        target.mkdir(parents=True, exist_ok=True)
        if not (own / link).exists():
            (own / link).symlink_to(target.resolve(), target_is_directory=True)
    fit = replace(NANO.posttraining.fit, **arm.fit, steps=equal_steps(arm, steps), seed=seed)
    training = replace(NANO.posttraining, **arm.training, fit=fit)
    tokenizer = replace(NANO.tokenizer, **arm.tokenizer)
    preset = replace(NANO, world_model=dit_of(arm), posttraining=training, tokenizer=tokenizer)
    return Run(folder=own, preset=preset, compute=choose_compute("auto"))


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all arms share."""

    folder: Path
    models: Path
    robot: Episodes
    plan: ClipPlan
    scene: SceneTruth
    effector: EffectorProbe | None


def prepare(folder: Path, models: Path) -> Ground:
    """Simulate what is missing, plan the clips and train the probe."""
    data = datasets(folder, SETS)
    run = run_of("shared", Arm(), folder, models, steps=1, seed=0)
    plan = plan_clips(recordings(run, data["test"]), context=CONTEXT, horizon=HORIZON, seed=0)
    with run.progress("probes") as report:
        effector, _ = train_probes(run, data["robot"], report)
    scene = scene_truth(plan, data["test"], size=NANO.size)
    return Ground(folder=folder, models=models, robot=data["robot"], plan=plan, scene=scene, effector=effector)


def run_arm(name: str, ground: Ground, *, steps: int, seed: int) -> dict[str, Any]:
    """Train and score one arm: per number of sampler steps, metric -> horizon -> interval."""
    arm = ARMS[name]
    run = run_of(name, arm, ground.folder, ground.models, steps=steps, seed=seed)
    robot = replace(ground.robot, indices=ground.robot.indices[: max(1, round(arm.share * len(ground.robot.indices)))])
    if arm.tokenizer:
        stages.tokenizer_stage(run, [ground.robot])
    body, preset = robot.dataset.embodiment, run.preset
    torch.manual_seed(seed)
    config = WorldModelConfig(dit=preset.world_model, size=preset.size, rate=preset.rate)
    with run.progress(f"{name}, seed {seed}") as report:
        train_world_model(
            WorldModel(config).with_embodiments(body),
            preset.posttraining,
            [stages.robot_source(run, robot, body)],
            run.folder / "teacher",
            compute=run.compute,
            about=stages.sampling(preset.student.teacher),
            report=report,
        )
    sessions = {
        f"{sampler.steps} steps, shift {sampler.shift:g}": load_session(
            run.folder / "teacher", embodiment=body.name, sampler=sampler, device=run.compute.device.type
        )
        for sampler in SAMPLED
    }
    found = score(sessions, ground.plan, ground.scene, effector=ground.effector)
    return {"steps": preset.posttraining.fit.steps, "scores": {side: pick(found[side]) for side in found}}


def pick(scores: Mapping[str, dict]) -> dict[str, dict]:
    """Method -> metric -> horizon -> mean with its interval over clips."""
    methods = {method for metric in METRICS if metric in scores for method in scores[metric]}
    return {
        method: {
            metric: {
                horizon: mean_interval(torch.tensor([float("nan") if x is None else x for x in values])).to_json()
                for horizon, values in scores[metric][method].items()
            }
            for metric in METRICS
            if metric in scores and method in scores[metric]
        }
        for method in sorted(methods)
    }


def line(name: str, result: dict[str, Any]) -> str:
    """An arm for a person, 8 frames ahead."""
    parts = []
    for method, metrics in result["scores"]["true"].items():
        told = {
            metric: f"{found['8']['mean']:.2f}" for metric, found in metrics.items() if found["8"]["mean"] is not None
        }
        parts.append(f"{method}: {told}")
    return f"{name} ({result['steps']} steps)\n  " + "\n  ".join(parts)


def write(key: str, result: dict[str, Any], conditions: dict[str, Any]) -> None:
    """Put an arm into the results file."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "physics", "metrics": {}, "goals": {}}
    stored["metrics"].setdefault("recipe", {})[key] = {**result, **today(), "conditions": conditions}
    with written_whole(RESULTS) as partial:
        partial.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--models", type=Path, help="folder with tokenizer/; the shipped ones")
    parser.add_argument("--only", choices=ARMS, action="append", help="run this arm; may be given again")
    parser.add_argument("--steps", type=int, default=600, help="steps of the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = arguments.models or foundation("nano")
    if models is None:
        parser.error("no models ship with this package: say --models")
    ground = prepare(arguments.run, models)
    machine = f"{platform.machine()}, {arguments.threads} threads"
    for seed in arguments.seeds:
        for name in arguments.only or ARMS:
            key = f"{name}, {arguments.steps} steps of the base, seed {seed}"
            if RESULTS.exists() and key in json.loads(RESULTS.read_text())["metrics"].get("recipe", {}):
                continue
            result = run_arm(name, ground, steps=arguments.steps, seed=seed)
            write(key, result, {"machine": machine, "preset": "nano", "clips": len(ground.plan.start)})
            print(line(key, result), flush=True)


if __name__ == "__main__":
    main()
