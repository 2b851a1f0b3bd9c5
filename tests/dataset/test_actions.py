"""Relative actions, slots and the published fault: numbers by hand, batch above 1."""

import numpy as np
import pytest

from dreamdojo.dataset.actions import absolute_actions, overwrite_first_row, place_in_slot, relative_actions
from dreamdojo.errors import ConfigError, DataError


def test_each_chunk_is_relative_to_the_last_action_before_it():
    squares = np.arange(14.0) ** 2
    relative = relative_actions(squares[1:, None], squares[0, None], 4)[:, 0]
    first, second, third = [1, 4, 9, 16], [25 - 16, 36 - 16, 49 - 16, 64 - 16], [81 - 64, 100 - 64, 121 - 64, 144 - 64]
    assert relative.tolist() == [*first, *second, *third, 169 - 144]


def test_with_one_action_per_chunk_each_is_relative_to_the_one_before():
    actions = np.array([[3.0], [7.0], [4.0]])
    assert relative_actions(actions, np.array([1.0]), 1)[:, 0].tolist() == [2, 4, -3]


@pytest.mark.parametrize(("rows", "k"), [(12, 4), (7, 4), (3, 4), (5, 1), (0, 2)])
def test_relative_actions_come_back_in_their_own_sample_and_time(rows, k):
    random = np.random.default_rng(0)
    actions, before = random.normal(size=(2, 3, rows, 5)), random.normal(size=(2, 3, 5))
    relative = relative_actions(actions, before, k)
    np.testing.assert_allclose(absolute_actions(relative, before, k), actions, atol=1e-12)
    for sample in np.ndindex(2, 3):
        for row in range(rows):
            base = before[sample] if row < k else actions[sample][row // k * k - 1]
            np.testing.assert_array_equal(relative[sample][row], actions[sample][row] - base)


def test_float32_stays_float32():
    actions, before = np.ones((2, 4, 3), np.float32), np.zeros((2, 3), np.float32)
    relative = relative_actions(actions, before, 2)
    assert relative.dtype == absolute_actions(relative, before, 2).dtype == place_in_slot(relative, 1, 9).dtype
    assert relative.dtype == np.float32


def test_a_slot_holds_the_actions_and_the_rest_is_zero():
    actions = np.arange(1.0, 13).reshape(2, 3, 2)
    placed = place_in_slot(actions, 3, 7)
    assert placed.shape == (2, 3, 7)
    np.testing.assert_array_equal(placed[..., 3:5], actions)
    assert np.count_nonzero(placed) == actions.size
    np.testing.assert_array_equal(place_in_slot(actions, 5, 7)[..., 5:], actions)


def test_what_does_not_fit_is_refused_with_its_numbers():
    actions = np.zeros((2, 3, 4))
    with pytest.raises(ConfigError, match=r"4 numbers from column 4 on to fit into 7 columns.*columns 4 to 8"):
        place_in_slot(actions, 4, 7)
    with pytest.raises(ConfigError, match="from column -1"):
        place_in_slot(actions, -1, 7)
    with pytest.raises(ConfigError, match="at least one action per chunk, got 0"):
        relative_actions(actions, actions[:, 0], 0)
    with pytest.raises(DataError, match=r"at least 29 columns.* got 4"):
        overwrite_first_row(actions, actions[:, 0])


@pytest.mark.parametrize("state_dim", [20, 29, 43])
def test_the_fault_replaces_up_to_29_columns_of_the_first_row_only(state_dim):
    placed = np.arange(2 * 12 * 384.0).reshape(2, 12, 384) + 1000
    state = np.arange(2.0 * state_dim).reshape(2, state_dim)
    before = placed.copy()
    faulty = overwrite_first_row(placed, state)
    np.testing.assert_array_equal(placed, before)
    taken = min(state_dim, 29)
    np.testing.assert_array_equal(faulty[:, 0, :taken], state[:, :taken])
    np.testing.assert_array_equal(faulty[:, 0, taken:], placed[:, 0, taken:])
    np.testing.assert_array_equal(faulty[:, 1:], placed[:, 1:])
