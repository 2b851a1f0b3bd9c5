"""Whatever a file holds, it becomes a row; the run goes on and nothing that was written is lost."""

import errno
import random
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dreamdojo.curation import CurateSettings, curate, record
from dreamdojo.curation.record import RESULT_NAME
from dreamdojo.curation.rows import ROWS_PATH, read_rows
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import DataError
from dreamdojo.video import VideoCodec, encode, look_at, look_at_keyframes, read_packets
from tests.video.numbered import numbered, numbers_in

FAST = VideoCodec(preset="veryfast")


def settings(**changes: object) -> CurateSettings:
    values = {"size": 32, "codec": FAST, "workers": 0, "stages": ("quality",), "aspect": 4 / 3}
    return CurateSettings(**{**values, **changes})  # type: ignore[arg-type]


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, 48, 64, 3), dtype=np.uint8)


def odd(path: Path, *, codec: str = "libx264", size: tuple[int, int] = (48, 64), frames: int = 30, rate: int = 10,
        **context: object) -> None:  # fmt: skip
    """A video with unusual properties of its stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for picture in noise(frames):
            frame = av.VideoFrame.from_ndarray(np.resize(picture, (*size, 3)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_every_bad_file_is_a_row_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    encode(folder / "gut – Küche 台所.mp4", noise(30), 10, FAST)
    whole = (folder / "gut – Küche 台所.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "words.mp4").write_text("a letter")
    (folder / "really a matroska.mp4").write_bytes(b"")
    odd(folder / "x.mkv")
    (folder / "x.mkv").rename(folder / "really a matroska.mp4")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    encode(folder / "slow.mp4", noise(6), 1, FAST)
    odd(folder / "hdr.mp4", color_trc=16)
    odd(folder / "large.mp4", size=(96, 128))
    report = curate(folder, tmp_path / "d", settings(max_pixels=64 * 48))
    rows = {row.recording: row for row in read_rows(tmp_path / "d" / ROWS_PATH)[0]}
    assert {name for name, row in rows.items() if row.kept} == {"gut – Küche 台所.mp4", "really a matroska.mp4"}
    assert {name: row.kind for name, row in rows.items() if not row.kept} == {
        "empty.mp4": "does not decode",
        "truncated.mp4": "does not decode",
        "words.mp4": "does not decode",
        "sound.mp4": "does not decode",
        "slow.mp4": "too slow",
        "hdr.mp4": "high dynamic range",
        "large.mp4": "too large",
    }
    assert all(row.reason and str(tmp_path) not in row.reason for row in rows.values() if not row.kept)
    assert report.num_clips == 2 and open_dataset(tmp_path / "d").episodes[0].meta["source"].startswith("gut")


def test_a_folder_that_disappears_and_a_full_disk_are_rows_that_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "v"
    for name in "abc":
        (folder / name).mkdir(parents=True)
        encode(folder / name / "1.mp4", noise(30), 10, FAST)
    true_encode, away = record.encode_episode, tmp_path / "away"

    def lose_c_and_fill_the_disk_at_b(**arguments: object) -> object:
        if (folder / "c").exists():
            (folder / "c").rename(away)
        if "b/1.mp4" in str(arguments["meta"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_encode(**arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(record, "encode_episode", lose_c_and_fill_the_disk_at_b)
        report = curate(folder, tmp_path / "d", settings())
    assert report.dropped_clips == {"disk full": 1, "cannot be read": 1} and report.num_clips == 1
    away.rename(folder / "c")
    assert curate(folder, tmp_path / "d", settings()).num_clips == 3, "neither is taken for a property of the file"


def test_what_was_done_before_a_disk_is_really_full_is_not_done_again(tmp_path: Path) -> None:
    folder, disk = tmp_path / "v", tmp_path / "disk"
    folder.mkdir()
    disk.mkdir()
    for number in range(4):
        encode(folder / f"{number}.mp4", np.roll(noise(30), number, axis=1), 10, FAST)

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True)

    try:
        mount("size=256k")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    try:
        with pytest.raises(DataError, match="disk full"):
            curate(folder, disk / "d", settings(size=48))
        done = {path: path.stat().st_mtime_ns for path in (disk / "d.work/results").glob(f"*/{RESULT_NAME}")}
        assert 0 < len(done) < 4
        mount("remount,size=16m")
        assert curate(folder, disk / "d", settings(size=48)).num_clips == 4
        assert all(path.stat().st_mtime_ns == made for path, made in done.items())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_mutated_containers_never_end_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    encode(folder / "good.mp4", noise(20), 10, FAST)
    odd(tmp_path / "x.mkv", frames=20)
    rng = random.Random(0)
    for number in range(24):
        data = bytearray((folder / "good.mp4" if number % 2 else tmp_path / "x.mkv").read_bytes())
        for _ in range(rng.choice((1, 4, 64))):
            place = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    del data[place : place + rng.randrange(1, 200)]
                case _:
                    data[place:place] = rng.randbytes(rng.randrange(1, 50))
        (folder / f"m{number:02d}.{'mp4' if number % 2 else 'mkv'}").write_bytes(data)
    curate(folder, tmp_path / "d", settings(min_seconds=0.5, workers=1))
    rows = read_rows(tmp_path / "d" / ROWS_PATH)[0]
    assert {row.recording for row in rows} == {path.name for path in folder.iterdir()}
    assert all(row.kept or row.reason for row in rows) and not any(row.kind == "unexpected" for row in rows)
    assert {row.kept for row in rows if row.recording != "good.mp4"} == {True, False}, "some do, some do not decode"


def variable(path: Path, times: list[int], *, gop: int) -> None:
    """Numbered frames at given milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.options = {"g": str(gop), "preset": "veryfast"}
        for picture, time in zip(numbered(range(len(times)), 48, 64), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("gop", [4, 1000])
def test_looks_are_where_they_say_also_at_a_variable_rate(tmp_path: Path, gop: int) -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(20, 60, 200)).tolist()
    variable(tmp_path / "v.mkv", times, gop=gop)
    shown = (np.array(times) - times[0]) / 1000
    packets = read_packets(tmp_path / "v.mkv")
    np.testing.assert_allclose(packets.times, shown, atol=2e-3)
    wanted = np.arange(0.3, shown[-1], 0.9)
    looks = list(look_at(tmp_path / "v.mkv", wanted, gap=0.2, long_side=64, packets=packets))
    assert len(looks) >= len(wanted) - 1
    for want, look in zip(wanted, looks, strict=False):
        assert want - 1e-3 <= look.timestamp < want + 0.3
        number = int(np.abs(shown - look.timestamp).argmin())
        assert numbers_in(look.frames[:1]) == [number]
        if len(look.frames) == 2:
            assert numbers_in(look.frames[1:]) == [int(np.abs(shown - look.timestamp - look.gap).argmin())]
            assert 0.2 - 1e-3 <= look.gap < 0.45
    keys = [look.timestamp for look in look_at_keyframes(tmp_path / "v.mkv", every=0.5, long_side=64)]
    assert set(np.round(keys, 2)) <= set(np.round(packets.keyframes, 2)) and (np.diff(keys) > 0.49).all()
