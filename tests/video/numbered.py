"""Pictures that carry their number in large black and white blocks, so that it survives any codec and resizing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamdojo.video import VideoCodec, encode

NUM_BITS = 16


def numbered(numbers: Sequence[int], height: int = 32, width: int = 48) -> np.ndarray:
    """`t h w 3` uint8: four rows of four blocks, the number's bits from the top left."""
    bits = (np.asarray(numbers)[:, None] >> np.arange(NUM_BITS)) & 1
    blocks = (bits * 200 + 25).astype(np.uint8).reshape(-1, 4, 4)
    rows, columns = (np.arange(height) * 4 // height), (np.arange(width) * 4 // width)
    return np.repeat(blocks[:, rows][:, :, columns][..., None], 3, axis=-1)


def numbers_in(frames: np.ndarray) -> list[int]:
    """The inverse of `numbered`."""
    height, width = frames.shape[1:3]
    rows = ((np.arange(4) + 0.5) * height / 4).astype(int)
    columns = ((np.arange(4) + 0.5) * width / 4).astype(int)
    bits = frames[:, rows][:, :, columns, 0].reshape(len(frames), NUM_BITS) > 125
    return (bits << np.arange(NUM_BITS)).sum(axis=1).tolist()


def smooth(num_frames: int, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """`t h w 3` uint8: soft coloured waves that drift, as a codec likes them."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    time, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (num_frames, height, width)), indexing="ij")
    waves = [np.sin((x * (2 + c) + y * (3 - c)) / 40 + time / 9 + phase[c]) for c in range(3)]
    return (127 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_numbered(path: Path, num_frames: int, fps: float, *, first: int = 0, **codec: object) -> Path:
    """A video file of numbered pictures."""
    encode(path, numbered(range(first, first + num_frames)), fps, VideoCodec(**codec))  # type: ignore[arg-type]
    return path
