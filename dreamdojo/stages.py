"""The stages as functions on a run folder. Each reads what the ones before it wrote, and can be run alone.

RUN/cache/            frames, depth, latents and latent actions: side caches, keyed by what made them
RUN/tokenizer/        model.safetensors  config.json  metrics.jsonl  state.pt; with depth, of both, and in it
                      rgb/  depth/: the same of each part
RUN/latent_action/    the same
RUN/alignment/        model.safetensors  config.json  alignment.json: latent actions to a robot's actions and back
RUN/pretrained/       the same: the world model after human video
RUN/teacher/          the same, after the robot's episodes; with a LoRA also lora.safetensors  lora.json
RUN/student/          the same, of few steps; with more stages than the warm-up also warm_up/  self_forcing/

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
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.frames import cache_depth, cache_frames
from dreamdojo.dataset.published import RESERVED_SLOT, in_reserved_slot
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.windows import Arrays, Source
from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.files import write_json
from dreamdojo.latent_action.align import (
    AlignmentCurve,
    AlignmentFit,
    Kind,
    PairedEpisode,
    alignment_curve,
    fit_alignment,
    paired_episode,
    ridge_map,
)
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions, train_latent_action_model, travelled
from dreamdojo.presets.preset import Preset
from dreamdojo.student.distill import distil, is_distilled
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer, join_parts
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.tokenizer.train import encode_episode, train_tokenizer
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.checkpoint import load_model, model_hash, read_about, read_class, read_config, save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import is_finished
from dreamdojo.training.progress import Report, progress_line
from dreamdojo.training.trackers import TrackerName, open_trackers
from dreamdojo.world_model.depth import add_depth
from dreamdojo.world_model.lora import LoRAConfig, train_lora
from dreamdojo.world_model.model import LATENT_ACTION, ActionAdapter, WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

Progress = Callable[[str], AbstractContextManager[Report]]
AdapterStart = Literal["aligned", "fresh"]


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

    def frames(self, episodes: Episodes, size: tuple[int, int] | None = None) -> SideCache:
        """Frames at the preset's rate and its size or another; decoded once."""
        return self._pictures("frames", cache_frames, episodes, size or self.preset.size)

    def depth(self, episodes: Episodes) -> SideCache:
        """Depth in metres at the preset's rate and size; decoded once.

        Raises:
            DataError: if the dataset's camera has no depth.
        """
        return self._pictures("depth", cache_depth, episodes, self.preset.size)

    def _pictures(
        self, kind: str, cache: Callable[..., SideCache], episodes: Episodes, size: tuple[int, int]
    ) -> SideCache:
        dataset, rate = episodes.dataset, self.preset.rate
        camera = dataset.camera(episodes.camera)
        path = self.folder / "cache" / f"{kind}-{camera}-{size[0]}x{size[1]}px-{rate:g}hz-{dataset.hash}"
        with self.compute.processes.main_first(), self.progress(f"{kind} {dataset.root.name}") as report:
            return cache(
                dataset,
                path,
                rate=rate,
                size=size,
                camera=camera,
                progress=lambda done, total: report(done, total, "episodes"),
                workers=self.workers,
            )

    def latents(self, episodes: Episodes) -> SideCache:
        """Latents of every episode, by the run's tokenizer: as one video, or as clips where the preset says so."""
        tokenizer = load_tokenizer(self.folder / "tokenizer").to(self.compute.device)
        assert isinstance(tokenizer, VideoTokenizer)
        frames, clip = self.frames(episodes), self.preset.clip_frames
        depth = self.depth(episodes) if self.preset.modality == "rgbd" else None

        def starts(episode: int) -> range:
            return clip_starts(len(frames[episode]), clip, tokenizer.temporal_factor)

        def derive(episode: int) -> np.ndarray:
            pictures, clips = channels_first(frames[episode]), starts(episode)
            metres = None if depth is None else depth[episode]
            if not clips:
                return np.empty((0, *shape), np.float16)
            return np.concatenate(
                [
                    encode_episode(
                        tokenizer,
                        pictures[i:][:clip],
                        self.compute,
                        depth=None if metres is None else metres[i:][:clip],
                    )
                    for i in clips
                ]
            )

        shape = (tokenizer.latent_channels, *(side // tokenizer.spatial_factor for side in self.preset.size))
        return self._derived(
            episodes,
            kind="latent" if clip is None else f"latent{clip}",
            gap=0,
            model_folder=self.folder / "tokenizer",
            lengths={i: len(starts(i)) * tokenizer.num_latents(clip or len(frames[i])) for i in frames.episodes},
            shape=shape,
            dtype=np.float16,
            derive=derive,
        )

    def latent_actions(self, episodes: Episodes) -> SideCache:
        """Latent actions of every episode, by the run's latent action model; row i is the motion i -> i + 1."""
        model = load_model(self.folder / "latent_action", LatentActionModel).to(self.compute.device)
        frames = self.frames(episodes, self.preset.latent_action_size)
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


def clip_starts(num_frames: int, clip_frames: int | None, k: int) -> range:
    """First frames of the clips of an episode, `k` apart so that each begins where a chunk of actions does."""
    if clip_frames is None:
        return range(1)
    return range(0, num_frames - clip_frames + 1, k)


def frame_source(run: Run, episodes: Episodes, size: tuple[int, int] | None = None) -> Source:
    """Frames for the tokenizer and the latent action model."""
    frames = run.frames(episodes, size)
    return Source(
        embodiment=episodes.dataset.embodiment.name,
        episodes=[{"frames": channels_first(frames[index])} for index in episodes.indices],
    )


def depth_source(run: Run, episodes: Episodes) -> Source:
    """Depth pictures, in metres, for the tokenizer of depth."""
    depth = run.depth(episodes)
    return Source(
        embodiment=episodes.dataset.embodiment.name,
        episodes=[{"frames": depth[index][:, None]} for index in episodes.indices],
    )


def latent_action_source(run: Run, episodes: Episodes, weight: float = 1.0) -> Source:
    """Latents with latent actions, for video without labels."""
    latents, actions = run.latents(episodes), run.latent_actions(episodes)
    return Source(
        embodiment=LATENT_ACTION,
        episodes=[part for i in episodes.indices for part in training_episodes(run, latents[i], actions[i][:-1])],
        weight=weight,
    )


def robot_source(run: Run, episodes: Episodes, body: Embodiment | None = None, weight: float = 1.0) -> Source:
    """Latents with the robot's own normalised actions, as `body` says that a model wants them."""
    latents, body = run.latents(episodes), body or episodes.dataset.embodiment
    return Source(
        embodiment=body.name,
        episodes=[part for i in episodes.indices for part in robot_episodes(run, episodes, latents, i, body)],
        weight=weight,
    )


def robot_episodes(run: Run, episodes: Episodes, latents: SideCache, index: int, body: Embodiment) -> list[Arrays]:
    """One robot episode as `training_episodes`, with its normalised actions and states."""
    actions, states = robot_motion(run, episodes, index, body)
    return training_episodes(run, latents[index], actions, relative=body.relative, states=states)


def robot_motion(run: Run, episodes: Episodes, index: int, body: Embodiment) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalised actions `t-1 a` and states `t s` of an episode at the preset's rate.

    Raises:
        DataError: if the dataset has no actions.
    """
    resampled = resample(episodes.dataset, index, run.preset.rate)
    if resampled.actions is None:
        raise DataError(f"{episodes.dataset.root}: expected a robot dataset with an 'action' column, found none")
    states = None if resampled.states is None else body.normalize_state(resampled.states)
    return body.normalize_action(resampled.actions), states


def training_episodes(
    run: Run, latents: np.ndarray, actions: np.ndarray, *, relative: bool = False, states: np.ndarray | None = None
) -> list[Arrays]:
    """An episode as training reads it: whole, or cut into clips that each start anew.

    Relative actions start from the action before the clip; before an episode's first nothing was commanded, and it
    counts as its own base. Clips carry the state at that base, which models of published weights may ask for.
    """
    k, clip = run.preset.tokenizer.temporal_factor, run.preset.clip_frames
    rows = len(latents) if clip is None else 1 + (clip - 1) // k
    parts: list[Arrays] = []
    for number, start in enumerate(clip_starts(len(actions) + 1, clip, k)):
        own = actions[start:][: k * (rows - 1)]
        base = max(start - 1, 0)
        given = relative_actions(own, actions[base], k) if relative and len(own) else own
        part = dict(latent_episode(latents[number * rows :][:rows], given, k))
        if clip is not None and states is not None:
            part["state"] = np.repeat(states[base][None], rows, axis=0)
        parts.append(part)
    return parts


def tokenizer_stage(
    run: Run, sources: Sequence[Episodes], rgb: Path | None = None
) -> Tokenizer | WanTokenizer | TAEF2Tokenizer | RGBDTokenizer:
    """Train the tokenizer on all frames given; with modality `rgbd` that of RGB, then that of depth, then join them.

    With `rgb` that folder's tokenizer of RGB, as another run trained or converted it, is kept as it is.

    Raises:
        ConfigError: if the preset's tokenizer comes converted and is not given.
        CheckpointError: if a tokenizer given or found is not the preset's.
    """
    wanted, folder = run.preset.rgbd, run.folder / "tokenizer"
    own = folder / "rgb" if wanted else folder
    if rgb is not None:
        _given_tokenizer(run, rgb)
        link_model(rgb, own)
    if not own.is_symlink() and run.preset.tokenizer_training is None:
        raise ConfigError(
            f"the tokenizer of preset {run.preset.name} is not trained here: convert the published file with "
            "`dreamdojo convert --tokenizer FILE` and give its folder with --rgb"
        )
    if wanted is None:
        return _rgb_tokenizer(run, sources, own)
    if (folder / "config.json").exists() and (found := read_config(folder, RGBDTokenizer)) != wanted:
        raise CheckpointError(
            f"{folder} holds another tokenizer than preset {run.preset.name}: {_difference(found, wanted)}. Use "
            "another run folder."
        )
    of_rgb = _rgb_tokenizer(run, sources, own)
    of_depth = None if wanted.depth is None else _depth_tokenizer(run, sources, wanted.depth, wanted.coding)
    tokenizer = join_parts(of_rgb, of_depth, wanted.coding)
    with run.compute.processes.main_first():
        if not (folder / "model.safetensors").exists():
            save_model(folder, tokenizer)
    return tokenizer


def _rgb_tokenizer(run: Run, sources: Sequence[Episodes], folder: Path) -> Tokenizer | WanTokenizer | TAEF2Tokenizer:
    """That of the preset: trained in `folder`, or, where that is a link to another's, loaded."""
    config, training = run.preset.tokenizer, run.preset.tokenizer_training
    if folder.is_symlink():
        return _given_tokenizer(run, folder)
    assert isinstance(config, TokenizerConfig) and training is not None
    with run.progress("tokenizer") as report:
        return train_tokenizer(
            config,
            training,
            [frame_source(run, episodes) for episodes in sources],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "tokenizer"),
            report=report,
        )


def _given_tokenizer(run: Run, folder: Path) -> Tokenizer | WanTokenizer | TAEF2Tokenizer:
    tokenizer = load_tokenizer(folder)
    fits = tokenizer.config == run.preset.tokenizer
    if not isinstance(tokenizer, Tokenizer | WanTokenizer | TAEF2Tokenizer) or not fits:
        raise CheckpointError(
            f"{folder}: expected the tokenizer of RGB of preset {run.preset.name}, {run.preset.tokenizer}, found "
            f"{tokenizer.config}"
        )
    return tokenizer


def _depth_tokenizer(run: Run, sources: Sequence[Episodes], config: TokenizerConfig, coding: DepthCoding) -> Tokenizer:
    """Trained like that of RGB, on depth pictures; a random gain would be another distance, so there is none."""
    training, folder = run.preset.tokenizer_training, run.folder / "tokenizer" / "depth"
    assert training is not None
    with run.progress("tokenizer of depth") as report:
        return train_tokenizer(
            config,
            dataclasses.replace(training, colour_jitter=0.0),
            [depth_source(run, episodes) for episodes in sources],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "tokenizer_depth"),
            report=report,
            picture=coding.encode,
        )


def labelled_sources(run: Run, human: Episodes, robot: Episodes) -> list[Source]:
    """Video without labels beside a robot's, whose commanded motion is known in units of its spread.

    Both are drawn as often as they have episodes.
    """
    size, body = run.preset.latent_action_size, robot.dataset.embodiment
    unseen, seen = frame_source(run, human, size), frame_source(run, robot, size)
    motion = []
    for index in robot.indices:
        resampled = resample(robot.dataset, index, run.preset.rate)
        if resampled.actions is None:
            raise DataError(f"{robot.dataset.root}: expected a robot dataset with an 'action' column, found none")
        told = np.zeros((len(resampled.actions), 1), np.float32)
        paired = paired_episode(body, told, resampled.actions, resampled.states)
        motion.append((paired.action - paired.base).numpy())
    spread = np.concatenate(motion).std(axis=0).clip(1e-6)
    known = [{**e, "travelled": travelled(m / spread)} for e, m in zip(seen.episodes, motion, strict=True)]
    unknown = [
        {**e, "travelled": np.full((len(e["frames"]), len(spread)), np.nan, np.float32)} for e in unseen.episodes
    ]
    return [
        dataclasses.replace(unseen, episodes=unknown, weight=len(unknown)),
        dataclasses.replace(seen, episodes=known, weight=len(known)),
    ]


def latent_action_stage(run: Run, human: Episodes, labelled: Episodes | None = None) -> LatentActionModel:
    """Train the latent action model on unlabelled video, and on a robot's episodes where its `label_weight` asks.

    Raises:
        ConfigError: if there is a `label_weight` and nothing labelled, or the other way round.
    """
    size, weight = run.preset.latent_action_size, run.preset.latent_action_training.label_weight
    if (labelled is not None) != (weight > 0):
        raise ConfigError(
            f"a labelled dataset and a label_weight go together: got {labelled and labelled.dataset.root} and {weight}"
        )
    sources = [frame_source(run, human, size)] if labelled is None else labelled_sources(run, human, labelled)
    with run.progress("latent actions") as report:
        folder = run.folder / "latent_action"
        return train_latent_action_model(
            run.preset.latent_action,
            run.preset.latent_action_training,
            sources,
            folder,
            compute=run.compute,
            tokenizer=_feature_tokenizer(run),
            trackers=open_trackers(run.trackers, folder, "latent_action"),
            report=report,
        )


def _feature_tokenizer(run: Run) -> nn.Module | None:
    """The frozen tokenizer of RGB whose features the latent action model is to predict, if any."""
    if not run.preset.latent_action_training.feature_weight:
        return None
    tokenizer = load_tokenizer(run.folder / "tokenizer")
    return tokenizer.rgb if isinstance(tokenizer, RGBDTokenizer) else tokenizer


def pretrain_stage(run: Run, human: Episodes) -> WorldModel:
    """Train the world model on human video and its latent actions."""
    folder, preset = run.folder / "pretrained", run.preset
    if is_finished(folder, preset.pretraining.fit):
        return load_model(folder, WorldModel)
    source = latent_action_source(run, human)
    torch.manual_seed(preset.pretraining.fit.seed)
    model = WorldModel(
        WorldModelConfig(
            dit=preset.world_model,
            size=preset.size,
            rate=preset.rate,
            text_tokens=preset.text_tokens,
            latent_action_slot=preset.latent_action_slot,
        )
    )
    if preset.latent_action_slot is None:
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


def posttrain_stage(
    run: Run,
    robot: Episodes,
    human: Episodes | None,
    *,
    lora_rank: int | None = None,
    adapter: AdapterStart = "aligned",
) -> WorldModel:
    """Teach the pre-trained world model a robot's body from its episodes; some human video is mixed in.

    With `lora_rank` only a LoRA of that rank and the robot's adapter are trained. A new body's adapter starts `aligned`
    with the latent actions of the robot's own video, or as a `fresh` layer.

    Raises:
        CheckpointError: if the stage was finished with another `lora_rank` or `adapter`.
    """
    folder, preset = run.folder / "teacher", run.preset
    if is_finished(folder, preset.posttraining.fit):
        about = read_about(folder)
        found = {"lora_rank": about.get("lora", {}).get("rank"), "adapter": about.get("adapter", "aligned")}
        asked = {"lora_rank": lora_rank, "adapter": adapter}
        for name in asked:
            if found[name] != asked[name]:
                raise CheckpointError(
                    f"{folder} is finished, with {name}={found[name]}; {name}={asked[name]} was asked for. Use another "
                    "run folder, or delete this one's teacher to train it again."
                )
        return load_model(folder, WorldModel)
    model = load_model(run.folder / "pretrained", WorldModel)
    body = body_for(model, robot.dataset.embodiment)
    if body not in model.config.embodiments:
        torch.manual_seed(preset.posttraining.fit.seed)
        model = model.with_embodiments(body)
    sources = [robot_source(run, robot, body, weight=1 - preset.human_share)]
    if human is not None and preset.human_share > 0:
        sources.append(latent_action_source(run, human, weight=preset.human_share))
    front, inferable = model.adapter(body.name), (run.folder / "latent_action" / "model.safetensors").exists()
    if adapter == "aligned" and isinstance(front, ActionAdapter) and inferable:
        front.start_from(*align_adapter(run, model, robot, body))
    # a model that was made elsewhere keeps its own way of being sampled
    about = {"sampler": read_about(run.folder / "pretrained")["sampler"], "adapter": adapter}
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
            about=about,
            trackers=open_trackers(run.trackers, folder, "teacher"),
            report=report,
        )


def body_for(model: WorldModel, body: Embodiment) -> Embodiment:
    """A dataset's body as `model` takes it: the one it knows by that name, or a new one.

    In models with published slots a new body takes the reserved one, unless its actions are too wide for it: then it
    gets an adapter of its own, as in every other model.

    Raises:
        ConfigError: if the model knows another body by that name.
    """
    for known in model.config.embodiments:
        if known.name == body.name:
            if known.action_names() != body.action_names():
                raise ConfigError(
                    f"the model knows {body.name} with the actions {', '.join(known.action_names())}; the dataset has "
                    f"{', '.join(body.action_names())}. Give one of them another name."
                )
            return known
    fits = body.action_dim <= RESERVED_SLOT.stop - RESERVED_SLOT.start
    return in_reserved_slot(body) if model.config.latent_action_slot is not None and fits else body


def align_adapter(run: Run, model: WorldModel, robot: Episodes, body: Embodiment) -> tuple[Tensor, Tensor]:
    """Ridge regression from the robot's action chunks to the latent actions inferred from its own video.

    The linear part of an alignment, of actions as the model is given them (without a base) and latent actions as it is
    conditioned on them. Returns the weight and bias of the adapter's linear part.
    """
    k = run.preset.tokenizer.temporal_factor
    inferred = run.latent_actions(robot)
    chunks, targets, episodes = [], [], []
    for index in robot.indices:
        actions, _ = robot_motion(run, robot, index, body)
        usable = len(actions) // k * k
        given = relative_actions(actions, actions[0], k) if body.relative else actions
        chunks.append(given[:usable].reshape(usable // k, -1))
        targets.append(inferred[index][:usable].reshape(usable // k, -1))
        episodes.append(np.full(usable // k, index))
    target = model.conditioning(LATENT_ACTION, torch.from_numpy(np.concatenate(targets))[None])[0]
    fit = ridge_map(torch.from_numpy(np.concatenate(chunks)), target, torch.from_numpy(np.concatenate(episodes)))
    return fit.weight.T, fit.bias


def paired_episodes(run: Run, robot: Episodes) -> list[PairedEpisode]:
    """Latent actions and actions of a robot's episodes, chunk by chunk.

    Raises:
        DataError: if the dataset has no actions, or lacks the states that they aim from.
    """
    body = robot.dataset.embodiment
    if not body.action_dim:
        raise DataError(f"{robot.dataset.root}: expected a robot dataset with an 'action' column, found none")
    inferred, episodes = run.latent_actions(robot), []
    for index in robot.indices:
        resampled = resample(robot.dataset, index, run.preset.rate)
        assert resampled.actions is not None
        chunk = run.preset.tokenizer.temporal_factor
        episodes.append(paired_episode(body, inferred[index][:-1], resampled.actions, resampled.states, chunk=chunk))
    return episodes


def align_stage(
    run: Run, robot: Episodes, held_out: Episodes, *, kind: Kind = "mlp", seed: int = 0
) -> tuple[AlignmentFit, AlignmentCurve]:
    """Align latent actions with a robot's actions, both ways; the curve says whether there is enough data.

    Raises:
        DataError: if the dataset has no actions, or fewer than three episodes.
    """
    body, k = robot.dataset.embodiment, run.preset.tokenizer.temporal_factor
    train, test = paired_episodes(run, robot), paired_episodes(run, held_out)
    fit = fit_alignment(train, test, body, kind=kind, chunk=k, seed=seed)
    curve = alignment_curve(train, test, body, rate=run.preset.rate, kind=kind, chunk=k, seed=seed)
    folder, enough = run.folder / "alignment", curve.sufficiency()
    save_model(folder, fit.alignment, about={"seed": seed, "model_hash": model_hash(run.folder / "latent_action")})
    found = {"answer": enough.text, "enough": enough.enough, "gain_of_twice_the_data": enough.gain}
    write_json(folder / "alignment.json", {**found, "fit": fit.to_json(), "curve": curve.to_json()})
    return fit, curve


def student_stage(run: Run, robot: Episodes) -> WorldModel:
    """Distil the teacher into a student of few steps.

    Raises:
        CheckpointError: if the stage was finished by other means.
    """
    folder, preset = run.folder / "student", run.preset
    if is_distilled(folder, preset.student):
        return load_model(folder, WorldModel)
    teacher = load_model(run.folder / "teacher", WorldModel)
    body = body_for(teacher, robot.dataset.embodiment)
    source, longer, tokenizer = robot_source(run, robot, body), None, None
    if preset.clip_frames is not None and preset.student.longest:  # its own rollouts are longer than a clip
        frames = 1 + (preset.student.longest - 1) * preset.tokenizer.temporal_factor
        longer = [
            robot_source(dataclasses.replace(run, preset=dataclasses.replace(preset, clip_frames=frames)), robot, body)
        ]
        tokenizer = load_tokenizer(run.folder / "tokenizer").to(run.compute.device)
        assert isinstance(tokenizer, VideoTokenizer)
    with run.progress("student") as report:
        return distil(
            teacher,
            preset.student,
            preset.posttraining,
            [source],
            folder,
            compute=run.compute,
            long_sources=longer,
            tokenizer=tokenizer,
            trackers=open_trackers(run.trackers, folder, "student"),
            report=report,
        )


def start_from(run_folder: Path, model: Path) -> None:
    """Let a run begin with a world model made elsewhere: links to it, its tokenizer and its latent action model.

    Raises:
        CheckpointError: if there is no world model, or no tokenizer beside it.
        ConfigError: if the run already began with another one.
    """
    for stage, source in _beside(model).items():
        link_model(source, run_folder / stage)


def start_with_depth(run: Run, model: Path) -> None:
    """Let a run of modality `rgbd` begin with a world model of RGB, which keeps the RGB that it says.

    The run has the tokenizer of both by then. Writes the model with depth as `RUN/pretrained`.

    Raises:
        CheckpointError: if there is no world model, or the run's tokenizer of RGB is not the model's.
        ConfigError: if the run already began with another one.
    """
    rgbd, sources = run.preset.rgbd, _beside(model)
    assert rgbd is not None
    tokenizer, ours = sources["tokenizer"], run.folder / "tokenizer" / "rgb"
    if not (ours / "model.safetensors").exists() or model_hash(ours) != model_hash(tokenizer):
        raise CheckpointError(
            f"{model} knows the latents of {tokenizer}: expected that tokenizer in {ours}. Make the run's first: "
            f"`dreamdojo train-tokenizer {run.preset.name} --rgb {tokenizer} --data ...`, in a new run folder."
        )
    if "latent_action" in sources:
        link_model(sources["latent_action"], run.folder / "latent_action")
    folder, about = run.folder / "pretrained", {**read_about(model), "rgb_model": model_hash(model)}
    with run.compute.processes.main_first():
        if not folder.exists():
            start = load_model(model, WorldModel, dtype=None)
            save_model(folder, add_depth(start, rgbd.latent_channels - rgbd.rgb.latent_channels), about=about)
    if read_about(folder).get("rgb_model") != about["rgb_model"]:
        raise ConfigError(f"{folder} is there already and is not {model} with depth. Use another run folder.")


def _beside(model: Path) -> dict[str, Path]:
    """A world model's folder, and those of its tokenizer and, if there is one, its latent action model beside it."""
    if (found := read_class(model)) != WorldModel.__name__:
        raise CheckpointError(f"{model}: expected a {WorldModel.__name__} to start from, found a {found}")
    beside = {"pretrained": model} | {name: model.parent / name for name in ("tokenizer", "latent_action")}
    there = {name: folder for name, folder in beside.items() if (folder / "model.safetensors").exists()}
    for name in ("pretrained", "tokenizer"):
        if name not in there:
            raise CheckpointError(f"expected a model in {beside[name]} to start from, found none")
    return there


def link_model(source: Path, link: Path) -> None:
    """A link to a folder with a model.

    Raises:
        CheckpointError: if there is no model.
        ConfigError: if something else is in the link's place.
    """
    if not (source / "model.safetensors").exists():
        raise CheckpointError(f"expected a model in {source}, found none")
    if link.exists() and link.resolve() != source.resolve():
        raise ConfigError(f"{link} is there already and is not {source}. Use another run folder.")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve(), target_is_directory=True)


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
