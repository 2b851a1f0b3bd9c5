"""Published files to ours: `world_model/`, `latent_action/` and `tokenizer/`, each a folder that `load_model` reads.

Weights keep the precision they come in. The world model always sees the same text, so its embedding is projected once
and kept as `text` (512 x 1024 numbers); the projection and the raw embedding go to a side file, for the way back.

    text = gelu(embedding @ weight.T + bias),   no_text = gelu(bias)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamdojo.convert import names
from dreamdojo.convert.constants import (
    CONSTANTS_FILE,
    check_constants,
    latent_action_constants,
    world_model_constants,
)
from dreamdojo.convert.read import (
    TEXT_SOURCE,
    read_network,
    read_taef2,
    read_text_embedding,
    read_weights,
    tokenizer_files,
)
from dreamdojo.convert.shapes import Shapes, dit_config, latent_action_config, taef2_config, wan_config
from dreamdojo.convert.stored import Stored, stored, write_safetensors
from dreamdojo.dataset.published import ACTION_WIDTH, HEIGHT, LATENT_ACTION_SLOT, PUBLISHED_BODIES, WIDTH
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.files import folder_written_whole
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.tokenizer.wan import WAN_LATENT_MEAN, WAN_LATENT_STD, WanTokenizer
from dreamdojo.training.checkpoint import check_fit, write_config
from dreamdojo.training.hub import how_to_load, model_card
from dreamdojo.training.progress import Report, no_line, silent
from dreamdojo.world_model.dit import DiT
from dreamdojo.world_model.model import WorldModel, WorldModelConfig

TEXT_PROJECTION_FILE = "text_projection.safetensors"
"""Beside a converted world model: `weight`, `bias` and, where it was given, the raw `embedding`."""
WORLD_MODEL, LATENT_ACTION, TOKENIZER = "world_model", "latent_action", "tokenizer"
"""Folders of the converted models."""
TEXT_TOKENS = 512
RATE = 10.0
"""Frames per second."""
TEACHER_SAMPLER = {"steps": 35, "shift": 5.0, "solver": "unipc"}
STUDENT_SAMPLER = {"steps": 4, "shift": 5.0, "solver": "renoise"}

Progress = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Published files; each may be left out."""

    world_model: Path | None = None
    """A world model: the folder iter_*/model, or model.pt, model_ema_bf16.pt, model_ema_fp32.pt."""
    text: Path | None = None
    """The embedding of the one text that the world model sees: cr1_empty_string_text_embeddings.pt."""
    no_text: bool = False
    """Take zeros for the text embedding. The world model's output is not the published one then."""
    student: bool = False
    """The world model is the causal student."""
    averaged: bool = True
    """Take the averaged (EMA) weights where the file has both, as the published programs do."""
    latent_action: Path | None = None
    """The latent action model: LAM_400k.ckpt."""
    tokenizer: Path | None = None
    """The tokenizer: Wan2.1_VAE.pth; or TAEF2, as taef2.safetensors, as a folder with taef2_encoder.pth and
    taef2_decoder.pth, or as a repository of the hub (madebyollin/taef2)."""


def convert(settings: ConvertSettings, out: Path, progress: Progress = no_line) -> None:
    """Convert the given files into folders below `out`, all or none.

    Raises:
        ConfigError: if nothing is given, an option has no effect, or `out` is not empty.
        CheckpointError: if a file is cut short, or not of the published layout.
    """
    _check(settings)
    with folder_written_whole(out) as folder:
        if settings.world_model is not None:
            with progress("world model") as report:
                convert_world_model(
                    settings.world_model,
                    folder / WORLD_MODEL,
                    text=settings.text,
                    student=settings.student,
                    averaged=settings.averaged,
                    report=report,
                )
        if settings.latent_action is not None:
            with progress("latent actions") as report:
                convert_latent_action(settings.latent_action, folder / LATENT_ACTION, report=report)
        if settings.tokenizer is not None:
            with progress("tokenizer") as report:
                convert_tokenizer(settings.tokenizer, folder / TOKENIZER, report=report)


def convert_world_model(
    source: Path, out: Path, *, text: Path | None, student: bool, averaged: bool = True, report: Report = silent
) -> None:
    """Write the `WorldModel` of a published checkpoint to `out`; without `text` it sees the projection of zeros.

    Raises:
        CheckpointError: if a file is cut short, or not of the published layout.
    """
    published = _split(read_network(source, averaged=averaged), names.WORLD_MODEL_PREFIX, names.WORLD_MODEL_DROPPED)
    network = dit_config(Shapes(source, _shapes(published.learned)), student=student)
    _check_fit(source, published.learned, DiT, network, names.WORLD_MODEL_NAMES)
    check_constants(source, published.constants, world_model_constants(network))
    positions = published.constants.get("pos_embedder.seq")
    if positions is not None and positions.shape == (256,) and not student:
        raise CheckpointError(f"{source}: its positions are those of the causal student. Convert it with --student.")

    ours = names.from_published(published.learned, prefix="", names=names.WORLD_MODEL_NAMES)
    weight, bias = (ours.pop(f"text_projection.0.{part}") for part in ("weight", "bias"))
    side = {"weight": weight, "bias": bias}
    no_text = nn.functional.gelu(bias.read().float())
    if text is None:
        projected = no_text.expand(TEXT_TOKENS, -1)
    else:
        assert network.text_features is not None
        embedding = read_text_embedding(text, network.text_features)
        side["embedding"] = stored(embedding)
        projected = nn.functional.gelu(
            nn.functional.linear(embedding.float(), weight.read().float(), bias.read().float())
        )

    as_published = network.action_dim == ACTION_WIDTH  # slots are columns of actions of this width, and of no other
    config = WorldModelConfig(
        dit=replace(network, text_features=None),
        size=(HEIGHT, WIDTH),
        rate=RATE,
        embodiments=tuple(body for body in PUBLISHED_BODIES.values() if body.slot is not None and as_published),
        text_tokens=len(projected),
        latent_action_slot=LATENT_ACTION_SLOT.start if as_published else None,
        reference_compatible=False,
    )
    weights = {f"dit.{name}": value for name, value in ours.items()} | {
        "text": stored(projected.to(weight.dtype)),
        "no_text": stored(no_text.to(weight.dtype)),
        "latent_action_mean": stored(torch.zeros(network.action_dim)),
        "latent_action_std": stored(torch.ones(network.action_dim)),
    }
    sampler = STUDENT_SAMPLER if student else TEACHER_SAMPLER
    sources = [source] if text is None else [source, text]
    _write(out, WorldModel, config, weights, published.constants, sources, {"sampler": sampler}, report)
    write_safetensors(out / TEXT_PROJECTION_FILE, side)


def convert_latent_action(source: Path, out: Path, *, report: Report = silent) -> None:
    """Write the `LatentActionModel` of a published checkpoint to `out`.

    Raises:
        CheckpointError: if the file is cut short, or not of the published layout.
    """
    weights, prefix = read_weights(source), names.LATENT_ACTION_PREFIX
    if foreign := [name for name in weights if not name.startswith(prefix)]:
        raise CheckpointError(
            f"{source}: expected entries that begin with {prefix!r}, found {foreign[:3]}. Is it the file of a latent "
            "action model?"
        )
    published = _split(weights, prefix, names.LATENT_ACTION_DROPPED)
    config = latent_action_config(Shapes(source, _shapes(published.learned | published.constants)))
    _check_fit(source, published.learned, LatentActionModel, config, names.LATENT_ACTION_NAMES)
    check_constants(source, published.constants, latent_action_constants(config))
    ours = names.from_published(published.learned, prefix="", names=names.LATENT_ACTION_NAMES)
    _write(out, LatentActionModel, config, ours, published.constants, [source], {}, report)


def convert_tokenizer(source: Path, out: Path, *, report: Report = silent) -> None:
    """Write the `WanTokenizer` or `TAEF2Tokenizer` of `source` to `out`, with the published statistics of its latents.

    Raises:
        CheckpointError: if a file is missing, cut short, or not of the published layout.
    """
    files = tokenizer_files(source)
    halves = read_taef2(files)
    if halves is not None:
        _convert_taef2(source, files, halves, out, report)
        return
    (source,) = files
    published = read_weights(source)
    config = wan_config(Shapes(source, _shapes(published)))
    _check_fit(source, published, WanTokenizer, config, names.WAN_NAMES)
    ours = names.from_published(published, prefix=names.WAN_PREFIX, names=names.WAN_NAMES)
    channels = config.latent_channels
    known = channels == len(WAN_LATENT_MEAN)
    ours["latent_mean"] = stored(torch.tensor(WAN_LATENT_MEAN) if known else torch.zeros(channels))
    ours["latent_std"] = stored(torch.tensor(WAN_LATENT_STD) if known else torch.ones(channels))
    _write(out, WanTokenizer, config, ours, {}, [source], {}, report)


def _convert_taef2(
    source: Path, files: Sequence[Path], published: Mapping[str, Stored], out: Path, report: Report
) -> None:
    config = taef2_config(Shapes(source, _shapes(published)))
    _check_fit(source, published, TAEF2Tokenizer, config, names.TAEF2_NAMES)
    ours = names.from_published(published, prefix="", names=names.TAEF2_NAMES)
    ours["latent_mean"] = stored(torch.zeros(config.latent_channels))
    ours["latent_std"] = stored(torch.ones(config.latent_channels))
    _write(out, TAEF2Tokenizer, config, ours, {}, files, {}, report)


@dataclass(frozen=True)
class _Published:
    """A file's entries without their prefix: what was learned, and what was not."""

    learned: dict[str, Stored]
    constants: dict[str, Stored]


def _split(weights: Mapping[str, Stored], prefix: str, dropped: Sequence[str]) -> _Published:
    bare = {name.removeprefix(prefix): value for name, value in weights.items()}
    constants = {name: value for name, value in bare.items() if names.is_dropped(name, dropped)}
    return _Published({name: value for name, value in bare.items() if name not in constants}, constants)


def _shapes(weights: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in weights.items()}


def _check_fit(
    source: Path,
    learned: Mapping[str, Stored],
    model_class: type[nn.Module],
    config: Any,
    table: Sequence[names.Rename],
) -> None:
    with torch.device("meta"):
        model = model_class(config)
    expected = names.to_published(dict(model.named_parameters()), prefix="", names=table)
    check_fit(source, {name: tuple(value.shape) for name, value in expected.items()}, _shapes(learned))


def _write(
    out: Path,
    model_class: type[nn.Module],
    config: Any,
    weights: Mapping[str, Stored],
    constants: Mapping[str, Stored],
    sources: Sequence[Path],
    about: Mapping[str, Any],
    report: Report,
) -> None:
    """One converted model: weights, constants for the way back, settings and card."""
    write_safetensors(out / "model.safetensors", weights, report)
    if constants:
        write_safetensors(out / CONSTANTS_FILE, constants)
    files = [file for source in sources for file in _files(source)]
    write_config(out, model_class, config, {"converted_from": [_called(source) for source in sources], **about})
    rows = [f"| `{_called(file)}` | `{_sha256(file, report)}` |" for file in files]
    text = (
        "Converted from published files by `dreamdojo convert`. Weights are under their publisher's licence.",
        "\n".join(["| file | sha256 |", "| --- | --- |", *rows]),
        f"```python\n{_USE[model_class]}\n```",
        "The published files again, bit for bit: `dreamdojo convert --back CONVERTED --out FOLDER`, where CONVERTED is "
        "the folder that holds this one.",
    )
    (out / "README.md").write_text(model_card(model_class, text, licence="other"), encoding="utf-8")


_USE: Mapping[type[nn.Module], str] = {
    WorldModel: 'import dreamdojo\n\nsession = dreamdojo.load("FOLDER", embodiment="gr1")  # the tokenizer beside it',
    LatentActionModel: how_to_load(LatentActionModel),
    WanTokenizer: how_to_load(WanTokenizer),
    TAEF2Tokenizer: how_to_load(TAEF2Tokenizer),
}


def _files(source: Path) -> list[Path]:
    """The files of a checkpoint."""
    if source.is_file():
        return [source]
    folder = source if (source / ".metadata").exists() else source / "model"
    return sorted(path for path in folder.iterdir() if path.suffix == ".distcp" or path.name == ".metadata")


def _called(path: Path) -> str:
    """A name for a file that says nothing about this machine."""
    sharded = path.is_dir() or path.suffix == ".distcp" or path.name == ".metadata"
    return "/".join(path.parts[-2:]) if sharded else path.name


def _sha256(path: Path, report: Report) -> str:
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            done += len(block)
            report(done, size, f"sha256 of {path.name}")
    return digest.hexdigest()


def _check(settings: ConvertSettings) -> None:
    """Refuse what cannot be meant, before anything is read."""
    if settings.world_model is None:
        given = {"text": settings.text, "no_text": settings.no_text, "student": settings.student}
        if idle := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
            raise ConfigError(f"{', '.join(idle)} only has a meaning with --world-model, which is not given")
        if settings.latent_action is None and settings.tokenizer is None:
            raise ConfigError("nothing to convert: give at least one of --world-model, --latent-action, --tokenizer")
    elif settings.text is None and not settings.no_text:
        raise ConfigError(
            f"a world model sees the embedding of one text: give it with --text ({TEXT_SOURCE}). Without that file, "
            "--no-text takes zeros instead; the model's output is not the published one then."
        )
    elif settings.text is not None and settings.no_text:
        raise ConfigError("--text and --no-text contradict each other: give one of them")
