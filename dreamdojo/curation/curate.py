"""Any folder of videos -> one LeRobot dataset of clips, without actions.

Every file is probed and decoded to its last frame. Its frames are chosen by timestamp at one rate, centre-cropped to
one aspect, resized to one size, and cut into clips: at pauses of the recording, and after `max_seconds`. What became of
each file stands in `curation.json` inside the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dreamdojo.curation.find import find_videos
from dreamdojo.curation.report import REPORT_NAME, CuratedVideo, CurationReport
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.parallel import Progress, map_in_order
from dreamdojo.dataset.resample import choose_frames
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, EncodedEpisode, VideoCodec, encode_episode
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.files import write_json
from dreamdojo.video import VideoInfo, VideoReader, probe

CAMERA = "head"
_SAME_RATE = 0.02
"""Sources this close to the dataset's rate keep all their frames."""
_MAX_CLIPS = 10_000
"""Clips of one video; keeps the episodes of a dataset in the order of their files."""


@dataclass(frozen=True, kw_only=True)
class CurateSettings:
    """What the clips should look like."""

    embodiment: str = "human"
    """Name of the body that is seen."""
    size: int = 128
    """Pixels of the short side; rounded to even."""
    aspect: float | None = None
    """Width over height; the most common one of the videos where not given."""
    fps: float = 10.0
    """Frames per second of the clips."""
    max_seconds: float = 20.0
    """Length of a clip at most."""
    min_seconds: float = 1.0
    """Shorter clips are left out and counted."""
    task: str = ""
    """What is being done in the videos, in words."""
    codec: VideoCodec = field(default_factory=VideoCodec)
    """How the clips are stored."""
    skip_unreadable: bool = False
    """Leave out files that do not decode, and list them with the reason, instead of stopping at the first."""
    workers: int | None = None
    """Processes; one per core where not given."""

    def __post_init__(self) -> None:
        if self.size < 2 or not self.fps > 0:
            raise ConfigError(f"expected size >= 2 and fps > 0, got size={self.size}, fps={self.fps}")
        if not 0 < self.min_seconds <= self.max_seconds or self.max_seconds * self.fps < 2:
            raise ConfigError(
                f"expected 0 < min_seconds <= max_seconds and clips of at least 2 frames, got "
                f"min_seconds={self.min_seconds}, max_seconds={self.max_seconds}, fps={self.fps}"
            )


def curate(
    videos: Path | str | Sequence[Path],
    root: Path | str,
    settings: CurateSettings | None = None,
    progress: Progress | None = None,
) -> CurationReport:
    """Turn videos into a dataset of clips under `root`.

    Args:
        videos: a folder (searched with its subfolders), a pattern such as `clips/*.mp4`, or a list of files.
        root: the dataset's folder; refused where it exists.
        settings: what the clips should look like.
        progress: told how many files are done, and of how many.

    Raises:
        DataError: if there are no videos, one does not decode (without `skip_unreadable`), a source is slower than
            `fps`, nothing is left, or the disk is full. Nothing then stands under `root`.
    """
    settings = settings or CurateSettings()
    found = find_videos(videos)
    infos = _probe_all(found.paths, found.names, settings)
    readable = [path for path in found.paths if isinstance(infos[path], VideoInfo)]
    sources = {path: info for path, info in infos.items() if isinstance(info, VideoInfo)}
    _refuse_slow({found.names[path]: info.fps for path, info in sources.items()}, settings.fps)
    if not sources:
        raise DataError(f"expected a readable video, all {len(found.paths)} failed. The first: {infos[found.paths[0]]}")
    spec = _common_size(list(sources.values()), settings)
    body = Embodiment(name=settings.embodiment)
    extra = {"curation": {"size": settings.size, "max_seconds": settings.max_seconds}}
    outcomes: dict[Path, CuratedVideo] = {
        path: CuratedVideo(path=found.names[path], kept=False, reason=str(error))
        for path, error in infos.items()
        if isinstance(error, str)
    }
    with DatasetWriter(
        root, fps=settings.fps, embodiment=body, cameras={CAMERA: spec}, codec=settings.codec, extra_info=extra
    ) as writer:
        jobs = [
            _Job(number, path, found.names[path], sources[path], spec, settings, writer.scratch)
            for number, path in enumerate(readable)
        ]
        for job, (outcome, clips) in zip(jobs, map_in_order(_cut, jobs, workers=settings.workers), strict=True):
            for clip in clips:
                writer.add(clip)
            outcomes[job.path] = outcome
            if progress is not None:
                progress(len(outcomes), len(found.paths))
        report = CurationReport(
            root=Path(root),
            height=spec.height,
            width=spec.width,
            fps=settings.fps,
            videos=tuple(outcomes[path] for path in found.paths),
            other_files=found.others,
        )
        if not report.num_clips:
            reasons = "; ".join(f"{video.path}: {video.reason}" for video in report.dropped[:3])
            raise DataError(f"expected at least one clip from {len(found.paths)} videos, got none ({reasons})")
        write_json(writer.folder / REPORT_NAME, report.to_dict())
    return report


@dataclass(frozen=True)
class _Job:
    number: int
    path: Path
    name: str
    info: VideoInfo
    spec: CameraSpec
    settings: CurateSettings
    scratch: Path


def _cut(job: _Job) -> tuple[CuratedVideo, list[EncodedEpisode]]:
    """Decode one video to its end and encode its clips."""
    clips: list[EncodedEpisode] = []
    spec, settings = job.spec, job.settings
    enlarged = min(job.info.height, job.info.width) < min(spec.height, spec.width)
    try:
        with VideoReader(job.path) as reader:
            times = reader.timestamps()
            spans, num_pauses = plan_clips(times, job.info.fps, settings)
            wanted = [span for span in spans if len(span) >= max(2, round(settings.min_seconds * settings.fps))]
            place = {int(frame): (clip, row) for clip, span in enumerate(wanted) for row, frame in enumerate(span)}
            buffers: dict[int, np.ndarray] = {}
            for number, picture in reader.sweep(place, size=(spec.height, spec.width)):
                clip, row = place[number]
                if row == 0:
                    buffers[clip] = np.empty((len(wanted[clip]), *picture.shape), dtype=np.uint8)
                buffers[clip][row] = picture
                if row == len(wanted[clip]) - 1:
                    clips.append(_encode_clip(job, clip, buffers.pop(clip), float(times[wanted[clip][0]])))
    except DataError as error:
        if not settings.skip_unreadable:
            raise
        for clip in clips:
            clip.videos[next(iter(clip.videos))].unlink(missing_ok=True)
        reason = _reason(error, job.path, job.name)
        return CuratedVideo(path=job.name, kept=False, reason=reason, info=job.info), []
    reason = "" if wanted else f"no clip of at least {settings.min_seconds:g} s at {settings.fps:g} fps"
    outcome = CuratedVideo(
        path=job.name,
        kept=bool(wanted),
        reason=reason,
        num_clips=len(wanted),
        num_frames=sum(map(len, wanted)),
        num_short=len(spans) - len(wanted),
        num_pauses=num_pauses,
        enlarged=enlarged,
        info=job.info,
    )
    return outcome, clips


def plan_clips(timestamps: np.ndarray, source_fps: float, settings: CurateSettings) -> tuple[list[np.ndarray], int]:
    """Which frames of a video make up its clips, and at how many pauses it was cut.

    A pause is a gap so long that the next frame would have to be a repeated one.

    Args:
        timestamps: `(t,)` rising seconds.
        source_fps: average frames per second of the source.
        settings: rate and length of the clips.
    """
    same_rate = source_fps <= settings.fps * (1 + _SAME_RATE)
    longest = (1.5 if same_rate else 1 + _SAME_RATE) / settings.fps
    cuts = np.flatnonzero(np.diff(timestamps) > longest) + 1
    per_clip = int(settings.max_seconds * settings.fps)
    clips = []
    for first, end in zip([0, *cuts], [*cuts, len(timestamps)], strict=True):
        kept = np.arange(end - first)
        if not same_rate:
            kept, _ = choose_frames(timestamps[first:end], settings.fps, source_rate=source_fps)
        clips += [first + kept[start : start + per_clip] for start in range(0, len(kept), per_clip)]
    return clips, len(cuts)


def _encode_clip(job: _Job, clip: int, frames: np.ndarray, start: float) -> EncodedEpisode:
    return encode_episode(
        scratch=job.scratch,
        index=job.number * _MAX_CLIPS + clip,
        fps=job.settings.fps,
        cameras={CAMERA: job.spec},
        frames={CAMERA: frames},
        columns={},
        task=job.settings.task,
        meta={"source": job.name, "start_seconds": round(start, 6)},
        codec=job.settings.codec,
    )


def _reason(error: DataError, path: Path, name: str) -> str:
    """What is wrong with a file, without the path of this machine."""
    return str(error).replace(str(path), name)


def _probe_all(paths: Sequence[Path], names: dict[Path, str], settings: CurateSettings) -> dict[Path, VideoInfo | str]:
    results: dict[Path, VideoInfo | str] = {}
    for path in paths:
        try:
            results[path] = probe(path)
        except DataError as error:
            if not settings.skip_unreadable:
                raise DataError(
                    f"{error} Files like {names[path]} are left out with skip_unreadable (--skip-unreadable)."
                ) from error
            results[path] = _reason(error, path, names[path])
    return results


def _refuse_slow(rates: dict[str, float], fps: float) -> None:
    slow = {name: rate for name, rate in rates.items() if rate < fps * (1 - _SAME_RATE)}
    if slow:
        listed = ", ".join(f"{name} ({rate:.3g} fps)" for name, rate in sorted(slow.items())[:5])
        raise DataError(
            f"expected videos of at least {fps:g} fps, found {len(slow)} slower: {listed}. Frames are never repeated: "
            f"set fps to {min(slow.values()):.3g} or less, or curate the slow videos into a dataset of their own."
        )


def _common_size(infos: Sequence[VideoInfo], settings: CurateSettings) -> CameraSpec:
    """One size for all: the short side is `size`, sides are even."""
    aspect = settings.aspect
    if aspect is None:
        aspects = Counter(round(info.width / info.height, 2) for info in infos)
        common = aspects.most_common(1)[0][0]
        aspect = next(i.width / i.height for i in infos if round(i.width / i.height, 2) == common)
    height, width = (1.0, aspect) if aspect >= 1 else (1 / aspect, 1.0)
    return CameraSpec(height=2 * round(settings.size * height / 2), width=2 * round(settings.size * width / 2))
