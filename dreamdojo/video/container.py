"""Opening a video file, and turning whatever goes wrong inside FFmpeg into an error that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import av.container
import av.error
import av.logging
import av.video.stream
from av.stream import Disposition

from dreamdojo.errors import DataError, DreamDojoError, brief

av.logging.set_level(None)
"""FFmpeg writes to stderr behind Python's back; what matters comes back as an exception."""


class OpenVideo(NamedTuple):
    """An open file and the one video stream we read from it."""

    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    time_base: Fraction
    """Seconds per tick of the stream's timestamps."""


def unreadable(path: Path, found: str) -> DataError:
    """The error for a file that is not a video we can decode."""
    return DataError(
        f"video {path}: expected a file that decodes from its first to its last frame, found {found}. "
        "The file may be corrupt or cut short: copy it again, re-encode it, or leave it out."
    )


@contextmanager
def ffmpeg_errors(path: Path) -> Iterator[None]:
    """Turn FFmpeg's errors while reading `path` into DataError.

    Raises:
        DataError: naming the file and what FFmpeg said.
    """
    try:
        yield
    except DreamDojoError:
        raise
    except av.error.FFmpegError as error:
        raise unreadable(path, f"{error.strerror or error} (FFmpeg: {type(error).__name__})") from error
    except (ValueError, ArithmeticError, MemoryError, AssertionError) as error:  # of PyAV, about headers that lie
        raise unreadable(path, brief(error)) from error


def open_video(path: Path) -> OpenVideo:
    """Open `path` and pick its first real video stream (cover art of an audio file does not count).

    Raises:
        DataError: if the file is missing, empty, not a video, or holds only audio.
    """
    if not path.is_file():
        raise DataError(f"video {path}: expected a file, found {'a folder' if path.is_dir() else 'nothing'}. Check it.")
    if path.stat().st_size == 0:
        raise unreadable(path, "an empty file (0 bytes)")
    with ffmpeg_errors(path):
        container = av.open(str(path), metadata_errors="replace")
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if not stream.time_base or stream.codec_context is None:
                container.close()
                raise unreadable(path, "a stream that no decoder knows" if stream.time_base else "one without a clock")
            return OpenVideo(container, stream, stream.time_base)
    kinds = sorted({stream.type for stream in container.streams})
    container.close()
    raise unreadable(path, f"only {' and '.join(kinds)} streams" if kinds else "no streams at all")


def frame_rate(stream: av.video.stream.VideoStream) -> Fraction | None:
    """Average frames per second as the header states it, or None where it does not."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate else None


def shown_frames(stream: av.video.stream.VideoStream) -> int:
    """Frames that the file shows, as its header states it; 0 where it is silent.

    An edit list (a recording trimmed without re-encoding) hides some of those that are stored.
    """
    index = stream.index_entries
    hidden = sum(entry.is_discard for entry in index) if len(index) == stream.frames else 0
    return stream.frames - hidden
