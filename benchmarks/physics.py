"""Physics on objects never seen, against the dojo's truth. `python -m benchmarks.physics --run FOLDER`.

Arms, each trained on five minutes of a robot, with the same tokenizer and the same number of operations
(`benchmarks/arms.py`; `--models-of FOLDER` takes and keeps models in the folder of the pre-training comparison):

    latent                       ours: pre-trained on human video with latent actions
    none                         the same model, robot data only
    deterministic                the baseline of prior work: a predictor trained by regression, robot data only
    deterministic, human video   the same, first trained on human video without actions
    copy last frame              nothing moves
    encoded and decoded          the true frames through the tokenizer: what no model of its latents can do better
    truth                        the true frames through the same probes: what the probes themselves get wrong

What is asked of them, on scenes of five kinds that nothing was trained or tuned on (`dreamdojo/dojo/trials.py`):

    own       what the robot did, 24 frames: where objects are and how they are turned, touched ones apart; 64 frames of
              the scenes of the known kind, for long-horizon drift
    other     another robot takes over in the same state: the dojo gives its own answer to that
    still     the robot is told to stay as it is
    covered   an object is hidden by the arm and seen again

A queue: every (arm, seed) is written when it ends, a rerun skips what is there. Seeds of one trial are averaged before
an interval over trials is taken, as they are not independent. The pose error of touched objects, mean over the frames
asked for, is what the goals compare; `report.html` in the run folder shows everything.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import REGRESSION, REGRESSION_HUMAN, SAMPLER, Arms, first_minutes, today
from benchmarks.arms import SETS as TRAINED_ON
from benchmarks.cells import Cells, clips
from benchmarks.physics_report import physics_report
from dreamdojo import foundation
from dreamdojo.dataset.parallel import map_in_order
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.trials import Trial, TrialSettings, load_trials, run_trials, save_trials
from dreamdojo.dojo.turns import Views, draw_views
from dreamdojo.errors import SimulationError
from dreamdojo.evaluation.effector import EffectorProbe, EffectorProbeConfig
from dreamdojo.evaluation.objects import ObjectProbe, ObjectProbeConfig
from dreamdojo.evaluation.orientation import HeadingProbe, HeadingProbeConfig, Scenes, train_heading_probe
from dreamdojo.evaluation.physics import (
    BranchTruth,
    Instruments,
    branch_truth,
    score_answer,
    score_permanence,
    score_pictures,
    score_poses,
    score_stillness,
    to_plain,
    trial_plan,
    within,
)
from dreamdojo.evaluation.predict import ClipPlan, predict
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.rollouts import COPY, TRUTH
from dreamdojo.files import read_json, write_json, written_whole
from dreamdojo.judge import describe, train_probes
from dreamdojo.metrics import Interval, bootstrap_interval, mean_interval
from dreamdojo.presets import NANO, Preset
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.model import from_pixels, to_pixels
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.progress import progress_line
from dreamdojo.video import resize

RESULTS = Path(__file__).parent / "results"
OURS, NONE = "latent", "none"
BASELINES = (REGRESSION, REGRESSION_HUMAN)
TRAINED = (OURS, NONE, *BASELINES)
REDRAWN = "encoded and decoded"
UNTRAINED = (COPY, REDRAWN, TRUTH)
KNOWN, UNSEEN, COVERED = "in-distribution", "unseen shapes", "covered"
SPLITS = {
    KNOWN: "test",
    UNSEEN: "ood_shape",
    "unseen colours": "ood_colour",
    "unseen layouts": "ood_layout",
    "unseen lighting": "ood_lighting",
}
"""Kinds of scenes, and the split whose seeds they are drawn from."""
HORIZONS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
COMPARED_UP_TO = 24
"""Frames up to which errors are averaged for comparisons: those that every kind of scene has."""
REDUCED = ("pose_error", "position_error", "heading_error")
PROBE_SEEDS = 200_000
"""First seed within each split of the scenes that the orientation probe learns from; trials begin at 100,000."""
VIEWS = 6
"""Pictures of each of these scenes."""
GOAL = 0.3
"""Share by which our pose error on unseen shapes is to be lower."""
SHOWN = 2
"""Trials of each set whose predictions are kept for the report, the first ones."""

Frames = Callable[[ClipPlan, BranchTruth], Tensor]
"""What an arm predicts for a branch."""


def trial_sets(trials: int) -> dict[str, TrialSettings]:
    """The sets of trials; twice as many of the unseen shapes, which decide."""
    sets = {
        kind: TrialSettings(split=split, trials=trials, horizon=24, other=24, still=0) for kind, split in SPLITS.items()
    }
    sets[KNOWN] = replace(sets[KNOWN], horizon=64, still=24)
    sets[UNSEEN] = replace(sets[UNSEEN], trials=2 * trials)
    covered = TrialSettings(split="test", trials=trials, horizon=40, tasks={"cover": 1.0}, first_index=150_000)
    return {**sets, COVERED: covered}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is simulated and how long probes are trained; `QUICK` is for tests."""

    sets: Mapping[str, TrialSettings]
    scenes: Mapping[str, int]
    """Scenes of each kind that the orientation probe learns from."""
    effector: EffectorProbeConfig | None = None
    objects: ObjectProbeConfig | None = None
    heading: HeadingProbeConfig | None = None


def full_size(trials: int) -> Size:
    """What is measured."""
    return Size(sets=trial_sets(trials), scenes={kind: 200 if kind == KNOWN else 80 for kind in SPLITS})


def quick_size() -> Size:
    """Two trials of everything and probes that have learned nothing and pass every gate."""
    sets = {
        kind: replace(
            settings,
            trials=2,
            drawn=64,
            horizon=8 if kind == COVERED else 4,
            other=min(settings.other, 2),
            still=min(settings.still, 2),
        )
        for kind, settings in trial_sets(2).items()
        if kind in (KNOWN, UNSEEN, COVERED)
    }
    return Size(
        sets=sets,
        scenes={KNOWN: 2, UNSEEN: 2},
        effector=EffectorProbeConfig(steps=2, batch=4, width=8, gate=1e3),
        objects=ObjectProbeConfig(steps=2, batch=4, width=8, gate=1e3, moved=0.0),
        heading=HeadingProbeConfig(steps=2, batch=4, width=8, gate=1e3),
    )


class Ground:
    """What all arms share: trials, and the probes that read them."""

    def __init__(self, folder: Path, arms: Arms, size: Size, *, minutes: int, workers: int = 2) -> None:
        self.folder, self.arms, self.size, self.minutes, self.workers = folder, arms, size, minutes, workers

    def trials(self, name: str) -> list[Trial]:
        """A set of trials, simulated where missing."""
        path = self.folder / "trials" / f"{name.replace(' ', '_')}.npz"
        if not path.exists():
            with progress_line(f"trials, {name}") as report:
                save_trials(path, run_trials(self.size.sets[name], workers=self.workers, progress=report))
        return load_trials(path)

    @cached_property
    def positions(self) -> tuple[EffectorProbe, ObjectProbe | None]:
        """What finds the gripper and the objects; it learns from the robot's training episodes."""
        run = self.arms.run_of("shared", seed=0)
        with progress_line("position probes") as report:
            robot = self.arms.data["robot"]
            return train_probes(run, robot, report, effector=self.size.effector, objects=self.size.objects)

    @cached_property
    def headings(self) -> HeadingProbe:
        """What tells how objects are turned; it learns from scenes of its own, of every kind."""
        with progress_line("orientation probe") as report:
            parts = [(kind, PROBE_SEEDS + i) for kind, count in self.size.scenes.items() for i in range(count)]
            drawn = []
            for views in map_in_order(_draw, parts, workers=self.workers):
                drawn.append(views)
                report(len(drawn), len(parts) + 1, "scenes")
            scenes = gather_scenes([(kind, v) for (kind, _), v in zip(parts, drawn, strict=True) if v is not None])
            return train_heading_probe(scenes, config=self.size.heading)

    def instruments(self, name: str) -> Instruments:
        """The probes that may be used on a set of trials."""
        effector, objects = self.positions
        error = self.headings.errors.get(KNOWN if name == COVERED else name)
        return Instruments(
            effector=effector if effector.error.valid else None,
            objects=objects if objects is not None and objects.error.valid else None,
            heading=self.headings if error is not None and error.valid else None,
        )

    def probes(self) -> dict[str, Any]:
        """The own errors of all probes, kept beside the cells that were read with them."""
        path = self.folder / "probes.json"
        if not path.exists():
            effector, objects = self.positions
            error = {"effector": effector.error.to_json(), "object": objects and objects.error.to_json()}
            headings = {kind: error.to_json() for kind, error in self.headings.errors.items()}
            write_json(path, {**error, "heading": headings})
        return read_json(path, of="the probes' own errors")

    def made_of(self) -> dict[str, Any]:
        """What cells have in common; cells made of anything else cannot be compared."""
        return {
            "steps": list(self.arms.steps),
            "minutes": self.minutes,
            "tokenizer": model_hash(self.arms.models / "tokenizer"),
            "robot": self.arms.data["robot"].dataset.hash,
            "sets": {name: _plain(settings) for name, settings in self.size.sets.items()},
        }


def _plain(settings: TrialSettings) -> dict[str, Any]:
    return {"split": settings.split, "first": settings.first_index, "trials": settings.trials} | {
        "frames": {"own": settings.horizon, "other": settings.other, "still": settings.still}
    }


def _draw(part: tuple[str, int]) -> Views | None:
    """One scene for the orientation probe; those of the known kind are of the training split."""
    kind, index = part
    try:
        return draw_views("arm", seed=seed_of("train" if kind == KNOWN else SPLITS[kind], index), count=VIEWS, size=128)
    except SimulationError:
        return None


def gather_scenes(parts: Sequence[tuple[str, Views]], size: tuple[int, int] = NANO.size) -> Scenes:
    """Views of many scenes, at the model's size, as the orientation probe learns from them."""
    most, kinds = max(len(views.folds) for _, views in parts), tuple(dict.fromkeys(kind for kind, _ in parts))
    rows: dict[str, list[np.ndarray]] = {}
    for number, (kind, views) in enumerate(parts):
        missing, count = most - len(views.folds), len(views.frames)
        row = {
            "frames": np.moveaxis(resize(views.frames, size), -1, 1),
            "labels": resize(views.labels, size, nearest=True),
            "positions": np.pad(views.pixels, ((0, 0), (0, missing), (0, 0))).astype(np.float32),
            "headings": np.pad(views.headings, ((0, 0), (0, missing)), constant_values=np.nan).astype(np.float32),
            "folds": np.tile(np.pad(views.folds, (0, missing)), (count, 1)),
            "scene": np.full(count, number),
            "kind": np.full(count, kinds.index(kind)),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return Scenes(**{name: torch.from_numpy(np.concatenate(value)) for name, value in rows.items()}, kinds=kinds)


def frames_of(arm: str, seed: int, ground: Ground) -> Frames:
    """What an arm predicts; trained where it is missing."""
    if arm == COPY:
        return lambda plan, truth: truth.copied
    if arm == TRUTH:
        return lambda plan, truth: truth.frames
    if arm == REDRAWN:
        tokenizer = load_tokenizer(ground.arms.models / "tokenizer").eval()
        return lambda plan, truth: redraw(tokenizer, plan.given, truth.frames)
    session = ground.arms.train(arm, seed, ground.minutes)
    return lambda plan, truth: predict(session, plan, seed=seed)


@torch.no_grad()
def redraw(tokenizer: VideoTokenizer, given: Tensor, frames: Tensor) -> Tensor:
    """Frames `b t c h w` (uint8) as the tokenizer draws them after the given ones."""
    pairs = zip(given, frames, strict=True)
    drawn = [tokenizer.decode(tokenizer.encode(from_pixels(torch.cat(pair))[None])[0])[0][0] for pair in pairs]
    return to_pixels(torch.stack(drawn)[:, given.shape[1] :])


def run_cell(arm: str, seed: int, ground: Ground, *, keep: bool) -> dict[str, Any]:
    """Set -> branch -> metric -> numbers of every trial; with `keep`, some predictions go to disk for the report."""
    frames, cell, kept = frames_of(arm, seed, ground), {}, {}
    for name in ground.size.sets:
        trials, instruments, cell[name] = ground.trials(name), ground.instruments(name), {}
        with progress_line(f"{arm}, seed {seed}, {name}") as report:
            branches = list(trials[0].branches)
            truths = {branch: branch_truth(trials, branch) for branch in branches}
            for number, branch in enumerate(branches):
                report(number, len(branches), branch)
                truth = truths[branch]
                predicted = frames(trial_plan(trials, branch), truth)
                cell[name][branch] = to_plain(score_branch(name, branch, truths, predicted, instruments))
                kept[f"{name}/{branch}"] = predicted[:SHOWN].numpy()
            report(len(branches), len(branches), "scored")
    if keep:
        with written_whole(strip_path(ground.folder, arm)) as path, path.open("wb") as file:
            np.savez_compressed(file, **kept)
    return cell


def score_branch(
    name: str, branch: str, truths: Mapping[str, BranchTruth], predicted: Tensor, instruments: Instruments
) -> dict[str, Tensor]:
    """Everything that one branch of a set tells."""
    truth = truths[branch]
    horizons = within(HORIZONS, predicted.shape[1])
    if branch == "still":
        return score_stillness(truth, predicted, horizons, instruments)
    scores = score_poses(truth, predicted, horizons, instruments) | score_pictures(truth, predicted, horizons)
    if branch == "other":
        scores |= score_answer(truth, predicted, truths["own"].frames[:, : predicted.shape[1]], horizons)
    if name == COVERED:
        scores |= score_permanence(truth, predicted, instruments)
    return scores


def strip_path(folder: Path, arm: str) -> Path:
    """Where an arm's predictions for the report lie."""
    return folder / "strips" / f"{arm.replace(' ', '_').replace(',', '')}.npz"


Stored = Mapping[str, Mapping[str, dict[str, Any]]]
"""Arm -> seed -> what `run_cell` gives."""


def of_trials(cells: Stored, arm: str, where: tuple[str, str, str], seeds: Sequence[str] | None = None) -> Tensor:
    """One number per trial and horizon of a (set, branch, metric), the mean of the arm's seeds: `b t`."""
    name, branch, metric = where
    chosen = list(cells[arm]) if seeds is None else seeds
    rows = [[clips(row) for row in cells[arm][seed][name][branch][metric]] for seed in chosen]
    return torch.stack([torch.stack(each) for each in rows]).nanmean(dim=0)


def places(cells: Stored) -> list[tuple[str, str, str]]:
    """Every set, branch and metric that was measured."""
    first = next(iter(next(iter(cells.values())).values()))
    return [(name, branch, metric) for name in first for branch in first[name] for metric in first[name][branch]]


def horizons_of(values: Tensor) -> list[str]:
    """What to call the columns of a table of trials."""
    return [str(h) for h in HORIZONS[: values.shape[1]]] if values.shape[1] > 1 else ["once"]


def compared(values: Tensor) -> Tensor:
    """One number per trial: the mean over the frames that comparisons are about."""
    used = [i for i, h in enumerate(HORIZONS[: values.shape[1]]) if h <= COMPARED_UP_TO]
    return values[:, used].nanmean(dim=1)


def paired_errors(
    cells: Stored, against: str, where: tuple[str, str, str], seeds: Sequence[str] | None = None
) -> Tensor | None:
    """Our error and another arm's, one row per trial in which both have one; None where no seed is shared.

    Each is the mean over the seeds that both have (or `seeds` of them); untrained methods have no seeds.
    """
    shared = [seed for seed in cells.get(OURS, {}) if against in UNTRAINED or seed in cells.get(against, {})]
    shared = [seed for seed in shared if seeds is None or seed in seeds]
    if not shared or against not in cells:
        return None
    theirs = of_trials(cells, against, where, None if against in UNTRAINED else shared)
    pairs = torch.stack([compared(of_trials(cells, OURS, where, shared)), compared(theirs)], dim=1)
    pairs = pairs[pairs.isfinite().all(dim=1)]
    return pairs if len(pairs) else None


def lower_by(pairs: Tensor) -> Tensor:
    """By which share the first column's mean is lower than the second's."""
    return 1 - pairs[:, 0].mean() / pairs[:, 1].mean()


def reduction(cells: Stored, against: str, where: tuple[str, str, str]) -> Interval | None:
    """By which share our error is lower, paired by trial and seed; None where nothing can be compared."""
    pairs = paired_errors(cells, against, where)
    return None if pairs is None else bootstrap_interval(pairs, lower_by, seed=0, resamples=1000)


def summarise(cells: Stored) -> dict[str, Any]:
    """Means of every arm, and by which share ours is lower than each other arm's."""
    summary: dict[str, Any] = {}
    for name, branch, metric in places(cells):
        rows = summary.setdefault(name, {}).setdefault(branch, {}).setdefault(metric, {})
        for arm in cells:
            values = of_trials(cells, arm, (name, branch, metric))
            by_horizon = zip(horizons_of(values), values.unbind(dim=1), strict=True)
            rows[arm] = {horizon: mean_interval(column).to_json() for horizon, column in by_horizon}
        if metric.split(",")[0] not in REDUCED or branch == "still":
            continue
        rows["lower by"] = {}
        for against in (arm for arm in cells if arm not in (OURS, REDRAWN, TRUTH)):
            found = reduction(cells, against, (name, branch, metric))
            if found is not None:
                alone = {seed: paired_errors(cells, against, (name, branch, metric), [seed]) for seed in cells[OURS]}
                by_seed = {seed: lower_by(pairs).item() for seed, pairs in alone.items() if pairs is not None}
                rows["lower by"][against] = {**found.to_json(), "by seed": by_seed}
    return summary


def goals(cells: Stored) -> dict[str, dict[str, Any]]:
    """Pose error of touched unseen shapes: ours against the same model without human video and the best baseline."""
    where = (UNSEEN, "own", "pose_error, contact")
    measured = bool(cells) and where in places(cells)
    best = [arm for arm in BASELINES if arm in cells]
    if measured and best:
        best = sorted(best, key=lambda arm: float(compared(of_trials(cells, arm, where)).nanmean()))[:1]
    found = {}
    rivals = {"than without human video": NONE, "than the best deterministic predictor": best[0] if best else None}
    for words, against in rivals.items():
        key = f"object pose error on unseen shapes, touched, lower {words}, share"
        run = measured and OURS in cells and against in cells
        gap = reduction(cells, against, where) if run and against else None
        reason = "no trial has a touched object" if run else "not run"
        found[key] = {"value": None, "bound": GOAL, "op": ">=", "reason": reason}
        if gap is not None:
            spoken = (
                f"95 %: {gap.low:.3f} to {gap.high:.3f}, {gap.count} trials with a touched object; against {against}"
            )
            found[key] |= {"value": gap.mean, "reason": spoken}
    seeds = [len(cells[arm]) for arm in (OURS, NONE, *best[:1]) if arm in cells] if best and measured else []
    found["seeds of every arm compared"] = {"value": min(seeds) if len(seeds) == 3 else None, "bound": 3, "op": ">="}
    if len(seeds) < 3:
        found["seeds of every arm compared"]["reason"] = "not run"
    return found


def compare(ground: Ground, arms: Sequence[str], seeds: Sequence[int], *, machine: str, write: Path | None) -> Stored:
    """Run what is missing; the results file `write`, if any, and the report are brought up to date after every cell."""
    cells = Cells(ground.folder / "cells.json", ground.made_of())
    queue = [(arm, seed) for seed, arm in product(seeds, arms)]
    for arm, seed in [*((arm, None) for arm in UNTRAINED), *queue]:
        key = "-" if seed is None else str(seed)
        if key in cells.scores.get(arm, {}):
            continue
        cells.put(arm, key, run_cell(arm, seed or 0, ground, keep=seed in (None, seeds[0])))  # pyright: ignore[reportArgumentType]
        publish(ground, cells.scores, machine=machine, write=write)
    publish(ground, cells.scores, machine=machine, write=write)
    return cells.scores


def publish(ground: Ground, cells: Stored, *, machine: str, write: Path | None) -> None:
    """The report in the run folder, and the results file, if one is named."""
    arms, probes = ground.arms, ground.probes()
    conditions = {
        "machine": machine,
        "preset": arms.preset.name,
        "robot data": describe(first_minutes(arms.data["robot"], ground.minutes)),
        "sampler": asdict(SAMPLER),
        "deterministic steps per step of the world model": round(arms.regression_steps, 3),
        "seeds": {arm: sorted(seeds) for arm, seeds in cells.items()},
        **ground.made_of(),
    }
    found, summary, facts = goals(cells), summarise(cells), today()
    if write:
        stored = read_json(write, of="the results so far") if write.exists() else {"metrics": {}}
        metrics = {**stored["metrics"], "probes": probes, **summary}  # the recipe search keeps its own there
        write_json(write, {"name": write.stem, **facts, "conditions": conditions, "metrics": metrics, "goals": found})
    strips = {}
    for arm in (TRUTH, *TRAINED, COPY):
        if (path := strip_path(ground.folder, arm)).exists():
            with np.load(path) as kept:
                strips[arm] = {key: torch.from_numpy(kept[key]) for key in kept.files}
    given = {name: [given_frames(trial) for trial in ground.trials(name)[:SHOWN]] for name in ground.size.sets}
    report = physics_report(
        summary,
        found,
        probes=probes,
        strips=strips,
        given=given,
        facts=(facts["date"], f"commit {facts['commit']}", machine),
        conditions=conditions,
        rate=arms.preset.rate,
    )
    write_report(ground.folder / "report.html", report)


def given_frames(trial: Trial) -> Tensor:
    """What a model is shown of a trial: `t c h w` uint8."""
    return torch.from_numpy(np.moveaxis(trial.given.frames, -1, 1).copy())


def quick_preset(preset: Preset = NANO) -> Preset:
    """A world model that trains in seconds."""
    small = replace(preset.world_model, dim=32, num_heads=2, num_blocks=1, modulation_rank=8, convolution_width=8)
    return replace(
        preset,
        world_model=small,
        pretraining=replace(preset.pretraining, fit=replace(preset.pretraining.fit, batch_size=2, compile=False)),
        posttraining=replace(preset.posttraining, fit=replace(preset.posttraining.fit, batch_size=2, compile=False)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/physics"))
    parser.add_argument("--models-of", type=Path, help="folder of arms to take and keep models in; --run by default")
    parser.add_argument("--models", type=Path, help="folder with tokenizer/ and latent_action/; the shipped ones")
    parser.add_argument("--only", choices=TRAINED, action="append", help="run this arm; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=int, default=5, help="of the robot's data")
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--posttrain-steps", type=int, default=750)
    parser.add_argument("--trials", type=int, default=64, help="of each kind of scene")
    parser.add_argument("--results", default="physics", help="name of the file of results, for steps of another number")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a few steps on little data, for tests: writes no result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = arguments.models or foundation("nano")
    if models is None:
        parser.error("no models ship with this package: make them with `make weights`, or say --models")
    machine, names = f"{platform.machine()}, {arguments.threads} threads", arguments.only or list(TRAINED)
    if not arguments.quick:
        steps = (arguments.pretrain_steps, arguments.posttrain_steps)
        arms = Arms(arguments.models_of or arguments.run, models, steps=steps)
        ground = Ground(arguments.run, arms, full_size(arguments.trials), minutes=arguments.minutes)
        write = RESULTS / f"{arguments.results}.json"
        print_goals(goals(compare(ground, names, arguments.seeds, machine=machine, write=write)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        sets = {name: replace(each, episodes=3, frames=16, size=64) for name, each in TRAINED_ON.items()}
        arms = Arms(Path(scratch), models, steps=(2, 2), preset=quick_preset(), sets=sets, workers=1)
        ground = Ground(Path(scratch), arms, quick_size(), minutes=1, workers=1)
        cells = compare(ground, names, arguments.seeds[:1], machine=machine, write=None)
        print_goals(goals(cells))


def print_goals(found: Mapping[str, Mapping[str, Any]]) -> None:
    """A line per goal."""
    for key, goal in found.items():
        value = "not measured" if goal["value"] is None else f"{goal['value']:.3f}"
        print(f"{key}: {value} ({goal['op']} {goal['bound']}) {goal.get('reason', '')}", flush=True)


if __name__ == "__main__":
    main()
