"""The closed form against what it must satisfy."""

import numpy as np
import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.metrics import fit_ridge


def data(n=200, d=6, k=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 3
    weight = torch.randn(d, k, generator=generator, dtype=torch.float64)
    return x, x @ weight + torch.tensor([5.0, -2.0], dtype=torch.float64), weight


def test_strength_zero_finds_an_exact_linear_map():
    x, y, weight = data()
    fit = fit_ridge(x, y, strength=0.0)
    torch.testing.assert_close(fit.weight, weight)
    torch.testing.assert_close(fit.bias, torch.tensor([5.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(fit.predict(x), y)


def test_a_great_strength_leaves_only_the_mean():
    x, y, _ = data()
    fit = fit_ridge(x, y, strength=1e9)
    torch.testing.assert_close(fit.predict(x), y.mean(dim=0).expand_as(y), atol=1e-6, rtol=1e-6)


def test_it_equals_least_squares_with_the_penalty_as_extra_rows():
    x, y, _ = data(n=40)
    y = y + torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    centred = (x - x.mean(dim=0)).numpy()
    rows = np.concatenate([centred, np.sqrt(0.3 * len(x)) * np.eye(x.shape[1])])
    targets = np.concatenate([(y - y.mean(dim=0)).numpy(), np.zeros((x.shape[1], 2))])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    torch.testing.assert_close(fit_ridge(x, y, strength=0.3).weight, torch.from_numpy(expected))


def test_more_features_than_rows_give_the_smallest_solution():
    x, y, _ = data(n=4)
    fit = fit_ridge(x, y, strength=0.0)
    torch.testing.assert_close(fit.predict(x), y)
    assert fit.weight.norm() < 100


def test_single_precision_comes_back_as_single_precision():
    x, y, weight = data()
    fit = fit_ridge(x.float(), y.float(), strength=0.0)
    assert fit.weight.dtype == fit.bias.dtype == torch.float32
    torch.testing.assert_close(fit.weight, weight.float(), atol=1e-4, rtol=1e-4)


def test_a_label_that_is_not_a_number_is_refused():
    x, y, _ = data()
    y[3, 1] = torch.nan
    with pytest.raises(DataError, match="1 bad targets"):
        fit_ridge(x, y, strength=1.0)
