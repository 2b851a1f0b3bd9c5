"""What a video file is, without decoding more than its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamdojo.video.container import ffmpeg_errors, frame_rate, open_video, shown_frames, unreadable

_HDR_TRANSFERS = (16, 18)
"""SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG)."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A video as it is seen: width and height are those after rotation."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fps: float
    """Average frames per second."""
    num_frames: int
    """Frames in the file."""
    duration: float
    """Seconds from the first frame to the end of the last."""
    codec: str
    """FFmpeg's name of the format, e.g. `h264` or `av1`."""
    pixel_format: str
    """FFmpeg's name of the pixel layout, e.g. `yuv420p`."""
    rotation: int
    """Degrees counter-clockwise that the file asks a player to turn the picture; already applied to what we return."""
    hdr: bool = False
    """Whether brightness is coded for high dynamic range (PQ or HLG); shown as it is stored, it looks grey."""


def probe(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video. Where the header is silent (WebM, streams), the packets are counted.

    Raises:
        DataError: if the file is missing, empty, not a video, only audio, or its first frame does not decode.
    """
    path = Path(path)
    container, stream, time_base = open_video(path)
    with container, ffmpeg_errors(path):
        first = next(container.decode(stream), None)
        if first is None:
            raise unreadable(path, "no frames")
        num_frames, duration, rate = shown_frames(stream), 0.0, frame_rate(stream)
        if stream.duration:
            duration = float(stream.duration * time_base)
        if not (num_frames and duration and rate):
            container.seek(0)
            pts = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
            num_frames = len(pts)
            span = float((max(pts) - min(pts)) * time_base) if pts else 0.0
            fps = float(rate) if rate else (num_frames - 1) / span if span else 0.0
            duration = span + (1 / fps if fps else 0.0)
        else:
            fps = float(rate)
        sideways = abs(int(first.rotation)) % 180 == 90
        return VideoInfo(
            width=first.height if sideways else first.width,
            height=first.width if sideways else first.height,
            fps=fps,
            num_frames=num_frames,
            duration=duration,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.format.name,
            rotation=int(first.rotation),
            hdr=int(first.color_trc) in _HDR_TRANSFERS,
        )
