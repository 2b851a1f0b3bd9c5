"""Readers of the published files: what they hold, by its published names, still in the file.

iter_000140000/model        a sharded checkpoint (torch.distributed.checkpoint): `.metadata` and `*.distcp`
model.pt, model_ema_*.pt    the same entries in one file
LAM_400k.ckpt               a trainer's checkpoint: the entries under `state_dict`, objects of the trainer beside
Wan2.1_VAE.pth              plain entries
taef2_encoder.pth           plain entries, with taef2_decoder.pth beside; both are in taef2.safetensors too
*.safetensors               any of these
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from torch import Tensor

from dreamdojo.convert.stored import Stored, stored
from dreamdojo.convert.unpickle import load_pickle, load_torch
from dreamdojo.errors import CheckpointError
from dreamdojo.training.hub import download

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

NETWORK = "net."
AVERAGED_NETWORK = "net_ema."
"""Prefix of the averaged copy of the network (EMA), which the published programs use."""
TEXT_FILE = "cr1_empty_string_text_embeddings.pt"
TEXT_SOURCE = f"{TEXT_FILE} of the model repository Cosmos-Predict2.5-2B"

TAEF2_ENCODER, TAEF2_DECODER = "taef2_encoder.pth", "taef2_decoder.pth"
TAEF2_FILE = "taef2.safetensors"
"""Both halves in one file, as `madebyollin/taef2` on the hub has them."""

_ENGINE_STATE = "_extra_state"
_TAEF2_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.*)")


def read_weights(path: Path) -> dict[str, Stored]:
    """The entries of a published checkpoint, by their published names.

    Raises:
        CheckpointError: if there is none, it is cut short, or it holds something other than tensors.
    """
    if path.is_dir():
        return _read_sharded(path if (path / ".metadata").exists() else path / "model")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    raw = load_torch(path)
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not raw:
        raise CheckpointError(f"{path}: expected tensors by name, found a {type(raw).__name__}. Is it another file?")
    return {str(name): _plain(path, name, value) for name, value in raw.items() if not _is_engine_state(name)}


def tokenizer_files(source: Path) -> list[Path]:
    """The file of a tokenizer, or the two of TAEF2: of `source` itself, or in it, where it is a folder.

    A `source` that is not there and reads like OWNER/NAME is a repository of the hub, which is downloaded once.

    Raises:
        CheckpointError: if there are none.
    """
    if source.name in (TAEF2_ENCODER, TAEF2_DECODER):
        source = source.parent
    if not source.exists() and len(source.parts) == 2 and not source.suffix:
        source = download(source.as_posix(), [TAEF2_FILE, TAEF2_ENCODER, TAEF2_DECODER])
    if not source.is_dir():
        return [source]
    halves = [source / TAEF2_ENCODER, source / TAEF2_DECODER]
    if all(half.is_file() for half in halves):
        return halves
    if (source / TAEF2_FILE).is_file():
        return [source / TAEF2_FILE]
    found = ", ".join(sorted(path.name for path in source.iterdir())[:5]) or "nothing"
    raise CheckpointError(
        f"{source}: expected {TAEF2_ENCODER} and {TAEF2_DECODER}, or {TAEF2_FILE}, found {found}. Give a folder that "
        "has them, or the file of the Wan tokenizer."
    )


def read_taef2(files: Sequence[Path]) -> dict[str, Stored] | None:
    """The entries of TAEF2 by their names in the two files, after `encoder.` and `decoder.`; None of another file.

    In the one file the decoder's layers count from the first that has weights; in the other it is layer 1.

    Raises:
        CheckpointError: if a file cannot be read.
    """
    if len(files) == 2:
        sides = zip(("encoder", "decoder"), files, strict=True)
        return {f"{side}.{name}": value for side, file in sides for name, value in read_weights(file).items()}
    weights = read_weights(files[0])
    layers = {name: _TAEF2_LAYER.fullmatch(name) for name in weights}
    if not any(layers.values()):
        return None
    first = {"encoder": 0, "decoder": 1}
    return {
        name if layer is None else f"{layer[1]}.{int(layer[2]) + first[layer[1]]}.{layer[3]}": weights[name]
        for name, layer in layers.items()
    }


def read_network(path: Path, *, averaged: bool = True) -> dict[str, Stored]:
    """One copy of the world model's network, its names beginning with `net.`.

    Args:
        path: the checkpoint.
        averaged: take the averaged copy where the file has both; otherwise the one of the last training step.

    Raises:
        CheckpointError: if the file is not a world model's, or lacks the copy asked for.
    """
    weights = read_weights(path)
    copies = {name.partition(".")[0] + "." for name in weights}
    foreign = [name for name in weights if not name.startswith("net")]
    chosen = AVERAGED_NETWORK if averaged and AVERAGED_NETWORK in copies else NETWORK
    if foreign or chosen not in copies:
        found = ", ".join(map(repr, foreign[:3] or sorted(copies)))
        raise CheckpointError(
            f"{path}: expected entries that begin with {chosen!r}, found {found}. Is it the file of a world model?"
        )
    return {NETWORK + name.removeprefix(chosen): w for name, w in weights.items() if name.startswith(chosen)}


def read_text_embedding(path: Path, features: int) -> Tensor:
    """The raw embedding `s f` of the one text, from a file that holds it with or without a batch axis of 1.

    Raises:
        CheckpointError: if the file holds something else.
    """
    if path.suffix == ".safetensors":
        raw: Any = {name: value.read() for name, value in _read_safetensors(path).items()}
    else:
        raw = load_torch(path)
    values = list(raw.values()) if isinstance(raw, Mapping) else raw if isinstance(raw, list | tuple) else [raw]
    tensors = [value for value in values if isinstance(value, Tensor)]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    wanted = [t.squeeze(0) if t.ndim == 3 else t for t in tensors]
    fitting = [t for t in wanted if t.ndim == 2 and t.shape[-1] == features]
    if len(fitting) != 1:
        raise CheckpointError(
            f"{path}: expected one text embedding (tokens, {features}), found {_few(shapes)}. Give {TEXT_SOURCE}."
        )
    return fitting[0].detach()


def _plain(path: Path, name: object, value: object) -> Stored:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise CheckpointError(
            f"{path}: expected a tensor under {name!r}, found a {type(value).__name__}. Is it another file?"
        )
    return stored(value.detach())


def _is_engine_state(name: object) -> bool:
    return isinstance(name, str) and name.endswith(_ENGINE_STATE)


def _read_safetensors(path: Path) -> dict[str, Stored]:
    from safetensors.torch import load_file

    try:
        return {name: stored(tensor) for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a file, found nothing. Check the path.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}). Copy it again.") from error


def _read_sharded(folder: Path) -> dict[str, Stored]:
    """The entries of a sharded checkpoint; each is put together from its pieces when it is read."""
    if not (folder / ".metadata").exists():
        raise CheckpointError(
            f"{folder}: expected a sharded checkpoint with a file .metadata, found none. Give the folder "
            "iter_*/model, or a single file."
        )
    raw = load_pickle(folder / ".metadata")
    try:
        metadata = _real_metadata(raw)
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/.metadata: expected the index of a sharded checkpoint: {error}") from error
    for info in metadata.storage_data.values():
        if Path(info.relative_path).name != info.relative_path:
            raise CheckpointError(f"{folder}/.metadata: points at {info.relative_path!r}, which is outside its folder")
        if not (folder / info.relative_path).is_file():
            raise CheckpointError(f"{folder}: expected the file {info.relative_path}, found none. Copy it too.")
    weights = {}
    for name, about in metadata.state_dict_metadata.items():
        size, dtype = tuple(about.size), about.properties.dtype  # pyright: ignore[reportAttributeAccessIssue]
        weights[name] = Stored(size, dtype, partial(_read_entry, folder, metadata, name))
    return weights


def _real_metadata(raw: Any) -> Metadata:
    """The index of a sharded checkpoint, made anew from the numbers and names of a foreign one.

    Engine state is left out: it is kept pickled.
    """
    from torch.distributed.checkpoint import metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    entries: dict[str, Any] = {}
    for name, about in raw.state_dict_metadata.items():
        if _is_engine_state(name):
            continue
        dtype = about.properties.dtype
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"entry {name} has no precision")
        pieces = [
            dcp.ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes)) for piece in about.chunks
        ]
        size = torch.Size(about.size)
        if sum(math.prod(piece.sizes) for piece in pieces) != math.prod(size):
            raise ValueError(f"the pieces of entry {name} do not make up its size {tuple(size)}")
        entries[name] = dcp.TensorStorageMetadata(dcp.TensorProperties(dtype=dtype), size, pieces)
    places: dict[Any, Any] = {}
    for index, info in raw.storage_data.items():
        if index.fqn in entries:
            offset = getattr(index, "offset", None)
            real = dcp.MetadataIndex(index.fqn, None if offset is None else torch.Size(offset), index.index)
            coded = getattr(info, "transform_descriptors", None)
            if coded:
                raise ValueError(f"entry {index.fqn} is stored as {coded}, which cannot be read")
            places[real] = _StorageInfo(str(info.relative_path), int(info.offset), int(info.length))
    return dcp.Metadata(entries, storage_data=places)


def _few(shapes: list[tuple[int, ...]]) -> str:
    return f"tensors {shapes}" if len(shapes) < 5 else f"{len(shapes)} tensors, the first {shapes[:3]}"


def _read_entry(folder: Path, metadata: Metadata, name: str) -> Tensor:
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    about: Any = metadata.state_dict_metadata[name]
    tensor = torch.empty(about.size, dtype=about.properties.dtype)
    reader, planner = FileSystemReader(folder), DefaultLoadPlanner(flatten_state_dict=False)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    planner.set_up_planner({name: tensor}, metadata, is_coordinator=True)
    try:
        reader.read_data(planner.create_local_plan(), planner).wait()
    except Exception as error:  # a foreign file can fail in any way
        raise CheckpointError(
            f"{folder}: expected entry {name} {tuple(tensor.shape)} in its pieces, found none that can be read "
            f"({str(error).partition('. ')[0] or type(error).__name__}). A file may be cut short; copy it again."
        ) from error
    return tensor
