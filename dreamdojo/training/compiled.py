"""Compile a model's blocks while it trains: a CPU takes a half to two thirds of the time, after a minute of compiling.

What a block does between its matrix products becomes a few kernels that read and write memory once. It needs a C++
compiler and Python's headers; where they are missing, training says so and goes on without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dreamdojo.errors import brief
from dreamdojo.training.distributed import HasShards


def compile_parts(model: nn.Module) -> Callable[[], None]:
    """Compile the blocks of a model that has some, else its children, in place; the function returned undoes it.

    Weights keep their names and their place in memory.
    """
    parts = list(model.shards().blocks if isinstance(model, HasShards) else model.children())
    for part in parts:
        part.compile()

    def restore() -> None:
        for part in parts:
            part._compiled_call_impl = None

    return restore


@functools.cache
def compiler_fault() -> str | None:
    """Why nothing can be compiled on this machine; None where a small trial went well."""
    try:
        torch.compile(_trial)(torch.ones(4, requires_grad=True)).sum().backward()
    except Exception as error:  # a missing compiler or header shows itself as one of many kinds
        return brief(error)
    return None


def _trial(x: Tensor) -> Tensor:
    return x.sin() * 2 + 1
