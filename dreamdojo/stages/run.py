"""A run folder: what a preset makes of datasets, computed once and kept in caches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdojo.dataset.cache import CacheKey, CacheWriter, SideCache, open_cache
from dreamdojo.dataset.frames import cache_depth, cache_frames
from dreamdojo.dataset.read import Dataset
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions
from dreamdojo.presets.preset import Preset
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.train import encode_episode
from dreamdojo.training.checkpoint import load_model, model_hash
from dreamdojo.training.device import Compute
from dreamdojo.training.progress import Report, progress_line
from dreamdojo.training.trackers import TrackerName

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
