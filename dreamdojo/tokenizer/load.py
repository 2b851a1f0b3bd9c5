"""Open whichever tokenizer a folder holds."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.tokenizer.tiled import TiledTokenizer
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.training.checkpoint import load_model, read_class, read_config

CLASSES: dict[str, type[nn.Module]] = {
    "Tokenizer": Tokenizer,
    "WanTokenizer": WanTokenizer,
    "RGBDTokenizer": RGBDTokenizer,
    "TAEF2Tokenizer": TAEF2Tokenizer,
}


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
    config = read_config(folder, CLASSES[name])
    if not isinstance(config.rgb if name == "RGBDTokenizer" else config, WanConfig):
        if tile is not None:
            raise ConfigError(f"{folder} holds a small tokenizer, which needs no tiles: leave the tile size out")
        return load_model(folder, CLASSES[name])
    tokenizer = load_model(folder, CLASSES[name], dtype=None)
    if isinstance(tokenizer, RGBDTokenizer):
        tokenizer.rgb = _tiled(tokenizer.rgb, tile)
        return tokenizer
    return _tiled(tokenizer, tile)


def _tiled(tokenizer: nn.Module, tile: int | None) -> nn.Module:
    assert isinstance(tokenizer, WanTokenizer)
    if tile is None:
        return tokenizer
    factor = tokenizer.spatial_factor
    return TiledTokenizer(tokenizer, tile=tile, overlap=max(tile // (4 * factor), 1) * factor)
