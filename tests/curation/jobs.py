"""Jobs that say by their name what becomes of them, in a module that other processes can import."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dreamdojo.curation.engines.ray import run_ray


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


def done_by_ray(jobs: list[str | Path]) -> dict[int, object]:
    """What becomes of them with one worker of Ray."""
    return dict(run_ray(work, jobs, workers=1, patience=1.0, grace=30.0))
