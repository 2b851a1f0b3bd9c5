"""Writing video: the same frames give the same bytes (one thread, no clock, no version strings)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.video.stream
import numpy as np
from av.video.reformatter import VideoReformatter

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.video.pixels import COLORSPACE_SMPTE170M, RANGE_MPEG, from_gray12, from_rgb

MUXER_OPTIONS = {"fflags": "+bitexact"}


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """How RGB video is stored. The default is near-lossless to the eye and cheap to read in short windows."""

    name: str = "libx264"
    """Encoder: `libx264` (fast both ways) or `libsvtav1` (smaller, slower; LeRobot's default)."""
    crf: int = 15
    """Constant quality; lower is better and larger."""
    gop: int = 8
    """Frames from one keyframe to the next: the most that a reader decodes before the frame it wants."""
    preset: str = "fast"
    """The encoder's own effort setting; a number for `libsvtav1`."""
    pixel_format: str = "yuv420p"
    """Chroma layout; `yuv420p` is what every player reads."""

    def __post_init__(self) -> None:
        if self.name not in ("libx264", "libsvtav1"):
            raise ConfigError(f"VideoCodec.name must be libx264 or libsvtav1, got {self.name!r}")
        if self.name == "libsvtav1" and not self.preset.isdigit():
            raise ConfigError(f"libsvtav1 takes a number from 0 to 13 as preset (8 is balanced), got {self.preset!r}")
        if self.gop < 1:
            raise ConfigError(f"VideoCodec.gop must be at least 1, got {self.gop}")

    def options(self) -> dict[str, str]:
        """The encoder's options. No reordered frames, so that parts can be joined by copying packets."""
        common = {"crf": str(self.crf), "preset": self.preset, "g": str(self.gop)}
        if self.name == "libx264":
            # x264's macroblock tree reads past its buffers where the width is no multiple of 64 (measured: up to 5 % of
            # repeated encodings differed), and brings nothing to groups this short.
            return {**common, "bf": "0", "threads": "1", "sc_threshold": "0", "mbtree": "0"}
        return {**common, "svtav1-params": "lp=1:pred-struct=1"}


def encode(
    path: Path | str, frames: np.ndarray | Iterable[np.ndarray], fps: float, codec: VideoCodec | None = None
) -> int:
    """Write RGB frames as an MP4 of constant rate. On failure no file is left behind.

    Args:
        path: the file to write; overwritten where it exists.
        frames: `t h w 3` uint8, or an iterable of `h w 3`; sides must be even (chroma is stored at half size).
        fps: frames per second.
        codec: how to store them; the defaults of `VideoCodec` where not given.

    Returns:
        The number of frames written.

    Raises:
        DataError: if there are no frames, or they are not even-sided uint8 pictures of one size.
        OSError: if the disk is full or not writable.
    """
    codec, reformatter = codec or VideoCodec(), VideoReformatter()
    os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 else prints its settings on stderr

    def configure(stream: av.video.stream.VideoStream) -> None:
        stream.pix_fmt = codec.pixel_format
        stream.codec_context.options = codec.options()
        stream.codec_context.colorspace = COLORSPACE_SMPTE170M
        stream.codec_context.color_range = RANGE_MPEG

    def convert(frame: np.ndarray) -> av.VideoFrame:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise DataError(f"video {path}: expected frames h w 3 uint8, got shape {frame.shape} of {frame.dtype}")
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            raise DataError(
                f"video {path}: expected even sides, got {frame.shape[0]} x {frame.shape[1]}. "
                "Crop or resize by one pixel: chroma is stored at half size."
            )
        return from_rgb(frame, codec.pixel_format, reformatter)

    return _encode(Path(path), frames, fps, codec.name, configure, convert)


def encode_gray12(path: Path | str, frames: np.ndarray | Iterable[np.ndarray], fps: float) -> int:
    """Write 12-bit codes losslessly (HEVC, `gray12le`), as LeRobot stores depth. On failure no file is left behind.

    Every frame is a keyframe: predicted from one another, small pictures with motion at their edge come back with wrong
    pixels there.

    Args:
        path: the file to write.
        frames: `t h w` uint16 codes below 4096, or an iterable of `h w`.
        fps: frames per second.

    Returns:
        The number of frames written.

    Raises:
        DataError: if there are no frames, or they are not uint16 pictures of one size with codes below 4096.
        OSError: if the disk is full or not writable.
    """

    def configure(stream: av.video.stream.VideoStream) -> None:
        stream.pix_fmt = "gray12le"
        # One row of threads, no frame threads: the same bytes each time.
        parameters = "lossless=1:keyint=1:min-keyint=1:bframes=0:scenecut=0:pools=none:frame-threads=1"
        stream.codec_context.options = {"x265-params": f"{parameters}:log-level=none:info=0", "preset": "fast"}

    def convert(frame: np.ndarray) -> av.VideoFrame:
        if frame.ndim != 2 or frame.dtype != np.uint16 or frame.max(initial=0) > 4095:
            raise DataError(f"video {path}: expected 12-bit codes h w uint16, got {frame.shape} of {frame.dtype}")
        return from_gray12(frame)

    return _encode(Path(path), frames, fps, "libx265", configure, convert)


def exact_rate(fps: float) -> Fraction:
    """A frame rate as the fraction it stands for, e.g. 30000/1001.

    Raises:
        ConfigError: if it is not positive.
    """
    if not fps > 0:
        raise ConfigError(f"fps must be positive, got {fps}")
    return Fraction(fps).limit_denominator(1001)


def _encode(
    path: Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    encoder: str,
    configure: Callable[[av.video.stream.VideoStream], None],
    convert: Callable[[np.ndarray], av.VideoFrame],
) -> int:
    rate, count, shape = exact_rate(fps), 0, None
    try:
        with av.open(str(path), "w", format="mp4", options=MUXER_OPTIONS) as container:
            stream: av.video.stream.VideoStream | None = None
            for frame in frames:
                picture = convert(frame)
                if stream is None:
                    shape = frame.shape
                    stream = cast(av.video.stream.VideoStream, container.add_stream(encoder, rate=rate))
                    stream.height, stream.width = shape[0], shape[1]
                    stream.codec_context.time_base = 1 / rate
                    configure(stream)
                    with _schedule_kept():
                        container.start_encoding()
                if frame.shape != shape:
                    raise DataError(f"video {path}: expected frames of one shape, got {shape} and {frame.shape}")
                picture.pts, picture.time_base = count, 1 / rate
                container.mux(stream.encode(picture))
                count += 1
            if stream is None:
                raise DataError(f"video {path}: expected at least one frame, got none")
            container.mux(stream.encode())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return count


@contextmanager
def _schedule_kept() -> Iterator[None]:
    """For libsvtav1, which as root makes its threads and the one that opens it real-time: they starve the machine."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    before = {task.name for task in tasks.iterdir()} - {str(threading.get_native_id())}
    try:
        yield
    finally:
        for thread in {task.name for task in tasks.iterdir()} - before:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(thread), policy, priority)
