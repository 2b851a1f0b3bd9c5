"""Jobs that say by their name what becomes of them, in a module that other processes can import."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dreamdojo.curation.engines.ray import run_ray
from dreamdojo.curation.record import Job, RecordingResult, curate_recording


def work(job: str | Path, tell: Callable[[float], None]) -> object:
    """`crash`, `hang` and `fail` do so; a new path kills the engine's worker; the rest gives the process."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "hang":
        tell(0.01)
        time.sleep(600)
    if job == "fail":
        raise PermissionError("not yours")
    if isinstance(job, Path) and not job.exists():
        job.write_text(str(os.getppid()))
        os.kill(os.getppid(), signal.SIGKILL)  # the engine's worker, not only the process it keeps
        time.sleep(1)
    return os.getpid()


def curate_or_die(job: Job, tell: Callable[[float], None]) -> RecordingResult:
    """Work on a recording, unless its name says that the worker crashes or hangs on it."""
    if job.recording.name == "hang.mp4":
        tell(-25.0)  # the clock soon runs out, however long the others may take
    work(Path(job.recording.name).stem if job.recording.name in ("crash.mp4", "hang.mp4") else "", lambda seconds: None)
    return curate_recording(job, tell)


def done_by_ray(jobs: list[str | Path]) -> dict[int, object]:
    """What becomes of them with one worker of Ray."""
    return dict(run_ray(work, jobs, workers=1, patience=1.0, grace=30.0))
