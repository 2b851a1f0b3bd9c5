"""Foreign pickles, read without running anything of theirs.

`torch.load(weights_only=True)` reads files that hold tensors in plain containers. Files that hold other objects beside
them (a trainer's callbacks, the index of a sharded checkpoint) are read by the unpickler below. It hands out tensors,
plain containers and inert records, and nothing else: whatever other class or function a pickle names becomes a
placeholder that keeps nothing and runs nothing.
"""

from __future__ import annotations

import functools
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dreamdojo.errors import CheckpointError

_LOCAL_HEADER = 30
"""Bytes of a zip entry's own header before its name."""


class Record:
    """An object of a class whose fields are wanted: its attributes and no behaviour."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update(state)


class Placeholder:
    """Stands for an object of any other class or for the result of any other function."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __new__(cls, *_: object, **__: object) -> Placeholder:
        """Ignore what the object was made of."""
        return super().__new__(cls)

    def _ignore(self, *_: object, **__: object) -> Placeholder:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = update = _ignore


RECORDS = frozenset(
    {
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
        )
    }
    | {("torch.distributed.checkpoint.filesystem", "_StorageInfo")}
)
"""Classes that become a `Record` of the same name."""


class TensorFields(Record):
    """The `TensorProperties` of a sharded checkpoint, of which the precision is wanted."""

    dtype: object = None

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and state:
            self.dtype = state[0]


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    untyped, dtype = storage
    return torch.empty(0, dtype=dtype).set_(untyped, offset, tuple(size), tuple(stride))


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    **{("builtins", kind.__name__): kind for kind in (bool, complex, dict, float, frozenset, int, list, set, tuple)},
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_PRECISIONS = {str(dtype).removeprefix("torch."): dtype for dtype in _STORAGES.values()}


class RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names above, and any other to a placeholder."""

    def find_class(self, module: str, name: str) -> Any:
        """Something harmless of that name.

        Never the class or function itself: what is handed out belongs to this pickle, so it cannot change anything of
        the same name elsewhere by setting attributes on it.
        """
        module = "builtins" if module == "__builtin__" else module
        if module == "torch" and name in _PRECISIONS:
            return _PRECISIONS[name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _FUNCTIONS:
            return functools.partial(_FUNCTIONS[module, name])
        if (module, name) == ("torch.distributed.checkpoint.metadata", "TensorProperties"):
            return type(name, (TensorFields,), {})
        return type(name, (Record if (module, name) in RECORDS else Placeholder,), {})


def load_pickle(path: Path) -> Any:
    """What a plain pickle holds.

    Raises:
        CheckpointError: if it is missing or not a whole pickle.
    """
    try:
        with path.open("rb") as file:
            return RestrictedUnpickler(file).load()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a file, found nothing. Check the path.") from error
    except Exception as error:  # a foreign pickle can fail in any way
        raise _not_whole(path, error) from error


def load_torch(path: Path) -> Any:
    """What a file written by `torch.save` holds; its tensors are mapped into memory where the format allows it.

    Raises:
        CheckpointError: if it is missing, cut short or not such a file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'nothing'}")
    mapped = zipfile.is_zipfile(path)  # older files, and those cut short, are not
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a foreign file can fail in any way
        if not (mapped and isinstance(error, pickle.UnpicklingError)):
            raise _not_whole(path, error) from error
    try:
        return _load_beside_objects(path)
    except Exception as error:
        raise _not_whole(path, error) from error


def _load_beside_objects(path: Path) -> Any:
    """A `torch.save` file by the restricted unpickler: a zip archive of one pickle and one entry per storage."""
    whole = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "byteorder" in entries and archive.read(entries["byteorder"]).decode() != sys.byteorder:
            raise ValueError(f"its numbers are not {sys.byteorder}-endian, as those of this machine are")

        def storage(saved: tuple[str, torch.dtype, str, str, int]) -> tuple[torch.UntypedStorage, torch.dtype]:
            _, dtype, key, _, count = saved
            info, size = entries[f"data/{key}"], count * dtype.itemsize
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
                raise ValueError(f"storage {key} has {info.file_size} bytes, expected {size}")
            start = _data_offset(file, info)
            return whole[start : start + size], dtype  # pyright: ignore[reportReturnType]

        with archive.open(entries["data.pkl"]) as pickled:
            unpickler = RestrictedUnpickler(pickled)
            unpickler.persistent_load = storage  # pyright: ignore[reportAttributeAccessIssue]
            return unpickler.load()


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after its header, its name and its extra field."""
    file.seek(info.header_offset)
    name, extra = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    return info.header_offset + _LOCAL_HEADER + name + extra


def _not_whole(path: Path, error: Exception) -> CheckpointError:
    reason = "not a pickle of tensors" if isinstance(error, pickle.UnpicklingError) else str(error).partition(". ")[0]
    return CheckpointError(
        f"{path}: expected a whole checkpoint that can be read safely, found {reason or type(error).__name__}. It may "
        "be cut short, very old or of another format; copy it again, or save it as safetensors where it was made."
    )
