from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dojo.simulate import SimulateSettings, simulate, simulate_demo
from dreamdojo.dojo.simulation import Simulation, UnstablePhysics
from dreamdojo.dojo.splits import seed_of
from dreamdojo.dojo.truth import FILE_NAME, GroundTruth
from dreamdojo.errors import ConfigError, DataError, SimulationError


@dataclass(frozen=True)
class Amounts:
    human_minutes: float = 0.01
    robot_minutes: float = 0.01
    episode_frames: int = 4
    test_episodes: int = 1


ARM = SimulateSettings(body="arm", episodes=2, frames=8, size=64)


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "arm"
    simulate(replace(ARM, depth=True), root, workers=1)
    return root


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "human"
    simulate(replace(ARM, body="human"), root, workers=1)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_number_of_workers_does_not_change_a_byte(tmp_path):
    settings = replace(ARM, episodes=3, frames=5)
    simulate(settings, tmp_path / "one", workers=1)
    simulate(settings, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_human_dataset_is_video_without_actions_or_proprioception(human):
    dataset = open_dataset(human)
    assert dataset.embodiment.name == "dojo_human"
    assert dataset.embodiment.action_dim == dataset.embodiment.state_dim == 0
    table = pq.read_table(next((human / "data").rglob("*.parquet")))
    assert not [name for name in table.column_names if name.startswith(("action", "observation"))]
    assert len(GroundTruth.open(human).effector_position(0)) == ARM.frames


def test_a_robot_dataset_records_what_was_done_and_what_it_led_to(arm):
    dataset, truth = open_dataset(arm), GroundTruth.open(arm)
    assert [episode.meta["seed"] for episode in dataset.episodes] == [seed_of("train", 0), seed_of("train", 1)]
    assert dataset.info["dreamdojo"]["simulator"] == {"name": "mujoco", "version": mujoco.__version__}
    simulation = Simulation("arm")
    simulation.reset(seed_of("train", 1))
    for frame, action in enumerate(dataset.actions(1)):
        if frame:
            simulation.step(dataset.actions(1)[frame - 1])
        np.testing.assert_allclose(simulation.state(), dataset.states(1)[frame], atol=1e-6)
        np.testing.assert_allclose(simulation.object_poses(), truth.object_poses(1)[frame], atol=1e-6)
        assert action.shape == (simulation.embodiment.action_dim,)
    drawn = simulation.picture(64).rgb.astype(int)
    read = dataset.frames(1, [ARM.frames - 1])[0].astype(int)
    assert np.abs(drawn - read).mean() < 4  # the codec loses a little


def test_the_truth_has_a_row_for_every_frame(arm):
    truth, frames = GroundTruth.open(arm), ARM.frames
    assert truth.num_episodes == ARM.episodes
    objects = truth.num_objects(0)
    assert truth.effector_position(0).shape == (frames, 3)
    assert (
        truth.effector_yaw(0).shape == truth.effector_opening(0).shape == truth.effector_visible(0).shape == (frames,)
    )
    assert truth.joint_position(0).shape == (frames, 7)
    assert truth.object_poses(0).shape == (frames, objects, 7)
    assert truth.object_pixels(0).shape == (frames, objects, 2)
    for array in (truth.touched(0), truth.grasped(0), truth.objects_visible(0), truth.object_visible_pixels(0)):
        assert array.shape == (frames, objects)
    labels = truth.segmentation(0)
    assert labels.shape == (frames, 64, 64)
    counted = np.stack([(labels == 3 + index).sum(axis=(1, 2)) for index in range(objects)], axis=1)
    np.testing.assert_array_equal(counted, truth.object_visible_pixels(0))
    np.testing.assert_allclose(np.linalg.norm(truth.object_poses(0)[..., 3:], axis=-1), 1, atol=1e-5)


def test_depth_video_is_there_when_asked_for(arm, human):
    assert open_dataset(arm).info["features"]["observation.images.head_depth"]["dtype"] == "video"
    assert "observation.images.head_depth" not in open_dataset(human).info["features"]


def test_truth_without_segmentation_says_so(tmp_path):
    simulate(replace(ARM, episodes=1, frames=3, truth="poses"), tmp_path / "arm", workers=1)
    truth = GroundTruth.open(tmp_path / "arm")
    assert truth.objects_visible(0).shape == (3, truth.num_objects(0))
    with pytest.raises(DataError, match="without segmentation"):
        truth.segmentation(0)


def test_a_dataset_without_truth_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=FILE_NAME):
        GroundTruth.open(tmp_path)


def test_an_unstable_episode_is_counted_and_the_next_seed_takes_its_place(tmp_path, monkeypatch):
    step = Simulation.step

    def unstable(self, action):
        if self.layout.seed in (seed_of("train", 0), seed_of("train", 2)):
            raise UnstablePhysics(self.layout.seed, "the test said so")
        step(self, action)

    monkeypatch.setattr(Simulation, "step", unstable)
    result = simulate(replace(ARM, frames=3), tmp_path / "arm", workers=1)
    assert result.rejected == {"the test said so": 2}
    assert "2 dropped" in str(result)
    seeds = [episode.meta["seed"] for episode in open_dataset(tmp_path / "arm").episodes]
    assert seeds == [seed_of("train", 1), seed_of("train", 3)]


def test_an_object_that_leaves_the_table_ends_its_episode(tmp_path, monkeypatch):
    monkeypatch.setattr(Simulation, "has_lost_object", lambda self: True)
    with pytest.raises(SimulationError, match="an object left the table"):
        simulate(replace(ARM, frames=3), tmp_path / "arm", workers=1)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_simulation_leaves_nothing(tmp_path):
    def interrupt(done, total, words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(replace(ARM, frames=3), tmp_path / "arm", workers=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_progress_counts_episodes(tmp_path):
    seen = []
    simulate(replace(ARM, frames=3), tmp_path / "arm", workers=1, progress=lambda *report: seen.append(report))
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    assert "frames/s" in seen[-1][2]


def test_the_demo_data_is_four_datasets_of_disjoint_seeds_and_is_not_made_twice(tmp_path):
    amounts = Amounts()
    simulate_demo(tmp_path, amounts, workers=1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"human", "human_test", "arm", "arm_test"}
    splits = {name: open_dataset(tmp_path / name).episodes[0].meta["split"] for name in names}
    assert splits == {"human": "train", "human_test": "test", "arm": "train", "arm_test": "test"}
    before = (tmp_path / "arm").stat().st_mtime_ns
    simulate_demo(tmp_path, amounts, workers=1)
    assert (tmp_path / "arm").stat().st_mtime_ns == before


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"frames": 1}, {"difficulty": "hard"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(ARM, **wrong)
