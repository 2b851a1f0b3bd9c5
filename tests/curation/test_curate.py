"""Any videos become one dataset of clips; what is left out is listed with its reason."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from dreamdojo.curation import CurateSettings, curate
from dreamdojo.curation.clips import plan_clips
from dreamdojo.curation.find import find_videos
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.video import VideoCodec, encode
from tests.video.numbered import numbered, numbers_in

FAST = VideoCodec(preset="veryfast")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos of several rates and sizes in two folders, and a file that is no video."""
    folder = tmp_path / "videos"
    (folder / "kitchen").mkdir(parents=True)
    encode(folder / "b.mp4", numbered(range(75), 48, 64), 30, FAST)
    encode(folder / "kitchen/a.MP4", numbered(range(1000, 1045), 96, 128), 20, FAST)
    encode(folder / "tall.mkv.mp4", numbered(range(2000, 2031), 64, 32), 10, FAST)
    (folder / "notes.txt").write_text("filmed on Monday")
    return folder


def settings(**changes: object) -> CurateSettings:
    return CurateSettings(**{"size": 32, "codec": FAST, "workers": 0, **changes})  # type: ignore[arg-type]


def test_a_folder_of_videos_becomes_one_dataset_at_one_rate_and_size(tmp_path: Path, videos: Path) -> None:
    told: list[tuple[int, int]] = []
    report = curate(videos, tmp_path / "d", settings(), progress=lambda done, of: told.append((done, of)))
    dataset = open_dataset(tmp_path / "d")
    assert told == [(1, 3), (2, 3), (3, 3)] and dataset.embodiment.name == "human" and dataset.embodiment.action == ()
    assert (dataset.fps, dataset.cameras["head"].height, dataset.cameras["head"].width) == (10, 32, 42)
    assert [episode.meta["source"] for episode in dataset.episodes] == ["b.mp4", "kitchen/a.MP4", "tall.mkv.mp4"]
    assert numbers_in(dataset.frames(0, range(25))) == list(range(0, 75, 3))
    assert numbers_in(dataset.frames(1, range(23))) == list(range(1000, 1045, 2))
    assert dataset.episodes[2].length == 31, "a source at the dataset's rate keeps every frame"
    assert report.num_clips == 3 and report.num_frames == dataset.num_frames == 79 and not report.dropped
    assert report.other_files == ("notes.txt",) and str(report).endswith("Other files, not opened: 1")
    raw = json.loads((tmp_path / "d/curation.json").read_text())
    assert [video["path"] for video in raw["videos"]] == ["b.mp4", "kitchen/a.MP4", "tall.mkv.mp4"]
    assert str(tmp_path) not in json.dumps(raw) and raw["num_kept"] == 3


def test_long_videos_are_cut_into_clips_and_short_rests_are_counted(tmp_path: Path, videos: Path) -> None:
    report = curate(videos / "b.mp4", tmp_path / "d", settings(max_seconds=1.0, min_seconds=0.8))
    dataset = open_dataset(tmp_path / "d")
    assert [episode.length for episode in dataset.episodes] == [10, 10]
    assert [episode.meta["start_seconds"] for episode in dataset.episodes] == [0.0, 1.0]
    assert numbers_in(dataset.frames(1, range(10))) == list(range(30, 60, 3))
    assert (report.videos[0].num_short, report.videos[0].num_pauses) == (1, 0), "the longest clip is no pause"


def test_patterns_and_lists_of_files_work_too(tmp_path: Path, videos: Path) -> None:
    assert curate(str(videos / "*.mp4"), tmp_path / "one", settings()).num_clips == 2
    chosen = [videos / "kitchen/a.MP4", videos / "b.mp4"]
    assert [video.path for video in curate(chosen, tmp_path / "two", settings()).videos] == ["b.mp4", "kitchen/a.MP4"]


def test_the_aspect_can_be_chosen_and_is_a_centre_crop(tmp_path: Path, videos: Path) -> None:
    report = curate(videos, tmp_path / "d", settings(aspect=1.0))
    assert (report.height, report.width) == (32, 32)
    assert [video.enlarged for video in report.videos] == [False, False, False]


def test_several_processes_make_the_same_dataset(tmp_path: Path, videos: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    curate(videos, one, settings())
    curate(videos, two, settings(workers=2))
    for path in one.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (two / path.relative_to(one)).read_bytes()


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_unreadable_files_stop_the_work_or_are_listed(tmp_path: Path, videos: Path, damage: str) -> None:
    bad = videos / "kitchen/bad.mp4"
    if damage == "empty":
        bad.touch()
    else:
        encode(bad, np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8), 10, FAST)
        data = bytearray(bad.read_bytes())
        data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
        bad.write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.mp4"):
        curate(videos, tmp_path / "d", settings())
    assert not (tmp_path / "d").exists()
    report = curate(videos, tmp_path / "d", settings(skip_unreadable=True, max_seconds=1.0))
    assert [video.path for video in report.dropped] == ["kitchen/bad.mp4"]
    assert ("0 bytes" if damage == "empty" else "damaged") in report.dropped[0].reason
    dataset = open_dataset(tmp_path / "d")
    assert {episode.meta["source"] for episode in dataset.episodes} == {"b.mp4", "kitchen/a.MP4", "tall.mkv.mp4"}
    assert str(tmp_path) not in (tmp_path / "d/curation.json").read_text(), "no path of this machine"


def test_sources_slower_than_the_dataset_are_refused_with_the_rate_that_fits(tmp_path: Path, videos: Path) -> None:
    encode(videos / "slow.mp4", numbered(range(20), 48, 64), 5, FAST)
    with pytest.raises(DataError, match=r"found 1 slower: slow\.mp4 \(5 fps\).*set fps to 5 or less"):
        curate(videos, tmp_path / "d", settings())
    assert curate(videos, tmp_path / "d", settings(fps=5)).num_clips == 4


def test_nothing_to_curate_says_so(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="found none among 0 files"):
        curate(tmp_path / "none", tmp_path / "d", settings())
    with pytest.raises(DataError, match=r"found nothing at .*away\.mp4"):
        curate(tmp_path / "away.mp4", tmp_path / "d", settings())
    with pytest.raises(DataError, match=r"got none \(b\.mp4: no clip of at least 5 s at 10 fps"):
        curate(videos / "b.mp4", tmp_path / "d", settings(min_seconds=5))
    (videos / "b.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="all 1 failed"):
        curate(videos / "b.mp4", tmp_path / "d", settings(skip_unreadable=True))
    for wrong in ({"size": 0}, {"fps": 0}, {"min_seconds": 30}):
        with pytest.raises(ConfigError):
            settings(**wrong)


def test_a_recording_is_cut_at_its_pauses() -> None:
    times = np.concatenate([np.arange(30) / 30, 3 + np.arange(31) / 30])
    clips, pauses = plan_clips(times, 30, settings())
    assert pauses == 1 and [clip.tolist() for clip in clips] == [
        list(range(0, 30, 3)),
        list(range(30, 61, 3)),
    ]


def test_links_are_followed_and_called_what_they_are_called_here(tmp_path: Path, videos: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "one.mp4").symlink_to(videos / "b.mp4")
    (here / "all").symlink_to(videos, target_is_directory=True)
    (here / "all again").symlink_to(here, target_is_directory=True)
    (here / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    names = set(find_videos(here).names.values())
    assert names == {"one.mp4", "gone.mp4", "all/b.mp4", "all/tall.mkv.mp4", "all/kitchen/a.MP4"}
    with pytest.raises(DataError, match=r"gone\.mp4"):
        curate(here, tmp_path / "d", settings())
    report = curate(here, tmp_path / "d", settings(skip_unreadable=True))
    assert [(video.path, "No such file" in video.reason) for video in report.dropped] == [("gone.mp4", True)]


def test_a_folder_that_may_not_be_listed_stops_the_work_or_is_a_row(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (videos / "locked").mkdir()
    true_iterdir = Path.iterdir

    def refused(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return true_iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match=r"folder locked: expected a folder that can be listed, found Permission"):
        curate(videos, tmp_path / "d", settings())
    report = curate(videos, tmp_path / "d", settings(skip_unreadable=True))
    assert report.dropped_clips == {"cannot be read": 1} and report.dropped[0].path == "locked"


def test_a_name_in_another_encoding_is_spelled_out(tmp_path: Path, videos: Path) -> None:
    try:
        (videos / os.fsdecode(b"caf\xe9.mp4")).write_bytes((videos / "b.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    report = curate(videos, tmp_path / "d", settings())
    assert r"caf\udce9.mp4" in [video.path for video in report.kept]
