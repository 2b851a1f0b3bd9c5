"""Datasets that others wrote: LeRobot v2.0 and v2.1, with and without what they should carry."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import DataError
from dreamdojo.video import VideoCodec, encode
from tests.video.numbered import numbered, numbers_in

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"
G1 = SHARED / "g1_inspire_pick_bottle"
GR1 = SHARED / "gr1_sim_pick_n_place"
needs_g1 = pytest.mark.skipif(not G1.is_dir(), reason="the G1 recordings (shared/data) are not here")
needs_gr1 = pytest.mark.skipif(not GR1.is_dir(), reason="the GR-1 recordings (shared/data) are not here")


@needs_g1
def test_the_real_g1_set_reads_as_v2_1() -> None:
    dataset = open_dataset(G1)
    assert (dataset.version, dataset.fps, len(dataset.episodes), dataset.num_frames) == ("v2.1", 30, 16, 5617)
    body = dataset.embodiment
    assert (body.name, body.action_dim, body.state_dim) == ("Unitree_G1_Inspire", 26, 26)
    assert body.action[0].axes[0] == "kLeftShoulderPitch" and body.action[0].unit == "unknown"
    for episode in dataset.episodes:
        actions = dataset.actions(episode.index)
        assert actions.shape == (episode.length, 26)
        assert np.abs(body.normalize_action(actions)).max() <= 1 + 1e-5, "ranges are those of the statistics"
    result = resample(dataset, 3, 10)
    np.testing.assert_array_equal(result.frame_indices, np.arange(0, 392, 3))
    frames = dataset.frames(3, result.frame_indices[:3], size=64)
    assert frames.shape == (3, 64, 64, 3) and dataset.num_decoded <= 9 and frames.std() > 10


@needs_gr1
def test_the_simulated_gr1_set_reads_as_v2_0_with_its_modalities() -> None:
    dataset = open_dataset(GR1)
    assert (dataset.version, dataset.fps, dataset.num_frames, list(dataset.cameras)) == ("v2.0", 20, 1356, ["ego_view"])
    assert [(field.name, field.size) for field in dataset.embodiment.action] == [
        ("left_arm", 7),
        ("left_hand", 6),
        ("left_leg", 6),
        ("neck", 3),
        ("right_arm", 7),
        ("right_hand", 6),
        ("right_leg", 6),
        ("waist", 3),
    ]
    assert all(field.resampling == "last" for field in dataset.embodiment.action)
    assert dataset.episodes[2].task == "pick the meat from the counter and place it in the plate"
    assert dataset.timestamps(0)[0] == 0, "its timestamps begin at 0.05 s; ours count from the first frame"
    assert dataset.actions(1).shape == (470, 44) and dataset.frames(1, [0, 469]).shape == (2, 256, 256, 3)


@pytest.fixture(params=["v2.0", "v2.1"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_old(tmp_path / "old", request.param)


def test_an_old_dataset_reads_frame_by_frame(old: Path) -> None:
    dataset = open_dataset(old)
    assert [(e.index, e.length, e.task) for e in dataset.episodes] == [(0, 7, "push"), (1, 5, "lift")]
    for index, length in ((0, 7), (1, 5)):
        assert numbers_in(dataset.frames(index, range(length))) == [100 * index + row for row in range(length)]
        np.testing.assert_array_equal(dataset.actions(index), _actions(index, length))
    assert dataset.embodiment.action[0].high == (104.0, 206.0)
    with pytest.raises(DataError, match=r"expected a column 'observation\.state'"):
        dataset.states(0)


def test_statistics_that_are_missing_are_computed(old: Path) -> None:
    expected = open_dataset(old).embodiment
    for name in ("stats.json", "episodes_stats.jsonl"):
        (old / "meta" / name).unlink(missing_ok=True)
    assert open_dataset(old).embodiment == expected


def test_a_missing_action_column_is_named(old: Path) -> None:
    path = old / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)
    dataset = open_dataset(old)
    assert len(dataset.actions(0)) == 7
    with pytest.raises(
        DataError, match=r"old, episode 1: expected a column 'action' in episode_000001\.parquet, found"
    ):
        dataset.actions(1)


def test_bad_numbers_wrong_lengths_and_gaps_are_named(old: Path) -> None:
    path = old / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    actions = _actions(0, 7)
    actions[4, 1] = np.nan
    _replace(path, table, "action", actions.tolist())
    with pytest.raises(
        DataError, match="episode 0: column action expected finite numbers, found nan at frame 4, number 1"
    ):
        open_dataset(old).actions(0)
    _replace(path, table, "action", [[1.0, 2.0]] * 6 + [[1.0]])
    with pytest.raises(DataError, match=r"column action: expected rows of one length, found lengths \[1, 2\]"):
        open_dataset(old).actions(0)
    _replace(path, table, "action", [[1.0, 2.0]] * 6 + [None])
    with pytest.raises(DataError, match="expected a value in every row, found 1 empty ones"):
        open_dataset(old).actions(0)
    _replace(path, table, "action", [[1.0]] * 7)
    with pytest.raises(DataError, match="expected 2 numbers in column action, as the embodiment toy declares, found 1"):
        open_dataset(old).actions(0)
    pq.write_table(table.slice(0, 5), path)
    with pytest.raises(DataError, match=r"episode 0: expected 7 consecutive rows in .*, found 5"):
        open_dataset(old).actions(0)


def test_missing_files_of_the_meta_and_the_videos_are_named(old: Path) -> None:
    video = old / "videos/chunk-000/observation.images.cam_high/episode_000001.mp4"
    kept = video.read_bytes()
    video.unlink()
    with pytest.raises(DataError, match=r"expected the file videos/.*episode_000001\.mp4.*\(1 of 4"):
        open_dataset(old)
    encode(video, numbered(range(3), 32, 32), 10)
    with pytest.raises(DataError, match=r"expected 5 frames in videos/.*found 3"):
        open_dataset(old).frames(1, [0])
    encode(video, numbered(range(9), 32, 32), 15)
    with pytest.raises(DataError, match=r"expected 10 fps .*found 15"):
        open_dataset(old).frames(1, [0])
    video.write_bytes(kept)
    (old / "meta/episodes.jsonl").write_text('{"episode_index": 0, "tasks": ["push"]}')
    with pytest.raises(DataError, match="expected 'length' in the meta of every episode, found none"):
        open_dataset(old)
    (old / "meta/episodes.jsonl").unlink()
    with pytest.raises(DataError, match=r"expected meta/episodes\.jsonl, found no such file"):
        open_dataset(old)


def test_parts_that_do_not_cover_the_action_are_refused(old: Path) -> None:
    modality = old / "meta/modality.json"
    video = {"cam": {"original_key": "observation.images.cam_high"}}
    for spans, message in (
        ({"arm": {"start": 0, "end": 1}}, "to cover 2 action numbers, it covers 1"),
        ({"arm": {"start": 0, "end": 1}, "hand": {"start": 0, "end": 2}}, "expected action part hand .* at 1, found 0"),
    ):
        modality.write_text(json.dumps({"action": spans, "video": video}))
        with pytest.raises(DataError, match=message):
            open_dataset(old)
    modality.write_text(
        json.dumps({"action": {"b": {"start": 1, "end": 2}, "a": {"start": 0, "end": 1}}, "video": video})
    )
    assert open_dataset(old).embodiment.action_names() == ["a.x", "b.y"]


def test_cameras_stored_as_images_are_refused_by_name(old: Path) -> None:
    info = json.loads((old / "meta/info.json").read_text())
    info["features"]["observation.images.cam_high"]["dtype"] = "image"
    (old / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="camera cam_high is stored as single images"):
        open_dataset(old)


def test_a_copy_elsewhere_has_the_same_hash(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old, tmp_path / "copy")
    assert open_dataset(tmp_path / "copy").hash == open_dataset(old).hash


def _actions(index: int, length: int) -> np.ndarray:
    rows = 100 * index + np.arange(length, dtype=np.float32)
    return np.stack([rows, 2 * rows - 2 * index], axis=1)


def _replace(path: Path, table: pa.Table, name: str, rows: list) -> None:
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, pa.array(rows, pa.list_(pa.float32()))), path)


def write_old(root: Path, version: str) -> Path:
    """A dataset in the layout with one file per episode, written by hand."""
    key = "observation.images.cam_high"
    actions = {index: _actions(index, length) for index, length in ((0, 7), (1, 5))}
    for index, rows in actions.items():
        data = root / f"data/chunk-000/episode_{index:06d}.parquet"
        video = root / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
        data.parent.mkdir(parents=True, exist_ok=True)
        video.parent.mkdir(parents=True, exist_ok=True)
        numbers = np.arange(len(rows))
        columns = {
            "action": pa.array(rows.tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array((numbers + 1) / 10, pa.float32()),  # some recorders count from the end of a frame
            "frame_index": pa.array(numbers),
            "episode_index": pa.array(np.full(len(rows), index)),
            "index": pa.array(numbers + 7 * index),
            "task_index": pa.array(np.full(len(rows), index)),
        }
        pq.write_table(pa.table(columns), data)
        encode(video, numbered(100 * index + numbers, 32, 32), 10, VideoCodec(preset="veryfast"))
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "toy",
        "fps": 10,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
            key: {"dtype": "video", "shape": [3, 32, 32], "names": ["channels", "height", "width"]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **{name: scalar for name in ("frame_index", "episode_index", "index", "task_index")},
        },
    }
    meta = root / "meta"
    meta.mkdir()
    (meta / "info.json").write_text(json.dumps(info))
    lines = [{"episode_index": i, "tasks": [("push", "lift")[i]], "length": len(rows)} for i, rows in actions.items()]
    (meta / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    statistics = {
        i: {"min": r.min(0), "max": r.max(0), "mean": r.mean(0), "std": r.std(0), "count": np.array([len(r)])}
        for i, r in (actions if version == "v2.1" else {0: np.concatenate(list(actions.values()))}).items()
    }
    plain = {i: {"action": {k: v.tolist() for k, v in one.items()}} for i, one in statistics.items()}
    if version == "v2.1":
        rows = [json.dumps({"episode_index": i, "stats": one}) + "\n" for i, one in plain.items()]
        (meta / "episodes_stats.jsonl").write_text("".join(rows))
    else:
        (meta / "stats.json").write_text(json.dumps(plain[0]))
    return root
