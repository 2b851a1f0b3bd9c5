"""Picture metrics against cases worked by hand and an independent implementation in numpy loops."""

import math

import numpy as np
import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.metrics import (
    MSE_FLOOR,
    gradient_energy,
    gradient_energy_ratio,
    moving_pixels,
    moving_psnr,
    psnr,
    ssim,
    unit_range,
)

BEST = -10 * math.log10(MSE_FLOOR)


def pictures(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def slow_ssim(x, y):
    """SSIM of two single-channel pictures, window by window, with no convolution and in double precision."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    grid = np.mgrid[-5:6, -5:6]
    weight = np.exp(-(grid[0] ** 2 + grid[1] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
            var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
            both = (weight * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
            values.append(top / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return np.mean(values)


def test_equal_pictures_score_the_best_value():
    x = pictures(2, 3, 3, 16, 16)
    torch.testing.assert_close(psnr(x, x), torch.full((2, 3), BEST))
    torch.testing.assert_close(ssim(x, x), torch.ones(2, 3))


def test_an_error_of_a_tenth_everywhere_is_twenty_decibel():
    x = torch.full((1, 2, 3, 4, 4), 0.5)
    torch.testing.assert_close(psnr(x + 0.1, x), torch.full((1, 2), 20.0))


def test_psnr_by_hand_on_two_pixels():
    truth = torch.zeros(1, 1, 2)
    predicted = torch.tensor([[[0.6, 0.8]]])
    torch.testing.assert_close(psnr(predicted, truth), torch.tensor(-10 * math.log10((0.36 + 0.64) / 2)))


def test_ssim_equals_the_window_by_window_definition():
    x, y = pictures(2, 3, 14, 17), pictures(2, 3, 14, 17, seed=1)
    y[1] = (x[1] + 0.1 * y[1]).clamp(max=1)
    expected = [[slow_ssim(x[n, c], y[n, c]) for c in range(3)] for n in range(2)]
    torch.testing.assert_close(ssim(x, y).double(), torch.tensor(expected).mean(dim=1), atol=1e-5, rtol=1e-5)


def test_ssim_of_two_flat_pictures_is_the_luminance_term():
    x, y = torch.full((1, 1, 11, 11), 0.25), torch.full((1, 1, 11, 11), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(ssim(x, y), torch.tensor([expected]), atol=1e-4, rtol=0)


def test_ssim_punishes_blur_that_psnr_forgives():
    x = pictures(1, 3, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    noisy = x + (blurred - x).square().mean().sqrt() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(psnr(blurred, x), psnr(noisy, x), atol=0.2, rtol=0)
    assert ssim(blurred, x) < ssim(noisy, x)


def test_ssim_refuses_a_picture_smaller_than_its_window():
    with pytest.raises(DataError, match="10 x 16"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))


def square_moving_right():
    """One clip of two frames: a white 4 x 4 square at column 2, which moves to 4 and 8; everything else is still."""
    frames = torch.zeros(1, 3, 3, 16, 16)
    for frame, column in enumerate((2, 4, 8)):
        frames[0, frame, :, 4:8, column : column + 4] = 1
    return frames[:, 0], frames[:, 1:]


def test_moving_pixels_are_those_left_and_those_reached():
    context, truth = square_moving_right()
    moving = moving_pixels(truth, context)
    assert moving.sum(dim=(-2, -1)).tolist() == [[16, 32]]
    assert not moving[..., :4, :].any()
    assert moving[0, 0, 4, 2:8].tolist() == [True, True, False, False, True, True]


def test_moving_psnr_ignores_still_pixels():
    context, truth = square_moving_right()
    moving = moving_pixels(truth, context)
    ruined = torch.where(moving[:, :, None], truth, torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(moving_psnr(ruined, truth, moving).frame, torch.full((1, 2), BEST))
    assert psnr(ruined, truth).max() < 10


def test_copying_the_last_frame_is_no_help_on_moving_pixels():
    context, truth = square_moving_right()
    copied = context[:, None].expand_as(truth)
    score = moving_psnr(copied, truth, moving_pixels(truth, context))
    torch.testing.assert_close(score.frame, torch.zeros(1, 2))
    torch.testing.assert_close(score.clip, torch.zeros(1))


def test_a_clip_pools_its_pixels_and_not_its_decibels():
    context, truth = square_moving_right()
    moving = moving_pixels(truth, context)
    predicted = truth.clone()
    predicted[:, 0] += 0.5  # 16 pixels wrong by 0.5, 32 pixels right
    score = moving_psnr(predicted, truth, moving)
    torch.testing.assert_close(score.clip, torch.tensor([-10 * math.log10(0.25 * 16 / 48)]))


def test_a_clip_in_which_nothing_moves_has_no_moving_psnr():
    context, truth = square_moving_right()
    truth[:, 0] = context
    moving = moving_pixels(truth, context)
    score = moving_psnr(truth, truth, moving)
    assert score.frame.isnan().tolist() == [[True, False]]
    assert not score.clip.isnan().any()
    assert moving_psnr(truth, truth, torch.zeros_like(moving)).clip.isnan().all()


def test_sharpness_is_one_for_the_truth_and_falls_with_blur():
    context, truth = square_moving_right()
    moving = moving_pixels(truth, context)
    blurred = torch.nn.functional.avg_pool2d(truth[0], 3, stride=1, padding=1)[None]
    torch.testing.assert_close(gradient_energy_ratio(truth, truth, moving), torch.ones(1, 2))
    assert (gradient_energy_ratio(blurred, truth, moving) < 0.5).all()
    assert gradient_energy_ratio(truth, truth, torch.zeros_like(moving)).isnan().all()


def test_gradient_energy_by_hand():
    corner = torch.tensor([[[0.0, 0.5], [0.25, 9.0]]])
    torch.testing.assert_close(gradient_energy(corner), torch.tensor([[0.25 + 0.0625]]))


def test_bytes_become_the_unit_range():
    assert unit_range(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist() == [[[0, 1]]]
