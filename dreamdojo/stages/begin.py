"""How a run begins with models made elsewhere, and not with its own first stages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.stages.run import Run
from dreamdojo.stages.world_model import sampling
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.training.checkpoint import (
    config_difference,
    load_model,
    model_hash,
    read_about,
    read_class,
    save_model,
)
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.widen import add_depth


def start_from(run_folder: Path, model: Path) -> None:
    """Let a run begin with a world model made elsewhere: links to it, its tokenizer and its latent action model.

    Raises:
        CheckpointError: if there is no world model, or no tokenizer beside it.
        ConfigError: if the run already began with another one.
    """
    for stage, source in _beside(model).items():
        link_model(source, run_folder / stage)


def start_with_depth(run: Run, model: Path) -> None:
    """Let a run of modality `rgbd` begin with a world model of RGB, which keeps the RGB that it says.

    The run has the tokenizer of both by then. Writes the model with depth as `RUN/pretrained`.

    Raises:
        CheckpointError: if there is no world model, or the run's tokenizer of RGB is not the model's.
        ConfigError: if the run already began with another one.
    """
    rgbd, sources = run.preset.rgbd, _beside(model)
    assert rgbd is not None
    tokenizer, ours = sources["tokenizer"], run.folder / "tokenizer" / "rgb"
    if not (ours / "model.safetensors").exists() or model_hash(ours) != model_hash(tokenizer):
        raise CheckpointError(
            f"{model} knows the latents of {tokenizer}: expected that tokenizer in {ours}. Make the run's first: "
            f"`dreamdojo train-tokenizer {run.preset.name} --rgb {tokenizer} --data ...`, in a new run folder."
        )
    if "latent_action" in sources:
        link_model(sources["latent_action"], run.folder / "latent_action")
    folder, about = run.folder / "pretrained", {**read_about(model), "rgb_model": model_hash(model)}
    with run.compute.processes.main_first():
        if not folder.exists():
            start = load_model(model, WorldModel, dtype=None)
            save_model(folder, add_depth(start, rgbd.latent_channels - rgbd.rgb.latent_channels), about=about)
    if read_about(folder).get("rgb_model") != about["rgb_model"]:
        raise ConfigError(f"{folder} is there already and is not {model} with depth. Use another run folder.")


def _beside(model: Path) -> dict[str, Path]:
    """A world model's folder, and those of its tokenizer and, if there is one, its latent action model beside it."""
    if (found := read_class(model)) != WorldModel.__name__:
        raise CheckpointError(f"{model}: expected a {WorldModel.__name__} to start from, found a {found}")
    beside = {"pretrained": model} | {name: model.parent / name for name in ("tokenizer", "latent_action")}
    there = {name: folder for name, folder in beside.items() if (folder / "model.safetensors").exists()}
    for name in ("pretrained", "tokenizer"):
        if name not in there:
            raise CheckpointError(f"expected a model in {beside[name]} to start from, found none")
    return there


def link_model(source: Path, link: Path) -> None:
    """A link to a folder with a model.

    Raises:
        CheckpointError: if there is no model.
        ConfigError: if something else is in the link's place.
    """
    if not (source / "model.safetensors").exists():
        raise CheckpointError(f"expected a model in {source}, found none")
    if link.exists() and link.resolve() != source.resolve():
        raise ConfigError(f"{link} is there already and is not {source}. Use another run folder.")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve(), target_is_directory=True)


def _fits(found: DiTConfig, wanted: DiTConfig) -> bool:
    return found in (wanted, replace(wanted, reference_latent=False))


_SHIPPED = {"tokenizer": Tokenizer, "latent_action": LatentActionModel, "pretrained": WorldModel}


def adopt_foundation(run: Run, foundation: Path, stages: Collection[str] = tuple(_SHIPPED)) -> None:
    """Put a shipped foundation's models into a run folder: tokenizer, latent action model, pre-trained world model.

    The world model is sampled as the run's preset says from here on. It may lack the preset's reference frame, which
    post-training adds.

    Raises:
        CheckpointError: if the foundation does not fit the preset.
    """
    for stage in stages:
        model = load_model(foundation / stage, _SHIPPED[stage])
        if isinstance(model, WorldModel) and not _fits(model.config.dit, run.preset.world_model):
            raise CheckpointError(
                f"the foundation in {foundation} has another world model than preset {run.preset.name}: "
                f"{config_difference(model.config.dit, run.preset.world_model)}. Run with --from-scratch."
            )
        if not (run.folder / stage / "model.safetensors").exists():
            about = dict(read_about(foundation / stage))
            if isinstance(model, WorldModel):
                about |= sampling(run.preset.student.teacher)
            save_model(run.folder / stage, model, about=about)
