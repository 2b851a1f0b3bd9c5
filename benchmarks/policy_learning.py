"""Does a policy that learned in a dream work in the world? `python -m benchmarks.policy_learning --run FOLDER`.

PPO of Stable-Baselines3 learns in `dreamdojo/World-v0`, sixteen dreams stepped as one, to bring the gripper in front of
the one object on the table within 1.5 seconds (`benchmarks/reaching.py`); it sees and is rewarded by what two small
networks make out in the predicted pictures, and never meets the dojo. Then it acts in the dojo, where the true
projections of gripper and object decide. Arms, all with the same eyes and the same two numbers to move by:

    learned in the dream   the policy; one for each seed
    untrained              the same network before it learned
    random                 moves at random
    script                 straight to the mark, by who knows how the camera stands: what these eyes allow

Dreams begin at scenes of the train split that nothing else uses, evaluation at scenes of test and ood_shape. Seeds of
one start are averaged before an interval over starts is taken, as they are not independent.

A queue: eyes, every round of learning and every (arm, seed, split) are written when they end, and a rerun goes on;
`--only ARM` does some arms. `report.html` in the run folder has the figure: success and return against steps in the
dream, in the dream and in the dojo. It needs `pip install "dreamdojo[dojo,learning]"`.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from benchmarks.arms import today
from benchmarks.cells import Cells
from benchmarks.policy_evaluation import ONE
from benchmarks.policy_learning_report import ARMS, LEARNED, RANDOM, SCRIPT, UNTRAINED, WORLDS, Rows, report_of, share
from benchmarks.reaching import REACHED, Choose, Eyes, Hand, Reacher, Reaching, aim, reached, true_distance, wander
from dreamdojo import foundation
from dreamdojo.apps.policy_eval.act import act
from dreamdojo.apps.policy_eval.starts import Starts, dojo_starts
from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.truth import GroundTruth
from dreamdojo.evaluate_policy import frames_of
from dreamdojo.evaluation.effector import EffectorProbeConfig, train_effector_probe
from dreamdojo.evaluation.report import (
    Clip,
    Panel,
    write_report,
)
from dreamdojo.evaluation.stored_probes import FILE, load_probes, save_probes
from dreamdojo.files import write_json, written_whole
from dreamdojo.judge import small_labels
from dreamdojo.metrics import Interval, mean_interval, paired_interval
from dreamdojo.policies.scripted import train_finder
from dreamdojo.rollout.session import Session, load_session
from dreamdojo.rollout.stable_baselines import StableBaselinesEnv
from dreamdojo.stages import channels_first
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world import Observation

NAME = "policy_learning"
RESULTS = Path(__file__).parent / "results" / f"{NAME}.json"
SPLITS = {"test": 8_000, "ood_shape": 8_000}
"""Split -> number of its first seed; nothing else uses these."""
TRAIN_FIRST, EYES_FIRST = 1_310_000, 1_300_000
"""Numbers of the first seeds, in the train split, of the dreams' first frames and of what the eyes learn from."""
HORIZON = 15
"""Actions of an episode, at ten per second."""
WORKS, GAIN = 0.8, 0.1
"""Success in the dojo that counts as a policy that works, and by how much it surely has to beat the baselines."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything; `QUICK` is for tests."""

    rounds: int = 10
    """Of learning; after each the policy is looked at."""
    round_steps: int = 2400
    """Steps of all dreams together in a round."""
    rows: int = 16
    """Dreams stepped as one."""
    seeds: int = 3
    pool: int = 400
    """First frames that dreams begin with."""
    curve: int = 64
    """Starts from which the policy is looked at after each round: the first of test."""
    starts: int = 200
    """Of each split."""
    batch: int = 32
    """Starts that run side by side."""
    eyes_episodes: int = 120
    """Of four seconds each."""
    eyes_steps: int = 500
    """Of each of the two networks."""


QUICK = Amounts(
    rounds=2, round_steps=60, rows=2, seeds=1, pool=2, curve=2, starts=2, batch=2, eyes_episodes=4, eyes_steps=4
)


class Bench:
    """Eyes, starts and policies in one folder, and the world model in which they learn."""

    def __init__(self, folder: Path, model: Path, amounts: Amounts, *, device: str = "auto", workers: int = 2) -> None:
        self.folder, self.amounts, self.workers = folder, amounts, workers
        compute = choose_compute(device)  # pyright: ignore[reportArgumentType]
        self.session: Session = load_session(model, device=compute.device.type)  # pyright: ignore[reportArgumentType]
        self.hand = Hand(embodiment=self.session.embodiment)
        self.made_of = {"model": model_hash(model), "sampler steps": self.session.sampler.steps, **asdict(amounts)}
        self.starts = cache(self._starts)

    def new_simulation(self) -> Simulation:
        """A scene with one object."""
        return Simulation("arm", difficulty=ONE, fps=self.session.fps)

    @cached_property
    def eyes(self) -> Eyes:
        """What looks at pictures, trained on renderings where it is missing."""
        folder, session, steps = self.folder / "eyes", self.session, self.amounts.eyes_steps
        root = folder / "data"
        if not (root / "meta" / "info.json").exists():
            settings = SimulateSettings(
                body="arm",
                episodes=self.amounts.eyes_episodes,
                first_index=EYES_FIRST,
                frames=41,
                difficulty=ONE,
                tasks={"push": 0.5, "wander": 0.5},
            )
            with progress_line("simulate") as report:
                simulate(settings, root, workers=self.workers, progress=report)
        dataset = open_dataset(root)
        truth, indices = GroundTruth.open(root), [episode.index for episode in dataset.episodes]
        cached = frames_of(dataset, folder, rate=session.fps, size=session.size, workers=self.workers)

        def joined(read: Callable[[int], np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate([read(index) for index in indices]))

        frames = joined(lambda i: channels_first(cached[i]))
        if not (folder / FILE).exists():
            effector = train_effector_probe(
                frames,
                joined(lambda i: small_labels(truth.segmentation(i), session.size)),
                joined(truth.effector_pixel).float(),
                joined(truth.effector_visible),
                joined(lambda i: np.full(len(cached[i]), i)),
                config=EffectorProbeConfig(steps=steps),
            )
            save_probes(folder, effector, None)
        finder = train_finder(
            frames,
            joined(lambda i: truth.object_pixels(i)[:, 0]).float(),
            joined(lambda i: truth.object_poses(i)[:, 0, :2]).float(),
            folder / "finder",
            steps=steps,
        )
        return Eyes(load_probes(folder)[0], finder)

    def _starts(self, split: str) -> Starts:
        """The real first frames that all arms share, or, of the train split, those that dreams begin with."""
        count = self.amounts.pool if split == "train" else max(self.amounts.starts, self.amounts.curve)
        with progress_line(f"starts {split}") as report:
            return dojo_starts(
                self.new_simulation,
                split=split,
                count=count,
                size=self.session.size,
                first_index=TRAIN_FIRST if split == "train" else SPLITS[split],
                report=report,
            )

    @cached_property
    def dreams(self) -> StableBaselinesEnv:
        """The environment to learn in."""
        pool = self.starts("train")

        def start(index: int) -> Observation:
            return pool.part(index % len(pool), index % len(pool) + 1).observation

        envs = gymnasium.make_vec(
            "dreamdojo.rollout.env:dreamdojo/World-v0",
            num_envs=self.amounts.rows,
            vectorization_mode="vector_entry_point",
            world=self.session,
            starts=start,
            horizon=HORIZON // self.session.actions_per_step,
        )
        return StableBaselinesEnv(Reaching(envs, self.eyes, self.hand))

    def untrained(self, seed: int) -> PPO:
        """PPO before it learned."""
        per_update = 2 * HORIZON // self.session.actions_per_step
        return PPO(
            "MlpPolicy",
            self.dreams,
            learning_rate=2e-3,
            n_steps=per_update,
            batch_size=per_update * self.amounts.rows // 4,
            gamma=0.9,
            policy_kwargs={"log_std_init": -0.5},
            seed=seed,
            device="cpu",
        )

    def learned(self, seed: int) -> tuple[PPO, Rows]:
        """The policy of a seed and what was seen of it after each round; rounds that are there are not done again."""
        amounts, path = self.amounts, self.folder / "learned" / f"{seed}.pt"
        ppo, rows = self.untrained(seed), []
        if path.exists():
            stored = torch.load(path, weights_only=True)
            ppo.policy.load_state_dict(stored["policy"])
            ppo.policy.optimizer.load_state_dict(stored["optimizer"])
            rows = stored["rows"]
        with progress_line(f"{LEARNED}, seed {seed}") as report:
            while len(rows) <= amounts.rounds:
                done = amounts.round_steps * max(len(rows) - 1, 0)
                if rows:
                    done += learn_round(ppo, amounts.round_steps, number=len(rows), seed=seed, done=done, report=report)
                rows.append({"steps": done, **self._seen_after_round(ppo)})
                kept = {"policy": ppo.policy.state_dict(), "optimizer": ppo.policy.optimizer.state_dict(), "rows": rows}
                with written_whole(path) as temporary:
                    torch.save(kept, temporary)
                rates = [np.mean(rows[-1][world]["success"]) for world in WORLDS]
                words = "success {:.0%} in the dream, {:.0%} in the dojo".format(*rates)
                report(len(rows) - 1, amounts.rounds, words)
        return ppo, rows

    def _seen_after_round(self, ppo: PPO) -> dict[str, Any]:
        starts = self.starts("test").part(0, self.amounts.curve)
        return {world: self.tried(by(ppo), starts, world) for world in WORLDS}

    def tried(self, choose: Choose, starts: Starts, world: str, *, seed: int = 0) -> dict[str, Any]:
        """Success (0 or 1), return and how wrong the eyes were at the end, pixels, from each start of a world."""
        policy = Reacher(self.eyes, self.hand, choose, self.session.actions_per_step)
        found: dict[str, list[float]] = {"success": [], "return": [], "eyes": []}
        for first in range(0, len(starts), self.amounts.batch):
            part = starts.part(first, first + self.amounts.batch)
            if world == "dream":
                frames = act(self.session, policy, part.observation, steps=HORIZON, seed=seed + first).frames
                truth = None
            else:
                frames, truth = self.in_the_dojo(policy, part, seed=seed + first)
            seen = torch.stack([sight.distance for sight in self.eyes.follow(frames)], dim=1)
            if truth is not None:
                wrong = (seen[:, -1] - truth).abs() * self.session.size[1]
                found["eyes"] += wrong[truth.isfinite()].tolist()
            found["success"] += reached(seen[:, -1] if truth is None else truth).int().tolist()
            found["return"] += (-seen[:, 1:].sum(dim=1)).tolist()
        return found

    def in_the_dojo(self, policy: Reacher, starts: Starts, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """What is seen, `b t c h w`, and the true distance at the end, `b`; infinite where the physics gave up."""
        k = self.session.actions_per_step
        world = TrueWorld(self.new_simulation, starts.names, size=self.session.size, actions_per_step=k)
        frames = act(world, policy, None, steps=HORIZON, seed=seed).frames
        distance = torch.where(torch.from_numpy(world.lost), torch.inf, true_distance(world))
        world.close()
        return frames, distance

    def arm(self, arm: str, seed: int) -> Choose:
        """How an arm moves."""
        if arm == LEARNED:
            return by(self.learned(seed)[0])
        return by(self.untrained(seed)) if arm == UNTRAINED else {RANDOM: wander, SCRIPT: aim}[arm]

    def seeds(self, arm: str) -> range:
        """Those of an arm."""
        return range(1 if arm == SCRIPT else self.amounts.seeds)

    def videos(self, seed: int, count: int = 4) -> tuple[Clip, ...]:
        """The learned policy from the first starts of test, in the dream beside the dojo."""
        part = self.starts("test").part(0, count)
        policy = Reacher(self.eyes, self.hand, self.arm(LEARNED, seed), self.session.actions_per_step)
        dream = act(self.session, policy, part.observation, steps=HORIZON).frames
        real, distance = self.in_the_dojo(policy, part)
        return tuple(
            Clip(
                title=f"scene {name}: {'reached' if reached(distance)[row] else 'not reached'} in the dojo",
                panels=(Panel(label="dream", frames=dream[row]), Panel(label="dojo", frames=real[row])),
                context=1,
            )
            for row, name in enumerate(part.names)
        )


def learn_round(ppo: PPO, steps: int, *, number: int, seed: int, done: int, report: Callable[..., None]) -> int:
    """Learn for so many steps more; what is drawn depends on the seed and the round alone. Returns the steps taken."""
    ppo.num_timesteps = done
    ppo._last_obs = None  # begins with new episodes
    ppo.set_random_seed(1000 * seed + number)

    def show(local: dict[str, Any], _: Any) -> bool:
        report(ppo.num_timesteps - done, steps, f"steps of round {number}")
        return True

    ppo.learn(steps, callback=show, reset_num_timesteps=False)
    return ppo.num_timesteps - done


def by(ppo: PPO) -> Choose:
    """What PPO holds best."""
    return lambda seen, _: ppo.predict(seen, deterministic=True)[0]


def over_seeds(cells: Mapping[str, Any], world: str, what: str) -> Tensor:
    """One number per start: the mean of the seeds that are there."""
    return torch.tensor([scores[world][what] for scores in cells.values()], dtype=torch.float64).float().mean(dim=0)


def summarise(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Success of every arm in both worlds, and what is compared start by start."""
    found: dict[str, Any] = {}
    for split in SPLITS:
        cells = {arm: scores[key] for arm in ARMS if (key := f"{arm}/{split}") in scores}
        rows: dict[str, Any] = {}
        for arm, by_seed in cells.items():
            rows[arm] = {
                world: {
                    "success": success_of(by_seed, world).to_json(),
                    "by seed": [float(np.mean(each[world]["success"])) for each in by_seed.values()],
                    "return": mean_interval(over_seeds(by_seed, world, "return")).to_json(),
                }
                for world in WORLDS
            }
            rows[arm]["eyes off, px"] = float(np.mean([x for each in by_seed.values() for x in each["dojo"]["eyes"]]))
            pair = [over_seeds(by_seed, world, "success") for world in WORLDS]
            rows[arm]["dream minus dojo"] = paired_interval(*pair).to_json()
        for arm in cells.keys() & {UNTRAINED, RANDOM, SCRIPT}:
            if LEARNED in cells:
                pair = [over_seeds(cells[name], "dojo", "success") for name in (LEARNED, arm)]
                rows[LEARNED][f"minus {arm}"] = paired_interval(*pair).to_json()
        if rows:
            found[split] = rows
    return found


def success_of(by_seed: Mapping[str, Any], world: str) -> Interval:
    """Success of an arm."""
    return share(torch.tensor([scores[world]["success"] for scores in by_seed.values()]))


def goals(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a policy that works means, in both splits."""
    found = {}
    for split in SPLITS:
        row = metrics.get(split, {}).get(LEARNED, {})
        values = {"success in the dojo": (row.get("dojo", {}).get("success", {}).get("mean"), WORKS)}
        for arm in (UNTRAINED, RANDOM):
            values[f"success in the dojo minus {arm}, lower end"] = (row.get(f"minus {arm}", {}).get("low"), GAIN)
        for key, (value, bound) in values.items():
            found[f"{split}: {key}"] = {"value": value, "bound": bound, "op": ">="} | (
                {"reason": "not run"} if value is None else {}
            )
    return found


def run_queue(bench: Bench, only: Sequence[str], *, keep: bool) -> dict[str, Any]:
    """Whatever is missing; returns the results."""
    cells = Cells(bench.folder / "cells.json", bench.made_of)
    for arm in only:
        for seed in bench.seeds(arm):
            missing = [split for split in SPLITS if str(seed) not in cells.scores.get(f"{arm}/{split}", {})]
            choose = bench.arm(arm, seed) if missing else wander
            for split in missing:
                with progress_line(f"{split}: {arm}") as report:
                    report(seed, len(bench.seeds(arm)), "seeds")
                    starts = bench.starts(split).part(0, bench.amounts.starts)
                    tried = {world: bench.tried(choose, starts, world, seed=10_000 * seed) for world in WORLDS}
                cells.put(f"{arm}/{split}", seed, tried)
    metrics = summarise(cells.scores)
    conditions = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "task": f"the gripper within {REACHED:.3f} widths of the picture of where the object stood, at the end of "
        f"{HORIZON} actions at {bench.session.fps:g} per second",
        "seen by the policy": "gripper and mark in the picture, found by two networks; nothing else",
        "reward": "minus their distance after each action, on predicted frames",
        "algorithm": "PPO of Stable-Baselines3, two layers of 64, learning rate 0.002, discount 0.9",
        "splits": SPLITS,
        "eyes": str(bench.eyes.effector.error),
        **bench.made_of,
    }
    found = goals(metrics)
    value = {"name": NAME, **today(), "conditions": conditions, "metrics": metrics, "goals": found}
    if LEARNED in only:
        curves = [bench.learned(seed)[1] for seed in bench.seeds(LEARNED)]
        metrics["curves"] = [
            [{"steps": row["steps"]} | {w: float(np.mean(row[w]["success"])) for w in WORLDS} for row in rows]
            for rows in curves
        ]
        shown = {split: row for split, row in metrics.items() if split in SPLITS}
        page = report_of(curves, shown, bench.videos(0), bench.session.fps, conditions)
        write_report(bench.folder / "report.html", page)
    for path in (bench.folder / "results.json", *([RESULTS] if keep else [])):
        write_json(path, value)
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--model", type=Path, help="folder of the world model; the student that ships by default")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--quick", action="store_true", help="for tests: tiny, and writes no result")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    model = given.model
    if model is None:
        shipped = foundation("nano")
        if shipped is None:
            raise SystemExit("no models ship with this package: make them with `make weights`, or give --model")
        model = shipped / "student"
    bench = Bench(given.run, model, QUICK if given.quick else Amounts(), device=given.device, workers=given.workers)
    value = run_queue(bench, given.only, keep=set(given.only) == set(ARMS) and not given.quick)
    print(json.dumps(value["goals"], indent=1), flush=True)


if __name__ == "__main__":
    main()
