"""What each part of the published action interface gives. `python -m benchmarks.action_interface --run FOLDER`.

The published comparison at our size. Each arm adds one thing to the arm before it; all are post-trained from the same
foundation on the same five minutes of a robot that is commanded by joint targets, for the same steps, from the same
seed, each with a fresh adapter, and are scored on the same held-out clips:

    none              joint targets as they are; every latent frame is told those of the model's whole window
    + relative        the same, each command counted from the one before it
    + chunked         each latent frame is told its own commands only
    + temporal loss   the same, with the loss on frame-to-frame differences, weighted as published

The published model denoises a clip as a whole, and without chunks every latent frame is told all actions of the clip,
also later ones. A streaming model cannot know those, so here a frame is told the commands of all frames that it
attends to: its own and those of the `window - 1` frames before it. It has to find out which of them is its own, as in
the published arm, but no command of the future misleads it. Where a clip begins in the middle of an episode the
commands before it are known and told; before an episode's first command that one counts as given already.

At `nano` a latent frame carries one action, so a chunk's start is the command before it, and a relative command is the
change of the target in one step. Every interface declares its own ranges (for a change, what the controller lets a
joint do in one step), so that all arms see numbers of about the same size; published relative actions keep the scale of
the absolute ones. Under "other actions" the arm moves its joints as in another clip, from where it is: the same
commands for every interface.

A queue: each (arm, seed) is written to `FOLDER/interface.json` when it ends, and a rerun skips what is there. The
summary goes to `metrics["action interface"]` of `results/pretraining_ablation.json`. Seeds of one clip are averaged
before the interval over clips is taken, as they are not independent.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.arms import SAMPLER, datasets, recordings, today
from benchmarks.cells import Cells, clips, over_clips
from benchmarks.pretraining_ablation import HORIZON, HORIZONS, keep, score
from dreamdojo import foundation, stages
from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.windows import Source
from dreamdojo.dojo.control import JOINT_LIMIT, clip_action
from dreamdojo.dojo.simulate import SimulateSettings
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.predict import ClipPlan, plan_clips
from dreamdojo.evaluation.rollouts import COPY, METRIC_BY_KEY, TRUTH, SceneTruth
from dreamdojo.judge import CONTEXT, describe, scene_truth, train_probes
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import load_session
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.checkpoint import load_model, model_hash, read_about
from dreamdojo.training.device import choose_compute
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

NAME = "action interface"
CONTROL = JOINTS = "joint_position"
"""The control mode, and the field of its actions that holds the joint targets."""
METRICS = ("psnr", "moving_psnr", "effector_error")
SIDES = ("true", "other")
"""Whose actions the arm is told: its own, or those of another clip."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a latent frame is told of the commands, and how the model is trained on it."""

    relative: bool
    """Whether a command counts from the one before it; else it is the target itself."""
    chunked: bool
    """Whether a latent frame is told its own command only; else those of all frames that it attends to."""
    motion_weight: float = 0.0
    """Weight of the frame-to-frame term in training."""

    def tell(self, recent: Float[np.ndarray, "*t n a"]) -> Float[np.ndarray, "*t r"]:
        """What each latent frame is told, from its `recent_commands`; oldest first."""
        given = recent[..., 1:, :]
        if self.relative:
            given = relative_actions(given, recent[..., 0, :], 1)
        told = given[..., -1:, :] if self.chunked else given
        return told.reshape(*told.shape[:-2], -1).astype(np.float32)

    def body(self, body: Embodiment, *, window: int, rate: float) -> Embodiment:
        """`body` with one action being what `tell` gives: its own fields, one after another for every lag."""
        lags = (0,) if self.chunked else range(window - 1, -1, -1)
        told = f"{'changes' if self.relative else 'targets'}{'' if self.chunked else '_of_window'}"
        return Embodiment(
            name=f"{body.name}/{told}",
            action=tuple(self._field(field, lag, rate) for lag in lags for field in body.action),
        )

    def _field(self, field: Field, lag: int, rate: float) -> Field:
        name = f"{field.name}{'_change' if self.relative else ''}{f'_{lag}_before' if lag else ''}"
        low, high = change_range(field, rate) if self.relative else (field.low, field.high)
        return Field(name=name, axes=field.axes, unit=field.unit, low=low, high=high)


ARMS = {
    "none": Interface(relative=False, chunked=False),
    "+ relative": Interface(relative=True, chunked=False),
    "+ chunked": Interface(relative=True, chunked=True),
    "+ temporal loss": Interface(relative=True, chunked=True, motion_weight=0.1),
}
"""Each adds one thing to the one before it."""

SETS = {
    "robot": SimulateSettings(body="arm", episodes=47, control=CONTROL),
    "test": SimulateSettings(body="arm", split="test", first_index=2000, episodes=128, control=CONTROL),
}
"""Five minutes to train on; the test scenes are those of the pre-training comparison."""
QUICK_EPISODES, QUICK_FRAMES, QUICK_STEPS = 2, 24, 2


def change_range(field: Field, rate: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How far a command of `field` may change in one step: what the controller allows, or its whole range."""
    reach = tuple(high - low for low, high in zip(field.low, field.high, strict=True))
    if field.name == JOINTS:
        reach = tuple(min(each, JOINT_LIMIT / rate) for each in reach)
    return tuple(-each for each in reach), reach


def recent_commands(
    commands: Float[np.ndarray, "*b t a"], window: int, before: Float[np.ndarray, "*b w a"] | None = None
) -> Float[np.ndarray, "*b t n a"]:
    """For each command the `window` newest up to itself and one before them, oldest first.

    `before` are the `window` commands before the first; at an episode's start, where there are none, the first command
    counts as given already.
    """
    if before is None:
        before = np.repeat(commands[..., :1, :], window, axis=-2)
    joined = np.concatenate([before, commands], axis=-2)
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(joined, window + 1, axis=-2), -1, -2)


def moved_like(
    recent: Float[np.ndarray, "b t n a"], others: Float[np.ndarray, "b t n a"], context: int, body: Embodiment
) -> Float[np.ndarray, "b t n a"]:
    """Recent commands of clips that after `context` frames move their joints as `others` do, from where they are.

    What is not a joint is commanded as in the other clip, and all within the body's ranges.
    """
    own, future = recent[:, : context - 1, -1], others[:, context - 1 :, -1].copy()
    joints = body.columns(JOINTS, of="action")
    shift = own[:, -1:, joints] - others[:, context - 1 : context, -2, joints]
    future[..., joints] += shift
    commands = np.concatenate([own, clip_action(body, future)], axis=1)
    return recent_commands(commands, recent.shape[-2] - 1, recent[:, 0, :-1])


def plan_with_history(run: Run, held_out: Episodes, window: int) -> ClipPlan:
    """Clips whose actions are each frame's `recent_commands`, laid side by side."""
    told = [
        replace(each, actions=recent_commands(each.actions, window).reshape(len(each.actions), -1))
        for each in recordings(run, held_out)
    ]
    return plan_clips(told, context=CONTEXT, horizon=HORIZON, seed=0)


def plan_told(interface: Interface, plan: ClipPlan, body: Embodiment, window: int) -> ClipPlan:
    """A `plan_with_history` with the actions that an interface tells."""
    recent, others = (
        actions.unflatten(-1, (window + 1, body.action_dim)).numpy() for actions in (plan.actions, plan.other_actions)
    )
    moved = moved_like(recent, others, plan.context, body)
    return replace(
        plan,
        actions=torch.from_numpy(interface.tell(recent)),
        other_actions=torch.from_numpy(interface.tell(moved)),
    )


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all arms share."""

    run: Run
    """Caches, the foundation, and beside it the models of all arms."""
    model: WorldModelConfig
    """The foundation's world model."""
    robot: Episodes
    """What every arm is trained on."""
    test: Episodes
    """Where the clips are from."""
    steps: int
    """For how long."""
    plan: ClipPlan
    """Held-out clips, each frame with its recent commands."""
    scene: SceneTruth
    """True positions in them."""
    effector: EffectorProbe | None
    """Finds the gripper; None where it is not asked for."""

    @property
    def window(self) -> int:
        """Latent frames that a frame attends to, itself among them."""
        assert self.model.dit.window is not None
        return self.model.dit.window

    def body(self, interface: Interface) -> Embodiment:
        """The robot as an arm's model knows it."""
        return interface.body(self.robot.dataset.embodiment, window=self.window, rate=self.model.rate)


def prepare(
    folder: Path, models: Path, sets: Mapping[str, SimulateSettings], *, steps: int, quick: bool = False
) -> Ground:
    """Simulate what is missing, plan the clips and train the probe (not if `quick`: it takes a minute).

    Raises:
        ConfigError: if the foundation is not one that streams, a latent frame for an action.
    """
    stages.start_from(folder, models / "pretrained")
    model = load_model(models / "pretrained", WorldModel).config
    if model.dit.window is None or model.dit.actions_per_latent != 1:
        raise ConfigError(
            f"{models}: expected a world model with a window and one action per latent frame, got "
            f"window={model.dit.window} and actions_per_latent={model.dit.actions_per_latent}"
        )
    data = datasets(folder, sets, workers=1 if quick else 2)
    run = Run(
        folder=folder, preset=replace(NANO, size=model.size, rate=model.rate), compute=choose_compute("auto"), workers=1
    )
    plan = plan_with_history(run, data["test"], model.dit.window)
    effector = None
    if not quick:
        with run.progress("probes") as report:
            effector, _ = train_probes(run, data["robot"], report)
    return Ground(
        run=run,
        model=model,
        robot=data["robot"],
        test=data["test"],
        steps=steps,
        plan=plan,
        scene=scene_truth(plan, data["test"], size=model.size),
        effector=effector,
    )


def robot_source(ground: Ground, interface: Interface) -> Source:
    """Latents of the robot's episodes with what an interface tells of their commands, normalised."""
    latents, body = ground.run.latents(ground.robot), ground.body(interface)
    told = [
        body.normalize_action(interface.tell(recent_commands(each.actions, ground.window)))
        for each in recordings(ground.run, ground.robot)
    ]
    episodes = [latent_episode(latents[i], rows, 1) for i, rows in zip(ground.robot.indices, told, strict=True)]
    return Source(embodiment=body.name, episodes=episodes)


def run_arm(arm: str, seed: int, ground: Ground) -> dict:
    """Post-train an arm, or load it where it is finished, and score it: per clip, as `score` gives it."""
    interface, run = ARMS[arm], ground.run
    folder = run.folder / f"{arm.strip('+ ').replace(' ', '_')}-{seed}"
    fit = replace(NANO.posttraining.fit, steps=ground.steps, seed=seed)
    body, start = ground.body(interface), load_model(run.folder / "pretrained", WorldModel)
    torch.manual_seed(seed)
    with run.progress(f"post-train {arm}, seed {seed}") as report:
        train_world_model(
            start.with_embodiments(body),
            replace(NANO.posttraining, fit=fit, motion_weight=interface.motion_weight),
            [robot_source(ground, interface)],
            folder,
            compute=run.compute,
            about={"sampler": read_about(run.folder / "pretrained")["sampler"]},
            report=report,
        )
    session = load_session(folder, embodiment=body.name, sampler=SAMPLER, device=run.compute.device.type)  # pyright: ignore[reportArgumentType]
    plan = plan_told(interface, ground.plan, ground.robot.dataset.embodiment, ground.window)
    scores = score({arm: session}, plan, ground.scene, effector=ground.effector)
    return {side: {key: found[key] for key in METRICS if key in found} for side, found in scores.items()}


def summarise(cells: Mapping[str, Mapping[str, dict]]) -> dict[str, dict]:
    """Arm -> seed -> scores to metric -> arm -> horizon -> what -> interval.

    That is the mean, true minus other actions, and the arm minus the one before it; differences are paired by clip and
    seed.
    """
    summary: dict[str, dict] = {metric: {} for metric in METRICS}
    for metric, (before, arm), horizon in product(METRICS, pairwise(("", *ARMS)), map(str, HORIZONS)):
        mine, theirs = cells.get(arm, {}), cells.get(before, {})
        if not mine or any(metric not in cell["true"] for cell in mine.values()):
            continue
        true, other = ({s: clips(cell[side][metric][arm][horizon]) for s, cell in mine.items()} for side in SIDES)
        found: dict[str, dict] = {
            "mean": over_clips(list(true.values())),
            "true minus other actions": over_clips([true[seed] - other[seed] for seed in true]),
        }
        if both := [seed for seed in mine if seed in theirs]:
            gain = {s: true[s] - clips(theirs[s]["true"][metric][before][horizon]) for s in both}
            by_seed = {seed: round(values.nanmean().item(), 3) for seed, values in gain.items()}
            found[f"minus {before}"] = {**over_clips(list(gain.values())), "by seed": by_seed}
        summary[metric].setdefault(arm, {})[horizon] = found
        references = next(iter(mine.values()))["true"][metric]
        for name in (COPY, TRUTH):
            if name in references:
                summary[metric].setdefault(name, {})[horizon] = {"mean": over_clips([clips(references[name][horizon])])}
    return {metric: arms for metric, arms in summary.items() if arms}


def rows(summary: Mapping[str, dict], horizon: str = "8") -> list[str]:
    """A line per arm for a person."""
    lines = []
    for arm in (arm for arm in ARMS if arm in summary["psnr"]):
        for metric, arms in summary.items():
            about = METRIC_BY_KEY[metric]
            parts = [f"{what} {spoken(found)}" for what, found in arms[arm][horizon].items()]
            lines.append(f"{arm}, {horizon} frames ahead, {about.name} in {about.unit}: {'; '.join(parts)}")
    return lines


def spoken(interval: Mapping[str, float | None]) -> str:
    """`mean [low, high]`."""
    mean, low, high = ("-" if interval[key] is None else f"{interval[key]:.2f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def compare(ground: Ground, arms: Sequence[str], seeds: Sequence[int], *, machine: str, write: bool) -> None:
    """Run what is missing; the summary is printed, and kept if `write`."""
    made_of = {
        "steps": ground.steps,
        "foundation": model_hash(ground.run.folder / "pretrained"),
        "tokenizer": model_hash(ground.run.folder / "tokenizer"),
        "robot": ground.robot.dataset.hash,
        "test": ground.test.dataset.hash,
    }
    cells = Cells(ground.run.folder / "interface.json", made_of)
    for seed, arm in product(seeds, arms):
        if str(seed) not in cells.scores.get(arm, {}):
            cells.put(arm, seed, run_arm(arm, seed, ground))
            if write:
                conditions = {
                    "machine": machine,
                    "preset": "nano",
                    "control": CONTROL,
                    "robot": describe(ground.robot),
                    "clips": len(ground.plan.start),
                    "window": ground.window,
                    "seeds": {name: sorted(found) for name, found in cells.scores.items()},
                    "made_of": made_of,
                }
                keep({NAME: {**today(), "conditions": conditions, **summarise(cells.scores)}})
    print("\n".join(rows(summarise(cells.scores))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/action_interface"))
    parser.add_argument("--models", type=Path, help="folder with tokenizer/ and pretrained/; the shipped ones")
    parser.add_argument("--only", choices=ARMS, action="append", help="run this arm; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a few steps on little data, for tests: writes no result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = arguments.models or foundation("nano")
    if models is None:
        parser.error("no models ship with this package: say --models")
    machine, arms = f"{platform.machine()}, {arguments.threads} threads", arguments.only or list(ARMS)
    if not arguments.quick:
        ground = prepare(arguments.run, models, SETS, steps=arguments.steps)
        compare(ground, arms, arguments.seeds, machine=machine, write=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        ground = prepare(Path(scratch), models, quick_sets(models), steps=QUICK_STEPS, quick=True)
        compare(ground, arms, arguments.seeds[:1], machine=machine, write=False)


def quick_sets(models: Path) -> dict[str, SimulateSettings]:
    """Little data of the models' own size."""
    size = load_model(models / "pretrained", WorldModel).config.size[0]
    small = {"episodes": QUICK_EPISODES, "frames": QUICK_FRAMES, "size": size}
    return {name: replace(settings, **small) for name, settings in SETS.items()}


if __name__ == "__main__":
    main()
