"""Random access to the frames of a video, decoding from the nearest keyframe to the last wanted frame and no further.

Time 0 is the first frame of the stream. A frame is found by its timestamp, never by counting from a nominal rate, so
variable frame rates come out right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dreamdojo.errors import DataError
from dreamdojo.video.container import ffmpeg_errors, frame_rate, open_video, shown_frames, unreadable
from dreamdojo.video.pixels import to_gray12, to_planes
from dreamdojo.video.resize import Size, resize, resize_plane

_INDEXED = frozenset(("mov", "mp4", "matroska", "webm"))
_DEFAULT_RATE = 30.0
"""Assumed only for the tolerance of a timestamp, where a stream states no rate."""


class TimedFrame(NamedTuple):
    """One decoded frame."""

    timestamp: float
    """Seconds since the first frame."""
    image: np.ndarray
    """`h w 3` uint8."""


class VideoReader:
    """An open video that can be asked for any of its frames.

    `pixels="gray12"` reads 12-bit depth codes (`h w` uint16) instead of RGB. Use it as a context manager, or call
    `close`.
    """

    num_decoded: int
    """Frames that the decoder has produced so far: what random access has cost."""

    def __init__(self, path: Path | str, *, pixels: Literal["rgb", "gray12"] = "rgb") -> None:
        self.path = Path(path)
        self.num_decoded = 0
        self._pixels = pixels
        self._reformatter = VideoReformatter()
        self._pts: np.ndarray | None = None
        self._open()

    def _open(self) -> None:
        self._container, self._stream, self._time_base = open_video(self.path)
        self._stream.codec_context.thread_count = 1
        self._soon = 2 / (float(frame_rate(self._stream) or _DEFAULT_RATE) * float(self._time_base))
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._last: av.VideoFrame | None = None

    @property
    def _can_seek(self) -> bool:
        """Whether the container keeps an index by time that can be trusted (MP4, Matroska and their kin)."""
        return not _INDEXED.isdisjoint(self._container.format.name.split(","))

    @property
    def _start(self) -> int:
        """Timestamp of the first frame; other containers' headers do not know it."""
        return self._stream.start_time or 0 if self._can_seek else int(self._all_pts()[0])

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and the file handle."""
        self._frames = iter(())
        self._container.close()

    @property
    def fps(self) -> float | None:
        """Average frames per second as the header states it, or None where it is silent."""
        rate = frame_rate(self._stream)
        return float(rate) if rate else None

    @property
    def num_frames(self) -> int | None:
        """Frames that the file shows, as its header states it, or None where it is silent."""
        return shown_frames(self._stream) or None

    def timestamps(self) -> np.ndarray:
        """Seconds since the first frame for every frame, in display order: `(n,)` float64. Reads, decodes nothing."""
        pts = self._all_pts()
        return (pts - pts[0]) * float(self._time_base)

    def read(self, indices: Sequence[int] | np.ndarray, *, size: Size | None = None) -> np.ndarray:
        """Frames by number, in the order asked for: `t h w 3` uint8 (`t h w` uint16 for gray12).

        Raises:
            DataError: if a number is outside the video, or a frame does not decode.
        """
        pts = self._all_pts()
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= len(pts))]
        if len(outside):
            raise DataError(
                f"video {self.path}: expected frame numbers from 0 to {len(pts) - 1}, found {outside[0]}. "
                "The video may be shorter than its dataset says."
            )
        return self._collect([int(value) for value in pts[wanted]], tolerance=0, size=size)

    def read_at(
        self,
        timestamps: Sequence[float] | np.ndarray,
        *,
        tolerance: float | None = None,
        size: Size | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames by time in seconds, in the order asked for: `t h w 3` uint8 (`t h w` uint16 for gray12).

        Args:
            timestamps: seconds since the first frame.
            tolerance: how far a frame may be from its timestamp; just under half a frame where not given.
            size: centre-crop and resize each frame to this.
            out: where to put them, of the shape returned, in any order of memory; a new array where not given.

        Raises:
            DataError: if no frame lies within the tolerance, or a frame does not decode.
        """
        if tolerance is None:
            tolerance = 0.49 / float(frame_rate(self._stream) or _DEFAULT_RATE)
        ticks = float(1 / self._time_base)
        targets = [self._start + round(float(value) * ticks) for value in np.asarray(timestamps).reshape(-1)]
        return self._collect(targets, tolerance=int(tolerance * ticks), size=size, out=out)

    def __iter__(self) -> Iterator[TimedFrame]:
        """All frames from the first to the last, in display order.

        Raises:
            DataError: if a frame does not decode, or fewer frames decode than the file holds.
        """
        first = None
        for frame in self._sweep():
            first = _pts(frame) if first is None else first
            yield TimedFrame((_pts(frame) - first) * float(self._time_base), self._picture(frame))

    def sweep(self, indices: Collection[int], *, size: Size | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Decode from the first to the last frame, and yield those of the given numbers, with their numbers.

        The way to read much of a video and to know that all of it decodes: other frames cost no conversion.

        Raises:
            DataError: if a frame does not decode, or fewer frames decode than the file holds.
        """
        for number, frame in enumerate(self._sweep()):
            if number in indices:
                yield number, self._picture(frame, size)

    def _sweep(self) -> Iterator[av.VideoFrame]:
        expected, count = self.num_frames or 0, 0
        self._rewind()
        while (frame := self._next()) is not None:
            count += 1
            yield frame
        if count == 0 or count < expected:
            raise unreadable(self.path, f"{count} of {expected} frames" if expected else "no frames")

    def _collect(
        self, targets: list[int], *, tolerance: int, size: Size | None, out: np.ndarray | None = None
    ) -> np.ndarray:
        places: dict[int, list[int]] = {}
        for place, target in enumerate(targets):
            places.setdefault(target, []).append(place)
        for target in sorted(places):
            planes = self._planes(self._find(target, tolerance), size)
            if out is None:
                out = self._room(planes, len(targets))
            if planes[0].shape != out.shape[1:3]:
                raise unreadable(self.path, f"pictures of {out.shape[1:3]} and of {planes[0].shape} pixels")
            for place in places[target]:
                self._fill(out[place], planes)
        if out is None:
            raise DataError(f"video {self.path}: expected at least one frame to read, found an empty list")
        return out

    def _find(self, target: int, tolerance: int) -> av.VideoFrame:
        if self._last is not None and abs(_pts(self._last) - target) <= tolerance:
            return self._last
        latest = target + tolerance
        if not self._goes_on_to(latest):
            self._seek(latest)
        while (frame := self._next()) is not None:
            if _pts(frame) >= target - tolerance:
                break
        if frame is None or _pts(frame) > latest:
            nearest = "" if frame is None else f", the next is at {self._seconds(_pts(frame)):.3f} s"
            raise unreadable(self.path, f"no frame at {self._seconds(target):.3f} s{nearest}")
        return frame

    def _goes_on_to(self, target: int) -> bool:
        """Whether decoding on from here reaches `target` sooner than a jump to the keyframe before it."""
        if self._last is None or _pts(self._last) >= target:
            return False
        index = self._stream.index_entries
        place = index.search_timestamp(target) if len(index) else -1
        if place < 0:
            return (target - _pts(self._last)) * self._time_base < 2
        # A jump costs the decoding of a frame or two: too much for a keyframe that comes soon anyway.
        return index[place].timestamp <= _pts(self._last) + self._soon

    def _seek(self, target: int) -> None:
        """Stand before a frame from which `target` decodes: the keyframe before it, or the beginning."""
        if not self._can_seek or target <= self._start:
            self._rewind()
            return
        with ffmpeg_errors(self.path):
            self._container.seek(target, stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
        first = self._next()
        if first is None or _pts(first) > target:
            # The keyframe is decoded before `target` but shown after it (an open group of pictures).
            self._rewind()
            return
        self._last = None
        self.num_decoded -= 1
        self._frames = _chain(first, self._frames)

    def _rewind(self) -> None:
        """Stand at the beginning. Not every container can seek there, so the file is opened anew."""
        self._container.close()
        self._open()
        self._frames = self._container.decode(self._stream)

    def _next(self) -> av.VideoFrame | None:
        self._last = None  # so that after an error nobody goes on from here
        with ffmpeg_errors(self.path):
            frame = next(self._frames, None)
        if frame is None:
            return None
        if frame.pts is None and frame.dts is None:
            raise unreadable(self.path, "a frame without a timestamp")
        if frame.is_corrupt:
            raise unreadable(self.path, f"a damaged frame at {self._seconds(_pts(frame)):.3f} s")
        self.num_decoded += 1
        self._last = frame
        return frame

    def _seconds(self, pts: int) -> float:
        return float((pts - self._start) * self._time_base)

    def _picture(self, frame: av.VideoFrame, size: Size | None = None) -> np.ndarray:
        """`h w 3` uint8, or `h w` uint16 for gray12, in memory of its own."""
        planes = self._planes(frame, size)
        (picture,) = self._room(planes, 1)
        self._fill(picture, planes)
        return picture

    def _planes(self, frame: av.VideoFrame, size: Size | None) -> list[np.ndarray]:
        """The frame's colours one by one, as conversion to RGB leaves them and resizing wants them; or its codes."""
        with ffmpeg_errors(self.path):
            if self._pixels == "rgb":
                colours = to_planes(frame, self._reformatter)
                return colours if size is None else [resize_plane(plane, size) for plane in colours]
            codes = to_gray12(frame)
            return [codes if size is None else resize(codes, size, nearest=True)]

    def _room(self, planes: list[np.ndarray], count: int) -> np.ndarray:
        """Memory for pictures of such planes."""
        channels = (len(planes),) if self._pixels == "rgb" else ()
        return np.empty((count, *planes[0].shape, *channels), planes[0].dtype)

    def _fill(self, picture: np.ndarray, planes: list[np.ndarray]) -> None:
        """Write planes into a picture. No memory is taken on the way: new pages cost as much as the conversion."""
        if self._pixels == "rgb":
            for channel, plane in enumerate(planes):
                picture[..., channel] = plane
        else:
            picture[...] = planes[0]

    def _all_pts(self) -> np.ndarray:
        if self._pts is None:
            with ffmpeg_errors(self.path):
                self._rewind()
                packets = (p for p in self._container.demux(self._stream) if p.size and not p.is_discard)
                pts = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
            self._rewind()
            if not pts or None in pts:
                raise unreadable(self.path, "no frames" if not pts else "packets without timestamps")
            self._pts = np.sort(np.asarray(pts, dtype=np.int64))
        return self._pts


def read_frames(
    path: Path | str, where: Sequence[int] | Sequence[float] | np.ndarray, *, size: Size | None = None
) -> np.ndarray:
    """Frames of a video by number (integers) or by time in seconds (floats), in the order asked for.

    Args:
        path: the video file.
        where: frame numbers, or seconds since the first frame.
        size: centre-crop and resize each frame to this.

    Returns:
        `t h w 3` uint8.

    Raises:
        DataError: if the file is not a readable video, or a frame is not in it.
    """
    array = np.asarray(where)
    with VideoReader(path) as reader:
        return reader.read(array, size=size) if array.dtype.kind in "iu" else reader.read_at(array, size=size)


def iter_frames(path: Path | str) -> Iterator[TimedFrame]:
    """All frames of a video with their times, one at a time.

    Raises:
        DataError: if the file is not a readable video, or ends before its last frame.
    """
    with VideoReader(path) as reader:
        yield from reader


def _pts(frame: av.VideoFrame) -> int:
    pts = frame.pts if frame.pts is not None else frame.dts
    assert pts is not None, "a decoded frame carries its packet's timestamp"
    return pts


def _chain(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from rest
