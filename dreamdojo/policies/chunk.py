"""Asking a policy for actions, and looking at what it answers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import DataError
from dreamdojo.world import Observation, Policy


def next_chunk(
    policy: Policy, seen: Observation, embodiment: Embodiment, *, batch: int, at_least: int = 1
) -> Float[Tensor, "b n a"]:
    """The policy's next actions, `n` of `at_least` or more for each of `batch` worlds, in the embodiment's units.

    Raises:
        DataError: if they are fewer, or of another shape.
    """
    chunk = policy.act(seen)
    if chunk.ndim != 3 or len(chunk) != batch or chunk.shape[1] < at_least or chunk.shape[2] != embodiment.action_dim:
        raise DataError(
            f"expected actions of shape ({batch}, n of at least {at_least}, {embodiment.action_dim}) "
            f"({', '.join(embodiment.action_names())}), the policy gave {tuple(chunk.shape)}"
        )
    return chunk
