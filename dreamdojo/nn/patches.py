"""Folds and unfolds. Each pair stands as two neighbours, so that what one does the other undoes."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def to_patches(frames: Float[Tensor, "b t c h w"], size: int) -> Float[Tensor, "b t n p"]:
    """Frames -> row-major patches; inside a patch the order is (row, column, channel), channel fastest.

    Rows and columns that do not fill a patch are cropped at the bottom and the right.
    """
    height, width = frames.shape[-2] // size * size, frames.shape[-1] // size * size
    return rearrange(frames[..., :height, :width], "b t c (y p) (x q) -> b t (y x) (p q c)", p=size, q=size)


def from_patches(patches: Float[Tensor, "b t n p"], size: int, height: int) -> Float[Tensor, "b t c h w"]:
    """The inverse of `to_patches` for frames `height` rows high (after cropping)."""
    return rearrange(patches, "b t (y x) (p q c) -> b t c (y p) (x q)", p=size, q=size, y=height // size)


def to_pairs(frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "bp 2 c h w"]:
    """Neighbouring frames as pairs, sample by sample: the row of sample b and pair p is `b * (t - 1) + p`."""
    first, second = frames[:, :-1], frames[:, 1:]
    return rearrange([first, second], "two b p c h w -> (b p) two c h w")


def from_pairs(
    values: Float[Tensor, " bp *d"], batch: int, *, reference_compatible: bool = False
) -> Float[Tensor, "b p *d"]:
    """One value per pair back to its own sample and time; the inverse of the fold in `to_pairs`.

    `reference_compatible` unfolds as the published training step does, (pair, batch) instead of (batch, pair): sample b
    and pair p get row `p * batch + b`, which is their own only where the batch is 1.
    """
    if reference_compatible:
        return values.unflatten(0, (-1, batch)).transpose(0, 1)
    return values.unflatten(0, (batch, -1))


def actions_to_chunks(actions: Float[Tensor, "b ta a"], per_latent: int) -> Float[Tensor, "b t ka"]:
    """Actions in time order -> one row per latent frame, its `per_latent` actions side by side."""
    return rearrange(actions, "b (t k) a -> b t (k a)", k=per_latent)


def chunks_to_actions(chunks: Float[Tensor, "b t ka"], per_latent: int) -> Float[Tensor, "b ta a"]:
    """The inverse of `actions_to_chunks`."""
    return rearrange(chunks, "b t (k a) -> b (t k) a", k=per_latent)
