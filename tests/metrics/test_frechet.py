"""The Fréchet distance against its closed form."""

import pytest
import torch
from scipy.linalg import sqrtm

from dreamdojo.errors import DataError
from dreamdojo.metrics import frechet_distance


def gaussian(count, mean, covariance, seed=0):
    """Samples whose mean and covariance are exactly those given."""
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise -= noise.mean(dim=0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (count - 1))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def covariance(size, seed):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def test_gaussians_of_known_mean_and_spread_have_the_known_distance():
    mean = torch.zeros(3, dtype=torch.float64)
    first = gaussian(50, mean, torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)))
    second = gaussian(70, mean + 2, torch.eye(3, dtype=torch.float64), seed=1)
    # per axis: the squared difference of means and of standard deviations
    assert frechet_distance(first, second) == pytest.approx(3 * 4 + 0 + 1 + 4)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("counts", [(40, 60), (5, 60)])
def test_it_is_the_formula_with_the_matrix_root(counts):
    first, second = torch.randn(counts[0], 8).double(), 0.5 + torch.randn(counts[1], 8).double() @ covariance(8, 2)
    c1, c2 = first.T.cov(), second.T.cov()
    root = torch.from_numpy(sqrtm((c1 @ c2).numpy() + 0j).real)
    expected = (first.mean(0) - second.mean(0)).square().sum() + (c1 + c2 - 2 * root).trace()
    assert frechet_distance(first, second) == pytest.approx(expected.item(), rel=1e-4)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_what_has_no_covariance_is_refused():
    with pytest.raises(DataError, match="at least two feature vectors, the second set has 1"):
        frechet_distance(torch.zeros(3, 2), torch.zeros(1, 2))
    with pytest.raises(DataError, match="expected finite features, found nan in the first set"):
        frechet_distance(torch.full((3, 2), torch.nan), torch.zeros(3, 2))
