"""Running a function over many jobs in worker processes, results in order and only a few in memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with the number of jobs done and the number of all."""


def map_in_order(function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int | None) -> Iterator[Result]:
    """`function` of each job, in order.

    Args:
        function: a module-level function; it runs in another process.
        jobs: its arguments; they are pickled.
        workers: processes; one per core where not given. With 1, everything runs in this process. More start new
            interpreters, so a script that calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        Exception: whatever the first failing job raised.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            waiting = []
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) >= 2 * workers:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
