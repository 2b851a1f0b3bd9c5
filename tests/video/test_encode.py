"""Writing video: faithful, repeatable, and nothing half-written."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.video import VideoCodec, VideoJoiner, VideoReader, encode, encode_gray12, probe, read_frames, resize
from dreamdojo.video.pixels import from_rgb, to_rgb
from tests.video.numbered import numbers_in, smooth, write_numbered

CODECS = [VideoCodec(), VideoCodec(name="libsvtav1", crf=20, preset="10")]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_is_written_comes_back_within_the_codec_s_error_and_unbiased(tmp_path: Path, codec: VideoCodec) -> None:
    frames = smooth(20)
    encode(tmp_path / "a.mp4", frames, 10, codec)
    error = read_frames(tmp_path / "a.mp4", range(20)).astype(float) - frames
    assert np.abs(error).mean() < 2 and np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5


def test_turning_rgb_into_yuv_and_back_is_unbiased() -> None:
    frames = smooth(5)
    there, back = VideoReformatter(), VideoReformatter()
    error = np.stack([to_rgb(from_rgb(frame, "yuv420p", there), back) for frame in frames]).astype(float) - frames
    assert np.abs(error).mean() < 0.6 and np.abs(error.mean(axis=(0, 1, 2))).max() < 0.05


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: VideoCodec) -> None:
    """Repeated, at a width that is no multiple of 64, in memory that other things have used: where x264 has slipped."""
    frames, seen, used = smooth(24, 32, 48), set(), []
    # SVT-AV1 4.1 very rarely stops for ever, all its threads waiting for one another: not the place to look for it.
    for number in range(25 if codec.name == "libx264" else 4):
        used = [bytearray(b"\xff" * (7919 * number))]
        encode(tmp_path / "a.mp4", frames.copy(), 10, codec)
        seen.add((tmp_path / "a.mp4").read_bytes())
    assert used and len(seen) == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the threads' schedules from /proc")
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_no_thread_becomes_real_time(tmp_path: Path, codec: VideoCodec) -> None:
    """As root, libsvtav1 makes the thread that opens it real-time, and what that starts: all else stalls."""

    def policies() -> set[int]:
        with suppress(ProcessLookupError):
            return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}
        return policies()  # a thread has ended meanwhile

    def frames():
        for frame in smooth(12):
            yield frame
            seen.append(policies())

    before, seen = policies(), []
    encode(tmp_path / "a.mp4", frames(), 10, codec)
    assert [*seen, policies()] == [before] * 13


def test_gray12_is_lossless(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 4096, (11, 24, 34)).astype(np.uint16)
    encode_gray12(tmp_path / "depth.mp4", codes, 10)
    with VideoReader(tmp_path / "depth.mp4", pixels="gray12") as reader:
        np.testing.assert_array_equal(reader.read(range(11)), codes)


def test_gray12_is_lossless_where_things_move_at_the_edge(tmp_path: Path) -> None:
    """Small pictures with motion, on which frames predicted from one another came back with wrong pixels."""
    random = np.random.default_rng(0)
    for _ in range(20):
        codes = np.full((12, 16, 16), random.integers(1023, 3023), np.uint16)
        for picture, (row, column) in zip(codes, random.integers(0, 11, (12, 2)), strict=True):
            picture[row : row + 5, column : column + 5] = 500
        encode_gray12(tmp_path / "depth.mp4", codes, 10)
        with VideoReader(tmp_path / "depth.mp4", pixels="gray12") as reader:
            np.testing.assert_array_equal(reader.read(range(12)), codes)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("fps", [10, 30000 / 1001, 12.5])
def test_parts_are_joined_without_a_change(tmp_path: Path, codec: VideoCodec, fps: float) -> None:
    lengths = [9, 1, 14]
    parts = [tmp_path / f"{number}.mp4" for number in range(3)]
    for number, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        encode(part, smooth(length, seed=number), fps, codec)
    joiner = VideoJoiner(tmp_path / "all.mp4", fps)
    assert [tuple(joiner.append(part)) for part in parts] == [(0, 9), (9, 1), (10, 14)]
    joiner.close()
    info = probe(tmp_path / "all.mp4")
    assert info.num_frames == 24 and info.fps == pytest.approx(fps) and info.duration == pytest.approx(24 / fps)
    separate = np.concatenate([read_frames(part, range(n)) for part, n in zip(parts, lengths, strict=True)])
    np.testing.assert_array_equal(read_frames(tmp_path / "all.mp4", np.arange(24) / fps), separate)


def test_parts_of_another_size_do_not_join(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", smooth(3), 10)
    encode(tmp_path / "b.mp4", smooth(3, height=32), 10)
    joiner = VideoJoiner(tmp_path / "all.mp4", 10)
    joiner.append(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"b\.mp4: expected the encoder settings"):
        joiner.append(tmp_path / "b.mp4")
    joiner.close()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 16, 16, 3), np.uint8), "at least one frame"),
        (np.zeros((2, 15, 16, 3), np.uint8), "even sides, got 15 x 16"),
        (np.zeros((2, 16, 16, 3), np.float32), "uint8"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((32, 16, 3), np.uint8)], "one shape"),
    ],
)
def test_frames_that_make_no_video_are_refused_and_leave_no_file(tmp_path: Path, frames: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(tmp_path / "a.mp4", frames, 10)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_os_error_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "full.mp4"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        encode(path, smooth(30), 10)
    assert not path.is_symlink()


def test_impossible_settings_are_refused() -> None:
    for settings in ({"name": "h265"}, {"gop": 0}, {"name": "libsvtav1", "preset": "fast"}):
        with pytest.raises(ConfigError):
            VideoCodec(**settings)
    with pytest.raises(ConfigError, match="fps must be positive"):
        VideoJoiner(Path("never.mp4"), 0)


def test_shrinking_averages_areas_and_keeps_the_centre(tmp_path: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = np.indices((64, 64)).sum(axis=0)[..., None] % 2 * 255
    small = resize(picture, 16)
    assert small.shape == (16, 16, 3) and set(np.unique(small)) <= {127, 128}, "a fine chequerboard becomes grey"
    frames = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    exact = frames.reshape(2, 12, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(resize(frames, (12, 16)).astype(float) - exact).max() <= 1
    assert resize(frames, (48, 64)) is frames


def test_depth_is_picked_not_averaged() -> None:
    depth = np.where(np.arange(64) < 32, 1.0, 5.0).astype(np.float32)[None].repeat(64, axis=0)
    assert set(np.unique(resize(depth, 10, nearest=True))) == {1.0, 5.0}


def test_numbers_survive_resizing(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 9, 10)
    assert numbers_in(read_frames(path, range(9), size=(16, 24))) == list(range(9))
    with pytest.raises(ConfigError):
        resize(np.zeros((4, 4, 3), np.uint8), 0)
    with pytest.raises(DataError, match="expects"):
        resize(np.zeros((4, 4), np.uint8), 2)
