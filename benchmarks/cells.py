"""What a queue keeps: the scores of every (arm, seed) in one file, written when a cell ends, and means over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.files import read_json, write_json
from dreamdojo.metrics import mean_interval


class Cells:
    """The scores of every (arm, seed) so far, in a file."""

    def __init__(self, path: Path, made_of: Mapping[str, Any]) -> None:
        """Go on with a file.

        Raises:
            ConfigError: if it is of other data, another foundation or other steps, which cannot be compared.
        """
        self.path, self.made_of = path, dict(made_of)
        self.scores: dict[str, dict[str, dict]] = {}
        if path.exists():
            stored = read_json(path, of="the cells of this comparison")
            if stored["made_of"] != self.made_of:
                raise ConfigError(f"{path} was made of {stored['made_of']}, not {self.made_of}. Use another --run.")
            self.scores = stored["scores"]
        self._write()

    def put(self, arm: str, seed: int, scores: dict) -> None:
        """Keep one more."""
        self.scores.setdefault(arm, {})[str(seed)] = scores
        self._write()

    def _write(self) -> None:
        write_json(self.path, {"made_of": self.made_of, "scores": self.scores})


def clips(numbers: Sequence[float | None]) -> Float[Tensor, " b"]:
    """One number per clip, NaN where it has none."""
    return torch.tensor([float("nan") if x is None else x for x in numbers])


def over_clips(by_seed: Sequence[Float[Tensor, " b"]]) -> dict[str, float | int | None]:
    """The mean with its interval over clips, each clip being the mean of its seeds."""
    return mean_interval(torch.stack(list(by_seed)).nanmean(dim=0)).to_json()
