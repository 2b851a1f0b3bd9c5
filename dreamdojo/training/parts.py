"""Tensors on disk in parts: each of several processes writes what it holds, and any number of them reads it.

A part is a safetensors file whose header tells which rows of the divided tensors it has; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamdojo.errors import CheckpointError
from dreamdojo.training.distributed import Processes, is_divided, local


def write_part(path: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Write this process's rows of divided tensors; whole tensors are in the main process's part."""
    held, rows = {}, {}
    for name, value in tensors.items():
        if is_divided(value):
            first, last = _rows(value, processes)
            if first == last:
                continue
            rows[name] = [first, len(value)]
        elif not processes.is_main:
            continue
        held[name] = local(value).detach().cpu().contiguous()
    save_file(held, path, metadata={"rows": json.dumps(rows, sort_keys=True)})
    with path.open("rb") as file:
        os.fsync(file.fileno())  # the state before is deleted soon


def part_names(paths: Iterable[Path]) -> set[str]:
    """The names of all tensors in some parts.

    Raises:
        CheckpointError: if a part is not a whole file.
    """
    with ExitStack() as opened:
        return set().union(*(_open(path, opened).keys() for path in paths))


@torch.no_grad()
def read_parts(paths: Iterable[Path], into: Mapping[str, Tensor], processes: Processes) -> None:
    """Fill tensors from parts, however many processes wrote them: of a divided one the rows that this process holds.

    Raises:
        CheckpointError: naming the part that is not a whole file, or the tensor that is missing, foreign, of another
            shape or not there in all of its rows.
    """
    with ExitStack() as opened:
        files = [_open(path, opened) for path in paths]
        found: dict[str, list[tuple[int, int | None, Any]]] = {}
        for file in files:
            rows = json.loads((file.metadata() or {}).get("rows", "{}"))
            for name in list(file.keys()):
                first, total = rows.get(name, (0, None))
                found.setdefault(name, []).append((first, total, file))
        if odd := sorted(found.keys() ^ into.keys()):
            raise CheckpointError(f"expected the tensors of this model, found {odd[:3]} missing or foreign")
        for name, value in into.items():
            _fill(name, value, found[name], processes)


def _fill(name: str, value: Tensor, pieces: list[tuple[int, int | None, Any]], processes: Processes) -> None:
    """Copy rows from where they are to where they belong."""
    if value.ndim == 0:
        value.copy_(pieces[0][2].get_tensor(name))
        return
    wanted, last = _rows(value, processes)
    target, filled = local(value), 0
    for first, total, file in pieces:
        piece = file.get_slice(name)
        rows, *rest = piece.get_shape()
        if (rows if total is None else total, *rest) != tuple(value.shape):
            raise CheckpointError(f"{name}: expected shape {tuple(value.shape)}, found ({total or rows}, *{rest})")
        start, stop = max(first, wanted), min(first + rows, last)
        if start < stop:
            target[start - wanted : stop - wanted].copy_(piece[start - first : stop - first])
            filled += stop - start
    if filled != last - wanted:
        raise CheckpointError(f"{name}: expected rows {wanted} to {last}, found {filled} of them")


def _rows(value: Tensor, processes: Processes) -> tuple[int, int]:
    """Which rows of a tensor this process holds: all, or as FSDP divides them, the last processes having fewer."""
    total = len(value)
    if not is_divided(value):
        return 0, total
    each = -(-total // processes.count)
    first, last = (min(rank * each, total) for rank in (processes.rank, processes.rank + 1))
    assert len(local(value)) == last - first, "divided in another way than FSDP does"
    return first, last


def _open(path: Path, opened: ExitStack) -> Any:
    try:
        return opened.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is cut short or missing ({error})") from error
