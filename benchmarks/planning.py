"""Does planning in the model do errands in the world? `python benchmarks/planning.py --run FOLDER`.

Push and pick-place in the dojo, on scenes that nothing was trained or tuned on (test) and on unseen shapes (OOD). Arms:

    best of N         of an ensemble's futures, imagined in the model, the cheapest is executed
    uniform           any policy of the ensemble
    single NAME       one policy of it
    foundation        the planner in a model that was pre-trained and saw minutes of robot data
    scratch           the same planner in the same model that saw only those minutes
    simulator         the same planner in the true simulator, by the truth: the most there is to reach
    simulator seen    the same, by what the probes see: tells the model's error from the probes'

Beside them: seconds per decision (64 candidates of 10 steps), and 4,096 candidates of 20 steps scored in one job.

A queue: every episode is written when it ends and a rerun goes on from there; `--only ARM`, `--tasks`, `--splits` run a
part. An episode's scene, draws and noise depend on its number alone, so arms are paired.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretraining_ablation import datasets, today
from dreamdojo import foundation, stages
from dreamdojo.apps.planning.ensemble import MISTAKES, scripted_ensemble
from dreamdojo.apps.planning.errands import Errand, TrueErrand, errand_of, seen_aim, seen_errand, true_aim
from dreamdojo.apps.planning.execute import Mind, SessionMind, SimulatorMind, carry_out
from dreamdojo.apps.planning.objectives import pixels
from dreamdojo.apps.planning.offline import score_offline
from dreamdojo.apps.planning.planner import BestOf, Decider, Planner, always
from dreamdojo.apps.planning.search import CEM, icem
from dreamdojo.apps.planning.space import Knots
from dreamdojo.dojo.errands import errand_seeds
from dreamdojo.dojo.simulate import SimulateSettings
from dreamdojo.dojo.world import DojoWorld
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.files import write_json
from dreamdojo.metrics import paired_interval, wilson_interval
from dreamdojo.plan import probes_in
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import Session, load_session
from dreamdojo.rollout.starts import fitted
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.checkpoint import save_model
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world_model.model import WorldModel, WorldModelConfig

RESULTS = Path(__file__).parent / "results" / "planning.json"
PUSHT = RESULTS.with_name("pusht.json")
TASKS = ("push", "pick_place")
SPLITS = ("test", "ood_shape")
FIRST = 9000
"""Number of the first scene within its split; nothing else uses these."""
BEST, UNIFORM, FOUNDATION, SCRATCH, TRUE, SEEN = (
    "best of N",
    "uniform",
    "foundation",
    "scratch",
    "simulator",
    "simulator seen",
)
SINGLES = tuple(f"single {name}" for name in MISTAKES)
ARMS = (TRUE, SEEN, FOUNDATION, SCRATCH, BEST, UNIFORM, *SINGLES)
DECISION, OFFLINE = "seconds per decision", "offline"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    episodes: int = 100
    """Of each arm, task and split."""
    candidates: int = 32
    """Of a round of the planner."""
    iterations: int = 3
    """Rounds."""
    samples: int = 4
    """Futures of each policy."""
    minutes: float = 5.0
    """Robot data."""
    steps: int = NANO.posttraining.fit.steps
    """Of post-training, in both arms."""
    offline: int = 4096
    """Candidates of the one job."""


QUICK = Sizes(episodes=1, candidates=4, iterations=1, samples=1, minutes=0.2, steps=2, offline=4)


class Bench:
    """Models, probes and scenes that the arms share; each is made when first asked for."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes

    @cached_property
    def probes(self) -> tuple[EffectorProbe, ObjectProbe]:
        """What reads the gripper and the object off a picture, trained on scenes of the training split."""
        return probes_in(self.folder / "probes")

    @cached_property
    def robot(self) -> Episodes:
        """Minutes of the robot."""
        episodes = max(2, round(self.sizes.minutes * 60 * 10 / 64))
        settings = SimulateSettings(body="arm", episodes=episodes, first_index=FIRST, truth="poses")
        return datasets(self.folder, {"robot": settings})["robot"]

    @cached_property
    def models(self) -> dict[str, Session]:
        """The two arms' models."""
        return {name: self._post_trained(name) for name in (FOUNDATION, SCRATCH)}

    def _post_trained(self, name: str) -> Session:
        shipped = foundation("nano")
        if shipped is None:
            raise SystemExit("no models ship with this package: make them with `make weights`")
        fit = replace(NANO.posttraining.fit, steps=self.sizes.steps)
        preset = replace(NANO, posttraining=replace(NANO.posttraining, fit=fit), human_share=0.0)
        run = Run(folder=self.folder / "models" / name, preset=preset, compute=choose_compute("auto"))
        run.folder.mkdir(parents=True, exist_ok=True)
        stages.link_model(shipped / "tokenizer", run.folder / "tokenizer")
        if name == FOUNDATION:
            for part in ("latent_action", "pretrained"):
                stages.link_model(shipped / part, run.folder / part)
        else:
            start_untrained(run)
        stages.posttrain_stage(run, self.robot, None, adapter="aligned" if name == FOUNDATION else "fresh")
        return load_session(run.folder / "teacher", embodiment=self.robot.dataset.embodiment.name, steps=2)

    def mind_and_decider(self, arm: str, real: DojoWorld, errand: Errand) -> tuple[Mind, Decider]:
        """Where an arm imagines, and what decides in it."""
        sizes = self.sizes
        if arm in (BEST, UNIFORM, *SINGLES):
            policies = scripted_ensemble(real, errand)
            if arm in SINGLES:
                name = arm.removeprefix("single ")
                policies = {name: policies[name]}
            chooses = arm == BEST
            decider = BestOf(
                policies=policies,
                objective=seen_errand(errand, *self.probes) if chooses else TrueErrand(errand=errand),
                horizon=70,
                samples=sizes.samples if chooses else 1,
                choose="best" if chooses else "uniform",
            )
            return SessionMind(self.models[FOUNDATION]) if chooses else SimulatorMind(real), decider
        method = icem(candidates=sizes.candidates, iterations=sizes.iterations, elites=max(2, sizes.candidates // 6))
        if arm == TRUE:
            planner = Planner(space=true_aim(errand, real), method=method, objective=TrueErrand(errand=errand))
            return SimulatorMind(real), planner
        effector, objects = self.probes
        objective = seen_errand(errand, effector, objects)
        planner = Planner(space=seen_aim(errand, objects, real), method=method, objective=objective)
        return SimulatorMind(real, pictures=True) if arm == SEEN else SessionMind(self.models[arm]), planner

    def episode(self, arm: str, task: Any, seed: int, number: int) -> dict[str, Any]:
        """One errand of an arm."""
        real = DojoWorld(task=task, show_goal=False)
        first = real.reset(seed=seed)
        errand = errand_of(real, size=NANO.size)
        mind, decider = self.mind_and_decider(arm, real, errand)
        return carry_out(real, first, mind, decider, seed=number).to_json()

    def seconds_per_decision(self, turns: int = 5) -> dict[str, float]:
        """64 candidates of 10 steps in the model, one round, frames decoded and compared with a picture."""
        session = self.models[FOUNDATION]
        real = DojoWorld(task="push", show_goal=False)
        first = fitted(real.reset(seed=next(errand_seeds("push", "test", first_index=FIRST))), session.size)
        session.reset(first)
        goal = first.frames["head"][0, 0]
        planner = Planner(
            space=always(Knots(embodiment=session.embodiment, horizon=10)),
            method=CEM(candidates=64, iterations=1, elites=8),
            objective=lambda imagined: (pixels(imagined.frames["head"][:, -1]) - pixels(goal)).square().mean((1, 2, 3)),
        )
        planner.reset(seed=0)
        seconds = [planner.decide(session, first).seconds for _ in range(turns + 1)][1:]
        return {"median": sorted(seconds)[turns // 2], "least": min(seconds), "most": max(seconds)}

    def offline(self) -> dict[str, float]:
        """Thousands of candidates of 20 steps of one scene, scored in one job."""
        session = self.models[FOUNDATION]
        real = DojoWorld(task="push", show_goal=False)
        seed = next(errand_seeds("push", "test", first_index=FIRST))
        session.reset(fitted(real.reset(seed=seed), session.size))
        errand = errand_of(real, size=session.size)
        knots = Knots(embodiment=session.embodiment, horizon=20)
        x = torch.randn(
            self.sizes.offline, 5, session.embodiment.action_dim, generator=torch.Generator().manual_seed(0)
        )
        began = time.monotonic()
        with progress_line(OFFLINE) as report:
            costs = score_offline(
                session,
                knots.actions(0.5 * x, None),
                seen_errand(errand, *self.probes),
                self.folder / "offline.json",
                about={"scene": seed},
                report=report,
            )
        seconds = time.monotonic() - began
        return {"candidates": len(costs), "seconds of the last run": seconds, "least": float(costs.min())}


def start_untrained(run: Run) -> None:
    """Let a run's robot data be the first that its world model sees."""
    if not (run.folder / "pretrained").exists():
        preset = run.preset
        torch.manual_seed(preset.posttraining.fit.seed)
        untrained = WorldModel(WorldModelConfig(dit=preset.world_model, size=preset.size, rate=preset.rate))
        save_model(run.folder / "pretrained", untrained, about=stages.sampling(preset.student.teacher))


def pusht_success() -> float | None:
    """What `benchmarks/pusht.py` wrote, where it has been run."""
    if not PUSHT.exists():
        return None
    return json.loads(PUSHT.read_text())["goals"]["gym-pusht success in 50 steps"]["value"]


def summarise(cells: Mapping[str, Sequence[dict]]) -> dict[str, Any]:
    """Success of each arm with Wilson's interval, how far the object stays from its goal, and what is compared."""
    summary: dict[str, Any] = {}
    for key, rows in cells.items():
        arm, task, split = key.split("/")
        wins = [row["success"] for row in rows]
        summary.setdefault(f"{task}, {split}", {})[arm] = {
            "success": wilson_interval(sum(wins), len(wins)).to_json(),
            "distance": sum(row["distance"] for row in rows) / len(rows),
            "seconds": sum(row["seconds"] for row in rows) / len(rows),
            "decisions": sum(len(row["decisions"]) for row in rows) / len(rows),
        }
    for name, arms in summary.items():
        singles = [arm for arm in SINGLES if arm in arms]
        pairs = {"foundation minus scratch": (FOUNDATION, SCRATCH)}
        pairs |= {f"regret, {TRUE} minus {arm}": (TRUE, arm) for arm in (FOUNDATION, SCRATCH, SEEN)}
        if singles:
            best = max(singles, key=lambda arm: arms[arm]["success"]["mean"])
            pairs["best of N minus best single"] = (BEST, best)
            pairs["best of N minus uniform"] = (BEST, UNIFORM)
        task, split = name.split(", ")
        for words, (first, second) in pairs.items():
            both = [cells.get(f"{arm}/{task}/{split}", []) for arm in (first, second)]
            count = min(map(len, both))
            if count > 1:
                values = [torch.tensor([float(row["success"]) for row in rows[:count]]) for rows in both]
                arms[words] = paired_interval(*values).to_json()
        if {BEST, UNIFORM} <= arms.keys() and arms[UNIFORM]["success"]["mean"]:
            arms["best of N over uniform"] = arms[BEST]["success"]["mean"] / arms[UNIFORM]["success"]["mean"]
    return summary


def goals(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Every goal that the issue names."""
    test = summary.get("pick_place, test", {})

    def read(*path: str) -> float | None:
        value: Any = test
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    found: dict[str, tuple[float | None, float, str]] = {
        "best of N over uniform choice, pick-place": (read("best of N over uniform"), 2.0, ">="),
        "best of N minus the best single policy, pick-place": (read("best of N minus best single", "mean"), 0.17, ">="),
        "simulator: pick-place success": (read(TRUE, "success", "mean"), 0.95, ">="),
        "foundation minus scratch, pick-place": (read("foundation minus scratch", "mean"), 0.25, ">="),
        "foundation minus scratch, pick-place, lower end": (read("foundation minus scratch", "low"), 0.0, ">="),
        "seconds per decision, 64 candidates of 10 steps": (summary.get(DECISION, {}).get("median"), 1.0, "<="),
        "candidates scored in one offline job": (summary.get(OFFLINE, {}).get("candidates"), 4096, ">="),
        "gym-pusht success in 50 steps": (pusht_success(), 0.96, ">="),
    }
    rows = {key: {"value": value, "bound": bound, "op": op} for key, (value, bound, op) in found.items()}
    return {key: row if row["value"] is not None else {**row, "reason": "not run"} for key, row in rows.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/planning"))
    parser.add_argument("--only", nargs="+", choices=(*ARMS, DECISION, OFFLINE), default=[*ARMS, DECISION, OFFLINE])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--episodes", type=int, default=Sizes.episodes)
    parser.add_argument("--candidates", type=int, default=Sizes.candidates)
    parser.add_argument("--minutes", type=float, default=Sizes.minutes, help="of robot data")
    parser.add_argument("--steps", type=int, default=Sizes.steps, help="of post-training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="for tests: tiny, and writes no result")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sizes = (
        QUICK
        if given.quick
        else Sizes(episodes=given.episodes, candidates=given.candidates, minutes=given.minutes, steps=given.steps)
    )
    run_queue(Bench(given.run, sizes), given, keep=not given.quick)


def run_queue(bench: Bench, given: argparse.Namespace, *, keep: bool) -> dict[str, Any]:
    """Whatever is missing; returns the summary."""
    file, sizes = bench.folder / "cells.json", bench.sizes
    bench.folder.mkdir(parents=True, exist_ok=True)
    stored = json.loads(file.read_text()) if file.exists() else {"cells": {}, "single": {}}
    for task in given.tasks:
        for split in given.splits:
            seeds = list(islice(errand_seeds(task, split, first_index=FIRST), sizes.episodes))
            for arm in (arm for arm in ARMS if arm in given.only):
                rows = stored["cells"].setdefault(f"{arm}/{task}/{split}", [])
                with progress_line(f"{arm}, {task}") as report:
                    for number in range(len(rows), sizes.episodes):
                        rows.append(bench.episode(arm, task, seeds[number], number))
                        write_json(file, stored)
                        wins = sum(row["success"] for row in rows)
                        report(len(rows), sizes.episodes, f"{split}: {wins} of {len(rows)} done")
                if not rows:
                    del stored["cells"][f"{arm}/{task}/{split}"]
    measures: dict[str, Callable[[], dict]] = {DECISION: bench.seconds_per_decision, OFFLINE: bench.offline}
    for name, measure in measures.items():
        if name in given.only and name not in stored["single"]:
            stored["single"][name] = measure()
            write_json(file, stored)
    summary = {**summarise(stored["cells"]), **stored["single"]}
    if keep:
        conditions = {
            "machine": f"{platform.machine()}, {given.threads} threads",
            "preset": "nano",
            "sizes": sizes.__dict__,
            "splits": {split: f"scenes from number {FIRST} on" for split in SPLITS},
            "policies": "scripted, with the mistakes of apps/planning/ensemble.py",
            "search": "iCEM over strokes, around where a calibrated camera sees the object",
        }
        found = goals(summary)
        facts = {"conditions": conditions, "metrics": summary, "goals": found}
        write_json(RESULTS, {"name": "planning", **today(), **facts})
        print(json.dumps(found, indent=1), flush=True)
    return summary


if __name__ == "__main__":
    main()
