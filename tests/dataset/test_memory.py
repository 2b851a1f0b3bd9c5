"""Memory that is used again, and never while somebody looks at it."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from dreamdojo.dataset.memory import Room


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_last_view_is_gone():
    room = Room()
    first = room.array((4, 3), np.uint8)
    where, view = address(first), torch.from_numpy(first[1:])
    del first
    assert address(room.array((4, 3), np.uint8)) != where
    del view
    assert address(room.array((2, 6), np.uint8)) == where


def test_slightly_different_sizes_share_memory_and_much_smaller_ones_do_not():
    room = Room()
    where = address(room.array((60,), np.uint8))
    small = room.array((8,), np.uint8)
    assert address(small) != where and address(room.array((15,), np.float32)) == where


def test_arrays_hold_what_is_written_into_them():
    room = Room()
    arrays = [room.array((5, 2), np.float16) for _ in range(3)]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [float(array.mean()) for array in arrays] == [0, 1, 2]
    assert room.array((), np.int64).shape == () and room.array((0, 3), np.uint8).shape == (0, 3)


def test_another_process_begins_with_an_empty_room():
    copied = pickle.loads(pickle.dumps(Room()))
    assert copied.array((4,), np.uint8).shape == (4,)
