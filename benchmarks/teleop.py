"""Does seeing ahead help? Simulated operators do tasks in the dojo over a late link: `python benchmarks/teleop.py`.

Tasks: push, pick_place and obstacle (go around it, low over the table). Round trips of 0, 200, 500 and 1000 ms. What
the operator is shown:

    late             the late picture, driven continuously
    move_and_wait    the late picture; a move, then a wait until it can be seen: what people do over such links
    ghost            the arm drawn from the commands over the late picture: the baseline to beat
    model            the world model's prediction
    oracle           the true simulator's: the ceiling

Every operator of `teleop_operators.py` does its share of the trials of a cell; trial i has the same scene, operator and
seeds in every cell of its task. Cells are a queue: groups of trials are kept in the run folder as they end, a rerun
goes on from there, `--only CELL` (e.g. push-500-model) runs one. `--quick` runs two trials of a second for tests
and writes no result. `--tune` measures operators' settings without an overlay, on scenes of the train split.
`--only latency` and `--only soak` measure the page instead, as it is served (`teleop_serving.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.teleop_operators import OPERATORS, Brief, Mind, Operator, Seen
from benchmarks.teleop_serving import ARMS, measure
from dreamdojo import foundation
from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.onboard import Safeguards
from dreamdojo.apps.teleop.predict import Ghost, Imagined, Oracle, Predictor
from dreamdojo.apps.teleop.robot import DojoRobot
from dreamdojo.apps.teleop.teleoperation import Request, Shown, Teleoperation, Wish, fulfil
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.envs import ErrandEnv, PickPlaceEnv, PushEnv
from dreamdojo.dojo.layout import Errand, draw_layout
from dreamdojo.dojo.plans import EXPERT, make_plan
from dreamdojo.dojo.scene import FIRST_OBJECT
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.dojo.splits import seed_of
from dreamdojo.errors import ConfigError, SimulationError
from dreamdojo.evaluation.effector import EffectorProbe, EffectorProbeConfig
from dreamdojo.evaluation.objects import ObjectProbe, ObjectProbeConfig
from dreamdojo.evaluation.stored_probes import FILE, load_probes, save_probes
from dreamdojo.files import write_json
from dreamdojo.judge import train_probes_on
from dreamdojo.metrics import mean_interval, paired_interval, wilson_interval
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import CAMERA, Session, load_session
from dreamdojo.rollout.starts import fitted
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world import Observation, Prediction

RESULTS = Path(__file__).parent / "results" / "teleop.json"
TASKS = ("push", "pick_place", "obstacle")
ROUND_TRIPS = (0, 200, 500, 1000)
"""Milliseconds."""
DISPLAYS = ("late", "move_and_wait", "ghost", "model", "oracle")
TRIALS = 102
"""Per cell; a multiple of the operators."""
SECONDS = 30.0
"""A trial that takes longer has failed, and counts as having taken this long."""
GROUP = 34
"""Trials that the world model predicts for side by side."""
FIRST_SCENE = 700_000
"""Of the test split, for the trials; of the train split, for tuning."""
FPS, SIZE = 10.0, 64
REACHED = 0.025
"""Metres from the goal that end the obstacle task."""


def cells() -> list[str]:
    """`TASK-MS-DISPLAY`. Without delay there is nothing to predict and nothing to wait for."""
    return [
        f"{task}-{ms}-{display}" for task in TASKS for ms in ROUND_TRIPS for display in (DISPLAYS if ms else ("late",))
    ]


class ErrandRobot(DojoRobot):
    """The robot in an environment that says when an errand is done."""

    def __init__(self, task: str) -> None:
        self.env: ErrandEnv = (PushEnv if task == "push" else PickPlaceEnv)(size=16)
        super().__init__(self.env.simulation, size=SIZE)
        self.task, self.done, self.failed = task, False, False

    def reset(self, *, seed: int) -> Observation:
        self.env.reset(options={"scene": seed})
        self.done = self.failed = False
        return self.begin()

    def step(self, action: np.ndarray) -> None:
        if self.done or self.failed:  # over: the scene stays as it is
            return
        body = self.simulation.embodiment
        _, _, terminated, truncated, info = self.env.step(np.clip(body.normalize_action(action), -1, 1))
        self.done = bool(info["success"])
        self.failed = (terminated or truncated) and not self.done

    def hits(self) -> bool:
        """Whether something is touched that is not to be."""
        errand = self.env.errand
        return bool(np.delete(self.simulation.moment().touched, errand.target).any())

    @property
    def thing(self) -> int:
        """What the task is about."""
        return self.env.errand.target


class ObstacleRobot(DojoRobot):
    """The robot before an obstacle, with its goal behind it."""

    thing = 0

    def __init__(self) -> None:
        super().__init__(Simulation("arm", fps=FPS), size=SIZE)
        self.done = self.failed = False

    def reset(self, *, seed: int) -> Observation:
        body = self.simulation.body
        layout = draw_layout(seed, self.simulation.difficulty, body)
        rng = np.random.default_rng([seed, 5])
        y = float(rng.choice([-1.0, 1.0]))
        x = rng.uniform(-0.02, 0.08, 2)
        start, self.goal = (float(x[0]), -0.12 * y, 0.03), np.array([float(x[1]), 0.12 * y])
        middle = (np.array(start[:2]) + self.goal) / 2 + (rng.normal(0, 0.01), 0)
        thing = layout.objects[0]
        placed = replace(thing, position=(float(middle[0]), float(middle[1]), thing.position[2]))
        goal = (float(self.goal[0]), float(self.goal[1]))
        errand = Errand(target=0, goal=goal)
        self.simulation.reset_to(replace(layout, objects=(placed,), start=start, start_opening=0.0, errand=errand))
        self.done = self.failed = False
        return self.begin()

    def step(self, action: np.ndarray) -> None:
        if self.done:
            return
        super().step(action)
        place = self.simulation.moment().effector_position
        self.done = bool(np.linalg.norm(place[:2] - self.goal) < REACHED and place[2] < 0.08)
        self.failed = self.simulation.has_lost_object()

    def hits(self) -> bool:
        """Whether the obstacle is touched."""
        return bool(self.simulation.moment().touched.any())


@dataclass
class Trial:
    """One operator at one scene."""

    robot: ErrandRobot | ObstacleRobot
    teleoperation: Teleoperation
    mind: Mind
    start: torch.Tensor
    mask: torch.Tensor
    thing_height: float
    predictor: Predictor | None
    shown: Shown
    periods: int = 0
    collisions: int = 0
    touching: bool = False

    @property
    def over(self) -> bool:
        return self.robot.done or self.robot.failed


@dataclass(frozen=True)
class Eyes:
    """How operators see."""

    gripper: EffectorProbe
    objects: ObjectProbe

    def look(self, trials: Sequence[Trial]) -> list[Seen]:
        """What each of them makes of the picture shown to it."""
        pictures = torch.stack([picture(trial.shown) for trial in trials])
        hands = self.gripper.locate(pictures)
        starts, masks = torch.stack([t.start for t in trials]), torch.stack([t.mask for t in trials])
        things = self.objects.locate(starts, masks, pictures)
        seen = []
        for i, trial in enumerate(trials):
            told = trial.shown.prediction.state if trial.shown.prediction else trial.shown.late.seen.state
            assert told is not None
            state = told[0, -1].numpy()
            simulation = trial.robot.simulation
            gripper = simulation.on_plane(hands.position[i].numpy(), float(state[2]))[:2] if hands.found[i] else None
            height = trial.thing_height
            if trial.mind.carries:  # what is carried rises with the gripper
                height += max(0.0, float(state[2]) - trial.mind.grasp_height)
            thing = simulation.on_plane(things.position[i].numpy(), height)[:2] if things.found[i] else None
            seen.append(
                Seen(gripper=gripper, thing=thing, height=float(state[2]), yaw=float(state[3]), opening=float(state[4]))
            )
        return seen


def picture(shown: Shown) -> torch.Tensor:
    """What is shown, `c h w` at the size that the probes know."""
    return fitted(Observation(frames={CAMERA: shown.picture[None, None]}), (SIZE, SIZE)).frames[CAMERA][0, 0]


def scenes(task: str, split: str, count: int) -> list[int]:
    """The first scenes in which there is something to do."""
    robot, found, index = make_robot(task), [], FIRST_SCENE
    while len(found) < count:
        seed = seed_of(split, index)
        index += 1
        try:
            robot.reset(seed=seed)
            found.append(seed)
        except (ConfigError, SimulationError):
            continue
    return found


def make_robot(task: str) -> ErrandRobot | ObstacleRobot:
    return ObstacleRobot() if task == "obstacle" else ErrandRobot(task)


def begin(task: str, scene: int, display: str, ms: int, operator: Operator, seed: int) -> Trial:
    """A trial at its start."""
    robot = make_robot(task)
    controls = Controls.of(robot.embodiment, screen_right="-y", screen_up="+x")
    teleoperation = Teleoperation(robot, controls, Safeguards(watchdog=10.0))
    report = teleoperation.reset(seed=scene)
    simulation, thing = robot.simulation, robot.thing
    labels = simulation.picture(SIZE, segmentation=True).segmentation
    assert labels is not None and simulation.layout.errand is not None
    placed, pose = simulation.layout.objects[thing], simulation.object_poses()[thing]
    grasp, yaw = np.array([0.0, 0.0, 0.03]), None
    if task == "pick_place":
        plan = make_plan("pick_place", simulation, np.random.default_rng(scene), EXPERT)
        closing = next(point for point in plan.waypoints if point.opening == 0.0)
        grasp = np.array([*(closing.position[:2] - pose[:2]), closing.position[2]])
        yaw = closing.yaw
    brief = Brief(
        task=task,
        goal=np.array(simulation.layout.errand.goal),
        radius=placed.shape.footprint,
        grasp=grasp,
        yaw=yaw,
    )
    waits = round(ms / 1000 * FPS) + 1 if display == "move_and_wait" else None
    predictor = {"ghost": Ghost, "oracle": Oracle}[display](robot) if display in ("ghost", "oracle") else None
    return Trial(
        robot=robot,
        teleoperation=teleoperation,
        mind=Mind(operator, brief, waits=waits, seed=seed),
        start=report.seen.frames[CAMERA][0, 0],
        mask=torch.from_numpy(labels == FIRST_OBJECT + thing),
        thing_height=float(pose[2]),
        predictor=predictor,
        shown=Shown(report=report, late=report, fresh=True, ahead=0, prediction=None),
    )


def run_group(
    trials: Sequence[Trial], ms: int, eyes: Eyes, session: Session | None, *, seconds: float, seed: int, progress: Any
) -> list[dict[str, Any]]:
    """Let trials run side by side, under one world model where there is one, until all of them are over."""
    link = LinkSettings.of_round_trip(ms / 1000, fps=FPS)
    model = Imagined(session) if session is not None else None
    if model is not None:
        model.reset(_joined([trial.shown.late.seen for trial in trials]), seed=seed)
    limit = round(seconds * FPS)
    for period in range(limit):
        if all(trial.over for trial in trials):
            break
        progress(period, limit, f"{sum(trial.over for trial in trials)} of {len(trials)} over")
        requests = []
        for trial, seen in zip(trials, eyes.look(trials), strict=True):
            action = trial.mind.act(seen, 1 / FPS)
            requests.append(trial.teleoperation.exchange(Wish(action=action, link=link)))
            if not trial.over:
                trial.periods += 1
                hits = trial.robot.hits()
                trial.collisions += hits and not trial.touching
                trial.touching = hits
        told = predict_together(requests, model) if model is not None else None
        for i, (trial, request) in enumerate(zip(trials, requests, strict=True)):
            if told is not None:
                trial.shown = trial.teleoperation.accept(told[i])
            elif trial.predictor is not None:
                trial.shown = trial.teleoperation.accept(fulfil(request, trial.predictor))
            else:
                trial.shown = trial.teleoperation.accept(None)
    return [
        {
            "success": trial.robot.done,
            "seconds": trial.periods / FPS if trial.robot.done else seconds,
            "collisions": trial.collisions,
        }
        for trial in trials
    ]


def predict_together(requests: Sequence[Request], model: Imagined) -> list[Prediction | None]:
    """One prediction for all trials: without jitter or loss all of them ask for the same number of frames."""
    first, anchors, actions = requests[0], [], []
    for request in requests:
        if request.anchor is not None and request.actions is not None:
            anchors.append(request.anchor)
            actions.append(request.actions)
    together = Request(
        anchor=_joined(anchors) if anchors else None,
        actions=torch.cat(actions) if actions else None,
        tick=first.tick,
        pending=torch.cat([request.pending for request in requests]),
    )
    told = fulfil(together, model)
    if told is None:
        return [None] * len(requests)
    return [
        Prediction(
            frames={CAMERA: told.frames[CAMERA][i : i + 1]},
            state=None if told.state is None else told.state[i : i + 1],
            state_source=told.state_source,
        )
        for i in range(len(requests))
    ]


def _joined(observations: Sequence[Observation]) -> Observation:
    states = [each.state for each in observations if each.state is not None]
    return Observation(
        frames={CAMERA: torch.cat([each.frames[CAMERA] for each in observations])},
        state=torch.cat(states) if states else None,
    )


def run_cell(
    cell: str, folder: Path, eyes: Eyes, session: Session | None, *, trials: int, seconds: float, group: int = GROUP
) -> list[dict[str, Any]]:
    """All trials of a cell; groups that were run before are read back."""
    task, ms, display = cell.split("-")[0], int(cell.split("-")[1]), cell.split("-")[2]
    seeds = scenes(task, "test", trials)
    names = list(OPERATORS)
    found: list[dict[str, Any]] = []
    for first in range(0, trials, group):
        path = folder / "cells" / cell / f"{first}-{trials}.json"
        if path.exists():
            found += json.loads(path.read_text())["trials"]
            continue
        chosen = range(first, min(first + group, trials))
        started = [begin(task, seeds[i], display, ms, OPERATORS[names[i % len(names)]], seed=1000 + i) for i in chosen]
        with progress_line(f"{cell} {first}") as report:
            ended = run_group(
                started,
                ms,
                eyes,
                session if display == "model" and ms else None,
                seconds=seconds,
                seed=first,
                progress=report,
            )
        for i, each in zip(chosen, ended, strict=True):
            each |= {"scene": seeds[i], "operator": names[i % len(names)]}
        write_json(path, {"trials": ended})
        found += ended
    return found


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Time, success and collisions of a cell."""
    seconds = torch.tensor([trial["seconds"] for trial in trials], dtype=torch.float64)
    collisions = torch.tensor([float(trial["collisions"]) for trial in trials])
    return {
        "trials": len(trials),
        "seconds": mean_interval(seconds).to_json(),
        "success": wilson_interval(sum(trial["success"] for trial in trials), len(trials)).to_json(),
        "collisions": mean_interval(collisions).to_json(),
    }


def compared(metrics: dict[str, Any], ms: int, display: str) -> dict[str, Any] | None:
    """A display against the late picture at its best (per task), all tasks together, paired by trial."""
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    for task in TASKS:
        without = [metrics.get(f"{task}-{ms}-{name}") for name in ("late", "move_and_wait")]
        shown = metrics.get(f"{task}-{ms}-{display}")
        if shown is None or None in without:
            return None
        best = min((each for each in without if each), key=lambda cell: cell["summary"]["seconds"]["mean"])
        first += best["trials"]
        second += shown["trials"]
    before, after = (torch.tensor([t["seconds"] for t in part], dtype=torch.float64) for part in (first, second))
    hit = [torch.tensor([float(t["collisions"]) for t in part]) for part in (second, first)]
    saved = paired_interval(before, after)
    return {
        "time saved": saved.mean / float(before.mean()),
        "low": saved.low / float(before.mean()),
        "high": saved.high / float(before.mean()),
        "collisions more": paired_interval(*hit).to_json(),
        "trials": len(first),
    }


def goals(metrics: dict[str, Any]) -> dict[str, Any]:
    """At 500 ms, over all tasks."""
    found = {display: compared(metrics, 500, display) for display in ("model", "ghost", "oracle")}

    def goal(value: float | None, bound: float, op: str) -> dict[str, Any]:
        reason = {} if value is not None else {"reason": "not all cells at 500 ms have been run"}
        return {"value": value, "bound": bound, "op": op, **reason}

    model, ghost, oracle = found["model"], found["ghost"], found["oracle"]
    return {
        "time saved at 500 ms": goal(model and model["time saved"], 0.22, ">="),
        "collisions more at 500 ms": goal(model and model["collisions more"]["mean"], 0.0, "<="),
        "time saved beyond the ghost's": goal(
            model["time saved"] - ghost["time saved"] if model and ghost else None, 0.0, ">="
        ),
        "time saved by the oracle": goal(oracle and oracle["time saved"], 0.22, ">="),
    }


def open_eyes(folder: Path, *, quick: bool) -> Eyes:
    """The probes that operators see with, learned once per run folder from scenes of the train split."""
    where = folder / "probes"
    if not (where / FILE).exists():
        root = folder / "data" / "probes"
        count = 10 if quick else 120
        if not (root / "meta" / "info.json").exists():
            settings = SimulateSettings(body="arm", episodes=count, frames=40 if quick else 64, size=SIZE)
            with progress_line("simulate") as report:
                simulate(settings, root, workers=1, progress=report)
        dataset = open_dataset(root)
        episodes = Episodes(dataset=dataset, indices=tuple(each.index for each in dataset.episodes))
        run = Run(folder=folder, preset=NANO, compute=choose_compute("cpu"))
        with progress_line("probes") as report:
            gripper, objects = train_probes_on(
                episodes,
                run.frames(episodes, (SIZE, SIZE)),
                size=(SIZE, SIZE),
                effector_config=EffectorProbeConfig(steps=2, gate=math.inf)
                if quick
                else EffectorProbeConfig(steps=800),
                object_config=ObjectProbeConfig(steps=2, gate=math.inf) if quick else ObjectProbeConfig(steps=1200),
                report=report,
            )
        save_probes(where, gripper, objects)
    gripper, objects = load_probes(where)
    if objects is None or not (gripper.error.valid and objects.error.valid):
        raise SystemExit(f"{where}: the probes cannot be used; simulate more episodes")
    return Eyes(gripper, objects)


def tune(folder: Path, *, trials: int) -> None:
    """Operators' settings on the late picture alone, at 500 ms, on scenes of the train split."""
    eyes = open_eyes(folder, quick=False)
    for task in TASKS:
        seeds = scenes(task, "train", trials)
        for name, operator in OPERATORS.items():
            variants = [("late", replace(operator, gain=operator.gain * f)) for f in (0.3, 0.6, 1.0)]
            variants += [("move_and_wait", replace(operator, burst=burst)) for burst in (4, 6, 8, 10, 12)]
            for display, variant in variants:
                started = [begin(task, seed, display, 500, variant, seed=i) for i, seed in enumerate(seeds)]
                with progress_line(f"tune {task} {name}") as report:
                    ended = run_group(started, 500, eyes, None, seconds=SECONDS, seed=0, progress=report)
                told = summary(ended)
                setting = f"gain {variant.gain:g}" if display == "late" else f"burst {variant.burst}"
                print(task, name, display, setting, told["seconds"], told["success"]["mean"], flush=True)


def write(metrics: dict[str, Any], conditions: dict[str, Any]) -> None:
    """Everything measured so far."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    told = {name: {"summary": each["summary"], "trials": each["trials"]} for name, each in metrics.items()}
    differences = {
        f"{display} at {ms} ms": compared(metrics, ms, display)
        for ms in ROUND_TRIPS[1:]
        for display in ("ghost", "model", "oracle")
    }
    write_json(
        RESULTS,
        {
            "name": "teleop",
            "commit": commit.stdout.strip(),
            "date": date.today().isoformat(),
            "conditions": conditions,
            "metrics": {**told, "against the late picture at its best": differences},
            "goals": goals(metrics),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/teleop"))
    parser.add_argument("--only", choices=[*cells(), *ARMS], action="append", help="run this; may be given again")
    parser.add_argument("--minutes", type=float, help="of the soak (30), or of each display of latency (2)")
    parser.add_argument("--model", type=Path, help="folder of the world model; by default the student that ships")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--trials", type=int, default=TRIALS, help="fewer write no result")
    parser.add_argument("--quick", action="store_true", help="for tests: two trials of a second, writes no result")
    parser.add_argument("--tune", action="store_true", help="measure operators' settings without an overlay")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tune:
        tune(arguments.run, trials=24)
        return
    for arm in ARMS:
        if arm in (arguments.only or ()):
            measure(arm, arguments.run, minutes=arguments.minutes, quick=arguments.quick)
    if arguments.only and not set(arguments.only) - set(ARMS):
        return
    trials, seconds = (2, 1.0) if arguments.quick else (arguments.trials, SECONDS)
    shipped = foundation("nano")
    model = arguments.model or (shipped / "student" if shipped else None)
    if model is None:
        raise SystemExit("no model ships with this package: make one with `make weights`, or give --model")
    eyes = open_eyes(arguments.run, quick=arguments.quick)
    asked = arguments.only or cells()
    session = load_session(model, device=arguments.device) if any(c.endswith("model") for c in asked) else None
    # cells of another model or of other operators are not these cells
    about = json.dumps({name: vars(each) for name, each in OPERATORS.items()}, sort_keys=True)
    key = f"{model_hash(model)[:12]}-{abs(hash_text(about)):08x}"
    conditions = {
        "machine": f"{platform.machine()}, {arguments.threads} threads",
        "model": model_hash(model),
        "operators": {name: vars(each) for name, each in OPERATORS.items()},
        "trials": trials,
        "seconds": seconds,
        "scenes": f"test split from {FIRST_SCENE}, gentle",
        "probes": {"gripper": eyes.gripper.error.to_json(), "objects": eyes.objects.error.to_json()},
    }
    metrics: dict[str, Any] = {}
    for cell in cells():
        folder = arguments.run / key
        if cell not in asked and not (folder / "cells" / cell).exists():
            continue
        if cell not in asked:  # run before: part of the result
            done = sorted((folder / "cells" / cell).glob(f"*-{trials}.json"))
            if len(done) * GROUP < trials:
                continue
        began = time.monotonic()
        found = run_cell(cell, folder, eyes, session, trials=trials, seconds=seconds)
        metrics[cell] = {"trials": found, "summary": summary(found)}
        told = metrics[cell]["summary"]
        print(
            f"{cell}: {told['seconds']['mean']:.1f} s, success {told['success']['mean']:.2f}, "
            f"collisions {told['collisions']['mean']:.2f} ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        if trials >= TRIALS and not arguments.quick:
            write(metrics, conditions)


def hash_text(text: str) -> int:
    """A number that changes with a text, the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


if __name__ == "__main__":
    main()
