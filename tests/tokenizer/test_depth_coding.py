import pytest
import torch

from dreamdojo.errors import ConfigError
from dreamdojo.tokenizer.depth import DepthCoding

CODING = DepthCoding(near=0.2, far=3.0)


def test_metres_come_back_and_the_ends_are_the_ends_of_the_range():
    metres = torch.linspace(0.2, 3.0, 1001)[None]
    codes = CODING.encode(metres)
    torch.testing.assert_close(CODING.decode(codes), metres, atol=1e-5, rtol=0)  # a hundredth of a millimetre
    torch.testing.assert_close(codes[0, [0, -1]], torch.tensor([-1.0, 1.0]))
    assert (codes.diff() > 0).all()


def test_equal_ratios_are_equal_steps_and_float16_costs_less_than_a_millimetre_at_one_metre():
    codes = CODING.encode(torch.tensor([[0.3, 0.6, 1.2, 2.4]]))
    torch.testing.assert_close(codes.diff(), codes.diff()[:, :1].expand(1, 3))
    near_one = torch.linspace(0.9, 1.1, 100)[None]
    assert (CODING.decode(CODING.encode(near_one.half())) - near_one).abs().max() < 1e-3


def test_out_of_range_is_the_end_of_it_and_what_was_not_measured_is_far():
    found = CODING.decode(CODING.encode(torch.tensor([[0.1, 9.0, 0.0, 0.01, -1.0, float("nan"), float("inf")]])))
    torch.testing.assert_close(found, torch.tensor([[0.2, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]]))
    within = CODING.within(torch.tensor([[0.1, 0.2, 1.0, 3.0, 9.0, 0.0, float("nan")]]))
    assert within.tolist() == [[False, True, True, True, False, False, False]]


@pytest.mark.parametrize("settings", [{"near": 3.0, "far": 0.2}, {"near": 0.01, "far": 1.0}])
def test_a_range_that_is_none_is_refused(settings):
    with pytest.raises(ConfigError, match="0 <= hole < near < far"):
        DepthCoding(**settings)
