"""Where does the planner stand on gym-pusht? `python -m benchmarks.pusht --run FOLDER`, extra `pusht`.

A `nano` world model is trained on an hour of a scripted pusher that the benchmark lets play itself, from scratch. The
planner is then told a picture of a moment 25 actions ahead in an episode of the same script that nothing was trained
on, and has 50 actions to make the table look like it once: pusher and block (four numbers) less than 20 of 512 pixels
off and the block turned by less than 20 degrees, by the simulator's true state. That is stable-worldmodel's protocol
(configuration `pusht`: goal_offset_steps 25, eval_budget 50); `DIFFERENCES` says what is not the same. Arms:

    model              the planner in the world model, the goal compared in the tokenizer's latents
    model, pixels      the same, compared in pixels, coarse and fine
    simulator, pixels  the same as that, in the true simulator: tells the model's error from the objective's
    simulator          the planner in the true simulator, by the true poses: what the search can reach
    random             actions drawn evenly over what is allowed
    stay               no motion

A queue: data, tokenizer and world model are made when first needed and their trainings resume; every episode is written
when it ends and a rerun goes on from there. `--only data`, `--only training` or `--only ARM` run a part. Errands, draws
and noise depend on the errand's number alone, so arms are paired.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import today
from benchmarks.planning import PUSHT, start_untrained
from dreamdojo import stages
from dreamdojo.apps.planning.execute import Mind, SessionMind, SimulatorMind, carry_out
from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.objectives import Embed, GoalImage, frames_of, latents, pyramid
from dreamdojo.apps.planning.planner import Decider, Decision, Fixed, Planner, always
from dreamdojo.apps.planning.search import icem
from dreamdojo.apps.planning.space import Knots
from dreamdojo.errors import ConfigError
from dreamdojo.files import write_json
from dreamdojo.metrics import paired_interval, wilson_interval
from dreamdojo.presets import NANO, Preset
from dreamdojo.presets.nano import NANO_FOUNDATION
from dreamdojo.rollout.session import CAMERA, Session, load_session
from dreamdojo.stages import Episodes, Run
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.video import resize
from dreamdojo.world import Observation, World

if TYPE_CHECKING:
    from benchmarks.pusht_world import PushTWorld

MODEL, MODEL_PIXELS, TRUE_PIXELS, TRUE, RANDOM, STAY = (
    "model",
    "model, pixels",
    "simulator, pixels",
    "simulator",
    "random",
    "stay",
)
ARMS = (STAY, RANDOM, TRUE, TRUE_PIXELS, MODEL, MODEL_PIXELS)
DATA, TRAINING = "data", "training"
BUDGET = 50
"""Actions."""
EVERY = 5
"""Of an imagined future every so-manieth frame is looked at, as stable-worldmodel's models predict every fifth."""
HURRY = 0.01
"""A frame costs so much more for every look that it comes later."""
GOAL = "gym-pusht success in 50 steps"
PUBLISHED = {
    "DINO-WM": 0.74,
    "LeWM": 0.96,
    "DINO-WM, as stable-worldmodel's own documentation has it": "about 0.86",
    "LeWM trained on play of a random script, as a user reports": "0.3 to 0.4",
}
"""arXiv 2603.19312; github.com/galilai-group/stable-worldmodel, docs/baselines.md and issue 185."""
DIFFERENCES = (
    "Starts and goals come from episodes of a scripted pusher that nothing was trained on; theirs from the 18,685 "
    "expert episodes that their models are trained on.",
    "Trained on play of that script alone, and on as much of it as `minutes` says.",
    "gym-pusht 0.1.6: its T has sides of 30 and 120 pixels, theirs of 40 and 160; its table has an edge that targets "
    "are clipped to.",
    "Pictures of 64 by 64 pixels, theirs of 224 by 224. Both draw the fixed green T, which is not the goal.",
    "iCEM over `candidates` plans of five knots and straight lines, a new plan every `execute` actions, by the best of "
    "every fifth frame; theirs CEM over 300 plans of 25 free actions in 30 rounds, a new plan every 25, by the last.",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    minutes: float = 60.0
    """Of play."""
    tokenizer_steps: int = 2000
    """Of the tokenizer's training."""
    steps: int = 12_000
    """Of the world model's training."""
    episodes: int = 100
    """Errands of each arm."""
    candidates: int = 64
    """Of the planner's first round."""
    iterations: int = 3
    """Rounds."""
    horizon: int = 25
    """Actions of a candidate."""
    execute: int = 5
    """Actions between two plans."""
    denoise: int = 1
    """Steps in which the world model makes a frame; the table is not random, so one may do."""


QUICK = Sizes(minutes=0.4, tokenizer_steps=2, steps=2, episodes=1, candidates=4, iterations=1, horizon=10, execute=25)


def preset_of(sizes: Sizes) -> Preset:
    """`nano` for a robot alone: the foundation's schedules, other numbers of steps; few are not worth compiling for."""
    tokenizer, training = NANO_FOUNDATION.tokenizer_training, NANO_FOUNDATION.pretraining
    assert tokenizer is not None
    fit = replace(training.fit, steps=sizes.steps, compile=sizes.steps >= 100)
    return replace(
        NANO,
        name="nano-pusht",
        tokenizer_training=replace(tokenizer, fit=replace(tokenizer.fit, steps=sizes.tokenizer_steps)),
        posttraining=replace(training, fit=fit),
        human_share=0.0,
    )


@dataclass(kw_only=True)
class Soonest:
    """The cost of a future is that of its best frame, among those that the budget still allows; sooner is better."""

    distances: Callable[[Imagined], Tensor]
    """`n t`, of every `EVERY`-th frame."""
    left: int = BUDGET
    """Actions."""

    def __call__(self, imagined: Imagined) -> Tensor:
        """Costs `n`."""
        looks = self.distances(imagined)[:, : max(self.left // EVERY, 1)]
        return (looks * (1 + HURRY * torch.arange(looks.shape[1]))).amin(dim=1)


@dataclass(kw_only=True)
class Budgeted:
    """A planner that tells its objective how many actions are left."""

    planner: Planner
    objective: Soonest

    def reset(self, *, seed: int) -> None:
        """All of them."""
        self.objective.left = BUDGET
        self.planner.reset(seed=seed)

    def decide(self, world: World, observation: Observation) -> Decision:
        """The planner's decision."""
        decision = self.planner.decide(world, observation)
        self.objective.left -= decision.execute
        return decision


def looked_at(goal: GoalImage, imagined: Imagined) -> Tensor:
    """Distances `n t` of frames from a goal picture, every fifth frame."""
    return goal.distances(frames_of(imagined, CAMERA)[:, EVERY - 1 :: EVERY])


def away(goal: Tensor, imagined: Imagined) -> Tensor:
    """Square metres `n t` between the true markers and where they should be, `3 3`: pusher, block, its stem."""
    truth = imagined.truth
    assert truth is not None
    places = torch.cat([truth.effector[:, :, None], truth.objects], dim=2)[:, EVERY - 1 :: EVERY]
    return (places - goal).square().sum(dim=(2, 3))


class Bench:
    """Data, models and errands that the arms share; each is made when first asked for."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes

    @cached_property
    def robot(self) -> Episodes:
        """The recorded play."""
        from benchmarks.pusht_play import EPISODE, FPS, record

        count = max(2, round(self.sizes.minutes * 60 * FPS / EPISODE))
        with progress_line("play") as report:
            dataset = record(self.folder / "data", episodes=count, report=report)
        return Episodes(dataset=dataset, indices=tuple(episode.index for episode in dataset.episodes))

    @cached_property
    def session(self) -> Session:
        """The trained world model."""
        run = Run(folder=self.folder / "model", preset=preset_of(self.sizes), compute=choose_compute("auto"))
        stages.tokenizer_stage(run, [self.robot])
        start_untrained(run)
        stages.posttrain_stage(run, self.robot, None, adapter="fresh")
        return load_session(run.folder / "teacher", steps=self.sizes.denoise)

    @cached_property
    def embed(self) -> Embed:
        """Pictures to their latents."""
        return latents(load_tokenizer(self.folder / "model" / "tokenizer"))

    def mind_and_decider(self, arm: str, real: PushTWorld, number: int) -> tuple[Mind, Decider]:
        """Where an arm imagines, and what decides in it."""
        from benchmarks.pusht_play import DRAWN
        from benchmarks.pusht_world import markers

        errand, body, sizes = real.errand, real.embodiment, self.sizes
        if arm in (RANDOM, STAY):
            drawn = torch.rand(BUDGET, body.action_dim, generator=torch.Generator().manual_seed(number)) * 2 - 1
            actions = torch.from_numpy(body.denormalize_action((drawn * (arm == RANDOM)).numpy()))
            return SimulatorMind(real), Fixed(actions=actions, cost=0.0, tried=0)
        if arm == TRUE:
            there = markers(errand.goal)
            places = [there.effector_position, *there.object_poses[:, :3]]
            objective = Soonest(distances=partial(away, torch.from_numpy(np.stack(places)).float()))
        else:
            size = (DRAWN, DRAWN) if arm == TRUE_PIXELS else self.session.size
            picture = resize(errand.picture.permute(1, 2, 0).numpy()[None], size)[0]
            windows = partial(pyramid, levels=6 if arm == TRUE_PIXELS else 5)  # up to a quarter of the table
            embed = self.embed if arm == MODEL else windows
            goal = GoalImage(goal=torch.from_numpy(picture).permute(2, 0, 1), embed=embed)
            objective = Soonest(distances=partial(looked_at, goal))
        planner = Planner(
            space=always(Knots(embodiment=body, horizon=sizes.horizon)),
            method=icem(candidates=sizes.candidates, iterations=sizes.iterations, elites=max(2, sizes.candidates // 8)),
            objective=objective,
            execute=sizes.execute,
        )
        mind = SessionMind(self.session) if arm in (MODEL, MODEL_PIXELS) else SimulatorMind(real, pictures=arm != TRUE)
        return mind, Budgeted(planner=planner, objective=objective)

    def episode(self, arm: str, number: int) -> dict[str, Any]:
        """One errand of an arm."""
        from benchmarks.pusht_world import PushTWorld

        real = PushTWorld()
        first = real.reset(seed=number)
        mind, decider = self.mind_and_decider(arm, real, number)
        row = carry_out(real, first, mind, decider, seed=number, budget=BUDGET).to_json()
        return {**row, "block moves": real.errand.block_moves}

    def compute(self) -> dict[str, float]:
        """Seconds that training took, by its own log, whether or not it was stopped in between."""
        spent = {}
        for part in ("tokenizer", "teacher"):
            file = self.folder / "model" / part / "metrics.jsonl"
            if file.exists():
                rows = [json.loads(line) for line in file.read_text().splitlines()]
                steps = [0, *(row["step"] for row in rows)]
                seconds = [
                    row["seconds"] * (step - last) for row, step, last in zip(rows, steps[1:], steps, strict=False)
                ]
                spent[part] = sum(seconds)
        return spent


def summarise(cells: Mapping[str, Sequence[dict]]) -> dict[str, Any]:
    """Success of each arm with Wilson's interval, also where the block has to move, and the model's regret."""
    summary: dict[str, Any] = {}
    for arm, rows in cells.items():
        moving = [row["success"] for row in rows if row["block moves"]]
        decisions = [decision["seconds"] for row in rows for decision in row["decisions"]]
        summary[arm] = {
            "success": wilson_interval(sum(row["success"] for row in rows), len(rows)).to_json(),
            "success where the block has to move": wilson_interval(sum(moving), len(moving)).to_json(),
            "distance at the end, px": 1000 * sum(row["distance"] for row in rows) / len(rows),
            "turned off the goal at the end, rad": sum(row["turn"] for row in rows) / len(rows),
            "actions": sum(row["actions"] for row in rows) / len(rows),
            "seconds per decision": sum(decisions) / len(decisions),
            "seconds per episode": sum(row["seconds"] for row in rows) / len(rows),
        }
    pairs = [(TRUE, MODEL), (TRUE, MODEL_PIXELS), (TRUE_PIXELS, MODEL_PIXELS), (MODEL, RANDOM), (MODEL_PIXELS, RANDOM)]
    for first, second in pairs:
        count = min(len(cells.get(first, [])), len(cells.get(second, [])))
        if count > 1:
            both = [torch.tensor([float(row["success"]) for row in cells[arm][:count]]) for arm in (first, second)]
            summary[f"{first} minus {second}"] = paired_interval(*both).to_json()
    return summary


def goals(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The issue's goal: the better of the model's arms beside the best figure that is published."""
    found = [summary[arm]["success"]["mean"] for arm in (MODEL, MODEL_PIXELS) if arm in summary]
    goal = {"value": max(found, default=None), "bound": PUBLISHED["LeWM"], "op": ">="}
    return {GOAL: goal if found else {**goal, "reason": "not run"}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [DATA, TRAINING, *ARMS]
    parser.add_argument("--run", type=Path, default=Path("runs/pusht"))
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    for name, size in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(size), default=size)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="for tests: tiny, and writes no result")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("gym_pusht") is None:
        raise SystemExit('gym-pusht is not installed: pip install "dreamdojo[pusht]"')
    torch.set_num_threads(given.threads)
    sizes = QUICK if given.quick else Sizes(**{name: getattr(given, name) for name in asdict(Sizes())})
    run_queue(Bench(given.run, sizes), given, keep=not given.quick)


def run_queue(bench: Bench, given: argparse.Namespace, *, keep: bool) -> dict[str, Any]:
    """Whatever is missing; returns the summary.

    Raises:
        ConfigError: if the folder was begun with other sizes: only the number of episodes may change.
    """
    file, sizes = bench.folder / "cells.json", bench.sizes
    bench.folder.mkdir(parents=True, exist_ok=True)
    fixed = {name: size for name, size in asdict(sizes).items() if name != "episodes"}
    stored = json.loads(file.read_text()) if file.exists() else {"sizes": fixed, "cells": {}}
    if stored["sizes"] != fixed:
        raise ConfigError(f"{bench.folder} was begun with {stored['sizes']}, not {fixed}. Use another --run folder.")
    if DATA in given.only:
        _ = bench.robot
    if TRAINING in given.only:
        _ = bench.session
    cells: dict[str, list[dict]] = stored["cells"]
    for arm in (arm for arm in ARMS if arm in given.only):
        rows = cells.setdefault(arm, [])
        with progress_line(arm) as report:
            for number in range(len(rows), sizes.episodes):
                rows.append(bench.episode(arm, number))
                write_json(file, stored)
                report(len(rows), sizes.episodes, f"{sum(row['success'] for row in rows)} of {len(rows)} done")
    summary = summarise({arm: rows for arm, rows in cells.items() if rows})
    if keep and summary:
        conditions = {
            "machine": f"{platform.machine()}, {given.threads} threads",
            "preset": "nano at 64x64, trained from scratch on its own data",
            "sizes": asdict(sizes),
            "training, seconds": bench.compute(),
            "budget": BUDGET,
            "published": PUBLISHED,
            "differences from stable-worldmodel": DIFFERENCES,
        }
        found = goals(summary)
        write_json(PUSHT, {"name": "pusht", **today(), "conditions": conditions, "metrics": summary, "goals": found})
        print(json.dumps(found, indent=1), flush=True)
    return summary


if __name__ == "__main__":
    main()
