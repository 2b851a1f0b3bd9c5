"""A finished latent action model aligned with every body and control mode of the dojo.

R2 of the robot's actions on held-out episodes against seconds of robot data, the same alignment on the other body, and
on scenes that no alignment has seen: a person's pushes repeated by the robot, and demonstrations of the same body
repeated from their video in closed loop, success against seconds of robot data. `benchmarks/latent_action.py --only
alignment` runs these arms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.control import CONTROL_MODES
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.latent_action.align import Alignment, fit_alignment, transfer_r2
from dreamdojo.latent_action.curve import SECONDS, alignment_curve
from dreamdojo.latent_action.imitate import CLOSED_LOOP, find_demonstration, score_imitation
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.pairs import PairedEpisode, first_seconds
from dreamdojo.latent_action.retarget import FRAMES, find_push, score_retargeting
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes, Run, paired_episodes
from dreamdojo.training.checkpoint import load_model, model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line

ROBOT_TEST = "arm-end_effector_velocity-test"
ROBOTS = ("arm", "mobile_arm")
ALIGNMENTS = {f"alignment {body} {control}": (body, control) for control in CONTROL_MODES for body in ROBOTS}
"""Bodies and control modes by the name of their arm."""

AMOUNTS = {"train": 188, "test": 48, "pushes": 120, "demos": 80, "imitated": 60}
"""Episodes of each robot to align with and to score on, of people who push, and of demonstrations, of which at most so
many are imitated; 6.4 seconds each, demonstrations shorter."""
QUICK_AMOUNTS = {"train": 10, "test": 4, "pushes": 12, "demos": 6, "imitated": 3}
FIRST = {"train": 10_000, "test": 10_000, "pushes": 50_000, "demos": 60_000}
"""First scenes within their splits: pushes and demonstrations are seen in scenes of their own."""
DEMONSTRATED = 40
"""Frames of a demonstration: in three of four the hand has let go of the first thing it touched."""
REPLAYED_AT = (30.0, 120.0, 600.0, 1200.0)
"""Seconds of robot data after which pushes are replayed."""


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


@dataclass(frozen=True, kw_only=True)
class Aligning:
    """A body in one control mode, its latent actions by a model, and where what is measured lies."""

    folder: Path
    body: str
    control: str
    amounts: dict[str, int]
    seed: int
    run: Run
    train: list[PairedEpisode]
    held_out: list[PairedEpisode]

    def simulation(self) -> Simulation:
        return Simulation(self.body, control=self.control)

    def alignments(self, seconds: Sequence[float]) -> dict[int, Alignment]:
        """By seconds of robot data fitted on: the first ones, and once all there are where those asked for are more."""
        rate, parts = self.run.preset.rate, {}
        for each in seconds:
            part = first_seconds(self.train, each, rate=rate)
            parts[round(sum(len(episode.action) for episode in part) / rate)] = part
        body = self.simulation().embodiment
        return {
            length: fit_alignment(part, self.held_out, body, seed=self.seed).alignment for length, part in parts.items()
        }


def run_alignment(
    name: str, folder: Path, model: Path, amounts: dict[str, int], *, size: int, seed: int
) -> dict[str, Any]:
    """Align a model with one body in one control mode; score it, also on the other body and in the dojo."""
    body, control = ALIGNMENTS[name]
    run = alignment_run(folder, model, size)

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
    aligning = Aligning(
        folder=folder,
        body=body,
        control=control,
        amounts=amounts,
        seed=seed,
        run=run,
        train=paired,
        held_out=held_out,
    )
    return {**result, "retargeting": retargeting(aligning), "imitation": imitation(aligning)}


def alignment_run(folder: Path, model: Path, size: int) -> Run:
    """A run folder for a model, with the caches of all models."""
    own = folder / "alignment" / model_hash(model)
    own.mkdir(parents=True, exist_ok=True)
    for link, target in (("latent_action", model), ("cache", folder / "cache")):
        target.mkdir(exist_ok=True)
        if not (own / link).exists():
            (own / link).symlink_to(target.resolve(), target_is_directory=True)
    return Run(folder=own, preset=replace(NANO, latent_action_size=(size, size)), compute=choose_compute("auto"))


def retargeting(aligning: Aligning) -> dict[str, Any]:
    """A person's pushes repeated, by seconds of robot data."""
    human = alignment_data(aligning.folder, "pushes", aligning.amounts, body="human", tasks={"push": 1.0})
    truth, inferred = GroundTruth.open(human.dataset.root), aligning.run.latent_actions(human)
    found = [find_push(truth, episode.index, episode.meta["seed"]) for episode in human.dataset.episodes]
    pushes = [push for push in found if push is not None]
    latent_actions = [inferred[push.episode][push.start :][: FRAMES - 1] for push in pushes]
    return {
        str(seconds): score_retargeting(pushes, latent_actions, alignment, aligning.simulation()).to_json()
        for seconds, alignment in aligning.alignments(REPLAYED_AT).items()
    }


def imitation(aligning: Aligning) -> list[dict[str, Any]]:
    """Demonstrations repeated from their video in closed loop: success against seconds of robot data."""
    run, body, control = aligning.run, aligning.body, aligning.control
    demos = alignment_data(
        aligning.folder,
        f"{body}-{control}-demos",
        aligning.amounts,
        body=body,
        control=control,
        frames=DEMONSTRATED,
        tasks={"push": 0.5, "pick_place": 0.5},
    )
    dataset, truth = demos.dataset, GroundTruth.open(demos.dataset.root)
    frames = run.frames(demos, run.preset.latent_action_size)
    found = [find_demonstration(dataset, truth, index, frames[index]) for index in demos.indices]
    shown = [demonstration for demonstration in found if demonstration is not None][: aligning.amounts["imitated"]]
    model = load_model(run.folder / "latent_action", LatentActionModel).to(run.compute.device)
    curve = []
    with progress_line(f"imitate {body} {control}") as report:
        alignments = aligning.alignments(SECONDS)
        for seconds, alignment in alignments.items():
            score = score_imitation(model, shown, alignment, aligning.simulation(), run.compute)
            curve.append({"seconds": seconds, **score.to_json()})
            report(len(curve), len(alignments), "amounts of robot data")
    return curve


def summary_lines(result: dict[str, Any]) -> list[str]:
    """What to print of an arm's result."""
    lines = [f"  {kind}: {answer}" for kind, answer in result["answer"].items()]
    for seconds, found in result["retargeting"].items():
        means = {way: f"{score['agreement']['mean']:.2f}" for way, score in found["scores"].items()}
        lines.append(f"  pushes repeated after {seconds} s: agreement {means}, {found['clips']} clips")
    success = {
        point["seconds"]: f"{point['scores'][CLOSED_LOOP]['success']['mean']:.2f}" for point in result["imitation"]
    }
    return [*lines, f"  demonstrations imitated, success by seconds of robot data: {success}"]
