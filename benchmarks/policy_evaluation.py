"""Does success in the world model tell which policy is better? `python -m benchmarks.policy_evaluation --run FOLDER`.

Policies act in the dojo and in the model from the same starts: push the one object on the table by `goals.PUSHED`
within four seconds. The truth is the dojo's; in the model a judge looks where the object stands at the end, with a
finder that learned from scripted hands in other scenes. Beside it stand a reward model from the same episodes, a
baseline that only compares pixels, and the judge on the *true* frames, which bounds what a perfect world model would
give with it.

`POLICIES` is the list: kinds, demonstrators, minutes, widths and seeds differ, no two are checkpoints of one run, and
it was fixed by a commit before anything was scored. Demonstrations are seeds of the train split, starts of test and
ood_shape, so no policy has met a start. They are eleven, the most whose permutations are all tried. The planner plans
in a model of its own kind, weights and data; what it shares with the judged one is the tokenizer.

A queue: data, policies and the reward model are made when they are missing, each portion of starts is written when it
ends, and a rerun goes on; `--only NAME` does some policies, `--train-only` scores nothing, `--truth-only` lets them act
in the dojo alone, which serves every model.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.arms import finished, regression_config, regression_training
from dreamdojo import foundation
from dreamdojo.apps.planning.errands import BEHIND
from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.objectives import frames_of as frames_in
from dreamdojo.apps.planning.planner import Planner, always
from dreamdojo.apps.planning.policy import PlannedPolicy
from dreamdojo.apps.planning.search import icem
from dreamdojo.apps.planning.space import Push
from dreamdojo.apps.policy_eval.compare import Comparison, Protocol, Score, Truth, compare, score_policy, true_outcomes
from dreamdojo.apps.policy_eval.report import policy_report
from dreamdojo.apps.policy_eval.starts import Starts, dojo_starts
from dreamdojo.apps.policy_eval.success import Judge
from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dojo.difficulty import GENTLE
from dreamdojo.dojo.goals import pushed
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.evaluate_policy import (
    PIXELS,
    POSE,
    REWARD,
    frames_of,
    learn_to_find,
    learn_to_follow,
    learn_to_judge,
)
from dreamdojo.evaluation.regression import (
    LatentPredictor,
    RegressionSession,
    load_regression_session,
    train_predictor,
)
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.reward import JudgeError, RewardTraining
from dreamdojo.files import write_json
from dreamdojo.metrics.agreement import pearson
from dreamdojo.policies.cloning import (
    ClonedPolicy,
    PixelPolicyConfig,
    PixelPolicyTraining,
    demonstrations,
    train_policy,
)
from dreamdojo.policies.scripted import ObjectFinder, ScriptedPush, ScriptedPushConfig
from dreamdojo.policies.simple import RandomPolicy, ShakyPolicy
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import CAMERA, Session, load_session, tokenizer_folder
from dreamdojo.stages import Episodes, Run, link_model, robot_source
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world import Observation, Policy

NAME = "policy_evaluation"
RESULTS = Path(__file__).parent / "results" / f"{NAME}.json"
ONE = replace(GENTLE, objects=(1, 1))
"""One object, gentle hands."""
STEADY, CLUMSY = ONE, replace(ONE, clumsiness=0.035, tremor=0.05)
FRAMES = 41
STEPS = FRAMES - 1
JUDGED_BY = POSE
"""The judge that counts."""


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Episodes to clone: who shows what, and how much of it."""

    episodes: int
    """Of four seconds: 100 are 6.8 minutes."""
    first: int
    """Number of the first seed in the train split; ranges do not overlap."""
    task: str = "push_away"
    clumsy: bool = False
    """A hand that misses its aim by centimetres and shakes."""


@dataclass(frozen=True, kw_only=True)
class Cloned:
    """A network of its own data and seed."""

    shown: Demonstrations
    steps: int = 3000
    width: int = 32
    seed: int = 0
    execute: int = 2
    noise: float = 0.0
    """Added to its actions, as a share of half of each range."""


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """A script on top of an object finder of its own seed."""

    config: ScriptedPushConfig
    seed: int


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Plans its push in a world model of its own: a deterministic predictor, trained on its own episodes.

    Neither weights nor data are those of the model that judges; the tokenizer is.
    """

    shown: Demonstrations
    seed: int
    steps: int = 1000
    """Of the predictor."""
    candidates: int = 8
    """Of a round."""
    iterations: int = 2
    """Rounds."""


@dataclass(frozen=True, kw_only=True)
class Random:
    """Wandering actions."""

    strength: float = 0.5


POLICIES: Mapping[str, Cloned | Scripted | Planned | Random] = {
    "cloned, 400 demonstrations": Cloned(shown=Demonstrations(episodes=400, first=1_000_000), seed=1),
    "cloned, 150 demonstrations": Cloned(shown=Demonstrations(episodes=150, first=1_010_000), seed=2),
    "cloned, 60 demonstrations": Cloned(shown=Demonstrations(episodes=60, first=1_020_000), seed=3),
    "cloned, 300 clumsy ones": Cloned(shown=Demonstrations(episodes=300, first=1_030_000, clumsy=True), seed=4),
    "cloned, 200, small and shaking": Cloned(
        shown=Demonstrations(episodes=200, first=1_040_000), width=16, seed=5, noise=0.3
    ),
    "cloned, 200, pushes any way": Cloned(
        shown=Demonstrations(episodes=200, first=1_050_000, task="push"), seed=6, execute=4
    ),
    "cloned, 100 of wandering about": Cloned(
        shown=Demonstrations(episodes=100, first=1_060_000, task="wander"), seed=7
    ),
    "scripted": Scripted(config=ScriptedPushConfig(), seed=8),
    "scripted, aim off by 4 cm": Scripted(config=ScriptedPushConfig(aim_error=0.04, tremor=0.03), seed=9),
    "planner": Planned(shown=Demonstrations(episodes=300, first=1_070_000, task="push"), seed=11),
    "random": Random(),
}
LEARNED = tuple(name for name, each in POLICIES.items() if isinstance(each, Cloned))
"""The policies under test, and those of them that learned to act from data."""

FINDER = Demonstrations(episodes=300, first=1_200_000, task="push")
JUDGE_TASKS = {"push_away": 0.4, "push": 0.2, "wander": 0.4}
JUDGE = SimulateSettings(
    body="arm",
    episodes=400,
    first_index=1_100_000,
    frames=FRAMES,
    difficulty=replace(ONE, clumsiness=0.03),
    tasks=JUDGE_TASKS,
    truth="poses",
)
"""What the reward model learns from: scripted hands, some of which miss; none of the policies under test."""

STARTS = {"test": 7_000, "ood_shape": 7_000}
"""Split -> number of its first seed; nothing else uses these."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything; `QUICK` is for tests."""

    starts: int = 400
    batch: int = 25
    share: float = 1.0
    """Of the demonstrations and steps."""
    reward_steps: int = 1500
    """Of the reward model."""

    def of(self, number: int, least: int = 4) -> int:
        """That share of a number."""
        return max(least, round(self.share * number))


QUICK = Amounts(starts=4, batch=2, share=0.01, reward_steps=10)


class Bench:
    """Data, judges and policies in one folder, and the world model that is examined."""

    def __init__(self, folder: Path, model: Path, amounts: Amounts, *, device: str = "auto", workers: int = 2) -> None:
        self.folder, self.model, self.amounts, self.workers = folder, model, amounts, workers
        self.compute = choose_compute(device)  # pyright: ignore[reportArgumentType]
        self.session: Session = load_session(model, device=self.compute.device.type)  # pyright: ignore[reportArgumentType]

    @property
    def body(self) -> Embodiment:
        """Who acts."""
        return self.session.embodiment

    def new_simulation(self) -> Simulation:
        """A scene with one object."""
        return Simulation("arm", difficulty=ONE, fps=self.session.fps)

    def data(self, name: str, settings: SimulateSettings) -> Dataset:
        """A dataset, simulated where it is missing."""
        root = self.folder / "data" / name
        if not (root / "meta" / "info.json").exists():
            with progress_line(f"simulate {name}") as report:
                simulate(settings, root, workers=self.workers, progress=report)
        return open_dataset(root)

    def shown(self, shown: Demonstrations) -> Dataset:
        """Demonstrations of four seconds."""
        settings = SimulateSettings(
            body="arm",
            episodes=self.amounts.of(shown.episodes),
            first_index=shown.first,
            frames=FRAMES,
            difficulty=CLUMSY if shown.clumsy else STEADY,
            tasks={shown.task: 1.0},
            truth="poses",
        )
        return self.data(f"{shown.task}-{shown.first}", settings)

    def policy(self, name: str) -> Policy:
        """A policy of the list, made where it is missing."""
        kind = POLICIES[name]
        if isinstance(kind, Cloned):
            return self._cloned(name, kind)
        if isinstance(kind, Scripted):
            return ScriptedPush(self._finder(name, kind.seed), self.body, kind.config)
        if isinstance(kind, Planned):
            return self._planned(name, kind)
        return RandomPolicy(self.body, strength=kind.strength, chunk=self.session.actions_per_step)

    def _cloned(self, name: str, kind: Cloned) -> Policy:
        dataset = self.shown(kind.shown)
        session = self.session
        frames = frames_of(dataset, self.folder, rate=session.fps, size=session.size, workers=self.workers)
        indices = [episode.index for episode in dataset.episodes]
        config = PixelPolicyConfig(
            embodiment=self.body,
            camera=CAMERA,
            size=session.size,
            rate=session.fps,
            width=kind.width,
            execute=kind.execute,
        )
        fit = replace(PixelPolicyTraining().fit, steps=self.amounts.of(kind.steps), seed=kind.seed)
        with progress_line(name) as report:
            model = train_policy(
                config,
                replace(PixelPolicyTraining(), fit=fit),
                demonstrations(dataset, indices, frames, rate=session.fps),
                self.folder / "policies" / name,
                compute=self.compute,
                about={"policy": name, **asdict(kind)},
                report=report,
            )
        policy = ClonedPolicy(model, self.compute)
        return ShakyPolicy(policy, self.body, noise=kind.noise) if kind.noise else policy

    def _planned(self, name: str, kind: Planned) -> Policy:
        dataset, session = self.shown(kind.shown), self.session
        finder, world = self._finder(name, kind.seed), self._predictor(name, kind, dataset)
        elites = max(2, kind.candidates // 4)
        method = icem(candidates=kind.candidates, iterations=kind.iterations, elites=elites)

        def decider_of(observation: Observation) -> Planner:
            place = finder.find(observation.frames[CAMERA][:, -1])[0][0]
            return Planner(
                space=always(push_around(place, self.body, session.fps)),
                method=method,
                objective=PushedAway(finder=finder, place=place),
            )

        return PlannedPolicy(world, decider_of, length=STEPS)

    def _predictor(self, name: str, kind: Planned, dataset: Dataset) -> RegressionSession:
        """The planner's model, trained where it is missing."""
        preset = replace(NANO, size=self.session.size, rate=self.session.fps)
        run = Run(folder=self.folder / "planner", preset=preset, compute=self.compute, workers=self.workers)
        link_model(tokenizer_folder(self.model), run.folder / "tokenizer")
        training = regression_training(self.amounts.of(kind.steps), preset, kind.seed)
        folder = run.folder / "predictor"
        if not finished(folder, training.fit):
            torch.manual_seed(kind.seed)
            model = LatentPredictor(regression_config(preset, self.body))
            indices = tuple(episode.index for episode in dataset.episodes)
            source = robot_source(run, Episodes(dataset=dataset, indices=indices), self.body)
            with progress_line(f"{name}: its model") as report:
                train_predictor(model, training, [source], folder, compute=self.compute, report=report)
        return load_regression_session(folder, device=self.compute.device.type)  # pyright: ignore[reportArgumentType]

    def _finder(self, name: str, seed: int) -> ObjectFinder:
        """What sees the object, for who does not learn to look by acting."""
        dataset = self.shown(FINDER)
        frames = frames_of(dataset, self.folder, rate=self.session.fps, size=self.session.size, workers=self.workers)
        # each sees a third of the scenes, drawn by its seed, so that their mistakes are their own
        mine = np.random.default_rng(seed).permutation(len(dataset.episodes))[: max(len(dataset.episodes) // 3, 2)]
        folder = self.folder / "policies" / name
        return learn_to_find(dataset, mine.tolist(), frames, folder, steps=self.amounts.of(500), seed=seed)

    @cached_property
    def judges(self) -> tuple[dict[str, Judge], dict[str, JudgeError]]:
        """Where the object is seen, the reward model and the pixel baseline; their errors, on predicted frames too."""
        dataset = self.data("judge", replace(JUDGE, episodes=self.amounts.of(JUDGE.episodes, least=16)))
        training = RewardTraining()
        pose, errors = learn_to_follow(
            dataset,
            self.session,
            self.folder,
            steps=STEPS,
            training_steps=self.amounts.of(1000),
            workers=self.workers,
        )
        others, wrong = learn_to_judge(
            dataset,
            self.session,
            self.folder,
            task="push",
            steps=STEPS,
            training=replace(training, fit=replace(training.fit, steps=self.amounts.reward_steps)),
            compute=self.compute,
            workers=self.workers,
        )
        return {POSE: pose, **others}, errors | wrong

    def starts(self, split: str) -> Starts:
        """The real first frames that all policies share."""
        with progress_line(f"starts {split}") as report:
            return dojo_starts(
                self.new_simulation,
                split=split,
                count=self.amounts.starts,
                size=self.session.size,
                first_index=STARTS[split],
                report=report,
            )

    def score(self, name: str, split: str, starts: Starts) -> Score:
        """A policy from all starts, in the model and in truth."""
        with progress_line(f"{split}: {name}") as report:
            return score_policy(
                name,
                self.policy(name),
                self.session,
                starts,
                self.judges[0],
                self.protocol,
                truth=self.truth,
                folder=self.folder / "episodes" / split / name,
                about_model={"model": model_hash(self.model), "sampler steps": self.session.sampler.steps},
                report=report,
            )

    def try_in_truth(self, name: str, split: str, starts: Starts) -> None:
        """What the policy does in the dojo, kept for every model."""
        folder = self.folder / "episodes" / split / name
        with progress_line(f"{split}: {name}") as report:
            true_outcomes(
                name, self.policy(name), starts, self.judges[0], self.protocol, self.truth, folder, report=report
            )

    @property
    def protocol(self) -> Protocol:
        """How all are tried."""
        return Protocol(steps=STEPS, batch=self.amounts.batch)

    @property
    def truth(self) -> Truth:
        """The dojo."""
        k = self.session.actions_per_step
        world = partial(TrueWorld, self.new_simulation, size=self.session.size, actions_per_step=k)
        return Truth(world=world, goal=pushed)


@dataclass(frozen=True, kw_only=True)
class PushedAway:
    """The planner's objective: how far the object seems to be from where it stood at the end, up to `enough`."""

    finder: ObjectFinder
    place: Float[Tensor, " 2"]
    """Where it stood, metres."""
    enough: float = 0.08
    """Metres; what seems further away may be something else."""
    last: int = 3
    """Frames at the end that are looked at."""

    def __call__(self, imagined: Imagined) -> Float[Tensor, " n"]:
        """Costs, metres below zero; an object that is not found has not moved."""
        ends = frames_in(imagined, CAMERA)[:, -self.last :]
        place, found = self.finder.find(ends.flatten(0, 1))
        moved = torch.where(found, (place - self.place).norm(dim=1), 0.0).clamp(max=self.enough)
        return -moved.unflatten(0, ends.shape[:2]).mean(dim=1)


def push_around(place: Float[Tensor, " 2"], body: Embodiment, fps: float) -> Push:
    """Pushes from behind an object at `place` to somewhere around it: to its middle, often too short, and further."""
    x, y = place.tolist()
    return Push(
        embodiment=body,
        fps=fps,
        centre=(x - BEHIND, y, x, y),
        spread=(0.02, 0.03, 0.06, 0.06),
        horizon=STEPS,
    )


def of_true_frames(comparison: Comparison) -> float:
    """Pearson of the judge's word on true frames against the truth: what a perfect world model would reach."""
    truth = comparison.rates(None)
    said = torch.tensor([score.real[JUDGED_BY].float().mean().item() for score in comparison.scores])
    return pearson(truth, said)


def metrics_of(comparison: Comparison) -> dict[str, Any]:
    """Everything about one split."""
    learned = comparison.agreement(JUDGED_BY, LEARNED)
    return {
        **comparison.to_json(),
        "learned only": None if learned is None else learned.to_json(),
        "pearson of the judge on true frames": _finite(of_true_frames(comparison)),
        "starts": len(next(iter(comparison.scores[0].model.values()))),
    }


def goals(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the issue asks for, from the metrics of both splits; null with a reason where it was not measured."""
    found: dict[str, dict[str, Any]] = {}

    for split in STARTS:
        rows = metrics.get(split)
        missing = "not run" if rows is None else "undefined: these policies do not differ, or are fewer than two"

        def add(key: str, value: float | None, bound: float, op: str, *, reason: str = missing) -> None:
            found[key] = {"value": value, "bound": bound, "op": op} | ({"reason": reason} if value is None else {})

        agreed = (rows or {}).get("agreement", {})
        first, base, floor = agreed.get(JUDGED_BY), agreed.get(PIXELS), (rows or {}).get("floor")
        learned = (rows or {}).get("learned only")
        r = first and first["pearson"]["mean"]
        add(f"{split}: policies", rows and len(rows["policies"]), 8, ">=")
        add(f"{split}: paired starts per policy", rows and rows["starts"], 400, ">=")
        add(f"{split}: Pearson", r, 0.9, ">=")
        add(f"{split}: Pearson, learned policies only", learned and learned["pearson"]["mean"], 0.9, ">=")
        # a baseline without any correlation (constant) is one of 0
        above = None if r is None or base is None else r - (base["pearson"]["mean"] or 0.0)
        add(f"{split}: Pearson above that of pixel similarity", above, 0.0, ">=")
        add(f"{split}: permutation p", first and first["permutation_p"], 0.01, "<=")
        for convention, drawn in (
            ("weighed by true gaps", "mmrv_truth"),
            ("weighed by gaps in the model", "mmrv_model"),
        ):
            excess = None if first is None or floor is None else first["mmrv"][convention] - floor[drawn]
            add(f"{split}: MMRV {convention}, above its floor", excess, 0.02, "<=")
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def write(
    bench: Bench, comparisons: Mapping[str, Comparison], results: Path | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The results file of all splits so far, and a report of each beside the run."""
    errors = bench.judges[1]
    metrics: dict[str, Any] = {split: metrics_of(each) for split, each in comparisons.items()}
    found = goals(metrics)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {bench.compute.reason}"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    conditions = {
        "machine": machine,
        "model": model_hash(bench.model),
        "sampler steps": bench.session.sampler.steps,
        "task": "push the one object by 4 cm within 40 actions at 10 per second",
        "policies": {name: {"kind": type(kind).__name__, **asdict(kind)} for name, kind in POLICIES.items()},
        "starts": {split: {"first seed": first, "count": bench.amounts.starts} for split, first in STARTS.items()},
        "seed": 0,
        **arguments,
    }
    value = {
        "name": NAME,
        "commit": commit.stdout.strip(),
        "date": date.today().isoformat(),
        "conditions": conditions,
        "metrics": {"judges": {name: error.to_json() for name, error in errors.items()}, **metrics},
        "goals": found,
    }
    for path in (bench.folder / "results.json", results):
        if path is not None:
            write_json(path, value)
    for split, comparison in comparisons.items():
        write_report(
            bench.folder / f"report-{split}.html",
            policy_report(
                comparison,
                title=f"Policies in a world model: {split}",
                subtitle=f"{len(comparison.scores)} policies from {bench.amounts.starts} starts each",
                facts=(value["date"], machine),
                data_sheet={key: str(each) for key, each in conditions.items() if key != "policies"},
                rate=bench.session.fps,
                judge_errors=errors,
                groups={"learned only": LEARNED},
            ),
        )
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--model", type=Path, help="folder of the world model; the student that ships by default")
    parser.add_argument("--only", nargs="+", choices=tuple(POLICIES), default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--splits", nargs="+", choices=tuple(STARTS), default=list(STARTS))
    parser.add_argument("--train-only", action="store_true", help="make data and policies, and score nothing yet")
    parser.add_argument("--truth-only", action="store_true", help="let them act in the dojo, and not in the model")
    parser.add_argument("--quick", action="store_true", help="for tests: a few starts; writes no result")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    shipped = foundation("nano")
    if given.model is None and shipped is None:
        raise SystemExit("no models ship with this package: make them with `make weights`, or give --model")
    model = given.model or shipped / "student"
    bench = Bench(given.run, model, QUICK if given.quick else Amounts(), device=given.device, workers=given.workers)
    for name in given.only:
        bench.policy(name)
    if given.train_only:
        return
    comparisons = {}
    whole = set(given.only) == set(POLICIES) and not given.quick
    for split in given.splits:
        starts = bench.starts(split)
        if given.truth_only:
            for name in given.only:
                bench.try_in_truth(name, split, starts)
            continue
        scores = [bench.score(name, split, starts) for name in given.only]
        comparisons[split] = compare(scores, (JUDGED_BY, REWARD, PIXELS))
        value = write(bench, comparisons, RESULTS if whole else None, {"quick": given.quick})
        print(json.dumps(value["goals"], indent=1), flush=True)


if __name__ == "__main__":
    main()
