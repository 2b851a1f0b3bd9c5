"""A small dataset whose every number and picture is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.write import CameraSpec, ColumnSpec, DatasetWriter, VideoCodec, encode_episode
from tests.video.numbered import numbered, smooth

BODY = Embodiment(
    name="toy/velocity",
    action=(
        Field(name="velocity", axes=("x", "y"), unit="m/s", low=(-1, -1), high=(1, 1), resampling="mean"),
        Field(name="grip", axes=("width",), unit="m", low=(0,), high=(0.1,), resampling="last"),
    ),
    state=(Field(name="position", axes=("x", "y"), unit="m", low=(-1, -1), high=(1, 1)),),
)
HUMAN = Embodiment(name="human")
COLUMNS = {
    "contact": ColumnSpec(dtype="bool"),
    "pose": ColumnSpec(dtype="float32", shape=(4, 4)),
    "step": ColumnSpec(dtype="int64"),
    "note": ColumnSpec(dtype="string"),
}
LENGTHS = (30, 17, 25)
CODEC = VideoCodec(preset="veryfast")


@dataclass
class Recording:
    """What went into one episode."""

    frames: dict[str, np.ndarray]
    depth: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    task: str


def record(seed: int, length: int, cameras: dict[str, CameraSpec]) -> Recording:
    """An episode of smooth pictures and random numbers."""
    random = np.random.default_rng(seed)
    frames = {
        name: smooth(length, spec.height, spec.width, seed=seed + place)
        for place, (name, spec) in enumerate(cameras.items())
    }
    depth = {
        name: random.uniform(0.02, 9.5, (length, spec.height, spec.width)).astype(np.float32)
        for name, spec in cameras.items()
        if spec.depth
    }
    columns = {
        "action": random.normal(size=(length, 3)).astype(np.float32),
        "observation.state": random.normal(size=(length, 2)).astype(np.float32),
        "contact": random.random(length) > 0.5,
        "pose": random.normal(size=(length, 4, 4)).astype(np.float32),
        "step": np.arange(length) + 100 * seed,
        "note": np.array([f"note {seed} {row}" for row in range(length)]),
    }
    return Recording(frames, depth, columns, task=("push", "lift", "push")[seed % 3])


CAMERAS = {"head": CameraSpec(height=32, width=48, depth=True), "wrist": CameraSpec(height=24, width=24)}


def write_toy(root: Path, *, depth: bool = True) -> list[Recording]:
    """Three episodes with two cameras, depth, a body and further columns."""
    cameras = CAMERAS if depth else {name: CameraSpec(height=s.height, width=s.width) for name, s in CAMERAS.items()}
    recordings = [record(seed, length, cameras) for seed, length in enumerate(LENGTHS)]
    with DatasetWriter(
        root, fps=10, embodiment=BODY, cameras=cameras, columns=COLUMNS, codec=CODEC, extra_info={"engine": "toy 1"}
    ) as writer:
        for index, recording in enumerate(recordings):
            episode = encode_episode(
                scratch=writer.scratch,
                index=index,
                fps=10,
                cameras=cameras,
                frames=recording.frames,
                depth=recording.depth,
                columns=recording.columns,
                task=recording.task,
                meta={"seed": index, "split": "test" if index == 1 else "train"},
                codec=CODEC,
            )
            writer.add(episode)
    return recordings


def write_numbered_dataset(
    root: Path, lengths: list[int], *, fps: float = 10, actions: bool = True, split: str | None = None
) -> Path:
    """Pictures that carry `100 * episode + frame`; the velocity is the frame's number, the grip its square."""
    spec = {"head": CameraSpec(height=32, width=32)}
    with DatasetWriter(root, fps=fps, embodiment=BODY if actions else HUMAN, cameras=spec, codec=CODEC) as writer:
        for index, length in enumerate(lengths):
            step = np.arange(length, dtype=np.float32)
            columns = {
                "action": np.stack([step, -step, step**2], axis=1),
                "observation.state": np.stack([step, step], axis=1),
            }
            episode = encode_episode(
                scratch=writer.scratch,
                index=index,
                fps=fps,
                cameras=spec,
                frames={"head": numbered(range(100 * index, 100 * index + length), 32, 32)},
                columns=columns if actions else {},
                task="count",
                meta={"split": split} if split else None,
                codec=CODEC,
            )
            writer.add(episode)
    return root
