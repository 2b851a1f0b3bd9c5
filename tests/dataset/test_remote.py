"""A dataset elsewhere reads as one here does; its cache is bounded, whole, and shared by processes."""

import functools
import http.server
import multiprocessing
import pickle
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dreamdojo import remote as module
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import DataError, MissingDependencyError
from dreamdojo.remote import FileCache, StorageError
from tests.dataset.toy import write_numbered_dataset
from tests.video.numbered import numbers_in

LENGTHS = [12, 9, 15]


class StandInHub(MemoryFileSystem):
    """What `hf://` is to a dataset: listing, sizes, whole files; and it can fail."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    failures = 0
    fetched: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("hf://"))

    def get_file(self, rpath, lpath, **kwargs):
        if StandInHub.failures:
            StandInHub.failures -= 1
            Path(lpath).write_bytes(b"half")
            raise ConnectionError("the hub hung up")
        StandInHub.fetched.append(rpath)
        return super().get_file(rpath, lpath, **kwargs)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return write_numbered_dataset(tmp_path_factory.mktemp("d") / "pushes", LENGTHS)


@pytest.fixture
def hub(here, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    fsspec.register_implementation("hf", StandInHub, clobber=True)
    StandInHub.store.clear()
    StandInHub.pseudo_dirs[:] = [""]
    StandInHub.failures, StandInHub.fetched = 0, []
    StandInHub().put(str(here), "/datasets/org/pushes", recursive=True)
    yield "hf://datasets/org/pushes"
    from huggingface_hub import HfFileSystem

    fsspec.register_implementation("hf", HfFileSystem, clobber=True)


def cache(tmp_path, limit=10**9):
    return FileCache(folder=tmp_path / "cache", limit=limit)


@pytest.fixture
def server(here):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(here.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/pushes"
        serving.shutdown()


def assert_same(remote, here):
    local = open_dataset(here)
    assert [e for e in remote.episodes] == local.episodes and remote.embodiment == local.embodiment
    for index, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(remote.actions(index), local.actions(index))
        assert numbers_in(remote.frames(index, [length - 1, 0])) == [100 * index + length - 1, 100 * index]


@pytest.mark.parametrize("scheme", ["memory", "file", "hf"])
def test_a_dataset_elsewhere_reads_as_one_here(tmp_path, here, hub, scheme):
    url = {"memory": "memory://far/pushes", "file": f"file://{here}", "hf": hub}[scheme]
    if scheme == "memory":
        fsspec.filesystem("memory").put(str(here), "/far/pushes", recursive=True)
    dataset = open_dataset(url, cache=cache(tmp_path))
    assert_same(dataset, here)
    assert_same(pickle.loads(pickle.dumps(dataset)), here)
    with pytest.raises(DataError, match="Copy it here first"):
        dataset.video_of(0)


def test_a_plain_web_server_will_do(tmp_path, here, server):
    pytest.importorskip("aiohttp")
    assert_same(open_dataset(server, cache=cache(tmp_path)), here)


def test_opening_fetches_the_meta_only_and_reading_fetches_a_file_once(tmp_path, here, hub):
    dataset = open_dataset(hub, cache=cache(tmp_path))
    assert all("/meta/" in name for name in StandInHub.fetched)
    dataset.frames(0, [0])
    dataset.frames(1, [0])
    open_dataset(hub, cache=cache(tmp_path)).frames(2, [0])
    assert len([name for name in StandInHub.fetched if name.endswith(".mp4")]) == 1
    assert len([name for name in StandInHub.fetched if "/meta/" in name]) == 5


def test_a_changed_dataset_is_another_one(tmp_path, here, hub):
    before = open_dataset(hub, cache=cache(tmp_path))
    data = StandInHub().cat_file("/datasets/org/pushes/data/chunk-000/file-000.parquet")
    StandInHub().pipe_file("/datasets/org/pushes/data/chunk-000/file-000.parquet", data + b" ")
    after = open_dataset(hub, cache=cache(tmp_path))
    assert before.hash != after.hash and before.root != after.root


def test_a_storage_that_fails_twice_is_asked_a_third_time_and_leaves_no_half_file(tmp_path, here, hub):
    StandInHub.failures = 2
    dataset = open_dataset(hub, cache=cache(tmp_path))
    StandInHub.failures = 3
    with pytest.raises(StorageError, match=r"pushes/data.*ConnectionError: the hub hung up, 3 times"):
        dataset.actions(0)
    assert not [path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_file()]
    assert_same(dataset, here)


@pytest.mark.parametrize("stalled", [1, 2, 3])
def test_a_fetch_that_stalls_is_begun_again_beside_and_the_first_whole_one_counts(tmp_path, monkeypatch, stalled):
    go_on, begun = threading.Event(), []

    def fetch(copy):
        begun.append(copy)
        late = len(begun) <= stalled
        with copy.open("wb", buffering=0) as file:
            file.write(b"be")
            if late:
                go_on.wait(30)
            file.write(b"late" if late else b"fore")

    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    release = threading.Timer(1.0, go_on.set)
    release.start()
    module._first_whole(fetch, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == (b"belate" if stalled == 3 else b"before")
    assert len(begun) == min(stalled + 1, 3) and [path.name for path in tmp_path.iterdir()] == ["file"]
    release.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_fetch_that_is_slow_but_goes_on_is_not_begun_again(tmp_path, monkeypatch):
    begun = []

    def fetch(copy):
        begun.append(copy)
        with copy.open("ab", buffering=0) as file:
            for _ in range(40):
                file.write(b"x")
                time.sleep(0.02)

    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    module._first_whole(fetch, tmp_path / "file")
    assert len(begun) == 1 and (tmp_path / "file").stat().st_size == 40


def test_the_cache_keeps_to_its_size_by_forgetting_what_was_used_longest_ago(tmp_path, here):
    system = fsspec.filesystem("memory")
    for name in "abc":
        system.put(str(here), f"/{name}", recursive=True)
    sizes = [path.stat().st_size for path in here.rglob("*") if path.suffix == ".mp4"]
    small = cache(tmp_path, limit=int(2.5 * sizes[0]))
    datasets = {name: open_dataset(f"memory://{name}", cache=small) for name in "abc"}

    def kept():
        files = [path for path in (tmp_path / "cache" / "files").rglob("*.mp4")]
        assert sum(path.stat().st_size for path in files) <= small.limit
        return {path.relative_to(tmp_path / "cache" / "files").parts[0][0] for path in files}

    for name in "abac":
        path = datasets[name].place_of(0)
        with datasets[name]._local(path):
            pass
    assert kept() == {"a", "c"}
    with datasets["a"]._local(datasets["a"].place_of(0)), datasets["c"]._local(datasets["c"].place_of(0)):
        with pytest.raises(StorageError, match=r"expected room for .* in use"):  # noqa: SIM117
            with datasets["b"]._local(datasets["b"].place_of(0)):
                pass
        assert kept() == {"a", "c"}, "what is held open stays"
    with pytest.raises(DataError, match=r"at most .* GB, the size of the cache.*DREAMDOJO_CACHE_GB"):
        open_dataset("memory://a", cache=cache(tmp_path / "tiny", limit=100)).frames(0, [0])


def _read(url, folder, limit, start):
    start.wait()
    dataset = open_dataset(url, cache=FileCache(folder=folder, limit=limit))
    for _ in range(3):
        for index, length in enumerate(LENGTHS):
            assert numbers_in(dataset.frames(index, [length - 1])) == [100 * index + length - 1]
            assert len(dataset.actions(index)) == length
        dataset.close()


def test_processes_share_a_cache_that_is_too_small_for_all(tmp_path, here):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    limit = 3 * max(path.stat().st_size for path in here.rglob("*") if path.is_file()) + 10_000
    urls = []
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(here)
        urls.append(f"file://{tmp_path / name}")
    readers = [
        context.Process(target=_read, args=(urls[number % 2], tmp_path / "cache", limit, start)) for number in range(4)
    ]
    for reader in readers:
        reader.start()
    start.set()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0] * 4
    left = [path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) <= limit and not [path for path in left if "partial" in path.name]


def test_what_is_not_a_dataset_or_not_an_address_is_told(tmp_path, hub):
    with pytest.raises(DataError, match=r"expected meta/info.json there"):
        open_dataset("hf://datasets/org/pushes/data", cache=cache(tmp_path))
    with pytest.raises(DataError, match="expected an address that fsspec can open"):
        open_dataset("nowhere://x", cache=cache(tmp_path))
    with pytest.raises(MissingDependencyError, match="Install that package"):
        open_dataset("s3://bucket/x", cache=cache(tmp_path))
