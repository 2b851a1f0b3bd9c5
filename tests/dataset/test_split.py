"""Episodes, never windows, are held out."""

from pathlib import Path

import pytest

from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.split import split_episodes
from dreamdojo.errors import ConfigError, DataError
from tests.dataset.toy import write_numbered_dataset, write_toy


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_numbered_dataset(tmp_path_factory.mktemp("split") / "plain", [2] * 10))


def test_each_episode_is_on_one_side_and_the_seed_decides(plain: Dataset) -> None:
    for fraction, count in ((0.3, 3), (0.01, 1), (0.99, 9)):
        train, test = split_episodes(plain, test_fraction=fraction, seed=1)
        assert sorted(train + test) == list(range(10)) and len(test) == count
        assert (train, test) == split_episodes(plain, test_fraction=fraction, seed=1)
    assert len({tuple(split_episodes(plain, test_fraction=0.3, seed=seed)[1]) for seed in range(8)}) > 1


def test_a_split_that_the_dataset_states_is_followed(tmp_path: Path) -> None:
    write_toy(tmp_path / "d", depth=False)
    assert split_episodes(open_dataset(tmp_path / "d"), test_fraction=0.5, seed=7) == ([0, 2], [1])


def test_where_all_is_for_training_some_is_held_out_and_what_is_for_testing_is_not_trained_on(
    tmp_path: Path, plain: Dataset
) -> None:
    train = open_dataset(write_numbered_dataset(tmp_path / "train", [2] * 10, split="train"))
    assert split_episodes(train, test_fraction=0.3, seed=1) == split_episodes(plain, test_fraction=0.3, seed=1)
    test = open_dataset(write_numbered_dataset(tmp_path / "test", [2] * 3, split="test"))
    with pytest.raises(DataError, match="expected episodes of the split train, found only test"):
        split_episodes(test, test_fraction=0.3, seed=1)


def test_one_episode_cannot_be_split(tmp_path: Path, plain: Dataset) -> None:
    dataset = open_dataset(write_numbered_dataset(tmp_path / "d", [5]))
    with pytest.raises(DataError, match="at least 2 episodes"):
        split_episodes(dataset, test_fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_episodes(plain, test_fraction=1.0, seed=0)
