"""A process that does one job after another, is replaced when it dies, and is stopped when it hangs."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from dreamdojo.errors import DreamDojoError

GRACE = 60.0
"""Seconds that any job may take, before `patience` counts."""


class WorkerLost(DreamDojoError):
    """A worker that died or was stopped; the message says how."""


class Worker:
    """One process; started when first needed, and again after a loss.

    Args:
        patience: a job may take `GRACE` seconds and so many times the length of its video.
        grace: other than `GRACE`, for tests.
    """

    def __init__(self, *, patience: float, grace: float = GRACE) -> None:
        self._patience, self._grace = patience, grace
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(self, function: Callable[[Any, Callable[[float], None]], Any], job: Any) -> Any:
        """`function(job, tell)` in the process; `tell` takes the length of the video in seconds.

        Raises:
            WorkerLost: if the process died or took too long.
            Exception: what the function raised.
        """
        pipe = self._start()
        started, allowed = time.monotonic(), self._grace
        try:
            pipe.send((function, job))
            while pipe.poll(max(0.0, started + allowed - time.monotonic())):
                kind, value = pipe.recv()
                if kind == "length":
                    allowed = self._grace + self._patience * value
                else:
                    break
            else:
                self.close()
                raise WorkerLost(f"the worker took longer than {allowed:.0f} s on this video and was stopped")
        except (EOFError, OSError):
            process = self._process
            if process is not None:
                process.join(5)
            code = None if process is None else process.exitcode
            self.close()
            raise WorkerLost(f"the worker process died ({_how(code)}) while it worked on this video") from None
        if kind == "raised":  # not above: an error of the job's own may be of the kinds that tell a dead process
            raise value
        return value

    def close(self) -> None:
        """Stop the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _start(self) -> Connection:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            try:
                self._pipe.recv()  # its packages are imported; only now the clock of a job may run
            except (EOFError, OSError):
                self.close()
                raise WorkerLost("the worker process could not be started") from None
        return self._pipe


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us hears Ctrl-C and stops us
    pipe.send("ready")
    while True:
        try:
            function, job = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("done", function(job, lambda seconds: pipe.send(("length", float(seconds)))))
        except Exception as error:
            answer = ("raised", error)
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return


def _how(code: int | None) -> str:
    if code is None:
        return "no trace of it"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
