"""Does distillation keep what the teacher knows, and for how long? `python benchmarks/realtime.py --run FOLDER`.

One teacher, several ways to a student of few steps, all within the same seconds of training, scored on held-out robot
episodes that nothing was tuned on. Parts, each a queue whose cells are written when they end (a rerun skips them):

    teacher      the teacher at 1, 2, 4 and 8 steps
    arms         what each way makes of the same budget, at 1, 2 and 4 steps
    budgets      the default way with a quarter and a half of the budget: quality per training minute
    seeds        the default way and the warm-up alone, seed by seed
    consistency  one-minute rollouts of the teacher and of students, the default one first
    speed        frames per second, end to end with decoding, on this machine's threads, with either backend
    backends     the default student's quality with either backend
    nano128      the same at 128 pixels, its quality beside it; `--nano128 RUN` names a finished demo of that preset

`--only PART` runs a part, `--arm ARM` some arms. Seconds of training are the processor's, all threads together, so that
other work on the machine counts little. Those of a step of each kind are measured once and kept in the run folder
(`steps.json`), and with them the number of steps that a budget buys.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import today
from benchmarks.pretraining_ablation import datasets, recordings
from benchmarks.realtime_report import realtime_report
from dreamdojo import foundation, stages
from dreamdojo.commands import all_episodes
from dreamdojo.dojo.simulate import SimulateSettings
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.endurance import colour_drift, energy_drift, error_after_return, unrest
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.predict import ClipPlan, frames_per_second, plan_clips, predict
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.rollouts import Clips, RolloutScores, score_rollouts
from dreamdojo.evaluation.stored_probes import FILE, load_probes, save_probes
from dreamdojo.files import read_json, write_json, written_whole
from dreamdojo.judge import CONTEXT, scene_truth, train_probes
from dreamdojo.metrics import mean_interval, paired_interval
from dreamdojo.presets import NANO, NANO128
from dreamdojo.rollout.session import Backend, Session, load_session
from dreamdojo.stages import Run, link_model
from dreamdojo.student.distill import StudentTraining, distil
from dreamdojo.student.self_forcing import SelfForcing
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.world_model.model import WorldModel

RESULTS = Path(__file__).parent / "results" / "realtime.json"
PARTS = ("teacher", "arms", "budgets", "seeds", "consistency", "speed", "backends", "nano128")
BACKENDS: tuple[Backend, ...] = ("torch", "openvino")
TEACHER_STEPS, STUDENT_STEPS = (1, 2, 4, 8), (1, 2, 4)
AS_USED = NANO.student.teacher.steps
"""Steps of the teacher that students are compared with."""
HORIZONS = (1, 4, 8, 16)
LONG_HORIZONS = (1, 30, 100, 300, 600)
BUDGETS = (0.25, 0.5)
SETS = {
    "robot": SimulateSettings(body="arm", episodes=47),
    "test": SimulateSettings(body="arm", split="test", first_index=4000, episodes=64),
    "long": SimulateSettings(
        body="arm", split="test", first_index=5000, episodes=16, frames=CONTEXT + LONG_HORIZONS[-1]
    ),
}
"""Test seeds from 4000 on were used by nothing else."""
QUICK_HORIZON = 9
QUICK_SETS = {
    "robot": SimulateSettings(body="arm", episodes=2, frames=44, size=64, truth="poses"),
    "test": SimulateSettings(body="arm", split="test", episodes=2, frames=24, size=64),
    "long": SimulateSettings(
        body="arm", split="test", first_index=10, episodes=2, frames=CONTEXT + QUICK_HORIZON, size=64
    ),
}


@dataclass(frozen=True)
class Arm:
    """A way to a student: which share of the budget each of its stages gets, and what differs from the preset."""

    shares: Mapping[str, float]
    """Stage -> share of the budget in seconds."""
    warm_up: str = "consistency"
    commit: str = "extra_pass"
    steps: int = max(STUDENT_STEPS)
    """That it is distilled for."""
    temporal_weight: float = 0.0
    given: str = "truth"


ARMS = {
    "regression (published warm-up)": Arm({"warm_up": 1.0}, warm_up="ode"),
    "consistency": Arm({"warm_up": 1.0}),
    "regression + self-forcing (published)": Arm({"warm_up": 0.5, "self_forcing": 0.5}, warm_up="ode"),
    "consistency + self-forcing": Arm({"warm_up": 0.5, "self_forcing": 0.5}),
    "+ long rollouts": Arm({"warm_up": 0.5, "self_forcing": 0.25, "long_rollout": 0.25}),
    "+ temporal loss": Arm({"warm_up": 0.5, "self_forcing": 0.5}, temporal_weight=1.0),
    "judged from its own frame": Arm({"warm_up": 0.5, "self_forcing": 0.5}, given="own"),
    "last step writes the cache": Arm({"warm_up": 0.5, "self_forcing": 0.5}, commit="last_step"),
    "distilled for one step, which writes it": Arm({"warm_up": 0.5, "self_forcing": 0.5}, commit="last_step", steps=1),
}
"""One thing at a time from `consistency + self-forcing` on, and the last one from the one before."""
DEFAULT = "distilled for one step, which writes it"
"""As the preset does it."""
WARM_UP = "consistency"
"""The warm-up alone; it is for any number of steps."""
AS_DISTILLED = NANO.student.sampler.steps
"""Steps of the student that arms are compared at."""
LASTING = ((DEFAULT, AS_DISTILLED), ("consistency + self-forcing", 2), ("consistency + self-forcing", 1))
"""Students whose minutes are looked at beside the one that ships, with their steps."""
SHIPPED = "the student that ships"
"""It had the whole of the preset's steps; the goals of a minute are about it."""


def settings_of(arm: Arm, seconds: float, cost: Mapping[str, float], seed: int) -> StudentTraining:
    """The preset's student with the arm's stages, as many steps of each as its share of `seconds` holds."""

    def steps(stage: str) -> int:
        return max(2, round(arm.shares[stage] * seconds / cost[kind_of(arm, stage)]))

    def own(settings: SelfForcing | None, stage: str) -> SelfForcing | None:
        if settings is None or stage not in arm.shares:
            return None
        fit = replace(settings.fit, steps=steps(stage), seed=seed)
        return replace(settings, fit=fit, temporal_weight=arm.temporal_weight, given=arm.given)  # pyright: ignore[reportArgumentType]

    student = NANO.student
    return replace(
        student,
        fit=replace(student.fit, steps=steps("warm_up"), seed=seed),
        sampler=replace(student.sampler, steps=arm.steps, commit=arm.commit),  # pyright: ignore[reportArgumentType]
        stages=tuple(arm.shares),  # pyright: ignore[reportArgumentType]
        warm_up=arm.warm_up,  # pyright: ignore[reportArgumentType]
        self_forcing=own(student.self_forcing, "self_forcing"),
        long_rollout=own(student.long_rollout, "long_rollout"),
    )


def steps_of(settings: StudentTraining) -> dict[str, int]:
    """Optimizer steps of each stage."""
    return {stage: settings.fit_of(stage).steps for stage in settings.stages}


def kind_of(arm: Arm, stage: str) -> str:
    """Stages whose steps cost the same."""
    if stage == "warm_up":
        return f"warm_up, {arm.warm_up}"
    rollouts = ", one step" if arm.steps == 1 else ""
    return f"{stage}, {arm.commit}{rollouts}{', temporal' if arm.temporal_weight else ''}"


class Bench:
    """What all cells share: data, the teacher, probes and clips."""

    def __init__(self, folder: Path, teacher: Path, *, seconds: float, quick: bool = False) -> None:
        self.folder, self.seconds, self.quick = folder, seconds, quick
        self.compute = choose_compute("cpu" if quick else "auto")
        self.data = datasets(folder, QUICK_SETS if quick else SETS, workers=1 if quick else 2)
        self.run = Run(folder=folder, preset=NANO, compute=self.compute, workers=1)
        for name, source in (("tokenizer", teacher.parent / "tokenizer"), ("teacher", teacher)):
            link_model(source, folder / name)
        self.teacher = load_model(folder / "teacher", WorldModel)
        self.body = self.data["robot"].dataset.embodiment.name

    @cached_property
    def plan(self) -> ClipPlan:
        """Short clips, those of every part but `consistency`."""
        return plan_clips(recordings(self.run, self.data["test"]), context=CONTEXT, horizon=HORIZONS[-1], seed=0)

    @cached_property
    def long_plan(self) -> ClipPlan:
        """Minutes."""
        longest = QUICK_HORIZON if self.quick else LONG_HORIZONS[-1]
        return plan_clips(
            recordings(self.run, self.data["long"]), context=CONTEXT, horizon=longest, seed=0, least_clips=2
        )

    @cached_property
    def probes(self) -> tuple[EffectorProbe | None, ObjectProbe | None]:
        """What reads the gripper and the objects off a picture, learned once in a run folder; none in a quick run."""
        if self.quick:
            return None, None
        folder = self.folder / "probes"
        if not (folder / FILE).exists():
            with progress_line("probes") as report:
                save_probes(folder, *train_probes(self.run, self.data["robot"], report))
        return load_probes(folder)

    @cached_property
    def cost(self) -> dict[str, float]:
        """Seconds of a step of each kind."""
        path = self.folder / "steps.json"
        found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        ways = {kind_of(arm, stage): arm for arm in ARMS.values() for stage in arm.shares}
        few = 5 if not self.quick else 1
        for kind, arm in ways.items():
            if kind not in found:
                stage = kind.split(",")[0]
                settings = settings_of(arm, 0.0, dict.fromkeys(ways, 1.0), 0)
                asked = ("warm_up",) if stage == "warm_up" else ("warm_up", stage)
                settings = replace(settings, stages=asked)
                # The first is for nothing: it encodes what the others find, and fills the processor's caches.
                times = [self._timed(replace(settings, **self._of(settings, stage, n * few))) for n in (1, 2, 4)]
                found[kind] = max(times[2] - times[1], 1e-3) / (2 * few)
                write_json(path, found)
        return found

    @staticmethod
    def _of(settings: StudentTraining, stage: str, steps: int) -> dict[str, Any]:
        if stage == "warm_up":
            return {"fit": replace(settings.fit, steps=steps)}
        own = settings.own_rollouts(stage)  # pyright: ignore[reportArgumentType]
        assert own is not None
        return {stage: replace(own, fit=replace(own.fit, steps=steps))}

    def _timed(self, settings: StudentTraining) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            started = time.process_time()
            self.distil(settings, Path(scratch))
            return time.process_time() - started

    def distil(self, settings: StudentTraining, folder: Path) -> None:
        """Train a student; a finished one stays as it is."""
        source = stages.robot_source(self.run, self.data["robot"], self.teacher.config.embodiments[0])
        with progress_line(folder.name) as report:
            distil(
                load_model(self.folder / "teacher", WorldModel),
                settings,
                NANO.posttraining,
                [source],
                folder,
                compute=self.compute,
                report=report,
            )

    def train(self, name: str, seed: int, share: float = 1.0) -> tuple[Path, float]:
        """The arm's student, and the seconds that its training took."""
        settings = settings_of(ARMS[name], share * self.seconds, self.cost, seed)
        folder = self.folder / "students" / f"{name.replace(' ', '_')}-{share:g}-{seed}"
        clock = folder / "seconds.json"
        if not clock.exists():
            started = time.process_time()
            self.distil(settings, folder)
            write_json(clock, {"seconds": time.process_time() - started, "steps": steps_of(settings)})
        return folder, json.loads(clock.read_text())["seconds"]

    def session(self, model: Path, steps: int, backend: Backend = "torch") -> Session:
        """A model with this benchmark's tokenizer."""
        if not (model / "tokenizer").exists():
            (model / "tokenizer").symlink_to((self.folder / "tokenizer").resolve(), target_is_directory=True)
        return self._open(model, steps, backend)

    def teacher_session(self, steps: int, backend: Backend = "torch") -> Session:
        """The teacher."""
        return self._open(self.folder / "teacher", steps, backend)

    def shipped_session(self) -> Session:
        """The student that ships, as it is used."""
        shipped = foundation("nano")
        assert shipped is not None
        return self._open(shipped / "student", AS_DISTILLED, "torch")

    def _open(self, model: Path, steps: int, backend: Backend) -> Session:
        device = self.compute.device.type
        return load_session(model, embodiment=self.body, steps=steps, device=device, backend=backend)  # pyright: ignore[reportArgumentType]

    def both(self, session: Session) -> tuple[Tensor, Tensor]:
        """What it predicts of the short clips, under the true and under another episode's actions."""
        return predict(session, self.plan), predict(session, self.plan, other_actions=True)

    @cached_property
    def of_teacher(self) -> tuple[Tensor, Tensor]:
        """The teacher's, as it is used."""
        return self.both(self.teacher_session(AS_USED))

    def score(self, predicted: Mapping[str, tuple[Tensor, Tensor]]) -> RolloutScores:
        """All of them on the same short clips."""
        scene = None if self.quick else scene_truth(self.plan, self.data["test"], size=NANO.size)
        effector, objects = self.probes
        return score_rollouts(
            Clips(last_context=self.plan.given[:, -1], truth=self.plan.truth, scene=scene),
            {name: true for name, (true, _) in predicted.items()},
            other_actions={name: other for name, (_, other) in predicted.items()},
            horizons=HORIZONS,
            effector_probe=effector,
            object_probe=objects,
        )

    def cell(self, folder: Path) -> dict[str, Any]:
        """A student at 1, 2 and 4 steps beside the teacher as it is used, paired by clip."""
        teacher = f"teacher, {AS_USED} steps"
        students = {f"{steps} steps": self.both(self.session(folder, steps)) for steps in STUDENT_STEPS}
        scores = self.score({**students, teacher: self.of_teacher})
        result = summary(scores)
        for metric in result:
            for method in students:
                for h in HORIZONS:
                    gap = scores.against(metric, method, h, baseline=teacher)
                    result[metric][method][str(h)]["minus teacher"] = gap.to_json()
        return {"scores": result, "health": last_row(folder)}


def summary(scores: RolloutScores) -> dict[str, Any]:
    """Means with intervals, and dPSNR (true minus another episode's actions), for each metric, method and horizon."""
    found: dict[str, Any] = {}
    for metric in scores.metrics:
        for method in scores.true_actions[metric.key]:
            for h in HORIZONS:
                row = {"mean": scores.mean(metric.key, method, h).to_json()}
                if metric.key == "psnr" and method in scores.other_actions["psnr"]:
                    row["dpsnr"] = scores.controllability("psnr", method, h).to_json()
                found.setdefault(metric.key, {}).setdefault(method, {})[str(h)] = row
    return found


def last_row(folder: Path) -> dict[str, float]:
    """The end of the student's training log."""
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def teachers_minutes(bench: Bench) -> Tensor:
    """The teacher's one-minute rollouts, kept in the run folder."""
    path = bench.folder / "teacher-minutes.npy"
    if not path.exists():
        frames = predict(bench.teacher_session(AS_USED), bench.long_plan).numpy()
        with written_whole(path) as partial, partial.open("wb") as file:
            np.save(file, frames)
    return torch.from_numpy(np.load(path))


def endurance(bench: Bench, student: Session) -> dict[str, Any]:
    """One-minute rollouts: late against early error, drift, objects that left and came back, and stillness."""
    plan, span = bench.long_plan, min(30, bench.long_plan.horizon // 3)
    horizons = tuple(h for h in LONG_HORIZONS if h <= plan.horizon)
    scene = scene_truth(plan, bench.data["long"], size=NANO.size)
    clips = Clips(last_context=plan.given[:, -1], truth=plan.truth, scene=scene)
    models = {"teacher": bench.teacher_session(AS_USED), "student": student}
    predictions = {"teacher": teachers_minutes(bench), "student": predict(student, plan)}
    effector, objects = bench.probes
    scores = score_rollouts(
        clips, predictions, other_actions={}, horizons=horizons, effector_probe=effector, object_probe=objects
    )
    found: dict[str, Any] = {"scores": {}, "paired": {}, "clips": scores.clips}
    for metric in scores.metrics:
        for method in scores.true_actions[metric.key]:
            rows = {str(h): scores.mean(metric.key, method, h).to_json() for h in horizons}
            found["scores"].setdefault(metric.key, {})[method] = rows
        if {"student", "teacher"} <= scores.true_actions[metric.key].keys():
            gaps = {str(h): scores.against(metric.key, "student", h, baseline="teacher").to_json() for h in horizons}
            found["paired"][metric.key] = gaps
    for name, frames in predictions.items():
        drifts = {"colour": colour_drift(frames, plan.truth, span), "energy": energy_drift(frames, plan.truth, span)}
        own = {
            kind: {
                "early": mean_interval(early).to_json(),
                "late": mean_interval(late).to_json(),
                "late minus early": paired_interval(late, early).to_json(),
            }
            for kind, (early, late) in drifts.items()
        }
        if objects is not None:
            seen = error_after_return(clips, frames, objects)
            own["objects"] = {kind: mean_interval(values).to_json() for kind, values in seen.items()}
        own["stillness"] = stillness(models[name], plan, frames=span)
        found[name] = own
    return found


def stillness(session: Session, plan: ClipPlan, *, frames: int) -> dict[str, Any]:
    """What a world does when nothing is commanded and the gripper is left as it is."""
    idle = torch.zeros_like(plan.actions[:, : plan.context - 1 + frames])
    names = session.embodiment.action_names()
    for column, name in enumerate(names):
        if name.startswith("gripper"):
            idle[..., column] = plan.actions[:, plan.context - 2, None, column]
    idle[:, : plan.context - 1] = plan.actions[:, : plan.context - 1]
    resting = predict(session, replace(plan, actions=idle, horizon=frames))
    drift = (resting[:, -1].float() - resting[:, 0].float()).abs().mean(dim=(1, 2, 3)) / 255
    return {
        "change from frame to frame": mean_interval(unrest(resting)).to_json(),
        "change from first to last frame": mean_interval(drift).to_json(),
    }


def speed(bench: Bench, student: Path, *, frames: int) -> dict[str, dict[str, float]]:
    """Frames per second of one live session, decoding included, by backend."""
    found: dict[str, dict[str, float]] = {}
    for backend in BACKENDS:
        sessions = {f"teacher, {steps} steps": bench.teacher_session(steps, backend) for steps in TEACHER_STEPS}
        sessions |= {f"student, {steps} steps": bench.session(student, steps, backend) for steps in STUDENT_STEPS}
        found[backend] = {name: paced(session, bench.plan, frames) for name, session in sessions.items()}
    return found


def paced(session: Session, plan: ClipPlan, frames: int) -> float:
    """Frames per second, the best of three runs: whatever else the machine does can only slow one down."""
    return round(max(frames_per_second(session, plan, steps=frames) for _ in range(3)), 2)


def at_128(run: Path, frames: int) -> dict[str, Any]:
    """Frames per second of a finished run of `nano128`, with either backend, and what its own evaluation found."""
    results = read_json(run / "results.json", of="what a finished `dreamdojo demo nano128` found")
    held_out = all_episodes(run / "data" / "arm_test")
    whole = Run(folder=run, preset=NANO128, compute=choose_compute("cpu"), workers=1)
    plan = plan_clips(recordings(whole, held_out), context=CONTEXT, horizon=1, seed=0)
    fps = {each: paced(load_session(run / "student", device="cpu", backend=each), plan, frames) for each in BACKENDS}
    mean = results["rollouts"]["mean"]
    quality = {metric: {method: rows["8"] for method, rows in mean[metric].items()} for metric in mean}
    return {"fps": fps, "steps": NANO128.student.sampler.steps, "at 8 frames": quality}


def fewest_good_steps(teacher: Mapping[str, Any]) -> int | None:
    """The teacher's fewest steps within 0.1 dB and 5 % of the position error of its best, at 8 frames."""
    if "effector_error" not in teacher:
        return None

    def at(metric: str, steps: int) -> float:
        return teacher[metric][f"teacher, {steps} steps"]["8"]["mean"]["mean"]

    best, nearest = (pick(at(m, s) for s in TEACHER_STEPS) for pick, m in ((max, "psnr"), (min, "effector_error")))
    good = [s for s in TEACHER_STEPS if at("psnr", s) >= best - 0.1 and at("effector_error", s) <= 1.05 * nearest]
    return min(good, default=None)


def goals(cells: Mapping[str, Any]) -> dict[str, Any]:
    """What the issue asks for, with null and the reason where it was not run."""
    found: dict[str, Any] = {}

    def goal(key: str, value: float | None, bound: float, op: str, reason: str = "not run") -> None:
        found[key] = {"value": value, "bound": bound, "op": op} | ({} if value is not None else {"reason": reason})

    fps = cells.get("nano128", {}).get("fps", {})
    goal("nano128, frames per second end to end on two cores", max(fps.values(), default=None), 30, ">=")
    few = fewest_good_steps(cells["teacher"]) if "teacher" in cells else None
    pace = cells.get("speed", {}).get("openvino", {})
    base = pace.get(f"teacher, {few} steps") if few else None
    fastest = pace.get("student, 1 steps")
    ratio = fastest / base if base and fastest else None
    goal("student at 1 step over teacher at its fewest good steps", ratio, 10, ">=", "not run, or no gripper probe")
    for name, bound in (("DiT alone", 80), ("with a small decoder", 60), ("with the Wan decoder", 40)):
        goal(f"2B 480x640 4 steps on one H200, {name}, fps", None, bound, ">=", "needs a GPU: benchmarks/gpu.py")
    goal("2B 480x640 on one H200, GiB", None, 16, "<=", "needs a GPU: benchmarks/gpu.py")

    paired = cells.get("consistency", {}).get(SHIPPED, {}).get("paired", {})

    def gap(metric: str, horizon: int) -> float | None:
        return paired.get(metric, {}).get(str(horizon), {}).get("mean")

    goal("PSNR at 30 frames, student minus teacher, dB", gap("psnr", 30), -1.0, ">=")
    goal("gripper error at 30 frames, student minus teacher, px", gap("effector_error", 30), 0.0, "<=")
    for h in (100, 300, 600):
        goal(f"PSNR at {h} frames, student minus teacher, dB", gap("psnr", h), 0.0, ">=")

    runs = {key: cell for key, cell in cells.items() if key.startswith("seeds, ")}
    errors = [gripper(cell, DEFAULT) for cell in runs.values()]
    starts = [gripper(cell, WARM_UP) for cell in runs.values()]
    known = [e for e in errors if e is not None]
    near = better = None
    if len(known) == len(errors) and known:
        middle = sorted(known)[len(known) // 2]
        near = sum(abs(e - middle) <= 0.1 * middle for e in known)
        better = sum(e is not None and s is not None and e < s for e, s in zip(errors, starts, strict=True))
    goal("seeds within 10 % of the median position error", near, 5, ">=")
    goal("seeds better than their warm-up", better, 5, ">=")
    return found


def gripper(cell: Mapping[str, Any], arm: str) -> float | None:
    """The gripper's error at 8 frames of an arm."""
    rows = cell.get(arm, {}).get("scores", {}).get("effector_error")
    return None if rows is None else rows[f"{AS_DISTILLED} steps"]["8"]["mean"]["mean"]


def run_part(
    part: str,
    bench: Bench,
    arms: Sequence[str],
    seeds: Sequence[int],
    cells: dict[str, Any],
    nano128: Path | None = None,
) -> Any:
    """Yield `(key, cell)` of a part that are not there yet."""

    def student(name: str, seed: int, share: float = 1.0) -> dict[str, Any]:
        folder, seconds = bench.train(name, seed, share)
        return {**bench.cell(folder), "training seconds": round(seconds, 1)}

    if part == "teacher" and part not in cells:
        pace = {f"teacher, {n} steps": bench.both(bench.teacher_session(n)) for n in TEACHER_STEPS if n != AS_USED}
        scores = bench.score({**pace, f"teacher, {AS_USED} steps": bench.of_teacher})
        yield part, summary(scores)
    if part == "arms":
        for name in arms:
            if f"arm, {name}" not in cells:
                yield f"arm, {name}", student(name, seeds[0])
    if part == "budgets":
        for name in (WARM_UP, DEFAULT):
            for share in BUDGETS:
                if (key := f"budget, {name}, {share:g}") not in cells:
                    yield key, student(name, seeds[0], share)
    if part == "seeds":
        for seed in seeds:
            for name in (WARM_UP, DEFAULT):
                if name not in cells.get(key := f"seeds, {seed}", {}):
                    yield key, {**cells.get(key, {}), name: student(name, seed)}
    if part == "consistency":
        for name, steps in LASTING:
            if (label := f"{name}, {steps} steps") not in cells.get(part, {}):
                folder, _ = bench.train(name, seeds[0])
                yield part, {**cells.get(part, {}), label: endurance(bench, bench.session(folder, steps))}
        if SHIPPED not in cells.get(part, {}) and foundation("nano") is not None:
            yield part, {**cells.get(part, {}), SHIPPED: endurance(bench, bench.shipped_session())}
    if part == "speed" and part not in cells:
        folder, _ = bench.train(DEFAULT, seeds[0])
        yield part, speed(bench, folder, frames=3 if bench.quick else 60)
    if part == "backends" and part not in cells:
        folder, _ = bench.train(DEFAULT, seeds[0])
        made = {each: bench.both(bench.session(folder, AS_DISTILLED, each)) for each in BACKENDS}
        yield part, summary(bench.score(made))
    if part == "nano128" and part not in cells and nano128 is not None:
        yield part, at_128(nano128, frames=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/realtime"))
    parser.add_argument("--teacher", type=Path, help="folder of the teacher, its tokenizer beside it; the shipped one")
    parser.add_argument("--nano128", type=Path, help="run folder of a finished demo of the preset nano128")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part; may be given again")
    parser.add_argument("--arm", choices=tuple(ARMS), action="append", help="of `arms`, this one; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seconds", type=float, default=300.0, help="of training for each student")
    parser.add_argument("--quick", action="store_true", help="on next to nothing, for tests: writes no result")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shipped = foundation("nano")
    teacher = arguments.teacher or (shipped / "teacher" if shipped else None)
    if teacher is None:
        raise SystemExit("no models ship with this package: make them with `make weights`, or give --teacher")
    bench = Bench(arguments.run, teacher, seconds=arguments.seconds, quick=arguments.quick)
    file = arguments.run / "cells.json"
    cells: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for part in arguments.only or PARTS:
        for key, cell in run_part(part, bench, arguments.arm or tuple(ARMS), arguments.seeds, cells, arguments.nano128):
            cells[key] = cell
            write_json(file, cells)
            print(key, brief(cell), flush=True)
            if not arguments.quick:
                write(cells, arguments, bench)


def brief(cell: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    rows = cell.get("scores", cell).get("effector_error") or cell.get("scores", cell).get("moving_psnr")
    if not rows or "8" not in next(iter(rows.values())):
        return ""
    return json.dumps({method: row["8"].get("mean", {}).get("mean") for method, row in rows.items()})


def write(cells: dict[str, Any], arguments: argparse.Namespace, bench: Bench) -> None:
    """Everything so far into the results file and the run's `report.html`."""
    conditions = {
        "machine": f"{platform.machine()}, {arguments.threads} threads, {bench.compute.reason}",
        "preset": "nano",
        "seconds of training": arguments.seconds,
        "steps of students where none are named": AS_DISTILLED,
        "seconds of a step": bench.cost,
        "seeds": arguments.seeds,
        "clips": len(bench.plan.truth),
        "teacher": "shipped" if arguments.teacher is None else "given",
    }
    stored = {"name": "realtime", **today()}
    write_json(RESULTS, {**stored, "conditions": conditions, "metrics": cells, "goals": goals(cells)})
    facts = (stored["date"], f"commit {stored['commit']}", conditions["machine"])
    page = realtime_report(cells, goals(cells), steps=AS_DISTILLED, conditions=conditions, facts=facts)
    write_report(arguments.run / "report.html", page)


if __name__ == "__main__":
    main()
