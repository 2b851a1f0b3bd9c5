"""Experiment trackers, each an optional extra. `metrics.jsonl` is always written; a tracker is a second reader."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from dreamdojo.errors import MissingDependencyError

TrackerName = Literal["tensorboard", "wandb", "trackio"]


@runtime_checkable
class Tracker(Protocol):
    """Something that takes a row of numbers."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Record the numbers of one step."""
        ...


class TensorBoardTracker:
    """Event files in the run folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._writer = _import("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Write each number as a scalar."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class ServiceTracker:
    """Weights & Biases or Trackio, which share one interface."""

    def __init__(self, package: TrackerName, name: str) -> None:
        self._run: Any = _import(package, package).init(project="dreamdojo", name=name)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Send the row."""
        self._run.log(dict(row), step=step)


def open_trackers(names: tuple[TrackerName, ...], folder: Path, stage: str) -> tuple[Tracker, ...]:
    """One tracker per name.

    Raises:
        MissingDependencyError: naming the extra to install.
    """
    return tuple(
        TensorBoardTracker(folder, stage) if name == "tensorboard" else ServiceTracker(name, stage) for name in names
    )


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'the {extra} tracker needs a package that is not installed: pip install "dreamdojo[{extra}]"'
        ) from error
