"""`dreamdojo evaluate world-model`: any world models on held-out episodes of a dataset, as one table.

Nothing of a run is needed but the models: their size, rate and body say how the recordings are read, and only the clips
that are scored are decoded. Every method predicts the same clips, beside the copied last frame; what can be measured
depends on what is there (true positions with `--probes`, LPIPS with its extra, Fréchet distances with a network).
"""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

import dreamdojo
from dreamdojo.commands import ModelCommand, console, open_robot, train_and_test
from dreamdojo.dataset.frames import cache_frames
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.split import SPLIT
from dreamdojo.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.perceptual import MIN_SIDE, PictureDistance, open_features, open_lpips
from dreamdojo.evaluation.predict import ClipPlan, Recording, draw_places, plan_of
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.rollouts import COPY, METRIC_BY_KEY, SceneTruth
from dreamdojo.evaluation.world_model import STUDENT, TEACHER, Evaluation, build_report, evaluate_sessions
from dreamdojo.files import write_json
from dreamdojo.judge import HORIZON, describe, scene_truth, train_probes_on
from dreamdojo.rollout.session import Session, load_session, tokenizer_folder
from dreamdojo.stages import Episodes
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.tokenizer.train import reconstruction_depth_error, reconstruction_psnr
from dreamdojo.training.checkpoint import read_class
from dreamdojo.training.device import Compute, Device, choose_compute
from dreamdojo.training.progress import Report, progress_line, silent
from dreamdojo.world_model.model import WorldModel

CONVERTED = "world_model"
LEAST_CONTEXT = 4
"""Given frames after the first, or the next multiple of what the models predict at once."""


@dataclass(kw_only=True)
class EvaluateWorldModel(ModelCommand):
    """Score world models on held-out episodes of a robot's dataset; writes `report.html` and `results.json`."""

    model: tyro.conf.Positional[Path]
    """A run's folder, whose teacher and student are scored beside each other; the folder of one world model (teacher,
    student or converted); or the name of a preset whose models ship (nano)."""
    robot: Path
    """The robot's dataset."""
    body: str | None = None
    """Whose it is, where the dataset does not say: gr1, g1, yam or agibot."""
    camera: str | None = None
    """Its camera, where it has several."""
    out: Path | None = None
    """Folder for the report; by default `evaluation` in the model's folder, or in runs/NAME of one that ships."""
    test_fraction: float = 0.2
    """Share of the episodes that are held out, as in training (a split that the dataset declares goes first)."""
    all_episodes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Score all episodes: of recordings that no stage was trained on."""
    clips: int | None = None
    """How many clips; by default one of each held-out episode, and at least 16 where they do not overlap."""
    horizon: int | None = None
    """Predicted frames of a clip; by default 16, or as many whole steps of the model as fit."""
    seed: int = 0
    """Decides where clips begin, and the noise."""
    steps: int | None = None
    """Denoising steps; by default those each model was made for."""
    lpips: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse to go on without ST-LPIPS, which is measured wherever the extra `perceptual` is installed."""
    fvd: Path | None = None
    """Measure the Fréchet video distance in the features of this TorchScript file: b t 3 h w in [0, 1] -> b d."""
    probes: Path | None = None
    """A dataset of the dojo whose renderings teach probes of gripper and objects, so that positions are measured."""
    rerun: Path | None = None
    """Write the clips to FILE.rrd: truth, predictions, errors, actions and positions, for the Rerun viewer."""
    tile: int | None = None
    """Side in pixels of the tiles that a Wan tokenizer works on, to need less memory."""
    workers: int = 2
    """Processes that decode the video of `probes`."""
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads; all cores by default."""

    def run(self) -> None:
        """Evaluate."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.rerun is not None:
            from dreamdojo.apps.viewer import check_viewer

            check_viewer(self.rerun)
        started, compute = time.monotonic(), choose_compute(self.device)
        where, models = find_models(self.model)
        out = self.out or (where / "evaluation" if self.model.exists() else Path("runs") / self.model / "evaluation")
        dataset = open_robot(self.robot, self.body)
        held_out = held_out_episodes(
            dataset, test_fraction=self.test_fraction, camera=self.camera, everything=self.all_episodes
        )
        sessions = open_sessions(models, dataset, device=self.device, steps=self.steps, tile=self.tile)
        first = next(iter(sessions.values()))
        lpips = choose_lpips(self.lpips, compute.device, first.size)
        features = None if self.fvd is None else open_features(self.fvd, compute.device)
        with progress_line("clips") as report:
            plan = plan_recorded(
                held_out, sessions, clips=self.clips, horizon=self.horizon, seed=self.seed, report=report
            )
        scene, effector, objects = self._probes(held_out, plan, first, out)
        tokenizer = load_tokenizer(tokenizer_folder(next(iter(models.values()))), tile=self.tile).to(compute.device)
        assert isinstance(tokenizer, VideoTokenizer)
        with progress_line("evaluate") as report:
            evaluation = evaluate_sessions(
                sessions,
                plan,
                scene=scene,
                effector_probe=effector,
                object_probe=objects,
                tokenizer_psnr=reconstruction_psnr(tokenizer, _videos(plan), compute),
                tokenizer_depth_error=_depth_error(tokenizer, plan, compute),
                lpips=lpips,
                features=features,
                seed=self.seed,
                report=report,
            )
        self._write(out, models, sessions, held_out, evaluation, compute, time.monotonic() - started)
        console.print(summary(evaluation), markup=False, soft_wrap=True)
        console.print(f"Look at {out / 'report.html'}")
        if self.rerun is not None:
            self._log(evaluation, first, effector)

    def _probes(
        self, held_out: Episodes, plan: ClipPlan, session: Session, out: Path
    ) -> tuple[SceneTruth | None, EffectorProbe | None, ObjectProbe | None]:
        if self.probes is None:
            return None, None, None
        for dataset in (held_out.dataset, source := open_robot(self.probes, None)):
            if dataset.fps != session.fps:
                raise ConfigError(
                    f"{dataset.root}: true positions are known at its {dataset.fps:g} fps only, the model predicts "
                    f"{session.fps:g}. Leave --probes out."
                )
        if source.hash == held_out.dataset.hash:
            raise ConfigError(
                f"{self.probes}: probes learn from other recordings than those that are judged. Record some "
                "(`dreamdojo simulate`)."
            )
        robot = Episodes(dataset=source, indices=tuple(episode.index for episode in source.episodes))
        scene = scene_truth(plan, held_out, size=session.size)
        with progress_line("probes") as report:
            frames = cache_frames(
                source,
                out / "cache" / f"frames-{source.hash}",
                rate=session.fps,
                size=session.size,
                workers=self.workers,
                progress=lambda done, total: report(done, total, "episodes"),
            )
            return scene, *train_probes_on(robot, frames, size=session.size, report=report)

    def _write(
        self,
        out: Path,
        models: Mapping[str, Path],
        sessions: Mapping[str, Session],
        held_out: Episodes,
        evaluation: Evaluation,
        compute: Compute,
        seconds: float,
    ) -> None:
        plan, session = evaluation.plan, next(iter(sessions.values()))
        machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {compute.reason}"
        recordings = f"{len(set(plan.recording))} of {len(held_out.indices)} held-out episodes"
        sheet = {
            **{f"model, {name}": str(folder) for name, folder in models.items()},
            **{f"denoising steps, {name}": str(each.sampler.steps) for name, each in sessions.items()},
            "held out": f"{self.robot}, {describe(held_out)}",
            "clips": f"{len(plan.truth)} from {recordings}, {plan.context} frames given, {plan.horizon} predicted",
            "frames": f"{session.size[0]}x{session.size[1]} pixels at {session.fps:g} per second",
            **({} if self.probes is None else {"probes": str(self.probes)}),
            **({} if self.fvd is None else {"features of the Fréchet video distance": str(self.fvd)}),
        }
        conditions = {
            "models": {name: str(folder) for name, folder in models.items()},
            "embodiment": session.embodiment.name,
            "samplers": {name: dataclasses.asdict(each.sampler) for name, each in sessions.items()},
            "machine": machine,
            "seed": self.seed,
            "context": plan.context,
            "horizon": plan.horizon,
            "data": sheet,
            "seconds": {"evaluation": seconds},
        }
        write_json(out / "results.json", {"conditions": conditions, **evaluation.to_json()})
        write_report(
            out / "report.html",
            build_report(
                evaluation,
                title="World models on held-out recordings",
                subtitle=f"DreamDojo {dreamdojo.__version__}, {' and '.join(models)}",
                facts=(date.today().isoformat(), machine),
                data_sheet={**sheet, "seed": str(self.seed)},
                stage_seconds={"evaluation": seconds},
                rate=session.fps,
            ),
        )

    def _log(self, evaluation: Evaluation, session: Session, probe: EffectorProbe | None) -> None:
        from dreamdojo.apps.viewer import located_marks, log_clips, viewing

        title = f"{self.model} on {self.robot.name}"
        with viewing(title, file=self.rerun) as stream, progress_line("rerun") as report:
            marks = located_marks(probe, evaluation) if probe is not None and probe.error.valid else None
            log_clips(stream, evaluation, session.embodiment, fps=session.fps, marks=marks, report=report)
        console.print(f"Look at the clips with: rerun {self.rerun}")


def find_models(where: Path) -> tuple[Path, dict[str, Path]]:
    """The folder meant, and the world models in it: a run's teacher and student, a converted one, or itself.

    Raises:
        CheckpointError: if there is none.
    """
    shipped = None if where.exists() else dreamdojo.foundation(str(where))
    where = shipped or where
    if (where / "config.json").exists():
        if (found := read_class(where)) != WorldModel.__name__:
            raise CheckpointError(f"{where}: expected a {WorldModel.__name__}, found a {found}")
        return where, {where.resolve().name: where}
    models = {name: where / name for name in (TEACHER, STUDENT, CONVERTED) if (where / name / "config.json").exists()}
    if not models:
        there = ", ".join(sorted(path.name for path in where.iterdir())[:6]) if where.is_dir() else "nothing"
        raise CheckpointError(
            f"{where}: expected the folder of a world model, or a run's with {TEACHER} or {STUDENT} in it, found "
            f"{there or 'nothing'}. Train one first (dreamdojo posttrain), or name one that ships (nano)."
        )
    return where, models


def held_out_episodes(dataset: Dataset, *, test_fraction: float, camera: str | None, everything: bool) -> Episodes:
    """The episodes that posttraining with the same fraction leaves out; all where the dataset is for testing only.

    Raises:
        ConfigError: if all are asked for and some say that they are for training.
    """
    stated = {episode.meta.get(SPLIT) for episode in dataset.episodes}
    if everything and "train" in stated:
        raise ConfigError(
            f"--all-episodes is for recordings that no stage was trained on; {dataset.root} says that its episodes are "
            "for training. Record others (`dreamdojo simulate --split test`), or leave the option out."
        )
    if everything or not stated & {None, "train"}:
        return Episodes(dataset=dataset, indices=tuple(e.index for e in dataset.episodes), camera=camera)
    return train_and_test(dataset, test_fraction=test_fraction, minutes=None, camera=camera)[1]


def open_sessions(
    models: Mapping[str, Path], dataset: Dataset, *, device: Device, steps: int | None, tile: int | None
) -> dict[str, Session]:
    """A session of each model with the dataset's body.

    Raises:
        CheckpointError: if a model is not whole.
        ConfigError: if a model lacks the body or knows it with other actions, or they do not see the same frames.
    """
    body = dataset.embodiment
    if not body.action_dim:
        raise ConfigError(f"{dataset.root} has no actions, so no model can be told what to predict in it")
    sessions = {
        name: load_session(folder, embodiment=body.name, steps=steps, device=device, tile=tile)
        for name, folder in models.items()
    }
    for name, session in sessions.items():
        if session.embodiment.action_names() != body.action_names():
            raise ConfigError(
                f"{models[name]} knows {body.name} with the actions {', '.join(session.embodiment.action_names())}; "
                f"{dataset.root} has {', '.join(body.action_names()) or 'none'}. Name its body (--body), or post-train."
            )
    seen = {name: (each.size, each.fps, each.depth) for name, each in sessions.items()}
    if len(set(seen.values())) > 1:
        raise ConfigError(f"models beside each other must see the same frames, got (size, fps, depth) {seen}")
    return sessions


def plan_recorded(
    episodes: Episodes,
    sessions: Mapping[str, Session],
    *,
    clips: int | None = None,
    horizon: int | None = None,
    seed: int = 0,
    report: Report = silent,
) -> ClipPlan:
    """Clips of recorded episodes at the models' size and rate; only their frames are decoded.

    Raises:
        ConfigError: if the horizon is not a multiple of what the models predict at once.
        DataError: if the dataset has no actions, or its episodes are too few or too short.
    """
    dataset, session = episodes.dataset, next(iter(sessions.values()))
    step = math.lcm(*(each.actions_per_step for each in sessions.values()))
    context = 1 + step * -(-LEAST_CONTEXT // step)
    horizon = max(HORIZON // step, 1) * step if horizon is None else horizon
    if horizon < 1 or horizon % step:
        raise ConfigError(
            f"the models predict {step} frames at once: expected a multiple of it as horizon, got {horizon}"
        )
    states_fit = session.embodiment.state_names() == dataset.embodiment.state_names()
    recorded = [resample(dataset, index, session.fps) for index in episodes.indices]
    lengths = [len(each.frame_indices) for each in recorded]
    places = draw_places(lengths, context=context, horizon=horizon, seed=seed, clips=clips)
    cuts = []
    for number, start in places:
        index, source, rows = episodes.indices[number], recorded[number], slice(start, start + context + horizon)
        if source.actions is None:
            raise DataError(f"{dataset.root}: expected a robot dataset with an 'action' column, found none")
        wanted = source.frame_indices[rows]
        frames = dataset.frames(index, wanted, episodes.camera, size=session.size)
        depth = None if session.depth is None else dataset.depth(index, wanted, episodes.camera, size=session.size)
        cuts.append(
            Recording(
                frames=np.moveaxis(frames, -1, 1),
                actions=source.actions[rows.start : rows.stop - 1],
                depth=depth,
                states=source.states[rows] if source.states is not None and states_fit else None,
            )
        )
        report(len(cuts), len(places), "clips")
    return plan_of(places, cuts, context=context, horizon=horizon)


def choose_lpips(asked: bool, device: torch.device, size: tuple[int, int]) -> PictureDistance | None:
    """ST-LPIPS where it can be measured; says so in one line where it cannot.

    Raises:
        MissingDependencyError: if it is asked for and its weights are not installed.
        DataError: if it is asked for and the pictures are too small.
    """
    try:
        if min(size) < MIN_SIDE:
            raise DataError(f"LPIPS needs pictures of at least {MIN_SIDE} x {MIN_SIDE} pixels, got {size[0]}x{size[1]}")
        return open_lpips(device)
    except (MissingDependencyError, DataError) as error:
        if asked:
            raise
        console.print(f"LPIPS is left out. {error}", markup=False, soft_wrap=True)
        return None


def summary(evaluation: Evaluation) -> str:
    """The last horizon of every method in a few lines."""
    scores, far = evaluation.scores, evaluation.plan.horizon
    lines = [f"{scores.clips} clips, {far} frames ahead, mean and 95 % interval:"]
    for key in ("psnr", "ssim", "lpips"):
        if key in scores.true_actions:
            metric = METRIC_BY_KEY[key]
            parts = []
            for method in (*scores.methods, COPY):
                mean = scores.mean(key, method, far)
                low, high = (f"{end:.{metric.decimals}f}" for end in (mean.low, mean.high))
                parts.append(f"{method} {mean.mean:.{metric.decimals}f} ({low} to {high})")
            lines.append(f"  {metric.name}{f' ({metric.unit})' if metric.unit else ''}: {', '.join(parts)}")
    if evaluation.frechet is not None:
        parts = [f"{method} {value:.2f}" for method, value in evaluation.frechet.items()]
        lines.append(f"  Fréchet video distance: {', '.join(parts)}")
    return "\n".join(lines)


def _videos(plan: ClipPlan) -> list[dict[str, np.ndarray]]:
    """Each clip whole, as the tokenizer is judged on it."""
    return [{"frames": video.numpy()} for video in torch.cat([plan.given, plan.truth], dim=1)]


def _depth_error(tokenizer: VideoTokenizer, plan: ClipPlan, compute: Compute) -> float | None:
    if not isinstance(tokenizer, RGBDTokenizer) or plan.given_depth is None or plan.true_depth is None:
        return None
    whole = torch.cat([plan.given_depth, plan.true_depth], dim=1)[:, :, 0]
    return reconstruction_depth_error(tokenizer, [{"depth": metres.numpy()} for metres in whole], compute)
