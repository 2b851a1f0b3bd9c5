"""Judge a run on held-out robot episodes: roll its models out, train the probes, score.

Where the dojo made the data, probes are trained on its renderings and true positions; recordings of others have no
such truth, and the report holds what pictures alone can tell.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import dreamdojo
from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import DataError
from dreamdojo.evaluation.effector import EffectorProbe, EffectorProbeConfig, train_effector_probe
from dreamdojo.evaluation.health import (
    HealthVerdict,
    Pairs,
    Thresholds,
    default_data_sheet,
    examine,
    gather,
    health_report,
    judge_health,
    true_motion,
)
from dreamdojo.evaluation.health.recordings import MOTION, open_truth
from dreamdojo.evaluation.linear_probe import LinearProbe, fewest_episodes, linear_probe
from dreamdojo.evaluation.objects import ObjectProbe, ObjectProbeConfig, train_object_probe, visible_objects
from dreamdojo.evaluation.predict import ClipPlan, Recording, plan_clips
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.rollouts import SceneTruth
from dreamdojo.evaluation.world_model import STUDENT, TEACHER, Evaluation, build_report, evaluate_sessions
from dreamdojo.files import write_json
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets import Preset
from dreamdojo.rollout.session import load_session
from dreamdojo.stages import Episodes, Run, channels_first
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.tokenizer.train import reconstruction_depth_error, reconstruction_psnr
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.progress import Report, silent
from dreamdojo.video import Size, resize

if TYPE_CHECKING:
    from dreamdojo.dojo.truth import GroundTruth

CONTEXT = 5
"""Given frames of a clip; one more than a multiple of every preset's actions per latent."""
HORIZON = 16
"""Predicted frames of a clip."""


@dataclass(frozen=True, kw_only=True)
class Truths:
    """Datasets with a table of true positions beside them."""

    robot: Episodes
    """Training episodes of the robot: the probes learn from their renderings."""
    held_out: Episodes
    """The episodes that clips come from."""
    held_out_human: Episodes
    """Human episodes that no stage was trained on, for the probe of the latent action."""


def judge(run: Run, held_out: Episodes, truths: Truths | None, *, report: Report = silent, seed: int = 0) -> Evaluation:
    """Score the run's teacher and student on `held_out`.

    Raises:
        DataError: if the held-out episodes are too few or too short.
        CheckpointError: if a model of the run is missing.
    """
    frames = run.frames(held_out)
    depth = run.depth(held_out) if run.preset.modality == "rgbd" else None
    recordings = [
        Recording(
            frames=channels_first(frames[index]),
            actions=_actions(run, held_out, index),
            depth=None if depth is None else depth[index],
        )
        for index in held_out.indices
    ]
    plan = plan_clips(recordings, context=CONTEXT, horizon=HORIZON, seed=seed)
    scene = effector = objects = latent_action = None
    if truths is not None:
        scene = scene_truth(plan, truths.held_out, size=run.preset.size)
        effector, objects = train_probes(run, truths.robot, report)
        latent_action = probe_latent_actions(run, truths.held_out_human, seed=seed)
    tokenizer = load_tokenizer(run.folder / "tokenizer").to(run.compute.device)
    assert isinstance(tokenizer, VideoTokenizer)
    depth_error = None
    if isinstance(tokenizer, RGBDTokenizer):
        episodes = [{"depth": r.depth} for r in recordings if r.depth is not None]
        depth_error = reconstruction_depth_error(tokenizer, episodes, run.compute)
    body = held_out.dataset.embodiment.name
    device = run.compute.device.type
    sessions = {
        name: load_session(run.folder / name, embodiment=body, device=device)  # pyright: ignore[reportArgumentType]
        for name in (TEACHER, STUDENT)
    }
    return evaluate_sessions(
        sessions,
        plan,
        scene=scene,
        effector_probe=effector,
        object_probe=objects,
        tokenizer_psnr=reconstruction_psnr(tokenizer, [{"frames": r.frames} for r in recordings], run.compute),
        tokenizer_depth_error=depth_error,
        latent_action=latent_action,
        report=report,
    )


def scene_truth(plan: ClipPlan, held_out: Episodes, *, size: Size) -> SceneTruth:
    """True positions in the clips of `plan`, whose recordings are the episodes of `held_out`, in order."""
    from dreamdojo.dojo.truth import GroundTruth

    truth = GroundTruth.open(held_out.dataset.root)
    most = max(truth.num_objects(index) for index in held_out.indices)
    effector, effector_visible, masks, starts, positions, visible = [], [], [], [], [], []
    for recording, start in zip(plan.recording, plan.start, strict=True):
        index = held_out.indices[recording]
        last = start + plan.context - 1
        future = slice(last + 1, last + 1 + plan.horizon)
        effector.append(truth.effector_pixel(index)[future])
        effector_visible.append(truth.effector_visible(index)[future])
        labels = small_labels(truth.segmentation(index)[last : last + 1], size)[0]
        masks.append(np.stack([labels == 3 + o for o in range(most)]))
        pixels, seen = padded_objects(truth, index, most, size)
        starts.append(pixels[last])
        positions.append(pixels[future])
        visible.append(seen[future])
    return SceneTruth(
        effector=_tensor(effector).float(),
        effector_visible=_tensor(effector_visible),
        masks=_tensor(masks),
        objects_start=_tensor(starts).float(),
        objects=_tensor(positions).float(),
        objects_visible=_tensor(visible),
    )


def train_probes(
    run: Run,
    robot: Episodes,
    report: Report = silent,
    *,
    effector: EffectorProbeConfig | None = None,
    objects: ObjectProbeConfig | None = None,
) -> tuple[EffectorProbe, ObjectProbe | None]:
    """Probes of gripper and object position, trained on rendered frames of the robot's training episodes.

    The object probe is None where no object moves enough in them to learn from.
    """
    frames, size = run.frames(robot), run.preset.size
    return train_probes_on(robot, frames, size=size, report=report, effector_config=effector, object_config=objects)


def train_probes_on(
    robot: Episodes,
    cache: SideCache,
    *,
    size: Size,
    report: Report = silent,
    effector_config: EffectorProbeConfig | None = None,
    object_config: ObjectProbeConfig | None = None,
) -> tuple[EffectorProbe, ObjectProbe | None]:
    """The same, given the frames of the dojo's episodes at the model's size."""
    from dreamdojo.dojo.truth import GroundTruth

    truth = GroundTruth.open(robot.dataset.root)
    most = max(truth.num_objects(index) for index in robot.indices)
    frames, labels, effector, effector_visible, objects, objects_visible, episodes = ([] for _ in range(7))
    for index in robot.indices:
        frames.append(channels_first(cache[index]))
        labels.append(small_labels(truth.segmentation(index), size))
        effector.append(truth.effector_pixel(index))
        effector_visible.append(truth.effector_visible(index))
        pixels, seen = padded_objects(truth, index, most, size)
        objects.append(pixels)
        objects_visible.append(seen)
        episodes.append(np.full(len(cache[index]), index))
    pictures, segmentation, episode = _joined(frames), _joined(labels), _joined(episodes)
    report(0, 7, "learning to find the gripper")
    effector_probe = train_effector_probe(
        pictures,
        segmentation,
        _joined(effector).float(),
        _joined(effector_visible),
        episode,
        config=effector_config,
    )
    report(1, 7, "learning to find objects")
    try:
        object_probe = train_object_probe(
            pictures,
            segmentation,
            _joined(objects).float(),
            _joined(objects_visible),
            episode,
            config=object_config,
        )
    except DataError as error:
        report(2, 7, f"object positions are not measured: {error}")
        object_probe = None
    return effector_probe, object_probe


def probe_latent_actions(run: Run, human: Episodes, *, seed: int) -> LinearProbe:
    """How much of the hand's true motion, in space and in the picture, a straight line reads off the latent action.

    One camera sees forward and upward motion alike, so the motion in the picture is what a latent action can hold best.
    """
    from dreamdojo.dojo.truth import GroundTruth

    truth = GroundTruth.open(human.dataset.root)
    actions = run.latent_actions(human)
    features, targets, episodes = [], [], []
    for index in human.indices:
        motion = np.concatenate([true_motion(truth, index), np.diff(truth.effector_pixel(index), axis=0)], axis=1)
        features.append(actions[index][: len(motion)])
        targets.append(motion)
        episodes.append(np.full(len(motion), index))
    names = (*MOTION, "right in the picture", "down in the picture")
    return linear_probe(_joined(features).float(), _joined(targets).float(), _joined(episodes), names=names, seed=seed)


@dataclass(frozen=True, kw_only=True)
class HealthData:
    """Datasets that a latent action model is examined on; it was trained on none of their episodes."""

    human: Episodes
    """The kind of video it was trained on."""
    robot: Episodes | None = None
    """Another body, with actions or not."""
    ood: tuple[Episodes, ...] = ()
    """Video unlike that of training."""


def write_health(
    run: Run,
    folder: Path,
    data: HealthData,
    out: Path,
    *,
    bars: Thresholds | None = None,
    oracle_pairs: int = 48,
    oracle_steps: int = 100,
    seed: int = 0,
) -> HealthVerdict:
    """Examine the latent action model in `folder`; writes `report.html` and `report.json` into `out`.

    Raises:
        CheckpointError: if `folder` holds no latent action model.
        DataError: if a dataset has too few episodes.
    """
    started, bars = time.monotonic(), bars or Thresholds()
    model = load_model(folder, LatentActionModel).to(run.compute.device)
    for each in (data.human, data.robot, *data.ood):
        if each is not None:
            require_episodes(each)

    def pairs(name: str, episodes: Episodes) -> Pairs:
        with run.progress(f"latent actions {name}") as report:
            report(0, 1, f"{len(episodes.indices)} episodes")
            return gather(
                name,
                episodes.dataset,
                episodes.indices,
                run.frames(episodes, run.preset.latent_action_size),
                model,
                rate=run.preset.rate,
                patch_size=model.config.patch_size,
                device=run.compute.device,
            )

    human = pairs("human", data.human)
    robot = None if data.robot is None else pairs("robot", data.robot)
    names = [f"unlike video {i + 1}" if len(data.ood) > 1 else "unlike video" for i in range(len(data.ood))]
    ood = [pairs(name, episodes) for name, episodes in zip(names, data.ood, strict=True)]
    with run.progress("examine") as report:
        health = examine(
            model,
            human,
            robot=robot,
            ood=ood,
            oracle_pairs=oracle_pairs,
            oracle_steps=oracle_steps,
            seed=seed,
            device=run.compute.device,
            report=report,
        )
    verdict = judge_health(health, bars)
    sources = {"human": data.human, "robot": data.robot, **dict(zip(names, data.ood, strict=True))}
    where = {f"{name}, from": str(each.dataset.root) for name, each in sources.items() if each is not None}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {run.compute.reason}"
    seconds = time.monotonic() - started
    conditions = {"model": str(folder), "data": where, "machine": machine, "seed": seed, "seconds": seconds}
    write_json(out / "report.json", {"verdict": verdict.to_json(), "conditions": conditions, **health.to_json()})
    write_report(
        out / "report.html",
        health_report(
            health,
            verdict,
            title="The health of a latent action model",
            facts=(date.today().isoformat(), str(folder), machine),
            data_sheet={"model": str(folder), **where, **default_data_sheet(health, bars)},
            rate=run.preset.rate,
        ),
    )
    return verdict


def require_episodes(episodes: Episodes) -> None:
    """Refuse, before anything is computed, a dataset that is to be probed and is too small for it."""
    dataset, fewest = episodes.dataset, fewest_episodes()
    probed = dataset.embodiment.action_dim > 0 or open_truth(dataset) is not None
    if probed and len(episodes.indices) < fewest:
        raise DataError(
            f"{dataset.root}: expected at least {fewest} episodes, so that probes can learn from some and be judged on "
            f"others, found {len(episodes.indices)}. Record more, or leave this dataset out."
        )


def padded_objects(truth: GroundTruth, index: int, most: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions `t most 2` and visibility `t most` of an episode's objects at the model's size.

    An object that is hidden, out of the picture or too small there is not visible; nor is one the episode lacks.
    """
    pixels, seen = truth.object_pixels(index), truth.objects_visible(index)
    missing = most - pixels.shape[1]
    pixels, seen = np.pad(pixels, ((0, 0), (0, missing), (0, 0))), np.pad(seen, ((0, 0), (0, missing)))
    labels = torch.from_numpy(small_labels(truth.segmentation(index), size))
    return pixels, seen & visible_objects(labels, most).numpy()


def small_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """Segmentation `t h w` at the model's size, nearest label."""
    return resize(labels, size, nearest=True)


def _actions(run: Run, episodes: Episodes, index: int) -> np.ndarray:
    actions = resample(episodes.dataset, index, run.preset.rate).actions
    if actions is None:
        raise DataError(f"{episodes.dataset.root}: expected a robot dataset with an 'action' column, found none")
    return actions


def _tensor(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(parts))


def _joined(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def describe(episodes: Episodes) -> str:
    """How much there is, in words."""
    dataset = episodes.dataset
    frames = sum(dataset.episode(index).length for index in episodes.indices)
    return f"{len(episodes.indices)} episodes, {frames / dataset.fps / 60:.1f} minutes at {dataset.fps:g} fps"


def write_findings(
    run: Run, held_out: Episodes, truths: Truths | None, sheet: dict[str, str], seconds: dict[str, float]
) -> None:
    """Evaluate and write `report.html` and `results.json`."""
    started = time.monotonic()
    with run.progress("evaluate") as report:
        evaluation = judge(run, held_out, truths, report=report)
    seconds = {**seconds, "evaluation": seconds.get("evaluation", 0.0) + time.monotonic() - started}
    steps = {stage: number for stage, number in steps_of(run.preset).items() if stage in seconds}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {run.compute.reason}"
    conditions = {
        "preset": run.preset.name,
        "machine": machine,
        "seed": run.preset.posttraining.fit.seed,
        "steps": steps,
        "data": sheet,
        "seconds": seconds,
    }
    write_json(run.folder / "results.json", {"conditions": conditions, **evaluation.to_json()})
    write_report(
        run.folder / "report.html",
        build_report(
            evaluation,
            title="A robot world model, from video to the driver's seat",
            subtitle=f"DreamDojo {dreamdojo.__version__}, preset {run.preset.name}",
            facts=(date.today().isoformat(), machine),
            data_sheet={**sheet, **{f"steps, {k}": str(v) for k, v in steps.items()}},
            stage_seconds=seconds,
            rate=run.preset.rate,
        ),
    )


def steps_of(preset: Preset) -> dict[str, int]:
    """Optimizer steps of every stage."""
    tokenizer = {} if preset.tokenizer_training is None else {"tokenizer": preset.tokenizer_training.fit.steps}
    return {
        **tokenizer,
        "latent actions": preset.latent_action_training.fit.steps,
        "pre-training": preset.pretraining.fit.steps,
        "post-training": preset.posttraining.fit.steps,
        "student": sum(preset.student.fit_of(stage).steps for stage in preset.student.stages),
    }
