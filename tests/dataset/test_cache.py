"""Side caches: what goes in comes out, a wrong key is refused, an interruption costs only the episode it hit."""

import dataclasses
import errno
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamdojo.dataset import cache as module
from dreamdojo.dataset.cache import CacheKey, CacheWriter, open_cache
from dreamdojo.dataset.frames import cache_frames, frames_key
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import DataError
from tests.dataset.toy import write_numbered_dataset
from tests.video.numbered import numbers_in

KEY = CacheKey(kind="latent_action", dataset_hash="d1", model_hash="m1", rate=10.0, gap=1)
LENGTHS = {0: 5, 3: 7, 4: 1}


def rows(episode: int, length: int) -> np.ndarray:
    return np.random.default_rng(episode).normal(size=(length, 2, 3)).astype(np.float32)


def fill(path: Path, key: CacheKey = KEY, dtype: str = "float32") -> None:
    with CacheWriter(path, key, LENGTHS, (2, 3), dtype) as writer:
        for episode, length in LENGTHS.items():
            writer.write(episode, rows(episode, length))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_and_the_last_of_each_episode_is_masked(tmp_path: Path, dtype: str) -> None:
    fill(tmp_path / "c", dtype=dtype)
    cache = open_cache(tmp_path / "c", KEY)
    assert cache.episodes == [0, 3, 4] and len(cache) == 3 and 3 in cache and 1 not in cache
    for episode, length in LENGTHS.items():
        np.testing.assert_array_equal(cache[episode][:-1], rows(episode, length)[:-1].astype(dtype))
        assert not cache[episode][-1].any() and cache[episode].shape == (length, 2, 3)
        assert cache.valid(episode).tolist() == [True] * (length - 1) + [False]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache))[3], cache[3])


def test_pairs_may_come_without_the_last_row_and_single_frames_are_never_masked(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "pairs", KEY, {0: 5}, (2, 3), "float32") as writer:
        writer.write(0, rows(0, 4))
    np.testing.assert_array_equal(open_cache(tmp_path / "pairs", KEY)[0][:4], rows(0, 4))
    latent = dataclasses.replace(KEY, kind="latent", gap=0)
    fill(tmp_path / "latent", latent)
    cache = open_cache(tmp_path / "latent", latent)
    np.testing.assert_array_equal(cache[3], rows(3, 7))
    assert cache.valid(3).all()


def test_two_processes_never_fill_one_cache(tmp_path: Path) -> None:
    held = """
import sys
from dreamdojo.dataset.cache import CacheKey, CacheWriter
key = CacheKey(kind="latent_action", dataset_hash="d1", model_hash="m1", rate=10.0, gap=1)
writer = CacheWriter(sys.argv[1], key, {0: 5, 3: 7, 4: 1}, (2, 3), "float32")
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process"):
            fill(tmp_path / "c")
        other.communicate("")
    fill(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["cache.json", "rows.bin", "valid.bin"]


def test_a_cache_of_another_key_is_refused_and_each_difference_named(tmp_path: Path) -> None:
    fill(tmp_path / "c")
    other = dataclasses.replace(KEY, dataset_hash="d2", rate=5.0)
    with pytest.raises(DataError) as caught:
        open_cache(tmp_path / "c", other)
    message = str(caught.value)
    assert "dataset_hash: expected 'd2', found 'd1'" in message and "rate: expected 5.0, found 10.0" in message
    assert "model_hash" not in message
    with pytest.raises(DataError, match=r"cache\.json, found no such file"):
        open_cache(tmp_path / "none", KEY)


@pytest.mark.parametrize("name", ["rows.bin", "valid.bin"])
def test_a_cache_that_was_not_copied_whole_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "c")
    part = tmp_path / "c" / name
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"expected \d+ bytes in {name}, found \d+"):
        open_cache(tmp_path / "c", KEY)
    part.unlink()
    with pytest.raises(DataError, match=rf"bytes in {name}, found no such file"):
        open_cache(tmp_path / "c", KEY)


def test_finished_episodes_survive_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path / "c", KEY, LENGTHS, (2, 3), "float32") as writer:
        writer.write(3, rows(3, 7))
        raise KeyboardInterrupt
    assert not (tmp_path / "c").exists()
    with pytest.raises(DataError, match="model_hash"):
        CacheWriter(tmp_path / "c", dataclasses.replace(KEY, model_hash="m2"), LENGTHS, (2, 3), "float32")
    with pytest.raises(DataError, match="other episodes or rows"):
        CacheWriter(tmp_path / "c", KEY, {0: 5}, (2, 3), "float32")
    with CacheWriter(tmp_path / "c", KEY, LENGTHS, (2, 3), "float32") as writer:
        assert writer.done == {3}
        writer.write(0, rows(0, 5))
        writer.write(4, rows(4, 1))
    np.testing.assert_array_equal(open_cache(tmp_path / "c", KEY)[3][:6], rows(3, 7)[:6])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", KEY, LENGTHS, (2, 3), "float32")
    with pytest.raises(DataError, match=r"expected 4 rows of shape \(2, 3\), got an array \(3, 2, 3\)"):
        writer.write(0, rows(0, 3))
    with pytest.raises(DataError, match="expected one of the episodes"):
        writer.write(1, rows(0, 3))
    with pytest.raises(DataError, match="6 bad numbers"):
        writer.write(0, np.where(np.arange(5)[:, None, None] == 1, np.nan, rows(0, 5)))
    writer.write(0, rows(0, 5))
    with pytest.raises(DataError, match="already stored"):
        writer.write(0, rows(0, 5))
    with pytest.raises(DataError, match=r"2 are missing \(first: 3\)"):
        writer.close()
    fill(tmp_path / "whole")
    with pytest.raises(DataError, match="does not exist yet"):
        CacheWriter(tmp_path / "whole", KEY, LENGTHS, (2, 3), "float32")
    with (tmp_path / "whole/rows.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"bytes in rows\.bin"):
        open_cache(tmp_path / "whole", KEY)


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = CacheWriter(tmp_path / "c", KEY, LENGTHS, (2, 3), "float32")
    writer.write(0, rows(0, 5))
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"expected 0\.0 MB of free disk space"):
        patch.setattr(module, "_write_at", full)
        writer.write(3, rows(3, 7))
    assert CacheWriter(tmp_path / "c", KEY, LENGTHS, (2, 3), "float32").done == {0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_numbered_dataset(tmp_path_factory.mktemp("frames") / "d", [13, 40, 21], fps=30))


def test_cached_frames_are_those_of_the_control_rate(tmp_path: Path, source: Dataset) -> None:
    told: list[tuple[int, int]] = []
    cache = cache_frames(
        source, tmp_path / "c", rate=10, size=16, workers=1, progress=lambda done, of: told.append((done, of))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    for episode in (0, 1, 2):
        expected = resample(source, episode, 10).frame_indices + 100 * episode
        assert cache[episode].shape == (len(expected), 16, 16, 3) and cache[episode].dtype == np.uint8
        assert numbers_in(cache[episode]) == expected.tolist()


def test_a_finished_cache_is_opened_again_without_decoding(tmp_path: Path, source: Dataset) -> None:
    cache_frames(source, tmp_path / "c", rate=10, size=(16, 24), episodes=[2, 0], workers=1)
    again = open_dataset(source.root)
    assert cache_frames(again, tmp_path / "c", rate=10, size=(16, 24), episodes=[0], workers=1).episodes == [0, 2]
    assert again.num_decoded == 0
    with pytest.raises(DataError, match="model_hash: expected 'area/head/16x16', found 'area/head/16x24'"):
        cache_frames(source, tmp_path / "c", rate=10, size=16)
    assert frames_key(source, rate=10, size=16) != frames_key(source, rate=5, size=16)


def test_several_processes_make_the_same_cache(tmp_path: Path, source: Dataset) -> None:
    one = cache_frames(source, tmp_path / "one", rate=10, size=16, workers=1)
    two = cache_frames(source, tmp_path / "two", rate=10, size=16, workers=2)
    for file in ("rows.bin", "valid.bin", "cache.json"):
        assert (one.path / file).read_bytes() == (two.path / file).read_bytes()
