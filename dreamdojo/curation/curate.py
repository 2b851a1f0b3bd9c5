"""Any source of video -> one LeRobot dataset of clips, without actions, and a row of reasons for every clip.

Workers judge recordings one by one and encode what is kept (`record.py`); what spans the corpus is done here, in the
order of the recordings' names: near-duplicates, the split, the dataset. Results of workers lie in `OUT.work`: a run
that was interrupted goes on from them, and of a corpus that grew only the new videos are worked on.

    OUT/curation.json                  every input file, kept or not, and why
    OUT/curation/decisions.parquet     every clip that was considered, its scores, kept or not, and why
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamdojo.curation.clips import SAME_RATE
from dreamdojo.curation.decide import Decision
from dreamdojo.curation.duplicates import DuplicateIndex
from dreamdojo.curation.engines import engine
from dreamdojo.curation.engines.worker import WorkerLost
from dreamdojo.curation.record import (
    CAMERA,
    RESULT_NAME,
    Job,
    RecordingResult,
    curate_recording,
    describe,
    failed,
    load_result,
)
from dreamdojo.curation.report import REPORT_NAME, CuratedVideo, CurationReport
from dreamdojo.curation.rows import write_rows
from dreamdojo.curation.settings import CurateSettings
from dreamdojo.curation.sources import Folder, Recording, Refused, Source
from dreamdojo.curation.sources.remote import fingerprint, is_remote
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.parallel import Progress
from dreamdojo.dataset.split import SPLIT
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, EncodedEpisode
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.files import locked, read_json, write_json
from dreamdojo.video import VideoInfo, probe

__all__ = ["CurateSettings", "curate", "work_folder"]

RECIPE = 2
"""Number of the way in which recordings are judged; results of another are not taken over."""


def curate(
    videos: Path | str | Sequence[Path] | Source,
    root: Path | str,
    settings: CurateSettings | None = None,
    progress: Progress | None = None,
) -> CurationReport:
    """Turn videos into a dataset of clips under `root`.

    The same videos and settings give the same bytes, for any number of workers and either engine. Where `root` is
    already the dataset of these videos and settings nothing is done; where it is an earlier one of `curate` whose work
    folder is still there, it is replaced by the new one.

    Args:
        videos: a folder (searched with its subfolders), a pattern such as `clips/*.mp4`, a URL of either, a list of
            files, or any other source.
        root: the dataset's folder.
        settings: what the clips should look like, and which are kept.
        progress: told how many recordings are done, and of how many.

    Raises:
        DataError: if there are no videos, one cannot be used (without `skip_unreadable` or `stages`), nothing is left,
            `root` is something else, or the disk is full. The results of the workers are kept.
        MissingDependencyError: if a stage, a source or the engine needs what is not installed.
    """
    settings, root = settings or CurateSettings(), Path(root)
    source = Folder(videos) if isinstance(videos, (str, Path, Sequence)) else videos
    listing = source.listing()
    if not listing.recordings:
        raise DataError(f"expected videos, found none that can be used; {_first_refused(listing.refused)}")
    if not settings.goes_on and (closed := [one for one in listing.refused if one.kind == "cannot be read"]):
        raise DataError(
            f"folder {closed[0].name}: {closed[0].reason}. Check its permissions, or leave it out (--skip-unreadable)."
        )
    recordings = sorted(listing.recordings, key=lambda recording: recording.name)
    if repeated := [name for name, count in Counter(r.name for r in recordings).items() if count > 1]:
        raise DataError(f"expected recordings of different names, found {repeated[0]!r} more than once.")
    infos = _probe_all(recordings, settings)
    spec = _common_size([info for info in infos.values() if isinstance(info, VideoInfo)], settings)
    work = work_folder(root)
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock"):
        jobs: dict[str, Job] = {}
        unreadable: dict[str, str] = {}
        for recording in recordings:
            try:
                folder = work / "results" / _key(recording, spec, settings)
            except DataError as error:
                unreadable[recording.name] = _without_path(error, recording)
                continue
            jobs[recording.name] = Job(recording=recording, spec=spec, settings=settings, folder=folder)
        identity = _identity(recordings, jobs, listing.refused, settings)
        if root.exists():
            _allow_existing(root, work)
            stated = read_json(root / REPORT_NAME, of=f"dataset {root}")
            if stated.get("identity") == identity:
                return CurationReport.from_dict(root, stated)
        for part in (work / "results").glob(".*.partial-*"):  # of workers that were killed
            shutil.rmtree(part)
        results = _run(recordings, jobs, unreadable, settings, progress)
        if not all(result.lasting for result in results.values()):
            identity = f"{identity}, to be tried again"
        report = _write(root, work, recordings, results, listing.refused, listing.others, spec, settings, identity)
    if not settings.keep_work:
        shutil.rmtree(work)
    return report


def work_folder(root: Path) -> Path:
    """Where the workers' results for a dataset lie."""
    return root.with_name(f"{root.name}.work")


def _allow_existing(root: Path, work: Path) -> None:
    """Only what `curate` wrote from this work folder is replaced."""
    owner = work / "dataset.json"
    ours = (root / REPORT_NAME).is_file() and owner.is_file()
    if not ours or read_json(owner, of="work folder") != _stamp(root):
        raise DataError(
            f"dataset {root}: expected a folder that does not exist yet, or one that `dreamdojo curate` wrote and "
            f"whose {work.name} is still there, found another. Remove it or choose another name."
        )


def _stamp(root: Path) -> dict[str, Any]:
    return {"identity": read_json(root / REPORT_NAME, of=f"dataset {root}").get("identity")}


def _run(
    recordings: Sequence[Recording],
    jobs: dict[str, Job],
    unreadable: dict[str, str],
    settings: CurateSettings,
    progress: Progress | None,
) -> dict[str, RecordingResult]:
    """The result of every recording: of an earlier run where there is one."""
    results: dict[str, RecordingResult] = {}
    todo: list[Job] = []
    for recording in recordings:
        if (gone := unreadable.get(recording.name)) is not None:
            if not settings.goes_on:
                raise DataError(f"video {recording.name}: {gone} Check it.")
            results[recording.name] = failed(recording, "cannot be read", gone, lasting=False)
        elif (jobs[recording.name].folder / RESULT_NAME).is_file():
            results[recording.name] = load_result(jobs[recording.name].folder)
        else:
            todo.append(jobs[recording.name])
    done = len(results)
    if progress is not None and done:
        progress(done, len(recordings))
    for number, result in engine(settings.engine)(
        curate_recording, todo, workers=settings.workers, patience=settings.patience
    ):
        job = todo[number]
        if isinstance(result, WorkerLost):
            if not settings.goes_on:
                raise DataError(f"video {job.recording.name}: {result} (--skip-unreadable leaves it out).")
            result = failed(job.recording, "worker lost", str(result), lasting=False)
        results[job.recording.name] = result
        done += 1
        if progress is not None:
            progress(done, len(recordings))
    return results


def _write(
    root: Path,
    work: Path,
    recordings: Sequence[Recording],
    results: dict[str, RecordingResult],
    refused: Sequence[Refused],
    others: tuple[str, ...],
    spec: CameraSpec,
    settings: CurateSettings,
    identity: str,
) -> CurationReport:
    """Decide what spans the corpus, then write the rows and the dataset."""
    rows, clips = _across(recordings, results, settings)
    rows += [
        Decision(clip=one.name, recording=one.name, group=one.name, start=0.0, end=0.0).dropped(
            "source", one.kind, one.reason
        )
        for one in refused
    ]
    pictures = {name: picture for result in results.values() for name, picture in result.pictures.items()}
    kept: dict[str, list[Decision]] = defaultdict(list)
    for row in rows:
        if row.kept:
            kept[row.recording].append(row)
    outcomes = [_outcome(results[recording.name], kept[recording.name]) for recording in recordings]
    outcomes += [
        CuratedVideo(path=one.name, kept=False, reason=one.reason) for one in refused if one.kind != "annotation"
    ]
    report = CurationReport(
        root=root,
        height=spec.height,
        width=spec.width,
        fps=settings.fps,
        videos=tuple(outcomes),
        other_files=others,
        dropped_clips=dict(sorted(Counter(row.kind for row in rows if not row.kept).items())),
        identity=identity,
    )
    write_rows(work / "decisions.parquet", rows, pictures)
    if not clips:
        reasons = "; ".join(f"{video.path}: {video.reason}" for video in report.dropped[:3])
        raise DataError(
            f"expected at least one clip from {len(recordings)} videos, got none ({reasons}). "
            f"All reasons are in {work.name}/decisions.parquet."
        )
    fresh = root.with_name(f"{root.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with DatasetWriter(
        fresh,
        fps=settings.fps,
        embodiment=Embodiment(name=settings.embodiment),
        cameras={CAMERA: spec},
        codec=settings.codec,
        extra_info={
            "curation": {"size": settings.size, "max_seconds": settings.max_seconds, "stages": settings.active}
        },
    ) as writer:
        for number, clip in enumerate(clips):
            writer.add(_linked(clip, number, writer.scratch))
        write_json(writer.folder / REPORT_NAME, report.to_dict())
        write_rows(writer.folder / "curation" / "decisions.parquet", rows, pictures)
    if root.exists():
        old = root.with_name(f"{root.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        root.rename(old)
        fresh.rename(root)
        shutil.rmtree(old)
    else:
        fresh.rename(root)
    write_json(work / "dataset.json", {"identity": identity})
    return report


def _across(
    recordings: Sequence[Recording], results: dict[str, RecordingResult], settings: CurateSettings
) -> tuple[list[Decision], list[EncodedEpisode]]:
    """All rows and the clips of those that are kept, near-duplicates found and splits drawn."""
    index = DuplicateIndex(settings.duplicates) if "duplicates" in settings.active else None
    rows: list[Decision] = []
    clips: list[EncodedEpisode] = []
    for recording in recordings:
        result = results[recording.name]
        for row in result.rows:
            if row.kept and index is not None:
                row = _judge_duplicate(row, result, index, settings)
            if row.kept:
                clip = result.clips[row.clip]
                if settings.test_fraction > 0:
                    side = split_of(row.group, settings.test_fraction, settings.seed)
                    clip = replace(clip, meta={**clip.meta, SPLIT: side})
                clips.append(clip)
            rows.append(row)
    return rows, clips


def _judge_duplicate(
    row: Decision, result: RecordingResult, index: DuplicateIndex, settings: CurateSettings
) -> Decision:
    marks = result.signatures[row.clip]
    other, share = index.find(row.recording, marks)
    row = replace(row, scores={**row.scores, "seen_before": share})
    if share < settings.duplicates.min_share:
        index.add(row.recording, row.clip, marks)
        return row
    return row.dropped(
        "duplicates", "near-duplicate", f"{share:.0%} of its frames are seen in other recordings, most in {other}"
    )


def split_of(group: str, test_fraction: float, seed: int) -> str:
    """`train` or `test`, by a hash of the group: recordings that are added later move no other."""
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest) < test_fraction * 2**64 else "train"


def _outcome(result: RecordingResult, kept: Sequence[Decision]) -> CuratedVideo:
    """What became of a file once the whole corpus is known, of which its rows that are kept are left."""
    outcome = result.outcome
    if len(kept) == outcome.num_clips:
        return outcome
    frames = sum(result.clips[row.clip].length for row in kept)
    reason = "" if kept else "every clip is a near-duplicate"
    return replace(outcome, kept=bool(kept), reason=reason, num_clips=len(kept), num_frames=frames)


def _linked(clip: EncodedEpisode, number: int, scratch: Path) -> EncodedEpisode:
    """The clip with links to its files, which the writer consumes."""
    scratch.mkdir(parents=True, exist_ok=True)
    videos = {}
    for key, path in clip.videos.items():
        videos[key] = scratch / f"{number:06d}.{key}.mp4"
        try:
            videos[key].hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, videos[key])
    return replace(clip, index=number, videos=videos)


def _without_path(error: DataError, recording: Recording) -> str:
    """Why a recording's file cannot be read, without a path of this machine."""
    words = str(error).removeprefix(f"video {recording.video}: ")
    return words.replace(recording.hands, Path(recording.hands).name) if recording.hands else words


def _key(recording: Recording, spec: CameraSpec, settings: CurateSettings) -> str:
    """Name of a recording's result: changes with the file, what is wanted of it, and how it is judged.

    Raises:
        DataError: if a file cannot be read.
    """
    content = [fingerprint(recording.video)]
    content += [fingerprint(recording.hands)] if recording.hands else []
    described = dataclasses.asdict(recording)
    described = {key: value for key, value in described.items() if key not in ("video", "hands")}
    raw = json.dumps([RECIPE, content, described, dataclasses.asdict(spec), describe(settings)], sort_keys=True)
    return hashlib.blake2b(raw.encode(), digest_size=12).hexdigest()


def _identity(
    recordings: Sequence[Recording], jobs: dict[str, Job], refused: Sequence[Refused], settings: CurateSettings
) -> str:
    """Hex digits of everything that the dataset depends on."""
    keys = [(one.name, jobs[one.name].folder.name if one.name in jobs else None) for one in recordings]
    across = [dataclasses.asdict(settings.duplicates), settings.test_fraction, settings.seed]
    raw = json.dumps([keys, [dataclasses.asdict(one) for one in refused], across, describe(settings)])
    return hashlib.blake2b(raw.encode(), digest_size=16).hexdigest()


def _probe_all(recordings: Sequence[Recording], settings: CurateSettings) -> dict[str, VideoInfo | str]:
    """What the files are, where that decides the clips' shape or what cannot be read ends the run."""
    if settings.aspect is not None and settings.goes_on:
        return {}
    if remote := [one.name for one in recordings if is_remote(one.video)]:
        raise ConfigError(
            f"remote videos such as {remote[0]} are not opened before the workers get them: give the clips' aspect, "
            "width over height (--aspect), and the stages that judge (--stages) or --skip-unreadable."
        )
    infos: dict[str, VideoInfo | str] = {}
    opened: dict[str, VideoInfo | str] = {}
    for one in recordings:
        if one.video not in opened:
            try:
                opened[one.video] = probe(one.video)
            except DataError as error:
                if not settings.goes_on:
                    raise DataError(
                        f"{error} Files like {one.name} are left out with skip_unreadable (--skip-unreadable)."
                    ) from error
                opened[one.video] = str(error).replace(one.video, one.name)
        infos[one.name] = opened[one.video]
    readable = {name: info for name, info in infos.items() if isinstance(info, VideoInfo)}
    if not settings.goes_on:
        _refuse_slow({name: info.fps for name, info in readable.items()}, settings.fps)
    if not readable:
        raise DataError(f"expected a readable video, all {len(infos)} failed. The first: {next(iter(infos.values()))}")
    return infos


def _refuse_slow(rates: dict[str, float], fps: float) -> None:
    slow = {name: rate for name, rate in rates.items() if rate < fps * (1 - SAME_RATE)}
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


def _first_refused(refused: Sequence[Refused]) -> str:
    return f"the first: {refused[0].name}: {refused[0].reason}" if refused else "the source names none"
