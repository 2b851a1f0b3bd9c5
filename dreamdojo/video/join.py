"""Joining videos of one encoder and size into one file by copying packets: no second encoding, no loss."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import av.container
import av.video.stream

from dreamdojo.errors import DataError
from dreamdojo.video.container import ffmpeg_errors, open_video, unreadable
from dreamdojo.video.encode import MUXER_OPTIONS, exact_rate


class Span(NamedTuple):
    """Where a part ended up in the joined file."""

    first_frame: int
    num_frames: int


class VideoJoiner:
    """A growing MP4 file of constant rate; `append` puts the frames of a part behind those already there.

    Raises:
        OSError: from any method, if the disk is full or not writable.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.num_frames = 0
        self._rate = exact_rate(fps)
        self._container = av.open(str(path), "w", format="mp4", options=MUXER_OPTIONS)
        self._stream: av.video.stream.VideoStream | None = None
        self._headers: bytes | None = None

    def __enter__(self) -> VideoJoiner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, part: Path) -> Span:
        """Copy the packets of `part` to the end.

        Raises:
            DataError: if the part is unreadable, has reordered frames, or was encoded with other settings.
        """
        first = self.num_frames
        container, source, _ = open_video(part)
        with container:
            if self._stream is None:
                self._stream = self._container.add_stream_from_template(source, opaque=True)
                self._stream.time_base = 1 / self._rate
                self._headers = source.codec_context.extradata
            if source.codec_context.extradata != self._headers:
                raise DataError(
                    f"video {part}: expected the encoder settings and size of {self.path}, found others. "
                    "Encode all parts of one camera with the same settings."
                )
            with ffmpeg_errors(part):
                copies = [packet for packet in container.demux(source) if packet.size]
            for packet in copies:
                if packet.pts != packet.dts:
                    raise unreadable(part, "frames that are not stored in display order")
                packet.pts = packet.dts = self.num_frames
                packet.duration = 1
                packet.time_base = 1 / self._rate
                packet.stream = self._stream
                self._container.mux(packet)
                self.num_frames += 1
        if self.num_frames == first:
            raise unreadable(part, "no frames")
        return Span(first, self.num_frames - first)

    def close(self) -> None:
        """Finish the file."""
        self._container.close()
