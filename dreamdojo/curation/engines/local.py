"""A pool of worker processes on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from dreamdojo.curation.engines.worker import GRACE, Worker, WorkerLost


def run_local(
    function: Callable[[Any, Callable[[float], None]], Any],
    jobs: Sequence[Any],
    *,
    workers: int | None,
    patience: float,
    grace: float = GRACE,
) -> Iterator[tuple[int, Any]]:
    """Do jobs in `workers` processes.

    Args:
        function: a module-level function of a job and of a callback that takes its video's length in seconds.
        jobs: they are pickled.
        workers: processes; one per core where None, none (this process does the work, unprotected) where 0.
        patience: a job may take a minute and so many times its video's length.
        grace: other than a minute, for tests.

    Yields:
        A job's number and its result, or the `WorkerLost` that it ended with, as they come.

    Raises:
        Exception: what the function raised; the other jobs are then given up.
    """
    if workers == 0:
        for number, job in enumerate(jobs):
            yield number, function(job, lambda seconds: None)
        return
    count = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
    here, everyone = threading.local(), []
    stopping = threading.Event()

    def one(job: Any) -> Any:
        if stopping.is_set():
            return None
        if not hasattr(here, "worker"):
            here.worker = Worker(patience=patience, grace=grace)
            everyone.append(here.worker)
        try:
            return here.worker.run(function, job)
        except WorkerLost as lost:
            return lost

    with ThreadPoolExecutor(count) as pool:
        try:
            todo = iter(enumerate(jobs))
            waiting: dict[Any, int] = {}
            for number, job in todo:
                waiting[pool.submit(one, job)] = number
                if len(waiting) < 2 * count:
                    continue
                yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        finally:
            stopping.set()
            for worker in everyone:
                worker.close()
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(waiting: dict[Any, int]) -> Iterator[tuple[int, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in sorted(done, key=lambda one: waiting[one]):
        number = waiting.pop(future)
        yield number, future.result()
