"""Actions as the published system gives them to its network: relative to their chunk, in a slot of a wide vector.

Pure functions on arrays; batch axes lead. `k` is the number of actions per chunk, that is, per latent frame.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dreamdojo.errors import ConfigError, DataError

OVERWRITTEN = 29
"""Columns of the first row that the published loader overwrites."""


def relative_actions(
    actions: Float[np.ndarray, "*b t a"], before: Float[np.ndarray, "*b a"], k: int
) -> Float[np.ndarray, "*b t a"]:
    """Each action minus the last one before its chunk: `before` for the first chunk, action `k i - 1` for chunk i.

    Raises:
        ConfigError: if `k` is not positive.
    """
    chunk = _chunk_of_row(actions.shape[-2], k)
    bases = np.concatenate([before[..., None, :], actions[..., k - 1 :: k, :]], axis=-2)
    return actions - bases[..., chunk, :]


def absolute_actions(
    relative: Float[np.ndarray, "*b t a"], before: Float[np.ndarray, "*b a"], k: int
) -> Float[np.ndarray, "*b t a"]:
    """The inverse of `relative_actions`, up to rounding.

    Raises:
        ConfigError: if `k` is not positive.
    """
    chunk = _chunk_of_row(relative.shape[-2], k)
    steps = np.concatenate([before[..., None, :], relative[..., k - 1 :: k, :]], axis=-2)
    bases = np.cumsum(steps, axis=-2, dtype=np.float64)
    return (relative + bases[..., chunk, :]).astype(relative.dtype)


def place_in_slot(actions: Float[np.ndarray, "*b t a"], slot: int, width: int) -> Float[np.ndarray, "*b t w"]:
    """Actions in the columns from `slot` on of rows of `width`, zeros elsewhere.

    Raises:
        ConfigError: if they do not fit.
    """
    end = slot + actions.shape[-1]
    if slot < 0 or end > width:
        raise ConfigError(
            f"expected actions of {actions.shape[-1]} numbers from column {slot} on to fit into {width} columns, "
            f"they need columns {slot} to {end}. Choose a lower slot or a wider action."
        )
    placed = np.zeros((*actions.shape[:-1], width), dtype=actions.dtype)
    placed[..., slot:end] = actions
    return placed


def overwrite_first_row(
    placed: Float[np.ndarray, "*b t w"], state: Float[np.ndarray, "*b s"]
) -> Float[np.ndarray, "*b t w"]:
    """The published fault: row 0 begins with the normalised state at the start (up to 29 numbers) instead of actions.

    The published loader fills a view of this row with the state, for every body. Only for `reference_compatible`.

    Raises:
        DataError: if a row is narrower than 29.
    """
    if placed.shape[-1] < OVERWRITTEN:
        raise DataError(f"expected actions of at least {OVERWRITTEN} columns, placed in a slot; got {placed.shape[-1]}")
    faulty = placed.copy()
    taken = state[..., :OVERWRITTEN]
    faulty[..., 0, : taken.shape[-1]] = taken
    return faulty


def _chunk_of_row(rows: int, k: int) -> np.ndarray:
    if k < 1:
        raise ConfigError(f"expected at least one action per chunk, got {k}")
    return np.arange(rows) // k
