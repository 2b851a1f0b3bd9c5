"""Open whichever tokenizer a folder holds."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.tokenizer.tiled import TiledTokenizer
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.checkpoint import load_model, read_class

CLASSES: dict[str, type[nn.Module]] = {"Tokenizer": Tokenizer, "WanTokenizer": WanTokenizer}


def load_tokenizer(folder: Path, *, tile: int | None = None) -> nn.Module:
    """The `VideoTokenizer` in `folder`; one of Wan's class keeps the precision it is stored in.

    With `tile` it works on tiles of that many pixels a side, which overlap by about a quarter.

    Raises:
        CheckpointError: if the folder holds something else.
        ConfigError: if it is not one that can be tiled.
    """
    name = read_class(folder)
    if name not in CLASSES:
        raise CheckpointError(f"{folder}: expected a tokenizer ({', '.join(CLASSES)}), found a {name}")
    if name == "Tokenizer":
        if tile is not None:
            raise ConfigError(f"{folder} holds the small tokenizer, which needs no tiles: leave the tile size out")
        return load_model(folder, Tokenizer)
    tokenizer = load_model(folder, WanTokenizer, dtype=None)
    if tile is None:
        return tokenizer
    factor = tokenizer.spatial_factor
    return TiledTokenizer(tokenizer, tile=tile, overlap=max(tile // (4 * factor), 1) * factor)
