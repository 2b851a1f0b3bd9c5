"""Streamed video is what caches hold; a batch follows from seed and step alone; what does not decode is named."""

import pickle

import numpy as np
import pytest
import torch

from dreamdojo.dataset import stream as module
from dreamdojo.dataset.frames import cache_frames
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.stream import EpisodeStream, MovingPool
from dreamdojo.dataset.windows import Source, WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.remote import StorageError
from tests.dataset.toy import write_numbered_dataset
from tests.video.numbered import numbers_in

LENGTHS = [30, 17, 25, 40, 12]
ROW = 32 * 32 * 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_numbered_dataset(tmp_path_factory.mktemp("d") / "d", LENGTHS)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 8)


def stream(root, *, segments=8, **settings):
    dataset = open_dataset(root)
    indices = [episode.index for episode in dataset.episodes]
    given = {"rate": 10, "size": 32, "memory": segments * 8 * ROW, "workers": 2} | settings
    return EpisodeStream(dataset, indices, **given)


def sampler(episodes, *, lanes=1, batch=4, seed=0, length=3):
    source = Source(embodiment="human", episodes=episodes)
    return WindowSampler([source], length=length, batch_size=batch, seed=seed, lanes=lanes)


def drawn(batches, step):
    return [numbers_in(np.moveaxis(window, 1, -1)) for window in batches(step).cat("frames").numpy()]


@pytest.mark.parametrize("rate", [10, 5])
def test_what_is_streamed_is_what_a_cache_holds(tmp_path, root, short, rate):
    streamed = stream(root, rate=rate)
    cached = cache_frames(streamed.dataset, tmp_path / "c", rate=rate, size=32, workers=1)
    for index in range(len(LENGTHS)):
        parts = [streamed[i]["frames"] for i, part in enumerate(streamed.segments) if part.episode == index]
        np.testing.assert_array_equal(np.concatenate(parts), np.moveaxis(cached[index], -1, 1))
    streamed.close()


def test_a_batch_is_the_same_whatever_was_drawn_before_and_by_how_many_workers(root, short):
    one, two = sampler(stream(root, workers=1)), sampler(pickle.loads(pickle.dumps(stream(root, workers=3))))
    in_order = [drawn(one, step) for step in range(30)]
    for step in (17, 3, 29, 0):
        assert drawn(two, step) == in_order[step]
    assert in_order[0] != in_order[1] != drawn(sampler(stream(root), seed=1), 1)


def test_windows_are_whole_and_all_are_drawn_alike(root, short):
    streamed = stream(root)
    batches, counts = sampler(streamed, batch=8), {}
    starts = sum(max(rows - 2, 0) for rows in streamed.rows)
    for step in range(20 * starts // 8):
        for window in drawn(batches, step):
            assert np.diff(window).tolist() == [1, 1]
            counts[window[0]] = counts.get(window[0], 0) + 1
    assert len(counts) == starts, "every window is drawn"
    values = np.array(list(counts.values()))
    assert abs(values.mean() / 20 - 1) < 0.05 and values.min() > 4 and values.max() < 50


def test_only_the_segments_at_hand_are_in_memory(root, short):
    streamed = stream(root, segments=8)
    batches = sampler(streamed)
    for step in range(20):
        batches(step)
        assert len(streamed._held) <= 8
    with pytest.raises(ConfigError, match=r"memory for 4 segments of 8 frames of 32 x 32"):
        stream(root, segments=2)


def test_micro_batches_share_out_the_segments_whoever_computes_them(root, short):
    """Rank r of two computes the micro-batches r, r + 2, ...: it decodes what they need, and the same comes out."""
    alone = sampler(stream(root), lanes=2)
    batches = [drawn(alone, number) for number in range(4)]
    ranks = [stream(root), stream(root)]
    for rank, streamed in enumerate(ranks):
        mine, seen = sampler(streamed, lanes=2), set()
        for number in range(rank, 4, 2):
            assert drawn(mine, number) == batches[number]
            seen |= set(streamed._held)
        ranks[rank] = seen
    assert not ranks[0] & ranks[1], "an epoch is cut in two, and neither has come to the end of its part"


def test_a_pool_opens_few_files_at_a_time_and_goes_through_all():
    files = np.repeat(np.arange(40), 5)
    pool = MovingPool(files, np.ones(200, bool), size=20, lanes=1, seed=(0, 0), spread=4)
    open_at_once = [len(set(files[pool.at(step, 1.0, 0)[0]])) for step in range(200)]
    assert max(open_at_once) <= 8, "those of two blocks, where one follows the other"
    everything = {int(place) for step in range(0, 181, 20) for place in pool.at(step, 1.0, 0)[0]}
    assert everything == set(range(200))
    assert pool.at(0, 1.0, 0)[0].tolist() != pool.at(200, 1.0, 0)[0].tolist(), "another epoch, another order"


def test_sources_that_stream_are_mixed_by_weight(root, short):
    sources = [
        Source(embodiment="a", episodes=stream(root), weight=3),
        Source(embodiment="b", episodes=[{"frames": np.zeros((9, 3, 32, 32), np.uint8)}], weight=1),
    ]
    batch = WindowSampler(sources, length=2, batch_size=200, seed=0)(5)
    assert 130 < len(batch.by_embodiment["a"]["frames"]) < 170


@pytest.fixture
def torn(tmp_path):
    """Three episodes in one file, of which the second is damaged."""
    dataset = write_numbered_dataset(tmp_path / "torn", [20, 20, 20])
    path = next(dataset.rglob("*.mp4"))
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    third = start + (len(data) - start) // 3
    data[third : third + 600] = bytes(600)
    path.write_bytes(bytes(data))
    return dataset


def test_a_corrupt_episode_stops_the_run_with_its_name(torn):
    batches = sampler(stream(torn, segments=40), batch=16)
    with pytest.raises(DataError, match=r"(?s)(episode|video).*--skip-corrupt"):
        for step in range(20):
            batches(step)


def test_a_corrupt_episode_is_left_out_counted_and_named_where_the_user_says_so(torn):
    told = []
    streamed = stream(torn, segments=40, on_unreadable=told.append)
    batches = sampler(streamed, batch=16)
    seen = {number // 100 for step in range(20) for window in drawn(batches, step) for number in window}
    assert len(told) == len(streamed.unreadable) == 1
    bad = told[0]
    assert bad.dataset == str(torn) and bad.reason and bad.episode not in seen and len(seen) == 2
    again = sampler(stream(torn, segments=40, on_unreadable=told.append), batch=16)
    torch.testing.assert_close(again(7).cat("frames"), batches(7).cat("frames"))


def test_a_storage_that_fails_never_counts_as_a_corrupt_episode(root, monkeypatch):
    def failing(*_: object) -> np.ndarray:
        raise StorageError("the disk is away")

    told = []
    streamed = stream(root, segments=40, on_unreadable=told.append)
    monkeypatch.setattr(module, "decode_rows", failing)
    with pytest.raises(StorageError, match="the disk is away"):
        sampler(streamed)(0)
    assert not told


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_only_when_nobody_looks_at_it(root, short):
    streamed = stream(root)
    first = streamed[0]["frames"]
    copied = first.copy()
    for place in range(len(streamed)):
        streamed.hold([place])
        streamed.readable(place)
    np.testing.assert_array_equal(first, copied)
    taken = {address(streamed[place]["frames"]) for place in range(len(streamed)) if not streamed.hold([place])}
    assert len(taken) < len(streamed) and address(first) not in taken
