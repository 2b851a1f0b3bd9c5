"""A worker that crashes or hangs costs one video; what was done is not done again."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from dreamdojo.curation import CurateSettings, curate
from dreamdojo.curation.engines import local
from dreamdojo.curation.engines.local import run_local
from dreamdojo.curation.engines.worker import WorkerLost
from dreamdojo.curation.record import RESULT_NAME
from dreamdojo.curation.rows import ROWS_PATH, read_rows
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import DataError
from dreamdojo.video import VideoCodec, encode
from tests.curation.jobs import curate_or_die, done_by_ray, work
from tests.video.numbered import numbered

FAST = VideoCodec(preset="veryfast")


def test_a_crash_and_a_hang_cost_one_job_each() -> None:
    jobs = ["a", "crash", "hang", "b", "c"]
    done = dict(run_local(work, jobs, workers=1, patience=1.0, grace=4.0))
    assert isinstance(done[1], WorkerLost) and "SIGSEGV" in str(done[1])
    assert isinstance(done[2], WorkerLost) and "longer than" in str(done[2])
    assert done[3] == done[4] and done[3] not in (done[0], os.getpid()), "the worker is replaced, then kept"


def test_an_error_of_the_system_in_a_job_is_raised_as_it_is_and_no_lost_worker() -> None:
    with pytest.raises(PermissionError, match="not yours"):
        list(run_local(work, ["fail"], workers=1, patience=1.0, grace=4.0))


def settings(**changes: object) -> CurateSettings:
    return CurateSettings(**{"size": 32, "codec": FAST, "workers": 0, "skip_unreadable": True, **changes})  # type: ignore[arg-type]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, name in enumerate("abc"):
        encode(folder / f"{name}.mp4", numbered(range(1000 * number, 1000 * number + 30), 48, 64), 10, FAST)
    return folder


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_twice_is_once_and_what_is_added_is_all_that_is_done(tmp_path: Path, videos: Path) -> None:
    root = tmp_path / "d"
    first = curate(videos, root, settings())
    before, stamp = files_of(root), root.stat().st_mtime_ns
    assert curate(videos, root, settings()) == first
    assert root.stat().st_mtime_ns == stamp, "nothing was written"
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "d.work/results").glob(f"*/{RESULT_NAME}")}
    encode(videos / "aa.mp4", numbered(range(5000, 5030), 48, 64), 10, FAST)
    assert curate(videos, root, settings()).num_clips == 4
    assert [e.meta["source"] for e in open_dataset(root).episodes] == ["a.mp4", "aa.mp4", "b.mp4", "c.mp4"]
    assert all(path.stat().st_mtime_ns == made for path, made in results.items()), "the others were not done again"
    (videos / "aa.mp4").unlink()
    curate(videos, root, settings())
    assert files_of(root) == before


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, videos: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curate(videos, tmp_path / "d", settings(), progress=stop)
    assert not (tmp_path / "d").exists() and len(list((tmp_path / "d.work/results").iterdir())) == 2
    killed = tmp_path / "d.work/results/.0123.partial-1"
    killed.mkdir()
    told: list[tuple[int, int]] = []
    curate(videos, tmp_path / "d", settings(), progress=lambda done, of: told.append((done, of)))
    assert told == [(2, 3), (3, 3)] and not killed.exists(), "what a killed worker has left is cleared away"
    curate(videos, tmp_path / "whole", settings())
    assert files_of(tmp_path / "d") == files_of(tmp_path / "whole")


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path: Path, videos: Path) -> None:
    curate(videos, tmp_path / "d", settings(keep_work=False))
    assert not (tmp_path / "d.work").exists()
    (videos / "c.mp4").unlink()
    with pytest.raises(DataError, match=r"whose d\.work is still there, found another"):
        curate(videos, tmp_path / "d", settings())
    assert open_dataset(tmp_path / "d").episodes[-1].meta["source"] == "c.mp4"


def test_a_crash_and_a_hang_cost_one_video_each_which_gets_its_turn_in_the_next_run(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (videos / "b.mp4").rename(videos / "crash.mp4")
    (videos / "c.mp4").rename(videos / "hang.mp4")
    root, here = tmp_path / "d", sys.modules["dreamdojo.curation.curate"]
    with monkeypatch.context() as patch:
        patch.setattr(here, "curate_recording", curate_or_die)
        patch.setattr(local, "run_local", partial(run_local, grace=30.0))
        report = curate(videos, root, settings(workers=1, patience=1.0))
    assert (report.num_clips, report.dropped_clips) == (1, {"worker lost": 2})
    rows = {row.recording: row for row in read_rows(root / ROWS_PATH)[0]}
    assert rows["a.mp4"].kept and "SIGSEGV" in rows["crash.mp4"].reason and "stopped" in rows["hang.mp4"].reason
    assert curate(videos, root, settings()).num_clips == 3


@pytest.mark.slow
def test_ray_replaces_a_worker_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray Data is not installed (extra `ray`)")
    jobs = ["a", tmp_path / "was killed", "crash", "b"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # Ray leaves signal handlers behind
        done = apart.submit(done_by_ray, jobs).result()
    assert (tmp_path / "was killed").exists(), "the first try ended with its worker"
    assert isinstance(done[1], int) and isinstance(done[0], int) and isinstance(done[3], int)
    assert isinstance(done[2], WorkerLost)
