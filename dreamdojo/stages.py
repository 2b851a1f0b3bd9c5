"""The stages as functions on a run folder. Each reads what the ones before it wrote, and can be run alone.

RUN/cache/            frames, latents and latent actions: side caches, keyed by what made them
RUN/tokenizer/        model.safetensors  config.json  metrics.jsonl  state.pt
RUN/latent_action/    the same
RUN/pretrained/       the same: the world model after human video
RUN/teacher/          the same, after the robot's episodes; with a LoRA also lora.safetensors  lora.json
RUN/student/          the same, of few steps

Under torchrun several processes train a stage together, `state.pt` is a folder `state`, and only the main process
writes and speaks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.frames import cache_frames
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.windows import Arrays, Source
from dreamdojo.errors import CheckpointError, DataError
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions, train_latent_action_model
from dreamdojo.metrics.ridge import fit_ridge
from dreamdojo.presets.preset import Preset
from dreamdojo.student.distill import distil
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.tokenizer.train import encode_episode, train_tokenizer
from dreamdojo.training.checkpoint import load_model, model_hash, read_about, save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import is_finished
from dreamdojo.training.progress import Report, progress_line
from dreamdojo.training.trackers import TrackerName, open_trackers
from dreamdojo.world_model.lora import LoRAConfig, train_lora
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

Progress = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """A dataset and the episodes of it that a stage may use."""

    dataset: Dataset
    indices: tuple[int, ...]
    camera: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, the preset it follows, and where it computes."""

    folder: Path
    preset: Preset
    compute: Compute
    trackers: tuple[TrackerName, ...] = ()
    workers: int = 2
    progress: Progress = progress_line

    def frames(self, episodes: Episodes) -> SideCache:
        """Frames at the preset's size and rate; decoded once."""
        dataset = episodes.dataset
        size, rate, camera = self.preset.size, self.preset.rate, dataset.camera(episodes.camera)
        path = self.folder / "cache" / f"frames-{camera}-{size[0]}x{size[1]}px-{rate:g}hz-{dataset.hash}"
        with self.compute.processes.main_first(), self.progress(f"frames {dataset.root.name}") as report:
            return cache_frames(
                dataset,
                path,
                rate=rate,
                size=size,
                camera=camera,
                progress=lambda done, total: report(done, total, "episodes"),
                workers=self.workers,
            )

    def latents(self, episodes: Episodes) -> SideCache:
        """Latents of every episode, by the run's tokenizer."""
        tokenizer = load_model(self.folder / "tokenizer", Tokenizer).to(self.compute.device)
        frames = self.frames(episodes)
        config = tokenizer.config
        return self._derived(
            episodes,
            kind="latent",
            gap=0,
            model_folder=self.folder / "tokenizer",
            lengths={episode: tokenizer.num_latents(len(frames[episode])) for episode in frames.episodes},
            shape=(config.latent_channels, *(side // config.spatial_factor for side in self.preset.size)),
            dtype=np.float16,
            derive=lambda episode: encode_episode(tokenizer, channels_first(frames[episode]), self.compute),
        )

    def latent_actions(self, episodes: Episodes) -> SideCache:
        """Latent actions of every episode, by the run's latent action model; row i is the motion i -> i + 1."""
        model = load_model(self.folder / "latent_action", LatentActionModel).to(self.compute.device)
        frames = self.frames(episodes)
        return self._derived(
            episodes,
            kind="latent_action",
            gap=1,
            model_folder=self.folder / "latent_action",
            lengths={episode: len(frames[episode]) for episode in frames.episodes},
            shape=(model.config.latent_dim,),
            dtype=np.float32,
            derive=lambda episode: infer_latent_actions(model, channels_first(frames[episode]), self.compute),
        )

    def _derived(
        self,
        episodes: Episodes,
        *,
        kind: str,
        gap: int,
        model_folder: Path,
        lengths: dict[int, int],
        shape: tuple[int, ...],
        dtype: type,
        derive: Callable[[int], np.ndarray],
    ) -> SideCache:
        dataset = episodes.dataset
        key = CacheKey(
            kind=kind,
            dataset_hash=dataset.hash,
            model_hash=model_hash(model_folder),
            rate=self.preset.rate,
            gap=gap,
        )
        path = self.folder / "cache" / f"{kind}-{dataset.hash}-{key.model_hash}"
        with self.compute.processes.main_first():
            if not path.exists():
                with self.progress(f"{kind} {dataset.root.name}") as report:
                    writer = CacheWriter(path, key, lengths, shape, dtype)
                    for done, episode in enumerate(lengths):
                        if episode not in writer.done:
                            writer.write(episode, derive(episode))
                        report(done + 1, len(lengths), "episodes")
                    writer.close()
        return open_cache(path, key)


def channels_first(frames: np.ndarray) -> np.ndarray:
    """`t h w c` -> `t c h w`, a view."""
    return np.moveaxis(frames, -1, 1)


def frame_source(run: Run, episodes: Episodes, weight: float = 1.0) -> Source:
    """Frames for the tokenizer and the latent action model."""
    frames = run.frames(episodes)
    return Source(
        embodiment=episodes.dataset.embodiment.name,
        episodes=[{"frames": channels_first(frames[index])} for index in episodes.indices],
        weight=weight,
    )


def latent_action_source(run: Run, episodes: Episodes, weight: float = 1.0) -> Source:
    """Latents with latent actions, for video without labels."""
    latents, actions = run.latents(episodes), run.latent_actions(episodes)
    k = run.preset.tokenizer.temporal_factor
    return Source(
        embodiment=LATENT_ACTION,
        episodes=[latent_episode(latents[i], actions[i][:-1], k) for i in episodes.indices],
        weight=weight,
    )


def robot_source(run: Run, episodes: Episodes, weight: float = 1.0) -> Source:
    """Latents with the robot's own normalised actions."""
    latents = run.latents(episodes)
    return Source(
        embodiment=episodes.dataset.embodiment.name,
        episodes=[robot_episode(run, episodes, latents, index) for index in episodes.indices],
        weight=weight,
    )


def robot_episode(run: Run, episodes: Episodes, latents: SideCache, index: int) -> Arrays:
    """One robot episode: latents and normalised action chunks, relative where the body says so.

    Before the first action nothing was commanded; it counts as its own base.

    Raises:
        DataError: if the dataset has no actions.
    """
    dataset = episodes.dataset
    resampled = resample(dataset, index, run.preset.rate)
    if resampled.actions is None:
        raise DataError(f"{dataset.root}: expected a robot dataset with an 'action' column, found none")
    k = run.preset.tokenizer.temporal_factor
    normal = dataset.embodiment.normalize_action(resampled.actions)
    if dataset.embodiment.relative and len(normal):
        normal = relative_actions(normal, normal[0], k)
    return latent_episode(latents[index], normal, k)


def tokenizer_stage(run: Run, sources: Sequence[Episodes]) -> Tokenizer:
    """Train the tokenizer on all frames given."""
    with run.progress("tokenizer") as report:
        folder = run.folder / "tokenizer"
        return train_tokenizer(
            run.preset.tokenizer,
            run.preset.tokenizer_training,
            [frame_source(run, episodes) for episodes in sources],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "tokenizer"),
            report=report,
        )


def latent_action_stage(run: Run, human: Episodes) -> LatentActionModel:
    """Train the latent action model on unlabelled video."""
    with run.progress("latent actions") as report:
        folder = run.folder / "latent_action"
        return train_latent_action_model(
            run.preset.latent_action,
            run.preset.latent_action_training,
            [frame_source(run, human)],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "latent_action"),
            report=report,
        )


def pretrain_stage(run: Run, human: Episodes) -> WorldModel:
    """Train the world model on human video and its latent actions."""
    folder, preset = run.folder / "pretrained", run.preset
    if is_finished(folder, preset.pretraining.fit):
        return load_model(folder, WorldModel)
    source = latent_action_source(run, human)
    torch.manual_seed(preset.pretraining.fit.seed)
    model = WorldModel(WorldModelConfig(dit=preset.world_model, size=preset.size, rate=preset.rate))
    actions = np.concatenate([run.latent_actions(human)[index][:-1] for index in human.indices])
    model.latent_action_mean.copy_(torch.from_numpy(actions.mean(axis=0)))
    model.latent_action_std.copy_(torch.from_numpy(actions.std(axis=0).clip(1e-4)))
    with run.progress("pre-train") as report:
        return train_world_model(
            model,
            preset.pretraining,
            [source],
            folder,
            compute=run.compute,
            about=sampling(preset.student.teacher),
            trackers=open_trackers(run.trackers, folder, "pretrained"),
            report=report,
        )


def posttrain_stage(run: Run, robot: Episodes, human: Episodes | None, *, lora_rank: int | None = None) -> WorldModel:
    """Teach the pre-trained world model a robot's body from its episodes; some human video is mixed in.

    With `lora_rank` only a LoRA of that rank and the robot's adapter are trained.

    Raises:
        CheckpointError: if the stage was finished with another `lora_rank`.
    """
    folder, preset = run.folder / "teacher", run.preset
    if is_finished(folder, preset.posttraining.fit):
        found = read_about(folder).get("lora", {}).get("rank")
        if found != lora_rank:
            raise CheckpointError(
                f"{folder} is finished, with lora_rank={found}; lora_rank={lora_rank} was asked for. Use another run "
                "folder, or delete this one's teacher to train it again."
            )
        return load_model(folder, WorldModel)
    model = load_model(run.folder / "pretrained", WorldModel)
    body = robot.dataset.embodiment
    model = model.with_embodiments(body)
    source = robot_source(run, robot, weight=1 - preset.human_share)
    sources = [source]
    if human is not None and preset.human_share > 0:
        sources.append(latent_action_source(run, human, weight=preset.human_share))
    weight, bias = align_adapter(run, model, robot, source)
    model.adapter(body.name).start_from(weight, bias)
    train = train_world_model
    if lora_rank is not None:
        torch.manual_seed(preset.posttraining.fit.seed)
        base = "bfloat16" if run.compute.autocast else "float32"
        train = partial(train_lora, lora=LoRAConfig(rank=lora_rank, alpha=2.0 * lora_rank, base=base))
    with run.progress("post-train") as report:
        return train(
            model,
            preset.posttraining,
            sources,
            folder,
            compute=run.compute,
            about=sampling(preset.student.teacher),
            trackers=open_trackers(run.trackers, folder, "teacher"),
            report=report,
        )


def align_adapter(run: Run, model: WorldModel, robot: Episodes, source: Source) -> tuple[Tensor, Tensor]:
    """Ridge regression from the robot's action chunks to the latent actions inferred from its own video.

    Returns the weight and bias of the adapter's linear part.
    """
    k = run.preset.tokenizer.temporal_factor
    actions = run.latent_actions(robot)
    chunks, targets = [], []
    for index, episode in zip(robot.indices, source.episodes, strict=True):
        rows = len(episode["chunk"])
        chunks.append(episode["chunk"][1:])
        targets.append(actions[index][: k * (rows - 1)].reshape(rows - 1, -1))
    target = model.conditioning(LATENT_ACTION, torch.from_numpy(np.concatenate(targets))[None])[0]
    fit = fit_ridge(torch.from_numpy(np.concatenate(chunks)), target, strength=1e-2)
    return fit.weight.T, fit.bias


def student_stage(run: Run, robot: Episodes) -> WorldModel:
    """Distil the teacher into a student of few steps."""
    folder, preset = run.folder / "student", run.preset
    if is_finished(folder, preset.student.fit):
        return load_model(folder, WorldModel)
    teacher = load_model(run.folder / "teacher", WorldModel)
    source = robot_source(run, robot)
    with run.progress("student") as report:
        return distil(
            teacher,
            preset.student,
            preset.posttraining,
            [source],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "student"),
            report=report,
        )


def adopt_foundation(run: Run, foundation: Path) -> None:
    """Put a shipped foundation's tokenizer, latent action model and pre-trained world model into a run folder.

    Raises:
        CheckpointError: if the foundation does not fit the preset.
    """
    stages = {"tokenizer": Tokenizer, "latent_action": LatentActionModel, "pretrained": WorldModel}
    for stage, model_class in stages.items():
        model = load_model(foundation / stage, model_class)
        if isinstance(model, WorldModel) and model.config.dit != run.preset.world_model:
            raise CheckpointError(
                f"the foundation in {foundation} has another world model than preset {run.preset.name}: "
                f"{_difference(model.config.dit, run.preset.world_model)}. Run with --from-scratch."
            )
        if not (run.folder / stage / "model.safetensors").exists():
            save_model(run.folder / stage, model, about=read_about(foundation / stage))


def sampling(sampler: SamplerConfig) -> dict[str, dict[str, float]]:
    """How a checkpoint wants to be sampled, as kept in its `about`."""
    return {"sampler": dataclasses.asdict(sampler)}


def _difference(found: object, expected: object) -> str:
    left, right = dataclasses.asdict(found), dataclasses.asdict(expected)  # pyright: ignore[reportArgumentType]
    return ", ".join(f"{name} {left[name]!r} instead of {right[name]!r}" for name in left if left[name] != right[name])
