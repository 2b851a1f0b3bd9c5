"""One control rate for every source: the right frames, the actions of their interval, and nothing repeated."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.resample import choose_frames, resample
from dreamdojo.errors import ConfigError, DataError
from tests.dataset.toy import write_numbered_dataset
from tests.video.numbered import numbers_in


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Dataset]:
    root = tmp_path_factory.mktemp("rates")
    return {fps: open_dataset(write_numbered_dataset(root / str(fps), [13, 31], fps=fps)) for fps in (4, 5, 20, 25, 30)}


@pytest.mark.parametrize("fps", [20, 25, 30])
def test_faster_sources_give_the_frames_nearest_to_each_tenth_of_a_second(
    datasets: dict[float, Dataset], fps: int
) -> None:
    for episode in (0, 1):
        result = resample(datasets[fps], episode, 10)
        np.testing.assert_allclose(result.timestamps, np.arange(len(result.timestamps)) / 10, atol=0.5 / fps + 1e-5)
        assert result.rate == 10 and (np.diff(result.frame_indices) > 0).all()
        shown = numbers_in(datasets[fps].frames(episode, result.frame_indices))
        assert shown == (100 * episode + result.frame_indices).tolist()


@pytest.mark.parametrize("fps", [20, 30])
def test_whole_ratios_keep_every_nth_frame_up_to_the_last(datasets: dict[float, Dataset], fps: int) -> None:
    for episode, length in ((0, 13), (1, 31)):
        assert resample(datasets[fps], episode, 10).frame_indices.tolist() == list(range(0, length, fps // 10))


def test_of_two_equally_near_frames_the_earlier_is_kept(datasets: dict[float, Dataset]) -> None:
    assert resample(datasets[25], 1, 10).frame_indices.tolist() == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30]


@pytest.mark.parametrize("fps", [4, 5])
def test_slower_sources_keep_their_own_rate_and_repeat_nothing(datasets: dict[float, Dataset], fps: int) -> None:
    result = resample(datasets[fps], 1, 10)
    assert result.rate == fps and result.frame_indices.tolist() == list(range(31))
    assert result.actions is not None and result.actions[:, 0].tolist() == list(range(30))


@pytest.mark.parametrize("fps", [20, 25, 30])
def test_rates_are_averaged_and_targets_are_the_last_of_their_interval(
    datasets: dict[float, Dataset], fps: int
) -> None:
    result = resample(datasets[fps], 1, 10)
    assert result.actions is not None and result.states is not None
    assert result.actions.shape == (len(result.frame_indices) - 1, 3) and result.actions.dtype == np.float32
    for row, (start, end) in enumerate(zip(result.frame_indices, result.frame_indices[1:], strict=False)):
        steps = np.arange(start, end)
        np.testing.assert_allclose(result.actions[row], [steps.mean(), -steps.mean(), (end - 1) ** 2])
    np.testing.assert_array_equal(result.states[:, 0], result.frame_indices)


def test_the_displacement_is_the_same_at_every_rate(datasets: dict[float, Dataset]) -> None:
    """What a mean is for: velocity times duration adds up to the same path."""
    dataset = datasets[25]
    velocity = dataset.actions(1)[:, 0]
    for rate in (25, 12.5, 10, 5):
        result = resample(dataset, 1, rate)
        assert result.actions is not None
        path = (result.actions[:, 0] * np.diff(result.timestamps)).sum()
        assert path == pytest.approx(velocity[: result.frame_indices[-1]].sum() / 25, rel=1e-4)


def test_video_without_actions_has_frames_only(tmp_path: Path) -> None:
    dataset = open_dataset(write_numbered_dataset(tmp_path / "human", [9], fps=20, actions=False))
    result = resample(dataset, 0, 10)
    assert result.actions is None and result.states is None and result.frame_indices.tolist() == [0, 2, 4, 6, 8]


def test_an_episode_of_one_frame_has_no_action(tmp_path: Path) -> None:
    result = resample(open_dataset(write_numbered_dataset(tmp_path / "one", [1], fps=20)), 0, 10)
    assert result.frame_indices.tolist() == [0] and result.actions is not None and result.actions.shape == (0, 3)


def test_a_pause_that_would_repeat_a_frame_is_named() -> None:
    times = np.array([0, 0.05, 0.1, 0.5, 0.55, 0.6])
    with pytest.raises(DataError, match=r"a pause around 0\.100 s"):
        choose_frames(times, 10, source_rate=20)
    with pytest.raises(ConfigError, match="must be positive"):
        choose_frames(times, 0, source_rate=20)


def test_a_pause_of_a_recording_is_named_with_its_episode(tmp_path: Path) -> None:
    root = write_numbered_dataset(tmp_path / "d", [30, 30], fps=20)
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy() + np.where(np.arange(60) >= 45, np.float32(1), np.float32(0))
    pq.write_table(table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(times)), path)
    assert len(resample(open_dataset(root), 0, 10).frame_indices) == 15
    with pytest.raises(DataError, match=r"d, episode 1: expected a frame about every 0\.100 s, found a pause"):
        resample(open_dataset(root), 1, 10)
