import numpy as np

from dreamdojo.video import colour_depth


def test_near_and_far_have_the_ends_of_the_scale_and_what_is_missing_is_black():
    metres = np.array([[[0.2, 3.0, 0.1, 9.0], [0.0, 0.01, np.nan, np.inf]]], np.float32)
    picture = colour_depth(metres, 0.2, 3.0)
    assert picture.shape == (1, 2, 4, 3) and picture.dtype == np.uint8
    near, far = picture[0, 0, 0], picture[0, 0, 1]
    assert near[0] > near[2] and far[2] >= far[0] and not np.array_equal(near, far)
    np.testing.assert_array_equal(picture[0, 0, 2:], [near, far])
    assert (picture[0, 1] == 0).all()
