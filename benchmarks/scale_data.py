"""The part `data` of `benchmarks/scale.py`: the loader against raw decoding, how well it shuffles, and a pipeline that
fails now and then.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.pipeline_simulation import Pipeline, simulate
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.stream import EpisodeStream, MovingPool
from dreamdojo.dataset.windows import Source, WindowSampler
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, VideoCodec, encode_episode
from dreamdojo.video.resize import as_size

CORES = 2
WINDOW = 13
"""Frames of a training clip, as published."""


Measured = tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]
"""Metrics, goals and conditions."""


def data(run: Path, quick: bool) -> Measured:
    """Loader throughput against raw decoding, and shuffle quality."""
    loaders = {}
    for name, size, target in (
        ("480x640", (480, 640), None),
        ("128", (128, 128), None),
        ("480x640 to 128", (480, 640), 128),
    ):
        loaders[name] = throughput(run, size, target, quick)
    shuffle = {f"pool of {size}": shuffle_quality(size) for size in ((16,) if quick else (16, 64, 256, 1024))}
    goals = {
        "loader_480p_share_of_raw_decode": goal(loaders["480x640"]["share_of_decode"], 0.8),
        "loader_128px_share_of_raw_decode": goal(loaders["128"]["share_of_decode"], 0.8),
        "loader_480p_share_of_raw_rgb": goal(loaders["480x640"]["share_of_rgb"], 0.8),
        "loader_128px_share_of_raw_rgb": goal(loaders["128"]["share_of_rgb"], 0.8),
    }
    conditions = {
        "cores": CORES,
        "film": "generated: a texture that the camera pans over, and things that move; H.264, crf 20, groups of 8",
        "raw": "PyAV, a thread per core; decode: frames only; rgb: frames as rgb24 arrays",
        "loader": f"WindowSampler over EpisodeStream: windows of {WINDOW}, batch 8, as many frames drawn as decoded; "
        "two epochs, after one that fills the memory",
        "figures": "raw and loader alternate in one run; shares are medians of ratios of frames per second of "
        "processor time, because other work ran on the machine; those on the clock stand beside them",
    }
    return {"loader": loaders, "shuffle": shuffle}, goals, conditions


def pipeline(results: Mapping[str, Any], quick: bool) -> Measured:
    """The pipeline of a node with failures, at the rate that the part `data` measured; `results` holds its metrics."""
    node = node_pipeline(results["data"]["loader"]["480x640"])
    busy = {
        f"{workers} cores, {ahead} segments ahead, {words}": outcome_of(
            replace(node, workers=workers, ahead=ahead, patience=patience), quick
        )
        for words, patience in (("storage is waited for", math.inf), ("asked again after 5 s", 5.0))
        for workers in (16, 32, 64)
        for ahead in (16, 64, 128, 1024)
    }
    goals = {"simulated_trainer_busy": goal(busy["32 cores, 128 segments ahead, asked again after 5 s"]["busy"], 0.95)}
    return {"node": asdict(node), "busy": busy}, goals, {"batches": 200 if quick else 20_000, "seed": 0}


def goal(value: float, bound: float) -> dict[str, Any]:
    return {"value": value, "bound": bound, "op": ">="}


def throughput(run: Path, size: tuple[int, int], target: int | None, quick: bool) -> dict[str, float]:
    """Frames per second of raw decoding and of the loader, alternating, and the medians of their ratios."""
    episodes, frames = (8, 20) if quick else (8, 128)
    root = run / f"film-{size[0]}-{episodes}x{frames}"
    if not root.exists():
        write_film(root, size, episodes, frames)
    rounds = [
        {"decode": raw(root, rgb=False), "rgb": raw(root, rgb=True), "loader": loader(root, target or size)}
        for _ in range(1 if quick else 5)
    ]
    found = {}
    for name in rounds[0]:
        found[f"{name}_fps_per_core"] = statistics.median(each[name].per_core for each in rounds)
        found[f"{name}_fps_{CORES}_cores"] = statistics.median(each[name].on_the_clock for each in rounds)
    for name in ("decode", "rgb"):
        found[f"share_of_{name}"] = statistics.median(each["loader"].per_core / each[name].per_core for each in rounds)
        found[f"share_of_{name}_on_the_clock"] = statistics.median(
            each["loader"].on_the_clock / each[name].on_the_clock for each in rounds
        )
    return found


@dataclass(frozen=True)
class Speed:
    """Frames per second."""

    per_core: float
    """Of processor time, which other work on the machine does not change much."""
    on_the_clock: float
    """Of time that passed."""


def measured(work: Callable[[], int]) -> Speed:
    """How fast the frames come that `work` counts."""
    clock, processor = time.perf_counter(), time.process_time()
    count = work()
    return Speed(count / (time.process_time() - processor), count / (time.perf_counter() - clock))


def write_film(root: Path, size: tuple[int, int], episodes: int, frames: int) -> None:
    """A dataset of a few episodes at 30 fps."""
    cameras, codec = {"head": CameraSpec(height=size[0], width=size[1])}, VideoCodec(crf=20)
    with DatasetWriter(root, fps=30, embodiment=Embodiment(name="human"), cameras=cameras, codec=codec) as writer:
        for index in range(episodes):
            pictures = film(*size, frames, seed=index)
            writer.add(
                encode_episode(
                    scratch=writer.scratch,
                    index=index,
                    fps=30,
                    cameras=cameras,
                    frames={"head": pictures},
                    columns={},
                    task="",
                    codec=codec,
                )
            )


def film(height: int, width: int, frames: int, *, seed: int) -> np.ndarray:
    """A camera that pans over a texture, in front of which three blocks move: `t h w 3` uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 200, (height // 16 + 8, width // 16 + 8, 3)).repeat(16, 0).repeat(16, 1)
    scene = np.clip(coarse + random.normal(0, 4, coarse.shape), 0, 255).astype(np.uint8)
    out = np.empty((frames, height, width, 3), np.uint8)
    for i in range(frames):
        top, left = (int(32 + 30 * np.sin(i / period)) for period in (40, 25))
        out[i] = scene[top : top + height, left : left + width]
        for block in range(3):
            y, x = (int((0.4 + 0.3 * np.sin(i / (9 + 4 * block) + block)) * side) for side in (height, width))
            out[i, y : y + height // 8, x : x + width // 8] = (60 * block, 200 - 50 * block, 90)
    return out


def raw(root: Path, *, rgb: bool) -> Speed:
    """PyAV alone: the file, once on each core."""
    (path,) = root.glob("videos/**/*.mp4")

    def decode(_: int) -> int:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            count = 0
            for frame in container.decode(stream):
                count += 1
                if rgb:
                    frame.to_ndarray(format="rgb24")
            return count

    def all_of_it() -> int:
        with ThreadPoolExecutor(CORES) as threads:
            return sum(threads.map(decode, range(CORES)))

    return measured(all_of_it)


def loader(root: Path, size: tuple[int, int] | int) -> Speed:
    """Frames through `WindowSampler` and `EpisodeStream`, two epochs after a first one has filled pool and memory.

    The memory holds half of the segments, so that in an epoch each is decoded about once, as in a long training.
    """
    dataset = open_dataset(root)
    indices = [episode.index for episode in dataset.episodes]
    height, width = as_size(size)
    segment = max(episode.length for episode in dataset.episodes) * 3 * height * width
    stream = EpisodeStream(dataset, indices, rate=30, size=size, memory=5 * segment, workers=CORES)
    sampler = WindowSampler([Source(embodiment="human", episodes=stream)], length=WINDOW, batch_size=8, seed=0)
    epoch = int(stream.rows.sum()) // (8 * WINDOW)

    def draw(steps: range) -> int:
        for step in steps:
            sampler(step)
        return len(steps) * 8 * WINDOW

    draw(range(epoch))
    speed = measured(lambda: draw(range(epoch, 3 * epoch)))
    stream.close()
    return speed


def shuffle_quality(
    pool: int, *, files: int = 500, per_file: int = 40, batch: int = 64, steps: int = 4000
) -> dict[str, float]:
    """How near batches of a moving pool come to those drawn from everything.

    Every segment has a number, half of whose variance is its file's (what was recorded at one place looks alike). A
    batch's mean should vary as if its samples were independent, and not be like the mean of the batch before.
    """
    random = np.random.default_rng(0)
    number = random.normal(size=files).repeat(per_file) + random.normal(size=files * per_file)
    of_file = np.arange(files).repeat(per_file)
    moving = MovingPool(of_file, np.ones(len(number), bool), size=pool, lanes=1, seed=(0, 0))
    means, same = [], []
    for step in range(steps):
        places = moving.at(step, batch * WINDOW / 128, 0)[0]
        chosen = places[random.integers(len(places), size=batch)]
        means.append(number[chosen].mean())
        same.append(np.mean(chosen[1:] == chosen[:-1]))
    means_ = np.array(means) - np.mean(means)
    return {
        "variance_of_batch_means_over_independent": float(np.var(means) * batch / np.var(number)),
        "correlation_with_next_batch": float((means_[1:] * means_[:-1]).mean() / np.var(means)),
        "pairs_from_one_segment": float(np.mean(same)),
        "pairs_from_one_segment_if_independent": 1 / len(number),
    }


def node_pipeline(loader: Mapping[str, float]) -> Pipeline:
    """A node of eight GPUs that trains the latent action model from 480x640 film at 30 fps, streamed at 10.

    Assumed: a batch of 20 pairs per GPU four times a second. Of three frames decoded one is used, of which a segment
    has 128.
    """
    return Pipeline(
        segments_per_batch=8 * 20 * 2 / 128,
        batch_seconds=0.25,
        workers=32,
        decode_seconds=128 * 3 / loader["loader_fps_per_core"],
        fetch_seconds=0.05,
    )


def outcome_of(node: Pipeline, quick: bool) -> dict[str, float]:
    outcome = simulate(node, batches=200 if quick else 20_000, seed=0)
    return {"load": node.load, **asdict(outcome)}
