"""Depth codes are LeRobot's, and come back in metres within the documented bound."""

import math

import numpy as np
import pytest

from dreamdojo.dataset.depth import MAX_CODE, DepthRange
from dreamdojo.errors import ConfigError, DataError


@pytest.mark.parametrize("span", [DepthRange(), DepthRange(log=False), DepthRange(min=0.2, max=2.0, shift=0.0)])
def test_metres_come_back_within_half_a_code(span: DepthRange) -> None:
    metres = np.linspace(span.min, span.max, 20_001).astype(np.float32)
    back = span.dequantize(span.quantize(metres))
    assert back.dtype == np.float32 and (np.abs(back - metres) <= span.error(metres)).all()
    assert span.error(np.array([1.0])) < 0.0015


def test_codes_come_back_exactly() -> None:
    codes = np.arange(MAX_CODE + 1, dtype=np.uint16)
    np.testing.assert_array_equal(DepthRange().quantize(DepthRange().dequantize(codes)), codes)


def test_the_codes_follow_the_published_formula() -> None:
    for metres in (0.01, 0.3, 1.0, 4.2, 10.0):
        share = (math.log(metres + 3.5) - math.log(3.51)) / (math.log(13.5) - math.log(3.51))
        assert DepthRange().quantize(np.array([metres]))[0] == round(4095 * share)


def test_depth_outside_the_range_is_the_end_of_the_range_and_nan_is_refused() -> None:
    ends = DepthRange().dequantize(DepthRange().quantize(np.array([0.0, 50.0, np.inf])))
    np.testing.assert_allclose(ends, [0.01, 10, 10], rtol=1e-5)
    with pytest.raises(DataError, match="NaN"):
        DepthRange().quantize(np.array([np.nan]))


def test_the_range_travels_in_the_feature() -> None:
    span = DepthRange(min=0.1, max=3.0, shift=1.0)
    assert DepthRange.from_info(span.to_info(), of="feature") == span
    with pytest.raises(DataError, match="codes have no unit"):
        DepthRange.from_info({"is_depth_map": True}, of="feature")
    with pytest.raises(ConfigError, match="max > min"):
        DepthRange(min=2, max=1)
