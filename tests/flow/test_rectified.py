import pytest
import torch

from dreamdojo.flow.rectified import (
    clean_from_velocity,
    euler,
    interpolate,
    sample_sigma,
    sigma_schedule,
    velocity_from_clean,
)


@pytest.fixture
def pair():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, generator=random) for _ in range(2)]


def test_the_path_ends_are_data_and_noise(pair):
    clean, noise = pair
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    torch.testing.assert_close(interpolate(clean, noise, zeros).noisy, clean)
    torch.testing.assert_close(interpolate(clean, noise, zeros + 1).noisy, noise)


def test_the_velocity_is_the_derivative_of_the_path(pair):
    clean, noise = pair
    sigma = torch.rand(2, 3, dtype=torch.float64)
    step = 1e-6
    ahead, behind = (interpolate(clean, noise, sigma + s).noisy for s in (step, -step))
    torch.testing.assert_close((ahead - behind) / (2 * step), interpolate(clean, noise, sigma).velocity)


def test_velocity_and_clean_are_two_names_of_one_prediction(pair):
    clean, noise = pair
    sigma = torch.rand(2, 3, dtype=torch.float64) * 0.9 + 0.1
    point = interpolate(clean, noise, sigma)
    torch.testing.assert_close(velocity_from_clean(point.noisy, clean, sigma), point.velocity)
    torch.testing.assert_close(clean_from_velocity(point.noisy, point.velocity, sigma), clean)


@pytest.mark.parametrize("steps", [1, 4, 35])
def test_euler_is_exact_on_a_straight_path(pair, steps):
    clean, noise = pair
    ends = euler(lambda noisy, sigma: noise - clean, noise, sigma_schedule(steps, shift=5.0))
    torch.testing.assert_close(ends, clean, atol=1e-6, rtol=0)


def test_schedules_fall_from_noise_to_data_and_shift_towards_noise():
    plain, moved = sigma_schedule(8, shift=1.0), sigma_schedule(8, shift=5.0)
    assert plain[0] == moved[0] == 1 and plain[-1] == moved[-1] == 0
    assert (moved.diff() < 0).all() and (moved[1:-1] > plain[1:-1]).all()
    sigma = sample_sigma((1000,), shift=5.0, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert sigma.min() > 0 and sigma.max() < 1 and sigma.mean() > 0.7
