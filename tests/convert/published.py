"""Small files of exactly the published layout, with random weights."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from dreamdojo.convert import names
from dreamdojo.convert.constants import latent_action_constants, world_model_constants
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.world_model.dit import DiT, DiTConfig

TEXT_FEATURES = 20


def network(*, student: bool = False, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Entries `net.*` of a world model with the published 384 columns of actions."""
    config = DiTConfig(
        latent_channels=16,
        dim=48,
        num_heads=4,
        num_blocks=2,
        action_dim=384,
        modulation_rank=6,
        text_dim=10,
        text_features=TEXT_FEATURES,
        causal=student,
        window=4 if student else None,
    )
    weights = names.to_published(random_weights(DiT(config), dtype), prefix="net.", names=names.WORLD_MODEL_NAMES)
    constants = world_model_constants(config) | {
        "accum_iteration": torch.tensor(140_000),
        "accum_train_in_hours": torch.tensor(12.5),
    }
    return weights | {f"net.{name}": value for name, value in constants.items()}


def latent_action_model() -> dict[str, Tensor]:
    config = LatentActionConfig(dim=32, latent_dim=8, num_heads=2, encoder_blocks=2, decoder_blocks=1)
    ours = random_weights(LatentActionModel(config), torch.float32)
    weights = names.to_published(ours, prefix="lam.", names=names.LATENT_ACTION_NAMES)
    return weights | {f"lam.{name}": value for name, value in latent_action_constants(config).items()}


def tokenizer() -> dict[str, Tensor]:
    ours = random_weights(WanTokenizer(WanConfig(width=8)), torch.float32)
    return names.to_published(ours, prefix="", names=names.WAN_NAMES)


def random_weights(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.1 * torch.randn(value.shape, generator=generator)).to(dtype)
        for name, value in model.named_parameters()
    }


def text_embedding() -> Tensor:
    return torch.randn(1, 512, TEXT_FEATURES, generator=torch.Generator().manual_seed(1)).bfloat16()


def save_in_pieces(folder: Path, weights: dict[str, Tensor]) -> None:
    """A sharded checkpoint whose matrices lie in two pieces, as two processes write them."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorStorageMetadata,
    )
    from torch.distributed.checkpoint.state_dict_saver import save

    pieces = {name: list(w.chunk(2)) if w.ndim else [w] for name, w in weights.items()}
    flat = {f"{name}#{i}": piece.clone() for name, each in pieces.items() for i, piece in enumerate(each)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(flat, storage_writer=FileSystemWriter(folder), no_dist=True)
    index = folder / ".metadata"
    with index.open("rb") as file:
        found = pickle.load(file)
    places = {key.fqn: place for key, place in found.storage_data.items()}
    entries, storage = {}, {}
    for name, each in pieces.items():
        chunks, row = [], 0
        for i, piece in enumerate(each):
            offset = torch.Size([row, *[0] * (piece.ndim - 1)] if piece.ndim else [])
            chunks.append(ChunkStorageMetadata(offset, piece.shape))
            storage[MetadataIndex(name, offset, i)] = places[f"{name}#{i}"]
            row += len(piece) if piece.ndim else 0
        properties = found.state_dict_metadata[f"{name}#0"].properties
        entries[name] = TensorStorageMetadata(properties, weights[name].shape, chunks)
    with index.open("wb") as file:
        pickle.dump(Metadata(entries, storage_data=storage, storage_meta=found.storage_meta), file)
