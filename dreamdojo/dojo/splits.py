"""Splits are ranges of seeds: a seed says by itself which split it belongs to, and no two splits share one."""

from __future__ import annotations

from typing import Literal, get_args

from dreamdojo.errors import ConfigError

Split = Literal["train", "test", "demo", "ood_shape", "ood_colour", "ood_layout", "ood_lighting"]

SPLITS: tuple[Split, ...] = get_args(Split)
"""In the order of their seeds."""

SEEDS_PER_SPLIT = 100_000_000
"""Split number `i` owns the seeds `i * SEEDS_PER_SPLIT` to `(i + 1) * SEEDS_PER_SPLIT - 1`."""


def split_of(seed: int) -> Split:
    """The split that a seed belongs to.

    Raises:
        ConfigError: if it belongs to none.
    """
    if not 0 <= seed < len(SPLITS) * SEEDS_PER_SPLIT:
        raise ConfigError(
            f"seed must lie in [0, {len(SPLITS) * SEEDS_PER_SPLIT}), got {seed}; see seed_of(split, index)"
        )
    return SPLITS[seed // SEEDS_PER_SPLIT]


def seed_of(split: str, index: int) -> int:
    """Seed number `index` of a split; the inverse of `split_of`.

    Raises:
        ConfigError: if there is no such split, or the index leaves its range.
    """
    if split not in SPLITS:
        raise ConfigError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= index < SEEDS_PER_SPLIT:
        raise ConfigError(f"index must lie in [0, {SEEDS_PER_SPLIT}), got {index}")
    return SPLITS.index(split) * SEEDS_PER_SPLIT + index
