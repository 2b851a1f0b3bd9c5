"""LeRobot's own loader opens what we write, and we open what LeRobot writes (skipped where it is not installed)."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dreamdojo.dataset.read import open_dataset
from tests.dataset.toy import LENGTHS, write_toy

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("DREAMDOJO_REFEREES", REPOSITORY / ".venv-referees")) / "bin/python"
LUMA = np.array([0.299, 0.587, 0.114])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="LeRobot 0.4.4 is not installed; `make referees` sets it up"),
]


def referee(folder: Path, *arguments: str | Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON), str(Path(__file__).with_name("referee.py")), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_lerobot_reads_the_rows_and_pictures_that_we_wrote(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    recordings = write_toy(root)
    referee(tmp_path, "read", root, tmp_path / "seen.npz")
    seen = np.load(tmp_path / "seen.npz")
    dataset = open_dataset(root)
    assert seen["num_episodes"] == len(LENGTHS) and seen["fps"] == 10 and len(seen["index"]) == sum(LENGTHS)
    for name in ("action", "observation.state", "contact", "pose", "step", "note"):
        np.testing.assert_array_equal(seen[name], np.concatenate([r.columns[name] for r in recordings]), name)
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        np.testing.assert_array_equal(seen[name], np.concatenate([dataset.column(name, i) for i in range(3)]), name)
    assert seen["task"].tolist() == [task for r in recordings for task in [r.task] * len(r.columns["action"])]
    for camera in ("head", "wrist"):
        ours = np.concatenate([dataset.frames(index, range(n), camera) for index, n in enumerate(LENGTHS)])
        theirs = seen[f"observation.images.{camera}"]
        assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
        # LeRobot's default colour conversion is a level darker; brightness tells that each frame is in its place.
        error = np.abs(theirs @ LUMA - ours @ LUMA)
        assert error.mean() < 2 and error.max() < 5
        assert np.abs(theirs[1:] @ LUMA - ours[:-1] @ LUMA).mean() > 2 * error.mean(), "neighbours differ by more"
    for name, stats in dataset.stats.items():
        for key, value in stats.items():
            np.testing.assert_allclose(seen[f"stats/{name}/{key}"], value)


def test_we_read_what_lerobot_wrote(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    referee(tmp_path, "write", root)
    dataset = open_dataset(root)
    assert (dataset.version, dataset.fps, dataset.embodiment.name) == ("v3.0", 10, "toy_robot")
    assert [(episode.length, episode.task) for episode in dataset.episodes] == [(14, "push"), (9, "lift")]
    assert dataset.embodiment.action_names() == ["action.x", "action.y"]
    assert dataset.embodiment.action[0].high == (108.0, 108.0)
    for episode, length in enumerate((14, 9)):
        numbers = 100 * episode + np.arange(length)
        np.testing.assert_array_equal(dataset.actions(episode)[:, 0], numbers)
        np.testing.assert_array_equal(dataset.states(episode)[:, 1], -numbers)
        grey = dataset.frames(episode, range(length)).astype(float).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(grey, 40 + 60 * episode + 8 * np.arange(length), atol=3)
