from __future__ import annotations

import itertools

import pytest

from dreamdojo.dojo.splits import SEEDS_PER_SPLIT, SPLITS, seed_of, split_of
from dreamdojo.errors import ConfigError


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("index", [0, 1, 12345, SEEDS_PER_SPLIT - 1])
def test_a_seed_belongs_to_the_split_that_it_was_drawn_from(split, index):
    assert split_of(seed_of(split, index)) == split


def test_no_two_splits_share_a_seed():
    ends = [(seed_of(split, 0), seed_of(split, SEEDS_PER_SPLIT - 1)) for split in SPLITS]
    for (_, last), (first, _) in itertools.pairwise(ends):
        assert last < first


@pytest.mark.parametrize("seed", [-1, len(SPLITS) * SEEDS_PER_SPLIT])
def test_a_seed_of_no_split_is_refused(seed):
    with pytest.raises(ConfigError, match="seed must lie"):
        split_of(seed)


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ConfigError, match="ood_shape"):
        seed_of("validation", 0)
