"""Every error DreamDojo raises on purpose.

    DreamDojoError
    ├── ConfigError (ValueError)             settings that cannot work together, or do not fit this run
    ├── DataError (ValueError)               a video, dataset, cache or array that is not what it should be
    ├── CheckpointError (ValueError)         a checkpoint that is truncated, foreign or does not fit the model
    ├── MissingDependencyError (ImportError) an extra or a system library that is not installed
    ├── SimulationError (RuntimeError)       physics that became unstable
    └── TrainingDiverged (ArithmeticError)   a loss or gradient that is not finite

A message has three parts: what was expected, what was found, what to do. `assert` is kept for our own mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class DreamDojoError(Exception):
    """Base of every error raised on purpose; the command line prints its message without a traceback."""


class ConfigError(DreamDojoError, ValueError):
    """Settings that cannot work together, or that do not fit the data or checkpoint of this run."""


class DataError(DreamDojoError, ValueError):
    """A video, dataset, cache or array that is not what it should be."""


class CheckpointError(DreamDojoError, ValueError):
    """A checkpoint that is truncated, foreign, or does not fit the model it is loaded into."""


class MissingDependencyError(DreamDojoError, ImportError):
    """An optional package or a system library that this part needs and that is not installed."""


class SimulationError(DreamDojoError, RuntimeError):
    """Physics that became unstable; the episode it happened in is not used."""


class TrainingDiverged(DreamDojoError, ArithmeticError):
    """A loss or gradient that is not finite; the weights are those from before the bad step."""


def brief(error: Exception) -> str:
    """Somebody else's error in a line: its class, and the first line of its message if it has one."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around code that takes a file's content apart: what a file of another form makes Python raise is told in words.

    Raises:
        DataError: naming `what`, where the block raises one of Python's errors about values and their kinds.
    """
    try:
        yield
    except DreamDojoError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise DataError(
            f"{what}: expected content of its documented form, found another ({brief(error)}). The file is damaged, or "
            "some other program wrote it: copy it again, or correct it."
        ) from error
