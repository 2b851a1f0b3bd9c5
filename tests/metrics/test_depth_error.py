import pytest
import torch

from dreamdojo.metrics import depth_error


def test_the_mean_is_in_centimetres_and_over_counted_pixels_only():
    truth = torch.ones(1, 2, 10, 10)
    predicted = truth.clone()
    predicted[:, :, :, :5] += 0.02
    predicted[:, 1, :, 5:] -= 0.04
    everywhere, left = torch.ones(1, 2, 10, 10, dtype=torch.bool), torch.zeros(1, 2, 10, 10, dtype=torch.bool)
    left[..., :5] = True
    torch.testing.assert_close(depth_error(predicted, truth, everywhere), torch.tensor([[1.0, 3.0]]))
    torch.testing.assert_close(depth_error(predicted, truth, left), torch.tensor([[2.0, 2.0]]))


def test_what_is_not_counted_may_be_anything_and_nothing_counted_is_no_number():
    truth, counted = torch.full((2, 4, 4), float("nan")), torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[0, 0, 0], counted[0, 0, 0] = 1.5, True
    found = depth_error(torch.ones(2, 4, 4), truth, counted)
    assert found[0] == pytest.approx(50) and found[1].isnan()
