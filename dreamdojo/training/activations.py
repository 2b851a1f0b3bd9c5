"""Activation checkpointing: keep only what enters a block, and compute the rest again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpoint_activations(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the blocks save memory and take about a third longer; names of weights do not change.

    Gradients are the same as without.
    """
    blocks = list(blocks)
    for block in blocks:
        vars(block)["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]
