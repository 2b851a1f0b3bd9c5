"""Written then read is equal; what does not fit is refused by name; nothing half-written stays."""

import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamdojo.dataset import write
from dreamdojo.dataset.depth import DepthRange
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.write import CameraSpec, ColumnSpec, DatasetWriter, EncodedEpisode, VideoCodec, encode_episode
from dreamdojo.errors import ConfigError, DataError
from tests.dataset.toy import BODY, CAMERAS, LENGTHS, Recording, write_numbered_dataset, write_toy
from tests.video.numbered import numbered, numbers_in

HEAD = {"head": CameraSpec(height=32, width=32)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Recording]]:
    root = tmp_path_factory.mktemp("toy") / "dataset"
    return root, write_toy(root)


def test_columns_come_back_exactly(toy: tuple[Path, list[Recording]]) -> None:
    dataset = open_dataset(toy[0])
    for index, recording in enumerate(toy[1]):
        for name, values in recording.columns.items():
            read = dataset.column(name, index)
            assert read.shape == values.shape and (read == values).all(), name
        np.testing.assert_array_equal(dataset.actions(index), recording.columns["action"])
        np.testing.assert_array_equal(dataset.states(index), recording.columns["observation.state"])
        np.testing.assert_allclose(dataset.timestamps(index), np.arange(LENGTHS[index]) / 10, atol=1e-6)


def test_pictures_come_back_within_the_codec_s_error_and_depth_within_its_bound(
    toy: tuple[Path, list[Recording]],
) -> None:
    dataset = open_dataset(toy[0])
    for index, recording in enumerate(toy[1]):
        for camera in CAMERAS:
            error = dataset.frames(index, range(LENGTHS[index]), camera).astype(float) - recording.frames[camera]
            assert np.abs(error).mean() < 3
        metres = recording.depth["head"]
        error = np.abs(dataset.depth(index, range(LENGTHS[index]), "head") - metres)
        assert (error <= DepthRange().error(metres)).all()


def test_the_meta_says_what_was_written(toy: tuple[Path, list[Recording]]) -> None:
    dataset = open_dataset(toy[0])
    assert (dataset.fps, dataset.num_frames, dataset.version) == (10, sum(LENGTHS), "v3.0")
    assert dataset.embodiment == BODY and dataset.cameras == CAMERAS
    assert [(e.index, e.length) for e in dataset.episodes] == list(enumerate(LENGTHS))
    assert [e.task for e in dataset.episodes] == ["push", "lift", "push"]
    assert [dict(e.meta) for e in dataset.episodes][1] == {"seed": 1, "split": "test"}
    assert dataset.column("task_index", 1).tolist() == [1] * 17
    assert dataset.column("index", 2).tolist() == list(range(47, 72))
    assert dataset.info["dreamdojo"] == {"engine": "toy 1"}
    assert repr(dataset).startswith("Dataset(") and "3 episodes" in repr(dataset)


def test_statistics_are_those_of_the_data(toy: tuple[Path, list[Recording]]) -> None:
    stats = open_dataset(toy[0]).stats
    actions = np.concatenate([recording.columns["action"] for recording in toy[1]])
    for name, value in (("min", actions.min(0)), ("max", actions.max(0)), ("mean", actions.mean(0))):
        np.testing.assert_allclose(stats["action"][name], value, rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-5)
    pictures = np.concatenate([recording.frames["head"] for recording in toy[1]]) / 255
    head = stats["observation.images.head"]
    assert head["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(head["mean"].ravel(), pictures.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(head["std"].ravel(), pictures.std((0, 1, 2)), atol=1e-6)
    assert stats["observation.images.head_depth"]["max"].shape == (1, 1, 1)
    assert "note" not in stats


def test_the_same_episodes_give_the_same_bytes_and_hash(tmp_path: Path, toy: tuple[Path, list[Recording]]) -> None:
    write_toy(tmp_path / "again")
    files = sorted(path.relative_to(toy[0]) for path in toy[0].rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    for file in files:
        assert (toy[0] / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert open_dataset(toy[0]).hash == open_dataset(tmp_path / "again").hash


def test_the_hash_sees_a_change_in_the_meta_and_in_the_data(tmp_path: Path) -> None:
    first = open_dataset(write_numbered_dataset(tmp_path / "a", [8, 9])).hash
    assert open_dataset(write_numbered_dataset(tmp_path / "b", [9, 8])).hash != first
    info = tmp_path / "a/meta/info.json"
    info.write_text(info.read_text().replace("toy/velocity", "toy/position"))
    assert open_dataset(tmp_path / "a").hash != first


def test_a_window_decodes_only_what_it_needs(tmp_path: Path) -> None:
    dataset = open_dataset(write_numbered_dataset(tmp_path / "d", [40, 50, 30]))
    assert numbers_in(dataset.frames(1, [20, 21, 22, 23])) == [120, 121, 122, 123]
    assert dataset.num_decoded <= 7 + 4
    assert numbers_in(dataset.frames(2, [29, 0], size=16)) == [229, 200]
    assert dataset.num_decoded <= 11 + 8 + 8
    dataset.close()
    assert numbers_in(dataset.frames(0, [39])) == [39]


def test_episodes_roll_over_into_further_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(write, "DATA_FILE_MB", 0)
    dataset = open_dataset(write_numbered_dataset(tmp_path / "d", [6, 7, 5]))
    assert len(list((tmp_path / "d/videos").rglob("*.mp4"))) == len(list((tmp_path / "d/data").rglob("*.parquet"))) == 3
    for index, length in enumerate([6, 7, 5]):
        assert numbers_in(dataset.frames(index, range(length))) == list(range(100 * index, 100 * index + length))
        assert dataset.actions(index)[:, 0].tolist() == list(range(length))


def test_a_dataset_and_an_episode_can_be_pickled(tmp_path: Path) -> None:
    dataset = open_dataset(write_numbered_dataset(tmp_path / "d", [6]))
    assert numbers_in(dataset.frames(0, [2])) == [2]
    copy = pickle.loads(pickle.dumps(dataset))
    assert numbers_in(copy.frames(0, [3])) == [3] and copy.hash == dataset.hash
    episode = _episode(tmp_path)
    assert pickle.loads(pickle.dumps(episode)).length == episode.length


def test_video_without_actions_has_no_action(tmp_path: Path) -> None:
    dataset = open_dataset(write_numbered_dataset(tmp_path / "d", [6], actions=False))
    assert dataset.embodiment.action_dim == 0 and "action" not in dataset.columns
    with pytest.raises(DataError, match=r"d, episode 0: expected a column 'action' in .*, found timestamp"):
        dataset.actions(0)


def test_others_may_add_files_to_the_folder(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD) as writer:
        (writer.folder / "truth.txt").write_text("poses")
        writer.add(_episode(writer.scratch))
        assert writer.num_episodes == 1
    assert (tmp_path / "d/truth.txt").read_text() == "poses"
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


def test_after_an_error_nothing_stands(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD) as writer:
        writer.add(_episode(writer.scratch))
        raise RuntimeError("the simulator broke")
    with (
        pytest.raises(DataError, match="at least one episode"),
        DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    write_numbered_dataset(tmp_path / "d", [4])
    with pytest.raises(DataError, match="never overwritten"):
        DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD)


@pytest.mark.parametrize("where", ["video", "table", "meta"])
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scratch = tmp_path / "scratch"
    with pytest.raises(DataError, match=r"disk full \(\d+\.\d MB free\)"), monkeypatch.context() as patch:
        writer = DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD)
        with writer:
            target = {
                "video": "dreamdojo.dataset.shards.VideoJoiner.append",
                "table": "pyarrow.parquet.ParquetWriter.write_table",
                "meta": "dreamdojo.dataset.write.write_json",
            }[where]
            episode = _episode(scratch)
            patch.setattr(target, full)
            writer.add(episode)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_a_full_disk_while_encoding_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "000000.observation.images.head.mp4").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"expected \d\.\d MB of free disk space"):
        _episode(tmp_path)


BAD_EPISODES = {
    "wrong size": ({"frames": {"head": np.zeros((4, 30, 32, 3), np.uint8)}}, r"camera head expected .*\(t, 32, 32"),
    "no camera": ({"frames": {}}, r"expected frames of the cameras \['head'\], got \[\]"),
    "lengths": ({"frames": {"head": np.zeros((3, 32, 32, 3), np.uint8)}}, "expected one length"),
    "NaN": ({"action": np.full((4, 3), np.nan, np.float32)}, "episode 7: column action expected finite"),
    "depth": ({"depth": {"head": np.ones((4, 32, 32), np.float32)}}, "expected depth of the cameras"),
}


@pytest.mark.parametrize("case", BAD_EPISODES)
def test_an_episode_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    changes, message = BAD_EPISODES[case]
    with pytest.raises(DataError, match=message):
        _episode(tmp_path, index=7, **changes)


def test_an_episode_that_does_not_fit_the_dataset_is_refused(tmp_path: Path) -> None:
    def adding(message: str, columns: dict[str, ColumnSpec] | None = None, **changes: object) -> None:
        with (
            pytest.raises(DataError, match=message),
            DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD, columns=columns) as writer,
        ):
            writer.add(_episode(writer.scratch, index=3))
            writer.add(_episode(writer.scratch, **changes))

    adding("rising order, got 2 after 3", index=2)
    adding(r"expected fps, codec.*10.*got.*5", fps=5, index=4)
    adding("codec", codec=VideoCodec(crf=30), index=4)
    adding(r"column action expected rows of shape \(3,\).*got \(2,\)", action=np.zeros((4, 2), np.float32), index=4)
    adding(r"type float32, got \(3,\) and int64", action=np.zeros((4, 3), np.int64), index=4)
    reward = {"reward": ColumnSpec(dtype="float32")}
    adding(r"expected the columns \['action', 'observation\.state', 'reward'\]", reward)
    adding("belong to the format", meta={"stats/x": 1}, index=4)
    with pytest.raises(ConfigError, match=r"columns \['action'\] are written by the dataset"):
        DatasetWriter(
            tmp_path / "d", fps=10, embodiment=BODY, cameras=HEAD, columns={"action": ColumnSpec(dtype="float32")}
        )


def test_a_camera_must_be_named_where_there_are_several(toy: tuple[Path, list[Recording]]) -> None:
    dataset = open_dataset(toy[0])
    with pytest.raises(DataError, match="no camera was named; it has head, wrist"):
        dataset.frames(0, [0])
    with pytest.raises(DataError, match="no camera 'nose'"):
        dataset.frames(0, [0], "nose")
    with pytest.raises(DataError, match=r"camera wrist has no depth; cameras with depth: \['head'\]"):
        dataset.depth(0, [0], "wrist")


def test_what_is_not_there_is_named(toy: tuple[Path, list[Recording]]) -> None:
    dataset = open_dataset(toy[0])
    with pytest.raises(DataError, match=r"dataset, episode 2: expected a column 'reward'.*found action"):
        dataset.column("reward", 2)
    with pytest.raises(DataError, match="expected an episode from 0 to 2, got 3"):
        dataset.actions(3)
    with pytest.raises(DataError, match="episode 1: expected frames from 0 to 16, got 3 to 17"):
        dataset.frames(1, [3, 17], "head")


def test_an_episode_whose_meta_names_no_task_is_not_given_another_s(tmp_path: Path) -> None:
    write_toy(tmp_path / "d", depth=False)
    path = next((tmp_path / "d/meta/episodes").rglob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["tasks"]), path)
    assert [episode.task for episode in open_dataset(tmp_path / "d").episodes] == ["", "", ""], "two tasks are listed"
    one = write_numbered_dataset(tmp_path / "one", [4])
    path = next((one / "meta/episodes").rglob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["tasks"]), path)
    assert open_dataset(one).episodes[0].task == "count"


def test_endless_depth_is_the_end_of_the_range_in_the_statistics_too(tmp_path: Path) -> None:
    camera = {"head": CameraSpec(height=32, width=32, depth=True)}
    metres = np.full((4, 32, 32), np.inf, np.float32)
    metres[:, :16] = 1.0
    with DatasetWriter(tmp_path / "d", fps=10, embodiment=BODY, cameras=camera) as writer:
        writer.add(_episode(writer.scratch, cameras=camera, depth={"head": metres}))
    stats = open_dataset(tmp_path / "d").stats["observation.images.head_depth"]
    assert stats["max"].item() == 10.0 and stats["mean"].item() == pytest.approx(5.5)


def test_depth_whose_feature_says_nothing_of_its_stream_is_refused_by_name(tmp_path: Path) -> None:
    write_toy(tmp_path / "d")
    features = json.loads((tmp_path / "d/meta/info.json").read_text())["features"]
    key = "observation.images.head_depth"
    features[key]["video_info"] = {"is_depth_map": True}
    del features[key]["info"]
    _edit(tmp_path / "d", features=features)
    with pytest.raises(DataError, match=rf"feature {key}: expected 'video.depth_min'"):
        open_dataset(tmp_path / "d").depth(0, [0], "head")


def test_a_broken_dataset_says_what_is_broken(tmp_path: Path) -> None:
    def broken(name: str, message: str, *, read: bool = False) -> None:
        with pytest.raises(DataError, match=message):
            dataset = open_dataset(tmp_path / name)
            assert read, "open_dataset sees it"
            dataset.frames(0, [0])

    with pytest.raises(DataError, match="expected a folder, found nothing"):
        open_dataset(tmp_path / "none")
    root = write_numbered_dataset(tmp_path / "version", [4])
    _edit(root, codebase_version="v1.6")
    broken("version", r"expected a LeRobot dataset of version v3\.0, v2\.1, v2\.0, found 'v1\.6'")
    write_numbered_dataset(tmp_path / "fps", [9])
    _edit(tmp_path / "fps", fps=20)
    broken("fps", r"expected timestamps rising at 20 fps \(info\.json\), found 10 fps", read=True)
    root = write_numbered_dataset(tmp_path / "video", [4])
    next(root.rglob("*.mp4")).unlink()
    broken("video", r"expected the file videos/.*mp4, found no such file \(1 of 2 are missing\)")
    root = write_numbered_dataset(tmp_path / "data", [4])
    next((root / "data").rglob("*.parquet")).write_bytes(b"PAR1")
    broken("data", "episode 0: expected a readable Parquet file", read=True)
    for part in ("episodes", "tasks"):
        root = write_numbered_dataset(tmp_path / part, [4])
        next((root / "meta").rglob("*.parquet" if part == "episodes" else "tasks.parquet")).write_bytes(b"PAR1")
        broken(part, "expected a readable Parquet file")
    write_numbered_dataset(tmp_path / "info", [4])
    (tmp_path / "info/meta/info.json").write_text("{")
    broken("info", r"expected JSON in .*info\.json")
    root = write_numbered_dataset(tmp_path / "short", [40])
    next(root.rglob("*.mp4")).write_bytes(next(write_numbered_dataset(tmp_path / "x", [9]).rglob("*.mp4")).read_bytes())
    broken("short", "expected 40 frames in videos/.*, found 9", read=True)


def _episode(
    scratch: Path,
    *,
    index: int = 0,
    fps: float = 10,
    frames: dict[str, np.ndarray] | None = None,
    action: np.ndarray | None = None,
    depth: dict[str, np.ndarray] | None = None,
    cameras: dict[str, CameraSpec] = HEAD,
    meta: dict[str, int] | None = None,
    codec: VideoCodec | None = None,
) -> EncodedEpisode:
    return encode_episode(
        scratch=scratch,
        index=index,
        fps=fps,
        cameras=cameras,
        frames={"head": numbered(range(4), 32, 32)} if frames is None else frames,
        columns={
            "action": np.zeros((4, 3), np.float32) if action is None else action,
            "observation.state": np.zeros((4, 2), np.float32),
        },
        task="none",
        depth=depth,
        meta=meta,
        codec=codec,
    )


def _edit(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
