"""Presets: one page each, every stage's settings in data-flow order."""

from collections.abc import Mapping
from pathlib import Path

from dreamdojo.errors import ConfigError
from dreamdojo.presets.nano import NANO as NANO
from dreamdojo.presets.nano import NANO128 as NANO128
from dreamdojo.presets.nano import NANO_FOUNDATION as NANO_FOUNDATION
from dreamdojo.presets.nano import NANO_RGBD as NANO_RGBD
from dreamdojo.presets.nano import NANO_ROBOT as NANO_ROBOT
from dreamdojo.presets.nano import NANO_TAEF2 as NANO_TAEF2
from dreamdojo.presets.paper import PAPER_2B as PAPER_2B
from dreamdojo.presets.paper import PAPER_2B_RGBD as PAPER_2B_RGBD
from dreamdojo.presets.paper import PAPER_14B as PAPER_14B
from dreamdojo.presets.preset import DataAmounts as DataAmounts
from dreamdojo.presets.preset import Preset as Preset

_ALL = (NANO, NANO128, NANO_FOUNDATION, NANO_RGBD, NANO_ROBOT, NANO_TAEF2, PAPER_2B, PAPER_2B_RGBD, PAPER_14B)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in PRESETS:
        folder = "; a folder is given by an option, see --help" if Path(name).exists() or "/" in name else ""
        raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}{folder}")
    return PRESETS[name]


__all__ = [
    "NANO",
    "NANO128",
    "NANO_FOUNDATION",
    "NANO_RGBD",
    "NANO_ROBOT",
    "NANO_TAEF2",
    "PAPER_2B",
    "PAPER_2B_RGBD",
    "PAPER_14B",
    "PRESETS",
    "DataAmounts",
    "Preset",
    "find_preset",
]
