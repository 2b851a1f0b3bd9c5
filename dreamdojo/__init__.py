"""DreamDojo: a robot world model that learns from unlabelled egocentric video.

session = dreamdojo.load("nano")                 # the model that ships with the package, or a run's folder
session.reset(observation, seed=0)               # one real frame
prediction = session.step(actions)               # b k a in the robot's units -> b k c h w uint8
what_if = session.fork(16)                       # explore; the session stays where it was
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Threads that spin long while they wait lose several times their speed as soon as something else runs beside them;
# threads that sleep at once lose a third of it when nothing does (docs/log.md). Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

if TYPE_CHECKING:
    from dreamdojo.dataset.embodiment import Embodiment as Embodiment
    from dreamdojo.dataset.embodiment import Field as Field
    from dreamdojo.dataset.read import Dataset as Dataset
    from dreamdojo.dataset.read import open_dataset as open_dataset
    from dreamdojo.errors import CheckpointError as CheckpointError
    from dreamdojo.errors import ConfigError as ConfigError
    from dreamdojo.errors import DataError as DataError
    from dreamdojo.errors import DreamDojoError as DreamDojoError
    from dreamdojo.errors import MissingDependencyError as MissingDependencyError
    from dreamdojo.errors import SimulationError as SimulationError
    from dreamdojo.errors import TrainingDiverged as TrainingDiverged
    from dreamdojo.presets import find_preset as find_preset
    from dreamdojo.rollout.session import Session as Session
    from dreamdojo.world import Observation as Observation
    from dreamdojo.world import Prediction as Prediction
    from dreamdojo.world import World as World

_HOME = {
    "CheckpointError": "dreamdojo.errors",
    "ConfigError": "dreamdojo.errors",
    "DataError": "dreamdojo.errors",
    "Dataset": "dreamdojo.dataset.read",
    "DreamDojoError": "dreamdojo.errors",
    "Embodiment": "dreamdojo.dataset.embodiment",
    "Field": "dreamdojo.dataset.embodiment",
    "MissingDependencyError": "dreamdojo.errors",
    "Observation": "dreamdojo.world",
    "Prediction": "dreamdojo.world",
    "Session": "dreamdojo.rollout.session",
    "SimulationError": "dreamdojo.errors",
    "TrainingDiverged": "dreamdojo.errors",
    "World": "dreamdojo.world",
    "find_preset": "dreamdojo.presets",
    "open_dataset": "dreamdojo.dataset.read",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Dataset",
    "DreamDojoError",
    "Embodiment",
    "Field",
    "MissingDependencyError",
    "Observation",
    "Prediction",
    "Session",
    "SimulationError",
    "TrainingDiverged",
    "World",
    "__version__",
    "find_preset",
    "foundation",
    "load",
    "open_dataset",
]


def load(model: str | Path, **options: Any) -> Session:
    """Open a world model for driving: `"nano"` for the one that ships, or the folder of a teacher or student.

    Options are those of `dreamdojo.rollout.session.load_session`: `embodiment`, `steps`, `device`,
    `backend`.

    Raises:
        ConfigError: if no model of that name ships, or the folder is that of a whole run.
        CheckpointError: if the folder is not a whole checkpoint.
    """
    from dreamdojo.errors import ConfigError
    from dreamdojo.rollout.session import load_session

    if not Path(model).exists():
        shipped = foundation(str(model))
        if shipped is None:
            ship = ", ".join(
                sorted(each.name for each in (Path(__file__).parent / "weights").glob("*") if each.is_dir())
            )
            raise ConfigError(f"{str(model)!r} is neither a folder nor a model that ships ({ship or 'none do'})")
        model = shipped / "student"
    elif not (Path(model) / "config.json").exists():
        inside = [name for name in ("student", "teacher") if (Path(model) / name / "config.json").exists()]
        if inside:
            raise ConfigError(f"{model} is the folder of a run: give that of a model in it, {Path(model) / inside[0]}")
    return load_session(Path(model), **options)


def foundation(preset: str) -> Path | None:
    """The folder of the models that ship for a preset, or None where none do."""
    folder = Path(__file__).parent / "weights" / preset
    return folder if (folder / "pretrained" / "model.safetensors").exists() else None


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import dreamdojo` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'dreamdojo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
