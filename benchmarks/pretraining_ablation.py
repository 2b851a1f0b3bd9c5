"""Does pre-training on latent actions help, and against what? `python -m benchmarks.pretraining_ablation --run FOLDER`.

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.arms import ARMS, FRESH, MORE, SAMPLER, Arms, datasets, recordings, today
from benchmarks.cells import clips, over_clips
from dreamdojo import foundation
from dreamdojo.dojo.simulate import SimulateSettings
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.predict import ClipPlan, plan_clips, predict
from dreamdojo.evaluation.rollouts import Clips, SceneTruth, score_rollouts
from dreamdojo.files import write_json
from dreamdojo.judge import CONTEXT, scene_truth, train_probes
from dreamdojo.metrics import mean_interval
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes
from dreamdojo.training.progress import progress_line
from dreamdojo.world import World

RESULTS = Path(__file__).parent / "results" / "pretraining_ablation.json"
MINUTES = (1, 5, 20)
HORIZON = 8
HORIZONS = (1, 4, 8)
LOWER_IS_BETTER = ("effector_error", "object_error")
GOALS = {"psnr": "PSNR (dB)", "moving_psnr": "PSNR of moving pixels (dB)", "effector_error": "gripper error (px)"}
"""What the arms are judged by. PSNR, above all of moving pixels, likes a gripper that has blurred away; the gripper's
error does not."""
SETS = {
    "test": SimulateSettings(body="arm", split="test", first_index=2000, episodes=128),
    "ood": SimulateSettings(body="arm", split="ood_shape", first_index=2000, episodes=64),
}
"""Seeds from 2000 on were used by nothing else."""


class Bench:
    """What all cells share: the arms, held-out clips and the probes."""

    def __init__(self, folder: Path, models: Path, *, steps: tuple[int, int], more: int) -> None:
        self.arms = Arms(folder, models, steps=steps, more=more)
        self.shared = self.arms.run_of("shared", seed=0)
        self.held_out = datasets(folder, SETS)
        self.plans = {name: self._plan(episodes) for name, episodes in self.held_out.items()}

    @cached_property
    def probes(self) -> tuple[EffectorProbe, ObjectProbe | None]:
        """What reads the gripper and the objects off a picture; trained when first asked for."""
        with progress_line("probes") as report:
            return train_probes(self.shared, self.arms.data["robot"], report)

    def cell(self, seed: int, minutes: int) -> dict:
        """Train what is missing and score all arms on the same clips; with more steps, also the arm that takes them."""
        names = (*ARMS, FRESH, MORE) if self.arms.more else (*ARMS, FRESH)
        sessions = {arm: self.arms.train(arm, seed, minutes) for arm in names}
        return {name: self._score(sessions, self.held_out[name], plan) for name, plan in self.plans.items()}

    def _plan(self, held_out: Episodes) -> ClipPlan:
        return plan_clips(recordings(self.shared, held_out), context=CONTEXT, horizon=HORIZON, seed=0)

    def _score(self, sessions: Mapping[str, World], held_out: Episodes, plan: ClipPlan) -> dict:
        scene = scene_truth(plan, held_out, size=NANO.size)
        effector, objects = self.probes
        return score(sessions, plan, scene, effector=effector, objects=objects)


def score(
    sessions: Mapping[str, World],
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
    """Means of the arms and differences between them, for each split, number of minutes, metric and horizon."""
    summary: dict[str, dict] = {}
    for split, minutes in product(("test", "ood"), MINUTES):
        mine = [cell[split] for key, cell in cells.items() if key.endswith(f", {minutes} min")]
        if mine:
            summary.setdefault(split, {})[f"{minutes} min"] = {
                metric: {horizon: compare(mine, metric, horizon) for horizon in map(str, HORIZONS)}
                for metric in mine[0]["true"]
            }
    return summary


def compare(mine: Sequence[dict], metric: str, horizon: str) -> dict[str, Any]:
    """The arms on the same clips: the mean of each, and the latent arm against the others. `mine` has a cell per seed.

    Intervals are over clips, each clip being the mean of its seeds; the differences of the seeds stand beside them.
    """
    values = by_arm(mine, "true", metric, horizon)
    rows: dict[str, Any] = {arm: number(v.nanmean()) for arm, v in values.items()}
    for against in ("none", "action-free", FRESH, MORE):
        if {"latent", against} <= values.keys():
            gap = values["latent"] - values[against]
            rows[f"latent minus {against}"] = {
                **over_clips(list(gap)),
                "by seed": [number(mean) for mean in gap.nanmean(dim=1)],
            }
    for base in ("none", "action-free"):
        if {"latent", "ideal", base} <= values.keys():
            rows[f"recovered of {base} to ideal"] = recovered(values, base, lower_is_better=metric in LOWER_IS_BETTER)
    if metric == "psnr":
        other = by_arm(mine, "other", metric, horizon)
        for arm, told in values.items():
            obeyed = over_clips(list(told - other[arm])) if arm in other else None
            rows[f"{arm}, true minus other actions"] = obeyed
    return rows


def number(value: Tensor) -> float | None:
    """A plain number; None for NaN, which is not JSON."""
    return None if value.isnan() else float(value)


def by_arm(mine: Sequence[dict], actions: str, metric: str, horizon: str) -> dict[str, Float[Tensor, "s b"]]:
    """The values of the arms that every seed has: a row per seed, a column per clip, NaN where there is none."""
    found = [cell[actions].get(metric, {}) for cell in mine]
    return {
        arm: torch.stack([clips(cell[arm][horizon]) for cell in found])
        for arm in found[0]
        if all(arm in cell for cell in found)
    }


def recovered(values: Mapping[str, Tensor], base: str, *, lower_is_better: bool) -> float | None:
    """How much of what ideal labels gain over `base` the latent actions gain; None where ideal labels gain nothing."""
    whole = mean_interval((values["ideal"] - values[base]).nanmean(dim=0))
    clear = whole.high < 0 if lower_is_better else whole.low > 0
    return float((values["latent"] - values[base]).nanmean()) / whole.mean if clear else None


def goals(summary: dict) -> dict:
    """The latent arm minus two others, the end of the interval that is nearer to no gain, on the test split."""
    found = {}
    arms = product((1, 5), GOALS.items(), (1, HORIZON), ("none", "action-free"))
    for minutes, (metric, name), horizon, against in arms:
        low = metric not in LOWER_IS_BETTER
        rows = summary.get("test", {}).get(f"{minutes} min", {}).get(metric, {}).get(str(horizon), {})
        gap = rows.get(f"latent minus {against}")
        end = "lower" if low else "upper"
        key = f"{minutes} min, {name} at frame {horizon}, latent minus {against}, {end} end"
        found[key] = {"value": gap["low" if low else "high"] if gap else None, "bound": 0.0, "op": ">" if low else "<"}
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
                    bench.arms.train(arm, seed, minutes)
                continue
            cells[key] = bench.cell(seed, minutes)
            write_json(cells_file, cells)
            write(cells, arguments)
    if cells:
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
        "sampler": asdict(SAMPLER),
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
    write_json(RESULTS, stored)


if __name__ == "__main__":
    main()
