"""One recording from its file to decisions and encoded clips: what a worker does, on any engine."""

from __future__ import annotations

import base64
import dataclasses
import errno
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamdojo.curation.clips import SAME_RATE, Piece, cut_pieces, frames_of
from dreamdojo.curation.decide import Decision, clip_name, decide, measure, piece_row
from dreamdojo.curation.duplicates import signatures
from dreamdojo.curation.hands import FindHands
from dreamdojo.curation.observe import Observation, even_times, further_times, observe, without_hands
from dreamdojo.curation.report import CuratedVideo
from dreamdojo.curation.settings import CurateSettings
from dreamdojo.curation.shots import find_cuts
from dreamdojo.curation.sources.egodex import TrackedHands
from dreamdojo.curation.sources.recording import Recording, Segment
from dreamdojo.curation.sources.remote import is_remote, local_file
from dreamdojo.dataset import stats
from dreamdojo.dataset.write import CameraSpec, DepthRange, EncodedEpisode, VideoCodec, encode_episode
from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.files import partial_path, read_json, write_json
from dreamdojo.video import Look, PacketTable, VideoInfo, VideoReader, look_at, look_at_keyframes, probe, read_packets

CAMERA = "head"
RESULT_NAME = "result.json"
_THUMBNAIL, _THUMBNAILS = 128, 8
"""Pixels of the longer side, and how many a recording keeps of each kind of decision."""

Tell = Callable[[float], None]
"""Told how long the video is, in seconds, as soon as it is known."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recording to work on."""

    recording: Recording
    """What to read."""
    spec: CameraSpec
    """The pictures of the clips."""
    settings: CurateSettings
    """What is wanted."""
    folder: Path
    """Where the result goes; made when it is whole."""


@dataclass(frozen=True, kw_only=True)
class RecordingResult:
    """What became of a recording."""

    outcome: CuratedVideo
    """The file."""
    rows: tuple[Decision, ...]
    """Its pieces, in their order."""
    clips: dict[str, EncodedEpisode] = field(default_factory=dict)
    """Name of a kept row -> its clip."""
    signatures: dict[str, np.ndarray] = field(default_factory=dict)
    """Name of a kept row -> `(t, 32)` uint8, with the duplicates stage."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Name of a row -> a small JPEG."""
    observations: tuple[Observation, ...] = ()
    """Every look."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Part of the work -> processor time."""
    lasting: bool = True
    """Whether the same file would give the same again: not so when the disk was full or the worker died."""


def curate_recording(job: Job, tell: Tell) -> RecordingResult:
    """Judge a recording, encode what is kept, and write the result into the job's folder.

    A video that cannot be used is a result too, where the settings go on; it is not raised.

    Raises:
        DataError: about the video, where the settings do not go on.
        MissingDependencyError: if a stage needs what is not installed.
    """
    scratch = partial_path(job.folder)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        try:
            result = _Work(job, scratch, tell).run()
        except (MissingDependencyError, ConfigError):
            raise
        except Exception as error:
            if not job.settings.goes_on:
                raise
            kind, words = _explain(error, job.recording)
            gone = not is_remote(job.recording.video) and not Path(job.recording.video).is_file()
            lasting = not gone and kind not in ("disk full", "out of memory", "cannot be read")
            result = failed(job.recording, "cannot be read" if gone else kind, words, lasting=lasting)
        if result.lasting:
            _store(result, scratch)
            if not job.folder.exists():
                scratch.rename(job.folder)
            result = load_result(job.folder)
        return result
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def failed(recording: Recording, kind: str, reason: str, *, lasting: bool = True) -> RecordingResult:
    """The result of a recording of which nothing can be used."""
    row = Decision(clip=recording.name, recording=recording.name, group=recording.group, start=0.0, end=0.0)
    outcome = CuratedVideo(path=recording.name, kept=False, reason=reason)
    return RecordingResult(outcome=outcome, rows=(row.dropped("check", kind, reason),), lasting=lasting)


def load_result(folder: Path) -> RecordingResult:
    """The result that a worker has written.

    Raises:
        DataError: if there is none.
    """
    raw = read_json(folder / RESULT_NAME, of="a recording's result")
    info = raw["outcome"]["info"]
    return RecordingResult(
        outcome=CuratedVideo(**{**raw["outcome"], "info": None if info is None else VideoInfo(**info)}),
        rows=tuple(Decision(**row) for row in raw["rows"]),
        clips={name: _clip_from(one, folder) for name, one in raw["clips"].items()},
        signatures={
            name: np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 32)
            for name, text in raw["signatures"].items()
        },
        pictures={name: base64.b64decode(text) for name, text in raw["pictures"].items()},
        observations=tuple(Observation.from_json(one) for one in raw["observations"]),
        seconds=raw["seconds"],
    )


def _store(result: RecordingResult, folder: Path) -> None:
    raw: dict[str, Any] = {
        "outcome": dataclasses.asdict(result.outcome),
        "rows": [row.to_json() for row in result.rows],
        "clips": {name: _clip_to(clip) for name, clip in result.clips.items()},
        "signatures": {name: base64.b64encode(value.tobytes()).decode() for name, value in result.signatures.items()},
        "pictures": {name: base64.b64encode(value).decode() for name, value in result.pictures.items()},
        "observations": [one.to_json() for one in result.observations],
        "seconds": {name: round(value, 4) for name, value in result.seconds.items()},
    }
    write_json(folder / RESULT_NAME, raw)


def _clip_to(clip: EncodedEpisode) -> dict[str, Any]:
    videos = {key: path.name for key, path in clip.videos.items()}
    meta = {"length": clip.length, "fps": clip.fps, "task": clip.task, "meta": dict(clip.meta), "index": clip.index}
    codec, depth = dataclasses.asdict(clip.codec), dataclasses.asdict(clip.depth_range)
    return {**meta, "videos": videos, "stats": stats.to_json(clip.stats), "codec": codec, "depth_range": depth}


def _clip_from(raw: dict[str, Any], folder: Path) -> EncodedEpisode:
    return EncodedEpisode(
        **{key: raw[key] for key in ("index", "length", "fps", "task", "meta")},
        videos={key: folder / name for key, name in raw["videos"].items()},
        columns={},
        stats=stats.from_json(raw["stats"]),
        codec=VideoCodec(**raw["codec"]),
        depth_range=DepthRange(**raw["depth_range"]),
    )


def _explain(error: Exception, recording: Recording) -> tuple[str, str]:
    """Kind and reason of a failure, without a path of this machine."""
    words = str(error).replace(recording.video, recording.name)
    if isinstance(error, MemoryError):
        return "out of memory", "its pictures do not fit into memory"
    if _is_disk_full(error):
        return "disk full", words
    if isinstance(error, OSError):
        return "cannot be read", f"{type(error).__name__}: {error.strerror or words}"
    if isinstance(error, DataError):
        return "does not decode", words
    return "unexpected", f"{type(error).__name__}: {words}"


def _is_disk_full(error: BaseException | None) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    return error is not None and (getattr(error, "errno", None) in full or _is_disk_full(error.__cause__))


class _Work:
    """The work on one recording."""

    def __init__(self, job: Job, scratch: Path, tell: Tell) -> None:
        self.recording, self.settings, self.spec = job.recording, job.settings, job.spec
        self.scratch, self.tell = scratch, tell
        self.stages = job.settings.active
        self.seconds: dict[str, float] = {}
        self.observations: list[Observation] = []
        self.pictures: dict[float, np.ndarray] = {}

    def run(self) -> RecordingResult:
        with local_file(self.recording.video, self.scratch / "copies") as path:
            try:
                return self._run(path)
            except Exception as error:
                if path == Path(self.recording.video):
                    raise
                text = str(error).replace(str(path), self.recording.name)
                raise type(error)(text) if isinstance(error, DataError) else error from error

    def _run(self, path: Path) -> RecordingResult:
        with self._clock("check"):
            info = probe(path)
            self.tell(info.duration)
            refusal = refuse(info, self.settings)
            packets = read_packets(path)
        if refusal is not None:
            if not self.settings.goes_on:
                raise DataError(f"video {self.recording.name}: {refusal[1]}")
            result = failed(self.recording, *refusal)
            return replace(result, outcome=replace(result.outcome, info=info), seconds=self.seconds)
        duration = max(info.duration, float(packets.times[-1]))
        rows = self._judge(path, info, packets, duration)
        return self._encode(path, info, packets, rows)

    # what is kept

    def _judge(
        self, path: Path, info: VideoInfo, packets: PacketTable, duration: float
    ) -> list[tuple[Piece | None, Decision]]:
        segments, settings = self.recording.segments, self.settings
        name, group = self.recording.name, self.recording.group
        if not self.stages and segments is None:
            piece = Piece(start=0.0, end=duration + 1.0)
            return [(piece, piece_row(name, group, piece))]
        cuts: list[float] = []
        if {"shots", "quality", "motion", "hands"} & set(self.stages):
            find_hands = hand_finder(self.recording, info, settings)
            looks = self._look_around(path, packets, segments, duration, find_hands)
            if "shots" in self.stages:
                with self._clock("shots"):
                    cuts = find_cuts(path, looks, packets, settings.shots)
            pieces = cut_pieces(segments, duration, cuts, settings)
            self._look_closer(path, packets, [piece for piece in pieces if not piece.reason], find_hands)
        else:
            pieces = cut_pieces(segments, duration, cuts, settings)
        rows: list[tuple[Piece | None, Decision]] = []
        for piece in pieces:
            row = piece_row(name, group, piece)
            if row.kept and self.stages:
                inside = [one for one in self.observations if piece.start <= one.time < piece.end]
                row = decide(replace(row, scores=measure(inside, settings)), self.stages, settings)
            rows.append((piece if row.kept else None, row))
        return rows

    def _look_around(
        self,
        path: Path,
        packets: PacketTable,
        segments: Sequence[Segment] | None,
        duration: float,
        find_hands: FindHands | None,
    ) -> list[Look]:
        """Look at the whole recording evenly, but not where keyframes show no hand."""
        looks = self.settings.looks
        spans = [(0.0, duration)] if segments is None else [(part.start, part.end) for part in segments]
        times = even_times(duration, spans, looks)
        if find_hands is not None and self.recording.hands is None and looks.keyframes > 0:
            with self._clock("keyframes"):
                for look in look_at_keyframes(path, every=looks.keyframes, long_side=looks.long_side, packets=packets):
                    hands = tuple(find_hands(look.frames[0], look.timestamp))
                    self.observations.append(Observation(time=look.timestamp, hands=hands, keyframe=True))
                    self.pictures[look.timestamp] = _thumbnail(look.frames[0])
            idle = without_hands(times, self.observations, looks)
            times = times[~idle]
        return self._look(path, times, packets, find_hands)

    def _look_closer(
        self, path: Path, packets: PacketTable, pieces: Sequence[Piece], find_hands: FindHands | None
    ) -> None:
        seen = np.array([one.time for one in self.observations if not one.keyframe])
        times = further_times(pieces, seen, self.settings.looks)
        keyframes = [one for one in self.observations if one.keyframe]
        if keyframes:
            times = times[~without_hands(times, keyframes, self.settings.looks)]
        self._look(path, times, packets, find_hands)
        self.observations.sort(key=lambda one: (one.time, one.keyframe))

    def _look(self, path: Path, times: np.ndarray, packets: PacketTable, find_hands: FindHands | None) -> list[Look]:
        settings, small = self.settings.looks, []
        with self._clock("looks"):
            for look in look_at(path, times, gap=settings.gap, long_side=settings.long_side, packets=packets):
                self.observations.append(observe(look, self.stages, find_hands, self.settings))
                self.pictures[look.timestamp] = _thumbnail(look.frames[0])
                small.append(replace(look, frames=look.frames[:, ::2, ::2]))
        return small

    # what is written

    def _encode(
        self, path: Path, info: VideoInfo, packets: PacketTable, judged: list[tuple[Piece | None, Decision]]
    ) -> RecordingResult:
        settings = self.settings
        rows: list[Decision] = []
        clips: dict[str, EncodedEpisode] = {}
        marks: dict[str, np.ndarray] = {}
        shown: dict[str, bytes] = {}
        num_short = num_pauses = 0
        shortest = max(2, round(settings.min_seconds * settings.fps))
        whole = not self.stages and self.recording.segments is None
        with self._clock("encode"), VideoReader(path) as reader:
            planned: list[tuple[Decision, np.ndarray]] = []
            for piece, row in judged:
                if piece is None:
                    rows.append(row)
                    continue
                spans, pauses = frames_of(piece, packets.times, info.fps, settings)
                if not spans:
                    rows.append(row.dropped("cut", "too short", "fewer than two frames"))
                num_pauses += pauses
                for span in spans:
                    start = float(packets.times[span[0]])
                    end = float(packets.times[span[-1]]) + 1 / settings.fps
                    one = replace(row, clip=clip_name(row.recording, start, end), start=start, end=end)
                    if len(span) < shortest:
                        num_short += 1
                        words = f"{len(span)} frames at {settings.fps:g} fps, shorter than {settings.min_seconds:g} s"
                        rows.append(one.dropped("cut", "too short", words))
                    else:
                        planned.append((one, span))
            for number, (row, frames) in enumerate(self._pictures_of(reader, planned, sweep=whole)):
                if isinstance(frames, DataError):
                    kind, words = _explain(frames, self.recording)
                    rows.append(row.dropped("check", kind, words.replace(str(path), self.recording.name)))
                    continue
                clips[row.clip] = self._encode_clip(number, row, frames)
                if "duplicates" in self.stages:
                    step = max(1, round(settings.duplicates.every * settings.fps))
                    marks[row.clip] = signatures(frames[::step])
                shown[row.clip] = _jpeg(_thumbnail(frames[len(frames) // 2]))
                rows.append(row)
        rows.sort(key=lambda row: (row.start, row.end, row.clip))
        outcome = CuratedVideo(
            path=self.recording.name,
            kept=bool(clips),
            reason="" if clips else self._why_nothing(rows),
            num_clips=len(clips),
            num_frames=sum(clip.length for clip in clips.values()),
            num_short=num_short,
            num_pauses=num_pauses,
            enlarged=min(info.height, info.width) < min(self.spec.height, self.spec.width),
            info=info,
        )
        return RecordingResult(
            outcome=outcome,
            rows=tuple(rows),
            clips=clips,
            signatures=marks,
            pictures=self._shown(rows, shown),
            observations=tuple(self.observations),
            seconds=self.seconds,
        )

    def _pictures_of(
        self, reader: VideoReader, planned: list[tuple[Decision, np.ndarray]], *, sweep: bool
    ) -> Iterator[tuple[Decision, np.ndarray | DataError]]:
        """The frames of each clip; with `sweep`, by decoding the file to its end, so that all of it is known to."""
        size = (self.spec.height, self.spec.width)
        if not sweep:
            for row, span in planned:
                try:
                    frames: np.ndarray | DataError = reader.read(span, size=size)
                except DataError as error:
                    frames = error
                yield row, frames
            return
        place = {int(frame): (clip, at) for clip, (_, span) in enumerate(planned) for at, frame in enumerate(span)}
        buffers: dict[int, np.ndarray] = {}
        for number, picture in reader.sweep(place, size=size):
            clip, at = place[number]
            row, span = planned[clip]
            if at == 0:
                buffers[clip] = np.empty((len(span), *picture.shape), dtype=np.uint8)
            buffers[clip][at] = picture
            if at == len(span) - 1:
                yield row, buffers.pop(clip)

    def _encode_clip(self, number: int, row: Decision, frames: np.ndarray) -> EncodedEpisode:
        facts = {"source": row.recording, "start_seconds": round(row.start, 6), **self.recording.facts}
        if row.segment:
            facts["segment"] = row.segment
        if self.stages:
            facts["clip"] = row.clip
        return encode_episode(
            scratch=self.scratch,
            index=number,
            fps=self.settings.fps,
            cameras={CAMERA: self.spec},
            frames={CAMERA: frames},
            columns={},
            task=row.text or self.settings.task,
            meta=facts,
            codec=self.settings.codec,
        )

    def _why_nothing(self, rows: Sequence[Decision]) -> str:
        settings = self.settings
        if all(row.kind == "too short" for row in rows):
            return f"no clip of at least {settings.min_seconds:g} s at {settings.fps:g} fps"
        first = next((row for row in rows if not row.kept), None)
        return "" if first is None else f"no clip is kept; the first: {first.reason}"

    def _shown(self, rows: Sequence[Decision], kept: dict[str, bytes]) -> dict[str, bytes]:
        """Small pictures of some clips of every kind of decision."""
        shown: dict[str, bytes] = {}
        counts: dict[str, int] = {}
        times = np.array(sorted(self.pictures))
        for row in rows:
            counts[row.kind] = counts.get(row.kind, 0) + 1
            if counts[row.kind] > _THUMBNAILS:
                continue
            if row.clip in kept:
                shown[row.clip] = kept[row.clip]
            elif len(times) and row.end > row.start:
                middle = (row.start + row.end) / 2
                shown[row.clip] = _jpeg(self.pictures[times[np.abs(times - middle).argmin()]])
        return shown

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started


def hand_finder(recording: Recording, info: VideoInfo, settings: CurateSettings) -> FindHands | None:
    """Who says where the hands of a recording are: its source, or a detector; None where nobody asks.

    Raises:
        MissingDependencyError: if the detector or h5py is not installed.
    """
    if "hands" not in settings.active:
        return None
    if recording.hands is not None:
        tracked = TrackedHands(recording.hands, (info.height, info.width))
        return lambda picture, time: tracked.at(time)
    from dreamdojo.curation.palm import hand_detector

    detector = hand_detector(settings.hands.min_score)
    return lambda picture, time: detector(picture)


def refuse(info: VideoInfo, settings: CurateSettings) -> tuple[str, str] | None:
    """Why a readable video is not used, or None."""
    if info.width * info.height > settings.max_pixels:
        return "too large", f"{info.width} x {info.height} pixels, at most {settings.max_pixels} are read"
    if info.fps < settings.fps * (1 - SAME_RATE):
        return "too slow", f"{info.fps:.3g} fps, slower than the {settings.fps:g} fps of the clips"
    if settings.active and info.hdr:
        return "high dynamic range", "its brightness is coded for HDR; convert it to SDR first"
    return None


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    step = max(1, round(max(picture.shape[:2]) / _THUMBNAIL))
    return np.ascontiguousarray(picture[::step, ::step])


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=80)
    return buffer.getvalue()


def describe(settings: CurateSettings) -> str:
    """What of the settings a recording's result depends on, as JSON."""
    raw = dataclasses.asdict(settings)
    for other in ("engine", "workers", "patience", "keep_work", "test_fraction", "seed", "duplicates", "aspect"):
        raw.pop(other)
    raw["every"] = settings.duplicates.every
    return json.dumps(raw, sort_keys=True)
