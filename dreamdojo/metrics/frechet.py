"""How far apart two clouds of features lie, each told by its mean and covariance.

    distance = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

It is the squared 2-Wasserstein distance between the two Gaussians. With features of clips it is the Fréchet video
distance, of pictures the Fréchet inception distance: which one is said by the features alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import DataError


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Fréchet distance between two sets of feature vectors; 0 where mean and covariance are equal.

    With `C1 = A^T A` and `C2 = B^T B` the root's trace is the sum of the singular values of `A B^T`, so no matrix root
    is taken and fewer samples than dimensions are no trouble to compute. They are to interpret: the estimate is biased
    upwards by about the dimension over the number of samples, so only distances of equally many samples compare.

    Raises:
        DataError: if a set has fewer than two vectors, or one is not finite.
    """
    for name, features in (("first", first), ("second", second)):
        if len(features) < 2:
            raise DataError(f"a covariance needs at least two feature vectors, the {name} set has {len(features)}")
        if not features.isfinite().all():
            raise DataError(f"expected finite features, found {features[~features.isfinite()][0]} in the {name} set")
    a, b = (_root(features.double()) for features in (first, second))
    apart = (first.double().mean(dim=0) - second.double().mean(dim=0)).square().sum()
    shared = torch.linalg.svdvals(a @ b.mT).sum()
    return max((apart + a.square().sum() + b.square().sum() - 2 * shared).item(), 0.0)


def _root(features: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """A matrix `A` with `A^T A` the covariance, of at most `d` rows."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(features) > features.shape[1] else centred
