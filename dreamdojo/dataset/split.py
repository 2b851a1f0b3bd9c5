"""Train and test are split by episode, never by window: windows of one episode are nearly the same pictures."""

from __future__ import annotations

import numpy as np

from dreamdojo.dataset.read import Dataset
from dreamdojo.errors import ConfigError, DataError

SPLIT = "split"
"""Key of an episode's meta in which a dataset may declare its own split."""


def split_episodes(dataset: Dataset, *, test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the train and of the test episodes, each in rising order.

    Where the episodes state a `split`, it is followed and the arguments have no part in it; episodes of a third split
    (e.g. `ood`) are in neither list. Otherwise, and where `train` is all that is stated, episodes are drawn at random,
    at least one for each side.

    Raises:
        ConfigError: if `test_fraction` is not between 0 and 1.
        DataError: if there is only one episode, if only some episodes state a split, or if none is for training.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    stated = {episode.index: episode.meta.get(SPLIT) for episode in dataset.episodes}
    unstated = [index for index, name in stated.items() if name is None]
    if len(unstated) == len(stated):
        return _draw(dataset, list(stated), test_fraction, seed)
    if unstated:
        raise DataError(
            f"dataset {dataset.root}: expected a split for every episode or for none, "
            f"{len(unstated)} of {len(stated)} have none (first: {unstated[0]})"
        )
    train, test = ([index for index, name in stated.items() if name == side] for side in ("train", "test"))
    if not train:
        names = sorted({str(name) for name in stated.values()})
        raise DataError(
            f"dataset {dataset.root}: expected episodes of the split train, found only {', '.join(names)}. "
            "Data that is kept for testing is not trained on; choose another dataset."
        )
    return (train, test) if test else _draw(dataset, train, test_fraction, seed)


def _draw(dataset: Dataset, indices: list[int], test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    if len(indices) < 2:
        raise DataError(
            f"dataset {dataset.root}: expected at least 2 episodes to hold one out for testing, found {len(indices)}. "
            "Record another, or cut the recording into episodes."
        )
    num_test = min(max(round(len(indices) * test_fraction), 1), len(indices) - 1)
    order = np.random.default_rng(seed).permutation(len(indices))
    test = {indices[position] for position in order[:num_test]}
    return [index for index in indices if index not in test], sorted(test)
