"""Progress of a long job: one line with an estimate of what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]
"""Called with (done, total, a few words)."""


def silent(done: int, total: int, words: str) -> None:
    """Report nothing."""


@contextmanager
def progress_line(title: str, console: Console | None = None) -> Iterator[Report]:
    """A `Report` that draws one line: a bar on a terminal, a plain line now and then in a log file."""
    console = console or Console(file=sys.stderr)
    if not console.is_terminal:
        yield _plain_report(title, console)
        return
    columns = [
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    ]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=1, words="")
        yield lambda done, total, words: bar.update(task, completed=done, total=total, words=words)


@contextmanager
def no_line(title: str) -> Iterator[Report]:
    """A `Report` that says nothing, for processes beside the main one."""
    yield silent


def _plain_report(title: str, console: Console, every: float = 15.0) -> Report:
    started = last = time.monotonic()
    since, already = started, 0
    reported: int | None = None

    def report(done: int, total: int, words: str) -> None:
        nonlocal last, since, already, reported
        now = time.monotonic()
        if reported is None or done < reported:  # what a resumed job had done before says nothing of its speed
            since, already = now, done
        reported = done
        if done < total and now - last < every:
            return
        last = now
        time_left = f"about {(now - since) / (done - already) * (total - done):.0f} s left  " if done > already else ""
        console.print(f"{title:<16} {done}/{total}  {now - started:.0f} s, {time_left}{words}", highlight=False)

    return report
