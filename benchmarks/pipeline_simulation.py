"""The data pipeline of one training node, event by event: workers die, storage stalls, episodes are corrupt.

A trainer takes a batch every so often. It needs the segments of its pool decoded (`dataset/stream.py`); workers fetch
and decode them in order, at most `ahead` before they are needed. A segment whose worker dies is begun again by the next
one that is free; a corrupt one is left out and costs its time for nothing. Storage that does not answer is asked again,
up to three times, and the first answer counts (`remote.py`). What comes out is the share of the time in which the
trainer did not wait.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Times are in seconds."""

    segments_per_batch: float
    """Segments that a batch uses up."""
    batch_seconds: float
    """What the trainer takes for a batch when it never waits."""
    workers: int
    """Cores that fetch and decode."""
    decode_seconds: float
    """Of a segment, on one core."""
    fetch_seconds: float
    """Of a segment, typically (the median of a log-normal distribution)."""
    fetch_spread: float = 0.8
    """Standard deviation of the logarithm of that time."""
    stall_rate: float = 1e-3
    """Share of fetches that the storage lets wait."""
    stall_seconds: float = 60.0
    """For so long, on average."""
    patience: float = 5.0
    """Without an answer, until it is asked again; infinity waits for the first."""
    hours_to_death: float = 24.0
    """Of a worker, on average."""
    restart_seconds: float = 120.0
    """Until there is another in its place."""
    corrupt: float = 1e-3
    """Share of segments that do not decode."""
    ahead: int = 64
    """Segments decoded before they are needed."""

    @property
    def load(self) -> float:
        """Seconds of work that come in a second, per worker, without failures; above 1 the trainer must wait."""
        mean_fetch = self.fetch_seconds * float(np.exp(self.fetch_spread**2 / 2))
        needed = self.segments_per_batch / self.batch_seconds
        return needed * (mean_fetch + self.decode_seconds) / self.workers


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a simulated run."""

    busy: float
    """Share of the time in which the trainer worked."""
    seconds: float
    """Of the run."""
    deaths: int
    stalls: int
    left_out: int


def simulate(pipeline: Pipeline, *, batches: int, seed: int) -> Outcome:
    """Train for so many batches. The same seed gives the same events."""
    random = np.random.default_rng(seed)
    lifetime = pipeline.hours_to_death * 3600
    dies = [float(random.exponential(lifetime)) for _ in range(pipeline.workers)]
    free = [(0.0, worker) for worker in range(pipeline.workers)]
    heapq.heapify(free)
    ready: list[float] = []  # when each readable segment is decoded, in the order of the stream
    used_at: list[float] = []  # when the trainer took it
    deaths = stalls = left_out = 0

    def fetching(attempts: int) -> float:
        nonlocal stalls
        seconds = pipeline.fetch_seconds * float(np.exp(pipeline.fetch_spread * random.normal()))
        if random.random() < pipeline.stall_rate:
            stalls += 1
            seconds += float(random.exponential(pipeline.stall_seconds))
        if seconds > pipeline.patience and attempts > 1:
            seconds = min(seconds, pipeline.patience + fetching(attempts - 1))
        return seconds

    def work() -> None:
        """The next free worker takes the next segment."""
        nonlocal deaths, left_out
        place, begun = len(ready), 0.0
        while True:
            now, worker = heapq.heappop(free)
            now = max(now, begun)
            if place >= pipeline.ahead:  # as far ahead as memory allows
                now = max(now, used_at[place - pipeline.ahead])
            done = now + fetching(3) + pipeline.decode_seconds
            death = dies[worker]
            if death >= done:
                break
            deaths += 1
            begun = max(now, death)  # by another
            dies[worker] = max(now, death) + pipeline.restart_seconds
            heapq.heappush(free, (dies[worker], worker))
            dies[worker] += float(random.exponential(lifetime))
        if random.random() < pipeline.corrupt:
            left_out += 1
        else:
            ready.append(done)
        heapq.heappush(free, (done, worker))

    clock, needed = 0.0, 0.0
    for _ in range(batches):
        needed += pipeline.segments_per_batch
        while len(used_at) < int(needed):
            while len(ready) <= len(used_at):
                work()
            clock = max(clock, ready[len(used_at)])
            used_at.append(clock)
        clock += pipeline.batch_seconds
    return Outcome(
        busy=batches * pipeline.batch_seconds / clock, seconds=clock, deaths=deaths, stalls=stalls, left_out=left_out
    )
