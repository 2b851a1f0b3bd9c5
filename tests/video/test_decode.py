"""Reading video: the right frames, and no more decoding than they need."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dreamdojo.errors import DataError
from dreamdojo.video import VideoCodec, VideoReader, encode, iter_frames, probe, read_frames
from tests.video.numbered import numbered, numbers_in, write_numbered


@pytest.fixture(scope="module", params=["libx264", "libsvtav1"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    preset = {"libx264": "veryfast", "libsvtav1": "12"}[request.param]
    path = tmp_path_factory.mktemp("video") / "numbered.mp4"
    return write_numbered(path, 60, 10, name=request.param, preset=preset)


def test_frames_come_in_the_order_asked_for_by_number_and_by_time(video: Path) -> None:
    asked = [41, 3, 3, 59, 0, 17]
    assert numbers_in(read_frames(video, asked)) == asked
    assert numbers_in(read_frames(video, [number / 10 for number in asked])) == asked
    assert numbers_in(read_frames(video, [0.04, 0.96])) == [0, 10], "the nearest frame counts"


def test_a_window_decodes_from_its_keyframe_to_its_last_frame_only(video: Path) -> None:
    with VideoReader(video) as reader:
        for first in (0, 8, 13, 40, 52, 5):
            before = reader.num_decoded
            times = np.arange(first, first + 6) / 10 - 1e-4  # as inexact as float32 seconds
            assert numbers_in(reader.read_at(times)) == list(range(first, first + 6))
            assert reader.num_decoded - before <= first % 8 + 6


def test_reading_onwards_goes_on_decoding_and_far_jumps_skip(video: Path) -> None:
    with VideoReader(video) as reader:
        reader.read_at([0.1])
        assert reader.num_decoded == 2
        reader.read_at([0.2, 0.3])
        assert reader.num_decoded == 4, "the next frames need no jump back"
        reader.read_at([5.6])
        assert reader.num_decoded == 5, "frame 56 is a keyframe"


def test_all_frames_in_portions_are_decoded_once_and_without_jumps(video: Path, monkeypatch) -> None:
    jumps, seek = [], VideoReader._seek
    monkeypatch.setattr(VideoReader, "_seek", lambda self, target: (jumps.append(target), seek(self, target)))
    with VideoReader(video) as reader:
        for first in range(0, 60, 20):
            reader.read_at(np.arange(first, first + 20) / 10)
        assert reader.num_decoded == 60 and len(jumps) == 1, "every eighth frame is a keyframe"


def test_iterating_gives_every_frame_with_its_time(video: Path) -> None:
    frames = list(iter_frames(video))
    assert numbers_in(np.stack([frame.image for frame in frames])) == list(range(60))
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(60) / 10)


def test_a_sweep_yields_the_wanted_frames_resized(video: Path) -> None:
    with VideoReader(video) as reader:
        found = dict(reader.sweep({2, 30}, size=(16, 24)))
        assert reader.num_decoded == 60
    assert numbers_in(np.stack([found[2], found[30]])) == [2, 30] and found[2].shape == (16, 24, 3)


def test_probe_tells_size_rate_and_length(video: Path) -> None:
    info = probe(video)
    assert (info.width, info.height, info.fps, info.num_frames, info.duration) == (48, 32, 10, 60, 6)
    assert info.codec in ("h264", "av1")


def test_a_variable_frame_rate_is_read_by_timestamp(tmp_path: Path) -> None:
    times = np.cumsum([0, 33, 33, 200, 40, 10, 90, 33, 33, 400]) / 1000
    path = tmp_path / "variable.mkv"
    _mux(path, numbered(range(10)), times)
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.timestamps(), times, atol=1e-3)
        assert numbers_in(reader.read_at([times[3], times[9], times[0]], tolerance=0.002)) == [3, 9, 0]
        with pytest.raises(DataError, match=r"no frame at 0\.150 s"):
            reader.read_at([0.15], tolerance=0.002)
    assert numbers_in(read_frames(path, [9, 4])) == [9, 4]


def test_a_missing_duration_and_frame_count_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "stream.ts"
    _mux(path, numbered(range(25)), np.arange(25) / 25, format="mpegts")
    info = probe(path)
    assert info.num_frames == 25 and info.fps == pytest.approx(25) and info.duration == pytest.approx(1, abs=0.05)
    assert numbers_in(read_frames(path, [0, 24, 12])) == [0, 24, 12]


X264 = {"bf": "3", "g": "12", "b-adapt": "0", "sc_threshold": "0", "x264-params": "open-gop=1"}
X265 = {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0:pools=none:log-level=none"}


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(("encoder", "options"), [("libx264", X264), ("libx265", X265)], ids=["h264", "hevc"])
def test_reordered_frames_are_found(tmp_path: Path, format: str, encoder: str, options: dict[str, str]) -> None:
    """Open groups of pictures, as phones record them: some frames before a keyframe are decoded after it."""
    path = tmp_path / "b_frames"
    frames = numbered(range(50), 64, 64)  # x265 overruns its buffers below 64 pixels when it reorders frames
    _mux(path, frames, np.arange(50) / 10, encoder=encoder, options=options, format=format)
    asked = [49, 0, 10, 11, 12, 13, 1, 30]
    assert numbers_in(read_frames(path, asked)) == asked
    for number in asked:
        with VideoReader(path) as reader:
            assert numbers_in(reader.read_at([number / 10])) == [number], "a jump to any frame finds it"


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    """A recording trimmed on a phone keeps frames before its start, to decode from."""
    path = tmp_path / "trimmed.mp4"
    _mux(path, numbered(range(10)), np.arange(-4, 6) / 10)
    info = probe(path)
    with VideoReader(path) as reader:
        shown = [frame.image for frame in reader]
        assert len(reader.timestamps()) == info.num_frames == reader.num_frames == 6
        assert numbers_in(np.stack(shown)) == [4, 5, 6, 7, 8, 9]
        assert numbers_in(reader.read_at([0.0, 0.5])) == numbers_in(reader.read([0, 5])) == [4, 9]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mp4"
    upright = numbered([0x1234])[0]
    stored = np.rot90(upright, -(degrees // 90))
    _mux(path, np.stack([stored] * 3), np.arange(3) / 10, rotation=degrees)
    assert numbers_in(read_frames(path, [1])) == [0x1234]
    info = probe(path)
    assert (info.height, info.width) == upright.shape[:2] and abs(info.rotation) == abs(degrees)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("empty", "0 bytes"),
        ("text", "Invalid data"),
        ("audio", "only audio"),
        ("cut", "Invalid data"),
        (None, "nothing"),
    ],
)
def test_what_is_no_video_says_what_it_is(tmp_path: Path, video: Path, content: str | None, found: str) -> None:
    path = tmp_path / "broken.mp4"
    if content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("this is not a video " * 100)
    elif content == "cut":
        path.write_bytes(video.read_bytes()[:2000])
    elif content == "audio":
        _write_audio(path)
    for read in (probe, lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))):
        with pytest.raises(DataError, match=r"broken\.mp4.*" + found):
            read(path)


def test_a_video_cut_short_names_what_decodes(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    _mux(whole, numbered(range(60)), np.arange(60) / 10, container_options={"movflags": "faststart"})
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=r"cut\.mp4.*(of 60 frames|Invalid|damaged|no frame)"):
        list(iter_frames(path))
    with pytest.raises(DataError, match=r"cut\.mp4"):
        read_frames(path, [5.9])
    assert numbers_in(read_frames(path, [0.5])) == [5], "what is there can still be read"


def test_damage_in_the_middle_is_never_passed_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "hit.mp4"
    encode(path, rng.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8), 10, VideoCodec())
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 2 // 3] = bytes(len(data) * 2 // 3 - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a damaged frame at 1\."):
        list(iter_frames(path))


def test_a_frame_outside_the_video_is_refused(video: Path) -> None:
    with pytest.raises(DataError, match="from 0 to 59, found 60"):
        read_frames(video, [60])
    with pytest.raises(DataError, match=r"no frame at 7\.000 s"):
        read_frames(video, [7.0])
    with pytest.raises(DataError, match="empty list"):
        read_frames(video, np.zeros(0, dtype=int))


def _mux(
    path: Path,
    frames: np.ndarray,
    times: np.ndarray,
    *,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    format: str | None = None,
    encoder: str = "libx264",
) -> None:
    """A video with frames at arbitrary times, written as other programs would."""
    ticks = Fraction(1, 1000)
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(encoder, rate=round(len(times) / max(times[-1], 0.1)))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = ticks
        stream.codec_context.options = {"crf": "15", "preset": "veryfast", "bf": "0", "threads": "1", **(options or {})}
        if rotation:
            stream.set_display_rotation(rotation)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), ticks
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
