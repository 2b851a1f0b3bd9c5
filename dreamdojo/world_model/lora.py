"""Low-rank adaptation (LoRA, arXiv 2106.09685) of a world model, by peft: small additions are trained, not all weights.

    linear(x) = W x + (alpha / rank) * B A x,   W frozen, A random, B zero at the start

A and B of the targets are trained, and the adapters of embodiments. A run folder gets the merged model, which is like
any other, and beside it `lora.safetensors` and `lora.json`: what was trained, on its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from dreamdojo.dataset.windows import Source
from dreamdojo.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from dreamdojo.files import read_json, write_json, written_whole
from dreamdojo.training.checkpoint import FORMAT, check_format, from_plain, load_model, load_weights, save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.train import WorldModelTraining, train_world_model

ATTENTION_AND_MLP = ("query", "key", "value", "out", "mlp.0", "mlp.2")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What is added to the frozen weights."""

    rank: int
    """Inner width of each addition."""
    alpha: float
    """Additions are multiplied by `alpha / rank`."""
    targets: tuple[str, ...] = ATTENTION_AND_MLP
    """Ends of the names of the linear layers of the DiT that get one."""
    base: Literal["float32", "bfloat16"] = "float32"
    """Precision in which the targets' frozen weights are held; bfloat16 takes half the memory and needs autocast, under
    which it computes the same."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"the rank of a LoRA must be at least 1, got {self.rank}")


def add_lora(model: WorldModel, config: LoRAConfig) -> None:
    """Freeze the DiT and put LoRAs into it; the model computes what it did. Adapters of embodiments stay trainable.

    Raises:
        ConfigError: if no layer is a target.
        MissingDependencyError: without peft.
    """
    peft = _peft()
    try:
        peft.inject_adapter_in_model(
            peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets)),
            model.dit,
        )
    except ValueError as error:
        raise ConfigError(f"expected linear layers of the DiT whose names end in {config.targets}: {error}") from error
    for name, parameter in model.dit.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
        elif config.base == "bfloat16" and ".base_layer." in name:
            parameter.data = parameter.data.bfloat16()


def merge_lora(model: WorldModel) -> None:
    """Add the LoRAs to the weights, in float32, and remove them: what remains is an ordinary model."""
    lora_layer = _peft().tuners.lora.LoraLayer
    layers: list[tuple[str, Any]] = list(model.dit.named_modules())
    for name, layer in layers:
        if isinstance(layer, lora_layer):
            base = layer.get_base_layer().float()
            layer.merge()
            parent, _, own_name = name.rpartition(".")
            setattr(model.dit.get_submodule(parent), own_name, base)
    model.requires_grad_(True)


def train_lora(
    model: WorldModel,
    training: WorldModelTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    lora: LoRAConfig,
    compute: Compute,
    about: Mapping[str, Any] = {},
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> WorldModel:
    """As `train_world_model`, but only a LoRA and the adapters are trained; returns the merged model."""
    config = model.config
    add_lora(model, lora)
    about = {**about, "lora": dataclasses.asdict(lora)}

    def save(weights: Mapping[str, Tensor]) -> None:
        trained = WorldModel(config)
        add_lora(trained, dataclasses.replace(lora, base="float32"))
        trained.load_state_dict(weights)
        save_lora(folder, trained, lora)
        merge_lora(trained)
        save_model(folder, trained, about=about)

    train_world_model(model, training, sources, folder, compute=compute, trackers=trackers, report=report, save=save)
    return load_model(folder, WorldModel)


def save_lora(folder: Path, model: WorldModel, config: LoRAConfig) -> None:
    """Write the LoRAs and adapters of a model that is not merged: `lora.safetensors`, `lora.json`."""
    trained = {name: value.detach().contiguous().cpu() for name, value in _trained(model).items()}
    with written_whole(folder / "lora.safetensors") as path:
        save_file(trained, path)
    model_config = dataclasses.asdict(model.config)
    write_json(folder / "lora.json", {"format": FORMAT, "lora": dataclasses.asdict(config), "model": model_config})


def load_lora(base: WorldModel, folder: Path) -> WorldModel:
    """The model that `base`, on which the LoRA was trained, is with the LoRA and adapters in `folder`; not merged.

    Raises:
        CheckpointError: if `base` is another network, or the files are not whole.
        MissingDependencyError: without peft.
    """
    try:
        raw = read_json(folder / "lora.json", of=f"LoRA {folder}")
        check_format(folder / "lora.json", raw.get("format"), FORMAT)
        config, lora = from_plain(WorldModelConfig, raw["model"]), from_plain(LoRAConfig, raw["lora"])
    except (ConfigError, DataError, KeyError) as error:
        raise CheckpointError(f"{folder}/lora.json does not describe a LoRA: {error}") from error
    if config.dit != base.config.dit:
        raise CheckpointError(
            f"{folder}: expected a base with the network that the LoRA was trained on, {config.dit}, found "
            f"{base.config.dit}"
        )
    model = WorldModel(config)
    model.load_state_dict(base.state_dict(), strict=False)
    add_lora(model, dataclasses.replace(lora, base="float32"))
    load_weights(model, folder / "lora.safetensors", only=_trained(model).keys())
    return model.eval()


def _trained(model: WorldModel) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            'LoRA needs peft, which is not installed: pip install "dreamdojo[lora]"'
        ) from error
    return peft
