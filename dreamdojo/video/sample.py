"""Looking at a video here and there: keyframes, and pairs of frames a moment apart, with little decoding.

Whole groups of pictures between two looks are skipped unread by the decoder. Inside a group, frames that no other
frame needs are skipped too, and so is deblocking: the pictures are good for judging a video, not for learning from.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dreamdojo.errors import DataError
from dreamdojo.video.container import ffmpeg_errors, open_video, unreadable
from dreamdojo.video.pixels import to_rgb


@dataclass(frozen=True, kw_only=True)
class Look:
    """Two frames, a moment apart."""

    timestamp: float
    """Seconds of the first since the video's first frame."""
    gap: float
    """Seconds from the first to the second; 0 where there is no second."""
    frames: np.ndarray
    """`k h w 3` uint8, k = 2, or 1 at the end of a video and for keyframes."""


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """When the frames of a video are shown; decodes nothing."""

    times: np.ndarray
    """`(n,)` seconds since the first frame, rising."""
    keyframes: np.ndarray
    """`(k,)` seconds of the frames from which decoding can start, rising."""


def read_packets(path: Path | str) -> PacketTable:
    """The timestamps in a file, by reading its packets.

    Raises:
        DataError: if the file is not a readable video.
    """
    path = Path(path)
    container, stream, time_base = open_video(path)
    with container, ffmpeg_errors(path):
        shown = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        stamps = [packet.pts if packet.pts is not None else packet.dts for packet in shown]
        is_key = [packet.is_keyframe for packet in shown]
    if not stamps or None in stamps:
        raise unreadable(path, "no frames" if not stamps else "packets without timestamps")
    values = np.asarray(stamps, dtype=np.float64) * float(time_base)
    start, keys = values.min(), values[is_key]
    return PacketTable(times=np.sort(values) - start, keyframes=np.sort(keys) - start)


def look_at(
    path: Path | str,
    times: Sequence[float] | np.ndarray,
    *,
    gap: float,
    long_side: int,
    packets: PacketTable | None = None,
) -> Iterator[Look]:
    """Pairs of frames at rising times; each begins at the first frame that is decoded at or after its time.

    Args:
        path: the video.
        times: seconds since the first frame, rising.
        gap: seconds from the first to the second frame of a pair, at least; 0 takes single frames.
        long_side: pictures larger than this are made smaller.
        packets: the file's timestamps, where they have been read before.

    Raises:
        DataError: if something between the keyframe before a time and the time itself does not decode.
    """
    path = Path(path)
    packets = packets or read_packets(path)
    wanted = [float(t) for t in times if t <= packets.times[-1] + 1e-9]
    container, stream, time_base = open_video(path)
    context = stream.codec_context
    context.thread_count = 1
    context.skip_frame = "NONREF"
    context.options = {"skip_loop_filter": "all"}
    shrink = _Shrink(long_side)
    keys = packets.keyframes
    start: float | None = None
    number, first = 0, None  # the pair under way, and its first picture
    decoding = False

    def place(value: int) -> float:
        return float(value * time_base) - (start or 0.0)

    with container, ffmpeg_errors(path):
        for packet in container.demux(stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if start is None and stamp is not None:
                start = float(stamp * time_base) if packet.is_keyframe else 0.0
            if packet.size and packet.is_keyframe and stamp is not None and first is None:
                decoding = _holds_a_time(keys, place(stamp), wanted[number:])
            if not decoding and packet.size:
                continue
            for frame in packet.decode():
                if frame.pts is None or number == len(wanted):
                    continue
                now = place(frame.pts)
                if first is None and now < wanted[number] - 1e-6:
                    continue
                if first is not None and now < first[0] + gap - 1e-6:
                    continue
                if frame.is_corrupt:
                    raise unreadable(path, f"a damaged frame at {now:.3f} s")
                picture = shrink(frame)
                if first is None and gap > 0:
                    first = (now, picture)
                    continue
                begun, pictures = (now, [picture]) if first is None else (first[0], [first[1], picture])
                if pictures[0].shape != pictures[-1].shape:
                    raise unreadable(
                        path, f"pictures of {pictures[0].shape[:2]} and of {pictures[-1].shape[:2]} pixels"
                    )
                yield Look(timestamp=begun, gap=now - begun, frames=np.stack(pictures))
                first = None
                while number < len(wanted) and wanted[number] <= now + 1e-6:
                    number += 1
            if number == len(wanted):
                return
            if first is None and decoding and packet.size:
                # nothing more is wanted before the next keyframe
                after = bisect.bisect_right(keys, wanted[number] + 1e-6) - 1
                decoding = bool(after < 0 or stamp is None or place(stamp) >= keys[after] - 1e-6)
        if first is not None:
            yield Look(timestamp=first[0], gap=0.0, frames=first[1][None])


def look_at_keyframes(
    path: Path | str, *, every: float, long_side: int, packets: PacketTable | None = None
) -> Iterator[Look]:
    """Single keyframes, at least `every` seconds apart; nothing else is decoded.

    Raises:
        DataError: if one does not decode.
    """
    path = Path(path)
    container, stream, time_base = open_video(path)
    stream.codec_context.thread_count = 1
    shrink, start, latest = _Shrink(long_side), None, -np.inf
    with container, ffmpeg_errors(path):
        for packet in container.demux(stream):
            if packet.size:
                if not packet.is_keyframe or packet.pts is None:
                    continue
                seconds = float(packet.pts * time_base)
                start = seconds if start is None else start
                if seconds - start < latest + every - 1e-6:
                    continue
                latest = seconds - start
            for frame in packet.decode():
                if frame.pts is not None:
                    now = float(frame.pts * time_base) - (start or 0.0)
                    yield Look(timestamp=now, gap=0.0, frames=shrink(frame)[None])


def _holds_a_time(keys: np.ndarray, key: float, wanted: Sequence[float]) -> bool:
    """Whether the next wanted time is decoded from the keyframe at `key`."""
    if not wanted:
        return False
    following = bisect.bisect_right(keys, key + 1e-6)
    return bool(following == len(keys) or wanted[0] < keys[following] - 1e-6)


class _Shrink:
    """Frames to RGB, no side longer than a limit."""

    def __init__(self, long_side: int) -> None:
        if long_side < 16:
            raise DataError(f"expected pictures of at least 16 pixels, got {long_side}")
        self._limit = long_side
        self._first, self._second = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        scale = min(1.0, self._limit / max(frame.width, frame.height))
        if scale < 1:
            width, height = (max(2, 2 * round(scale * side / 2)) for side in (frame.width, frame.height))
            turned = frame.rotation
            small = self._first.reformat(frame, width=width, height=height, format="rgb24", interpolation="AREA")
            picture = small.to_ndarray()
            turns, rest = divmod(int(turned), 90)
            return np.ascontiguousarray(np.rot90(picture, turns % 4)) if rest == 0 and turns % 4 else picture
        return to_rgb(frame, self._second)
