"""Pairs of frames, folded for the latent action model and unfolded again, with the published fault beside it."""

import pytest
import torch

from dreamdojo.nn.patches import from_pairs, to_pairs

PAIRS = 5


def values_by_pair(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The number `100 * sample + time` of every pair's first frame: in its place `b p`, and folded `bp 1`."""
    numbers = 100.0 * torch.arange(batch)[:, None] + torch.arange(PAIRS + 1)
    pairs = to_pairs(numbers[..., None, None, None])
    assert torch.equal(pairs[:, 1] - pairs[:, 0], torch.ones(batch * PAIRS, 1, 1, 1)), "a pair is of neighbours"
    return numbers[:, :-1], pairs[:, 0, :, 0, 0]


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_every_pair_returns_to_its_own_sample_and_time(batch):
    numbers, folded = values_by_pair(batch)
    assert torch.equal(from_pairs(folded, batch)[..., 0], numbers)


@pytest.mark.parametrize(("batch", "at_home"), [(1, 5), (2, 2), (4, 2)])
def test_the_published_unfold_sends_most_of_them_elsewhere(batch, at_home):
    numbers, folded = values_by_pair(batch)
    unfolded = from_pairs(folded, batch, reference_compatible=True)[..., 0]
    assert unfolded.shape == numbers.shape
    assert torch.equal(unfolded.flatten().sort().values, numbers.flatten()), "permuted, not lost"
    for sample in range(batch):
        for pair in range(PAIRS):
            assert unfolded[sample, pair] == folded[pair * batch + sample]
    assert (unfolded == numbers).sum() == at_home
    assert torch.equal(unfolded, numbers) == (batch == 1)
