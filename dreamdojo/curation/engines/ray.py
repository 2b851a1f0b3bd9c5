"""The same jobs under Ray Data: `dreamdojo curate --engine ray`, on this machine or on the cluster of `RAY_ADDRESS`.

Every Ray worker keeps a process of its own for the videos: what crashes or hangs is that process, and costs its video.
A Ray worker that is killed is replaced by Ray, and its job is done again. All nodes have to see the output folder.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dreamdojo.curation.engines.worker import GRACE, Worker, WorkerLost
from dreamdojo.curation.extras import require

_worker: Worker | None = None


def run_ray(
    function: Callable[[Any, Callable[[float], None]], Any],
    jobs: Sequence[Any],
    *,
    workers: int | None,
    patience: float,
    grace: float = GRACE,
) -> Iterator[tuple[int, Any]]:
    """Do jobs on a Ray cluster; see `run_local`.

    Raises:
        MissingDependencyError: without Ray Data.
        Exception: what the function raised.
    """
    ray = require("ray", needed_for="The engine ray", extra="ray")
    data = require("ray.data", needed_for="The engine ray", extra="ray")
    started = not ray.is_initialized()
    if started:
        cores = None if os.environ.get("RAY_ADDRESS") else workers or os.cpu_count()
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        data.DataContext.get_current().enable_progress_bars = False
        rows = [
            {"number": number, "work": pickle.dumps((function, job, patience, grace))}
            for number, job in enumerate(jobs)
        ]
        done = data.from_items(rows, override_num_blocks=len(rows)).map(_do, num_cpus=1)
        for row in done.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, Exception) and not isinstance(result, WorkerLost):
                raise result
            yield int(row["number"]), result
    finally:
        if started:
            ray.shutdown()


def _do(row: dict[str, Any]) -> dict[str, Any]:
    """One job in this Ray worker's own process."""
    global _worker
    function, job, patience, grace = pickle.loads(row["work"])
    if _worker is None:
        _worker = Worker(patience=patience, grace=grace)
    try:
        result: Any = _worker.run(function, job)
    except Exception as error:
        result = error
    return {"number": row["number"], "result": pickle.dumps(result)}
