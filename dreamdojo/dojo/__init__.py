"""The dojo: a MuJoCo tabletop under a head camera, where a human hand or a robot arm moves things about.

It is the ground truth for everything: `simulate` writes datasets with their truth beside them, `DojoWorld` is driven
like a dream, and importing this package registers the Gymnasium environments `dreamdojo/Push-v0` and
`dreamdojo/PickPlace-v0`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dreamdojo.dojo import gl

gl.require_packages()
gl.choose_backend()  # before anything imports mujoco

import gymnasium  # noqa: E402

if TYPE_CHECKING:
    from dreamdojo.dojo.difficulty import CLUTTER as CLUTTER
    from dreamdojo.dojo.difficulty import DIFFICULTIES as DIFFICULTIES
    from dreamdojo.dojo.difficulty import GENTLE as GENTLE
    from dreamdojo.dojo.difficulty import NORMAL as NORMAL
    from dreamdojo.dojo.difficulty import Difficulty as Difficulty
    from dreamdojo.dojo.simulate import SimulateResult as SimulateResult
    from dreamdojo.dojo.simulate import SimulateSettings as SimulateSettings
    from dreamdojo.dojo.simulation import Simulation as Simulation
    from dreamdojo.dojo.splits import SPLITS as SPLITS
    from dreamdojo.dojo.splits import seed_of as seed_of
    from dreamdojo.dojo.splits import split_of as split_of
    from dreamdojo.dojo.truth import GroundTruth as GroundTruth
    from dreamdojo.dojo.world import DojoWorld as DojoWorld

_HOME = {
    "CLUTTER": "difficulty",
    "DIFFICULTIES": "difficulty",
    "Difficulty": "difficulty",
    "DojoWorld": "world",
    "GENTLE": "difficulty",
    "GroundTruth": "truth",
    "NORMAL": "difficulty",
    "SPLITS": "splits",
    "SimulateResult": "simulate",
    "SimulateSettings": "simulate",
    "Simulation": "simulation",
    "seed_of": "splits",
    "split_of": "splits",
}
"""Public name -> module; loaded when first used, so that worker processes load no more than they need."""

__all__ = [
    "CLUTTER",
    "DIFFICULTIES",
    "GENTLE",
    "NORMAL",
    "SPLITS",
    "Difficulty",
    "DojoWorld",
    "GroundTruth",
    "SimulateResult",
    "SimulateSettings",
    "Simulation",
    "seed_of",
    "split_of",
]

for _name, _entry in (("Push", "PushEnv"), ("PickPlace", "PickPlaceEnv")):
    gymnasium.register(id=f"dreamdojo/{_name}-v0", entry_point=f"dreamdojo.dojo.envs:{_entry}", max_episode_steps=150)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
