"""Tensors that stay in their file until they are needed, and a safetensors file written from them one by one.

So a checkpoint of any size is converted in the memory of its largest tensor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamdojo.files import written_whole
from dreamdojo.training.progress import Report, silent

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Stored:
    """A tensor that is read when it is asked for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def stored(tensor: Tensor) -> Stored:
    """A tensor that is in memory, or mapped into it."""
    return Stored(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def write_safetensors(path: Path, weights: Mapping[str, Stored], report: Report = silent) -> None:
    """Write a safetensors file, whole, holding one tensor at a time; progress counts bytes."""
    # wide numbers first, so that each begins at a multiple of its size
    names = sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name))
    header, place = {}, 0
    for name in names:
        value = weights[name]
        end = place + value.num_bytes
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = weights[name].read().detach().contiguous()
            assert (tuple(tensor.shape), tensor.dtype) == (weights[name].shape, weights[name].dtype)
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            done += weights[name].num_bytes
            report(done, place, name)
