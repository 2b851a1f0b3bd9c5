"""A run folder: what a preset makes of datasets, computed once and kept in caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from dreamdojo.curation.engines import engine
from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.frames import cache_depth, cache_frames
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.stream import EpisodeStream, Segment, decode_rows, num_rows
from dreamdojo.errors import DataError, DreamDojoError
from dreamdojo.files import read_json, write_json
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions
from dreamdojo.presets.preset import Preset
from dreamdojo.remote import StorageError, alone
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.train import encode_episode
from dreamdojo.training.checkpoint import load_model, model_hash, read_config
from dreamdojo.training.device import Compute
from dreamdojo.training.distributed import ALONE
from dreamdojo.training.progress import Report, no_line, progress_line
from dreamdojo.training.trackers import TrackerName

Engine = Literal["here", "local", "ray"]
Progress = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """A dataset and the episodes of it that a stage may use."""

    dataset: Dataset
    indices: tuple[int, ...]
    camera: str | None = None
    weight: float = 1.0
    """Relative share of the samples of a batch, beside other datasets."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, the preset it follows, and where it computes."""

    folder: Path
    preset: Preset
    compute: Compute
    trackers: tuple[TrackerName, ...] = ()
    workers: int = 2
    progress: Progress = progress_line
    stream_gb: float | None = None
    """Memory for decoded video that training streams; None: all frames are decoded into caches first."""
    skip_corrupt: bool = False
    """Go on without episodes that do not decode; they are counted and named in `left_out`."""
    engine: Engine = "here"
    """Who derives latents and latent actions: this process, a pool of `workers` processes, or Ray."""

    @property
    def left_out(self) -> Path:
        """The file that names the episodes this run goes without, and why."""
        return self.folder / "left_out.json"

    def note_left_out(self, dataset: Dataset, unreadable: Mapping[int, str]) -> None:
        """Add episodes to `left_out`; the progress line tells how many there are."""
        if not unreadable:
            return
        with alone(self.left_out.with_suffix(".lock")):
            noted = read_json(self.left_out, of="episodes left out") if self.left_out.is_file() else {}
            known = noted.setdefault(dataset.address, {})
            fresh = {str(index): reason for index, reason in unreadable.items() if str(index) not in known}
            known |= fresh
            write_json(self.left_out, noted)
        if fresh:
            first, reason = next(iter(fresh.items()))
            with self.progress(f"left out of {dataset.root.name}") as report:
                total = len(dataset.episodes)
                report(len(known), total, f"corrupt episodes, named in {self.left_out}; now {first}: {reason}")

    def stream(
        self, episodes: Episodes, size: tuple[int, int] | None = None, kind: Literal["frames", "depth"] = "frames"
    ) -> EpisodeStream:
        """Frames or depth at the preset's rate, decoded while they are read."""
        assert self.stream_gb is not None
        dataset = episodes.dataset
        return EpisodeStream(
            dataset,
            episodes.indices,
            rate=self.preset.rate,
            size=size or self.preset.size,
            camera=episodes.camera,
            kind=kind,
            memory=int(self.stream_gb * 1e9 * episodes.weight),
            workers=self.workers,
            on_unreadable=(lambda one: self.note_left_out(dataset, {one.episode: one.reason}))
            if self.skip_corrupt
            else None,
        )

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
            pictures = cache(
                dataset,
                path,
                rate=rate,
                size=size,
                camera=camera,
                progress=lambda done, total: report(done, total, "episodes"),
                workers=self.workers,
                skip_corrupt=self.skip_corrupt,
            )
        if self.compute.processes.is_main:
            self.note_left_out(dataset, pictures.left_out)
        return pictures

    def latents(self, episodes: Episodes) -> SideCache:
        """Latents of every episode, by the run's tokenizer: as one video, or as clips where the preset says so."""
        tokenizer, clip = load_tokenizer(self.folder / "tokenizer"), self.preset.clip_frames
        assert isinstance(tokenizer, VideoTokenizer)
        k, frames = tokenizer.temporal_factor, self._lengths(episodes, self.preset.size)
        if self.preset.modality == "rgbd" and self.stream_gb is None:
            self.depth(episodes)
        clips = {episode: len(clip_starts(length, clip, k)) for episode, length in frames.items()}
        return self._derived(
            episodes,
            kind="latent" if clip is None else f"latent{clip}",
            gap=0,
            model_folder=self.folder / "tokenizer",
            lengths={
                i: clips[i] * tokenizer.num_latents(clip or length) if length else 0 for i, length in frames.items()
            },
            shape=(tokenizer.latent_channels, *(side // tokenizer.spatial_factor for side in self.preset.size)),
            dtype=np.float16,
            derive=_episode_latents,
        )

    def latent_actions(self, episodes: Episodes) -> SideCache:
        """Latent actions of every episode, by the run's latent action model; row i is the motion i -> i + 1."""
        folder = self.folder / "latent_action"
        return self._derived(
            episodes,
            kind="latent_action",
            gap=1,
            model_folder=folder,
            lengths=self._lengths(episodes, self.preset.latent_action_size or self.preset.size),
            shape=(read_config(folder, LatentActionModel).latent_dim,),
            dtype=np.float32,
            derive=_episode_latent_actions,
        )

    def _lengths(self, episodes: Episodes, size: tuple[int, int]) -> dict[int, int]:
        """Rows of each episode: of the frame cache, made where it is missing, or, where video is streamed, to be."""
        dataset = episodes.dataset
        if self.stream_gb is not None:
            return {each.index: num_rows(dataset, each.index, self.preset.rate) for each in dataset.episodes}
        frames = self.frames(episodes, size)
        left_out = dict.fromkeys(frames.left_out, 0)  # left out of what is derived from them too, with the same reason
        return {episode: len(frames[episode]) for episode in frames.episodes} | left_out

    def pictures(
        self,
        episodes: Episodes,
        index: int,
        size: tuple[int, int] | None = None,
        kind: Literal["frames", "depth"] = "frames",
    ) -> np.ndarray:
        """Frames of an episode, `t 3 h w` uint8, or depth, `t h w` metres, at the preset's rate: cached or decoded."""
        dataset, size = episodes.dataset, size or self.preset.size
        if self.stream_gb is None:
            cache = self.frames(episodes, size) if kind == "frames" else self.depth(episodes)
            return channels_first(cache[index]) if kind == "frames" else cache[index]
        whole = Segment(index, 0, num_rows(dataset, index, self.preset.rate))
        rows = decode_rows(dataset, whole, self.preset.rate, dataset.camera(episodes.camera), size, kind)
        return rows if kind == "frames" else rows[:, 0]

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
        derive: Derive,
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
                    todo = [episode for episode in lengths if episode not in writer.done]
                    for episode, rows in self._derive(derive, episodes, todo, key.model_hash):
                        if isinstance(rows, np.ndarray):
                            writer.write(episode, rows)
                        elif self.skip_corrupt and not isinstance(rows, StorageError):
                            writer.leave_out(episode, str(rows))
                        else:
                            raise rows
                        report(len(writer.done), len(lengths), "episodes")
                    writer.close()
        cache = open_cache(path, key)
        if self.compute.processes.is_main:
            self.note_left_out(dataset, cache.left_out)
        return cache

    def _derive(
        self, derive: Derive, episodes: Episodes, indices: Sequence[int], model: str
    ) -> Iterator[tuple[int, np.ndarray | DreamDojoError]]:
        """Each episode and its rows, or the error that it ended with, as they come."""
        if self.engine == "here":
            for index in indices:
                try:
                    yield index, derive(self, episodes, index, model)
                except DataError as error:
                    yield index, error
            return
        alone = dataclasses.replace(self.compute, processes=ALONE)  # a worker belongs to no group
        run = dataclasses.replace(self, compute=alone, trackers=(), progress=no_line, engine="here")
        jobs = [_Job(run, episodes, index, derive, model) for index in indices]
        for number, rows in engine(self.engine)(_work, jobs, workers=self.workers, patience=PATIENCE):
            yield indices[number], rows


Derive = Callable[[Run, Episodes, int, str], np.ndarray]
"""Rows of an episode, by a run's model of that hash."""

PATIENCE = 60.0
"""Seconds that a worker may take for a second of video."""


@dataclass(frozen=True)
class _Job:
    run: Run
    episodes: Episodes
    index: int
    derive: Derive
    model: str


def _work(job: _Job, tell: Callable[[float], None]) -> np.ndarray | DataError:
    """One episode, in a worker."""
    tell(job.episodes.dataset.episode(job.index).length / job.episodes.dataset.fps)
    torch.set_num_threads(1)
    try:
        return job.derive(job.run, job.episodes, job.index, job.model)
    except DataError as error:
        return error


@lru_cache(maxsize=2)
def _loaded(folder: Path, model: str, device: torch.device) -> nn.Module:
    """The model of hash `model`, which a worker loads once."""
    loaded = load_tokenizer(folder) if folder.name == "tokenizer" else load_model(folder, LatentActionModel)
    return loaded.to(device)


def _episode_latents(run: Run, episodes: Episodes, index: int, model: str) -> np.ndarray:
    tokenizer = _loaded(run.folder / "tokenizer", model, run.compute.device)
    assert isinstance(tokenizer, VideoTokenizer)
    pictures, clip = run.pictures(episodes, index), run.preset.clip_frames
    metres = run.pictures(episodes, index, kind="depth") if run.preset.modality == "rgbd" else None
    starts = clip_starts(len(pictures), clip, tokenizer.temporal_factor)
    if not starts:
        shape = (tokenizer.latent_channels, *(side // tokenizer.spatial_factor for side in run.preset.size))
        return np.empty((0, *shape), np.float16)
    parts = [
        encode_episode(tokenizer, pictures[i:][:clip], run.compute, depth=None if metres is None else metres[i:][:clip])
        for i in starts
    ]
    return np.concatenate(parts)


def _episode_latent_actions(run: Run, episodes: Episodes, index: int, model: str) -> np.ndarray:
    inferring = _loaded(run.folder / "latent_action", model, run.compute.device)
    assert isinstance(inferring, LatentActionModel)
    return infer_latent_actions(inferring, run.pictures(episodes, index, run.preset.latent_action_size), run.compute)


def channels_first(frames: np.ndarray) -> np.ndarray:
    """`t h w c` -> `t c h w`, a view."""
    return np.moveaxis(frames, -1, 1)


def clip_starts(num_frames: int, clip_frames: int | None, k: int) -> range:
    """First frames of the clips of an episode, `k` apart so that each begins where a chunk of actions does."""
    if clip_frames is None:
        return range(1)
    return range(0, num_frames - clip_frames + 1, k)
