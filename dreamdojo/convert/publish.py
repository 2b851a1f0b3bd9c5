"""Our folders back to published files; for a converted model they are the files it came from, bit for bit.

OUT/iter_000000000/model/    the world model, sharded: `net.` and, the same again, `net_ema.`
OUT/model_ema_bf16.pt        the world model in one file (model_ema_fp32.pt, if it is in that precision)
OUT/cr1_empty_string_text_embeddings.pt    the text that the world model sees
OUT/LAM_400k.ckpt            the latent action model
OUT/Wan2.1_VAE.pth           the tokenizer; or taef2_encoder.pth, taef2_decoder.pth
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreamdojo.convert import names
from dreamdojo.convert.constants import CONSTANTS_FILE, latent_action_constants, world_model_constants
from dreamdojo.convert.convert import LATENT_ACTION, TEXT_PROJECTION_FILE, TOKENIZER, WORLD_MODEL, Progress
from dreamdojo.convert.read import AVERAGED_NETWORK, NETWORK, TAEF2_DECODER, TAEF2_ENCODER, TEXT_FILE
from dreamdojo.convert.shapes import ACTIONS_PER_LATENT
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.files import folder_written_whole, written_whole
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.tokenizer.taef2 import TAEF2Tokenizer
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.checkpoint import load_model, read_class
from dreamdojo.training.progress import Report, no_line, silent
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel

SHARDED = Path("iter_000000000") / "model"
LATENT_ACTION_FILE = "LAM_400k.ckpt"
TOKENIZER_FILE = "Wan2.1_VAE.pth"


def to_published(converted: Path, out: Path, progress: Progress = no_line) -> None:
    """Write the models in `converted/{world_model,latent_action,tokenizer}`, those that are there, to `out`.

    Raises:
        ConfigError: if there is none of them, one is not of the published kind, or `out` is not empty.
        CheckpointError: if one is not whole.
    """
    writers = {
        WORLD_MODEL: publish_world_model,
        LATENT_ACTION: publish_latent_action,
        TOKENIZER: publish_tokenizer,
    }
    present = [name for name in writers if (converted / name).exists()]
    if not present:
        raise ConfigError(f"{converted}: expected one of the folders {', '.join(writers)}, found none of them")
    with folder_written_whole(out) as folder:
        for name in present:
            with progress(name.replace("_", " ")) as report:
                writers[name](converted / name, folder, report=report)


def publish_world_model(folder: Path, out: Path, *, report: Report = silent) -> None:
    """Write a `WorldModel` as a sharded checkpoint, as one file, and its text embedding where it is known.

    Raises:
        ConfigError: if it is not of the published kind.
        CheckpointError: if it, or the projection of its text beside it, is not whole.
    """
    model = load_model(folder, WorldModel, dtype=None)
    network = model.config.dit
    _check_kind(folder, network)
    if any(True for _ in model.adapters.parameters()):
        raise ConfigError(f"{folder}: the published layout has no place for adapters, and this model has some")
    if not (folder / TEXT_PROJECTION_FILE).exists():
        raise CheckpointError(
            f"{folder}: expected {TEXT_PROJECTION_FILE}, the projection of the text that a published file holds, found "
            "none. Copy it from the folder of the converted model that this one began as."
        )
    side = _read(folder / TEXT_PROJECTION_FILE)
    ours = {name: value.detach() for name, value in model.dit.state_dict().items()}
    ours |= {f"text_projection.0.{part}": side[part] for part in ("weight", "bias")}
    published = names.to_published(ours, prefix=NETWORK, names=names.WORLD_MODEL_NAMES)
    constants = world_model_constants(network) | _read(folder / CONSTANTS_FILE)
    published |= {NETWORK + name: value for name, value in constants.items()}

    precision = {torch.bfloat16: "bf16", torch.float32: "fp32"}.get(model.dit.patch_in.weight.dtype)
    if precision is None:
        raise ConfigError(f"{folder}: expected weights in bfloat16 or float32, found {model.dit.patch_in.weight.dtype}")
    report(0, 3, f"model_ema_{precision}.pt")
    _save(out / f"model_ema_{precision}.pt", published)
    report(1, 3, str(SHARDED))
    averaged = {AVERAGED_NETWORK + name.removeprefix(NETWORK): value for name, value in published.items()}
    _save_sharded(out / SHARDED, published | averaged)
    report(2, 3, TEXT_FILE)
    if "embedding" in side:
        _save(out / TEXT_FILE, side["embedding"])
    report(3, 3, "")


def publish_latent_action(folder: Path, out: Path, *, report: Report = silent) -> None:
    """Write a `LatentActionModel` as `LAM_400k.ckpt`.

    Raises:
        ConfigError: if it is not of the published kind.
        CheckpointError: if it is not whole.
    """
    model = load_model(folder, LatentActionModel, dtype=None)
    config = model.config
    if extras := [option for option in ("early_fusion", "residual", "antisymmetric") if getattr(config, option)]:
        raise ConfigError(f"{folder}: a published latent action model has none of our options; this one has {extras}")
    prefix = names.LATENT_ACTION_PREFIX
    ours = {name: value.detach() for name, value in model.state_dict().items()}
    published = names.to_published(ours, prefix=prefix, names=names.LATENT_ACTION_NAMES)
    constants = latent_action_constants(config) | _read(folder / CONSTANTS_FILE)
    published |= {prefix + name: value for name, value in constants.items()}
    _save(out / LATENT_ACTION_FILE, {"state_dict": published})
    report(1, 1, LATENT_ACTION_FILE)


def publish_tokenizer(folder: Path, out: Path, *, report: Report = silent) -> None:
    """Write a `WanTokenizer` as `Wan2.1_VAE.pth`, a `TAEF2Tokenizer` as its two files.

    The statistics of their latents have no place there.

    Raises:
        ConfigError: if it is not of the published kind.
        CheckpointError: if it is not whole.
    """
    if read_class(folder) == TAEF2Tokenizer.__name__:
        _publish_taef2(folder, out)
        report(1, 1, TAEF2_DECODER)
        return
    model = load_model(folder, WanTokenizer, dtype=None)
    ours: dict[str, Tensor] = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    _save(out / TOKENIZER_FILE, names.to_published(ours, prefix=names.WAN_PREFIX, names=names.WAN_NAMES))
    report(1, 1, TOKENIZER_FILE)


def _publish_taef2(folder: Path, out: Path) -> None:
    model = load_model(folder, TAEF2Tokenizer, dtype=None)
    ours: dict[str, Tensor] = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    published = names.to_published(ours, prefix="", names=names.TAEF2_NAMES)
    for side, file in (("encoder.", TAEF2_ENCODER), ("decoder.", TAEF2_DECODER)):
        half = {name.removeprefix(side): value for name, value in published.items() if name.startswith(side)}
        _save(out / file, half)


def _check_kind(folder: Path, network: DiTConfig) -> None:
    published = replace(
        network,
        actions_per_latent=ACTIONS_PER_LATENT,
        mask_channels=True,
        sigma_scale=1.0,
        spatial_rope_ratio=3.0,
        prediction="velocity",
        previous_latent=False,
    )
    others = [
        f"{name}={getattr(network, name)} (published: {value})"
        for name, value in vars(published).items()
        if getattr(network, name) != value
    ]
    if others or network.text_dim is None or network.text_features is not None:
        found = ", ".join(others) or f"text_dim={network.text_dim}, text_features={network.text_features}"
        raise ConfigError(f"{folder}: its network is not of the published kind: {found}")


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a side file; none where there is no file."""
    try:
        return load_file(path) if path.exists() else {}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}). Convert the model again.") from error


def _save(path: Path, value: Mapping[str, object] | Tensor) -> None:
    with written_whole(path) as temporary:
        torch.save(value, temporary)


def _save_sharded(folder: Path, weights: Mapping[str, Tensor]) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():  # a single process is what is wanted
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        save(dict(weights), storage_writer=FileSystemWriter(folder), no_dist=True)
