"""Damaged files: an error of ours that says what and where, or what was written; never another error, never a hang.

A changed byte inside compressed pictures may decode to other pixels: no reader can tell, so of videos only shapes are
compared. Tables carry checksums, so of those the numbers are.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dreamdojo.dataset.cache import CacheKey, CacheWriter, open_cache
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.errors import DreamDojoError
from dreamdojo.files import folder_written_whole, write_json, written_whole
from dreamdojo.video import VideoReader, look_at, look_at_keyframes, probe, read_packets
from tests.dataset.toy import BODY, write_numbered_dataset

LENGTHS = [12, 9]
KEY = CacheKey(kind="latent", dataset_hash="d1", model_hash="m1", rate=10.0, gap=0)
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Change = Callable[[bytes], bytes]


def changes() -> st.SearchStrategy[Change]:
    """Ways in which a file goes wrong: cut short, bytes changed, a stretch of zeros, bytes put in, nothing left."""
    place = st.floats(0, 1, exclude_max=True)

    def cut(at: float) -> Change:
        return lambda data: data[: int(at * len(data))]

    def flip(at: float, bit: int) -> Change:
        def change(data: bytes) -> bytes:
            position = int(at * len(data))
            return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]

        return change

    def zeros(at: float, count: int) -> Change:
        def change(data: bytes) -> bytes:
            position = int(at * len(data))
            return data[:position] + bytes(min(count, len(data) - position)) + data[position + count :]

        return change

    def put_in(at: float, extra: bytes) -> Change:
        return lambda data: data[: int(at * len(data))] + extra + data[int(at * len(data)) :]

    return st.one_of(
        st.builds(cut, place),
        st.builds(flip, place, st.integers(0, 7)),
        st.builds(zeros, place, st.integers(1, 400)),
        st.builds(put_in, place, st.binary(min_size=1, max_size=20)),
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def json_changes(draw: st.DrawFn) -> Change:
    """One value somewhere in a JSON file replaced or left out."""
    where, value, remove = draw(st.integers(0, 10**6)), draw(JSON_VALUES), draw(st.booleans())

    def change(data: bytes) -> bytes:
        tree = json.loads(data)
        places: list[tuple[dict | list, object]] = []

        def walk(node: object) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
                places.append((node, key))  # type: ignore[arg-type]
                walk(node[key])  # type: ignore[index]

        walk(tree)
        node, key = places[where % len(places)]
        if remove:
            del node[key]  # type: ignore[arg-type]
        else:
            node[key] = value  # type: ignore[index,call-overload]
        return json.dumps(tree).encode()

    return change


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered_dataset(tmp_path_factory.mktemp("whole") / "d", LENGTHS)


def read_all(dataset: Dataset) -> list[np.ndarray]:
    """Everything a dataset gives, and that it has the form it promises."""
    found: list[np.ndarray] = []
    repr(dataset), dataset.hash, dataset.stats
    for episode in dataset.episodes:
        found += [dataset.actions(episode.index), dataset.states(episode.index), dataset.timestamps(episode.index)]
        assert all(len(values) == episode.length and np.isfinite(values).all() for values in found[-3:])
        frames = dataset.frames(episode.index, [0, episode.length - 1])
        assert frames.shape[0] == 2 and frames.shape[-1] == 3 and frames.dtype == np.uint8
    return found


def damaged(whole: Path, tmp_path: Path, name: str, change: Change) -> Path:
    root = tmp_path / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole, root)
    path = next(
        path for path in sorted(root.rglob("*")) if path.is_file() and name in path.relative_to(root).as_posix()
    )
    path.write_bytes(change(path.read_bytes()))
    return root


def read_or_refuse(root: Path) -> list[np.ndarray] | None:
    """What can be read; None where it is refused in words."""
    try:
        dataset = open_dataset(root)
        try:
            return read_all(dataset)
        finally:
            dataset.close()
    except DreamDojoError as error:
        assert len(str(error)) > 20
        return None


@pytest.mark.parametrize(
    "name",
    ["meta/info.json", "meta/stats.json", "meta/embodiment.json", "meta/episodes", "meta/tasks", "data/", "videos/"],
)
@given(change=changes())
@QUICK
def test_a_damaged_file_of_a_dataset_is_refused_or_harmless(
    whole: Path, tmp_path: Path, name: str, change: Change
) -> None:
    found = read_or_refuse(damaged(whole, tmp_path, name, change))
    if found is not None and name == "data/":
        for mine, theirs in zip(found, read_all(open_dataset(whole)), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/stats.json", "meta/embodiment.json"])
@given(change=json_changes())
@settings(QUICK, max_examples=60)
def test_a_value_of_the_wrong_kind_in_the_meta_is_refused_or_harmless(
    whole: Path, tmp_path: Path, name: str, change: Change
) -> None:
    read_or_refuse(damaged(whole, tmp_path, name, change))


@given(change=changes())
@example(change=lambda data: data.replace(b"avc1", b"zzzz"))
@QUICK
def test_every_way_of_reading_a_damaged_video_refuses_it_or_gives_frames(
    whole: Path, tmp_path: Path, change: Change
) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(change(next(whole.rglob("*.mp4")).read_bytes()))

    def sweep() -> None:
        with VideoReader(path) as reader:
            for frame in reader:
                assert frame.image.shape == (32, 32, 3) or frame.image.ndim == 3

    ways: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: read_packets(path),
        sweep,
        lambda: list(look_at(path, [0.0, 0.7, 1.5], gap=0.2, long_side=32)),
        lambda: list(look_at_keyframes(path, every=0.5, long_side=32)),
    ]
    for way in ways:
        try:
            way()
        except DreamDojoError as error:
            assert str(path) in str(error)


@given(value=st.dictionaries(st.sampled_from(["name", "action", "state", "slot", "else"]), JSON_VALUES))
@example(value={"name": "x", "action": [{"name": 3}], "state": []})
@example(value={"name": "x", "action": [{**BODY.to_dict()["action"][0], "low": [float("nan"), "a"]}], "state": []})
@QUICK
def test_what_is_not_an_embodiment_is_refused(value: dict) -> None:
    try:
        Embodiment.from_dict(value).normalize_action(np.zeros((1, 2), np.float32))
    except DreamDojoError:
        return


def fill(path: Path) -> None:
    with CacheWriter(path, KEY, {0: 3, 2: 4}, (2,), "float32") as writer:
        for episode, length in ((0, 3), (2, 4)):
            if episode not in writer.done:
                writer.write(episode, np.full((length, 2), episode + 1, np.float32))


def check_cache(path: Path) -> None:
    cache = open_cache(path, KEY)
    for episode, length in ((0, 3), (2, 4)):
        if cache[episode].shape != (length, 2) or cache.valid(episode).shape != (length,):
            raise AssertionError("another shape than the key's")


@pytest.mark.parametrize("name", ["cache.json", "rows.bin", "valid.bin"])
@given(change=st.one_of(changes(), json_changes()))
@QUICK
def test_a_damaged_cache_is_refused_or_has_its_rows(tmp_path: Path, name: str, change: Change) -> None:
    path = tmp_path / "c"
    shutil.rmtree(path, ignore_errors=True)
    fill(path)
    data = (path / name).read_bytes()
    try:
        (path / name).write_bytes(change(data))
    except ValueError:  # a change of JSON for what is none
        return
    try:
        cache = open_cache(path, KEY)
        for episode in cache.episodes:
            assert len(cache[episode]) == len(cache.valid(episode))
    except DreamDojoError as error:
        assert len(str(error)) > 20


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed at its `count`th change of a file system; whether it came to its end."""
    child = os.fork()
    if child == 0:
        left = [count]

        def hook(event: str, arguments: tuple) -> None:
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def at_every_kill(folder: Path, work: Callable[[Path], object], check: Callable[[Path], object]) -> int:
    """Kill the work at each change, then do it again: what appears is whole, at once or never. Returns the kills."""
    for count in range(10_000):
        path = folder / str(count) / "out"
        path.parent.mkdir()
        finished = killed_at(count, lambda path=path: work(path))
        if path.exists():
            check(path)
        else:
            assert not finished
            work(path)
            check(path)
        if finished:
            return count
    raise AssertionError("it never ends")


def test_a_cache_writer_that_is_killed_anywhere_goes_on_and_ends_whole(tmp_path: Path) -> None:
    assert at_every_kill(tmp_path, fill, check_cache) > 8


def test_a_dataset_writer_that_is_killed_anywhere_leaves_no_dataset_or_a_whole_one(tmp_path: Path) -> None:
    def check(path: Path) -> None:
        assert [len(values) for values in read_all(open_dataset(path))] == [5, 5, 5, 4, 4, 4]

    kills = at_every_kill(tmp_path, lambda path: write_numbered_dataset(path, [5, 4]), check)
    assert kills > 15


def test_files_and_folders_written_whole_are_whole_or_as_before(tmp_path: Path) -> None:
    def folder(path: Path) -> None:
        with folder_written_whole(path) as building:
            for name in "ab":
                (building / name).write_text("whole")

    (tmp_path / "folders").mkdir()
    assert at_every_kill(tmp_path / "folders", folder, _has_both) > 3
    target = tmp_path / "f.json"
    write_json(target, {"v": 0})
    for count in range(20):
        if killed_at(count, lambda: write_json(target, {"v": 1})):
            break
        assert json.loads(target.read_text()) in ({"v": 0}, {"v": 1})
    with written_whole(target) as part:
        part.write_text('{"v": 2}')
    assert json.loads(target.read_text()) == {"v": 2}


def _has_both(path: Path) -> None:
    assert [(path / name).read_text() for name in "ab"] == ["whole", "whole"]
