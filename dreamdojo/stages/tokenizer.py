"""The stage of the tokenizer: of RGB, or of RGB and depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.stages.begin import link_model
from dreamdojo.stages.run import Episodes, Run
from dreamdojo.stages.sources import depth_source, frame_source
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.rgbd import RGBDTokenizer, join_parts
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.tokenizer.train import train_tokenizer
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.checkpoint import (
    config_difference,
    read_config,
    save_model,
)
from dreamdojo.training.trackers import open_trackers


def tokenizer_stage(
    run: Run, sources: Sequence[Episodes], rgb: Path | None = None
) -> Tokenizer | WanTokenizer | TAEF2Tokenizer | RGBDTokenizer:
    """Train the tokenizer on all frames given; with modality `rgbd` that of RGB, then that of depth, then join them.

    With `rgb` that folder's tokenizer of RGB, as another run trained or converted it, is kept as it is.

    Raises:
        ConfigError: if the preset's tokenizer comes converted and is not given.
        CheckpointError: if a tokenizer given or found is not the preset's.
    """
    wanted, folder = run.preset.rgbd, run.folder / "tokenizer"
    own = folder / "rgb" if wanted else folder
    if rgb is not None:
        _given_tokenizer(run, rgb)
        link_model(rgb, own)
    if not own.is_symlink() and run.preset.tokenizer_training is None:
        raise ConfigError(
            f"the tokenizer of preset {run.preset.name} is not trained here: convert the published file with "
            "`dreamdojo convert --tokenizer FILE` and give its folder with --rgb"
        )
    if wanted is None:
        return _rgb_tokenizer(run, sources, own)
    if (folder / "config.json").exists() and (found := read_config(folder, RGBDTokenizer)) != wanted:
        raise CheckpointError(
            f"{folder} holds another tokenizer than preset {run.preset.name}: {config_difference(found, wanted)}. Use "
            "another run folder."
        )
    of_rgb = _rgb_tokenizer(run, sources, own)
    of_depth = None if wanted.depth is None else _depth_tokenizer(run, sources, wanted.depth, wanted.coding)
    tokenizer = join_parts(of_rgb, of_depth, wanted.coding)
    with run.compute.processes.main_first():
        if not (folder / "model.safetensors").exists():
            save_model(folder, tokenizer)
    return tokenizer


def _rgb_tokenizer(run: Run, sources: Sequence[Episodes], folder: Path) -> Tokenizer | WanTokenizer | TAEF2Tokenizer:
    """That of the preset: trained in `folder`, or, where that is a link to another's, loaded."""
    config, training = run.preset.tokenizer, run.preset.tokenizer_training
    if folder.is_symlink():
        return _given_tokenizer(run, folder)
    assert isinstance(config, TokenizerConfig) and training is not None
    with run.progress("tokenizer") as report:
        return train_tokenizer(
            config,
            training,
            [frame_source(run, episodes) for episodes in sources],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "tokenizer"),
            report=report,
        )


def _given_tokenizer(run: Run, folder: Path) -> Tokenizer | WanTokenizer | TAEF2Tokenizer:
    tokenizer = load_tokenizer(folder)
    fits = tokenizer.config == run.preset.tokenizer
    if not isinstance(tokenizer, Tokenizer | WanTokenizer | TAEF2Tokenizer) or not fits:
        raise CheckpointError(
            f"{folder}: expected the tokenizer of RGB of preset {run.preset.name}, {run.preset.tokenizer}, found "
            f"{tokenizer.config}"
        )
    return tokenizer


def _depth_tokenizer(run: Run, sources: Sequence[Episodes], config: TokenizerConfig, coding: DepthCoding) -> Tokenizer:
    """Trained like that of RGB, on depth pictures; a random gain would be another distance, so there is none."""
    training, folder = run.preset.tokenizer_training, run.folder / "tokenizer" / "depth"
    assert training is not None
    with run.progress("tokenizer of depth") as report:
        return train_tokenizer(
            config,
            dataclasses.replace(training, colour_jitter=0.0),
            [depth_source(run, episodes) for episodes in sources],
            folder,
            compute=run.compute,
            trackers=open_trackers(run.trackers, folder, "tokenizer_depth"),
            report=report,
            picture=coding.encode,
        )
