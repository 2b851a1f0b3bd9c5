"""The published bodies and their window: every number against a slow formula, and both sides of every switch."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dreamdojo import stages
from dreamdojo.commands import Posttrain
from dreamdojo.dataset.cache import CacheKey, CacheWriter, open_cache
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.published import (
    ACTION_WIDTH,
    LATENT_ACTION_SLOT,
    PUBLISHED_BODIES,
    PUBLISHED_SAMPLING,
    RESERVED_SLOT,
    find_body,
    in_reserved_slot,
    lam_pairs,
    published_pictures,
    published_starts,
    published_window,
)
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.split import split_episodes
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, encode_episode
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.presets import NANO
from dreamdojo.stages import Episodes, Run
from dreamdojo.training.checkpoint import from_plain
from dreamdojo.training.device import Compute
from dreamdojo.video import VideoCodec, encode
from tests.dataset.test_versions import GR1, needs_gr1
from tests.video.numbered import numbered, numbers_in

RANGES = Path(__file__).resolve().parents[3] / "shared/oracle/normalization_ranges.json"
LENGTHS = (60, 56)
COLUMNS = {"gr1": (44, 44), "gr1_human": (1030, 62), "g1": (43, 43), "yam": (46, 46), "agibot": (22, 20)}
FPS = 20
ROBOTS = ("gr1", "g1", "yam", "agibot")


def action_value(row: int, column: int) -> float:
    """Not a straight line, so that a base at the wrong step shows."""
    return 1e-4 * row * row + 1e-3 * column - 0.01 * row


def state_value(row: int, column: int) -> float:
    return 1e-3 * row - 2e-3 * column


def write_published(root: Path, body: str, *, lengths: tuple[int, ...] = LENGTHS, late: bool = False) -> Path:
    """LeRobot v2.0 as the published loader reads it; `late` counts time from the end of a frame."""
    key = f"observation.images.{PUBLISHED_SAMPLING[body].camera}"
    widths = dict(zip(("action", "observation.state"), COLUMNS[body], strict=True))
    for index, length in enumerate(lengths):
        data = root / f"data/chunk-000/episode_{index:06d}.parquet"
        video = root / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
        data.parent.mkdir(parents=True, exist_ok=True)
        video.parent.mkdir(parents=True, exist_ok=True)
        rows, values = np.arange(length), (action_value, state_value)
        columns = {
            name: pa.array([[value(r, c) for c in range(width)] for r in rows], pa.list_(pa.float64()))
            for (name, width), value in zip(widths.items(), values, strict=True)
        }
        columns["timestamp"] = pa.array((rows + late) / FPS)
        columns["episode_index"] = pa.array(np.full(length, index))
        pq.write_table(pa.table(columns), data)
        encode(video, numbered(100 * index + rows, 36, 48), FPS, VideoCodec(preset="veryfast"))
    info = {
        "codebase_version": "v2.0",
        "fps": FPS,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            **{name: {"dtype": "float64", "shape": [width], "names": None} for name, width in widths.items()},
            key: {"dtype": "video", "shape": [36, 48, 3], "names": ["height", "width", "channel"]},
            "timestamp": {"dtype": "float64", "shape": [1], "names": None},
            "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        },
    }
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = [json.dumps({"episode_index": i, "tasks": ["reach"], "length": n}) + "\n" for i, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {body: write_published(root / body, body) for body in PUBLISHED_BODIES}


@pytest.fixture(scope="module")
def datasets(roots: dict[str, Path]) -> dict[str, Dataset]:
    return {body: open_dataset(root, embodiment=find_body(body)) for body, root in roots.items()}


def slow_normal(fields: tuple[Field, ...], value, row: int) -> list[float]:
    """One row, number by number, from the columns of the dataset."""
    numbers = []
    for field in fields:
        for column, low, high in zip(range(*field.source), field.low, field.high, strict=True):
            numbers.append(0.0 if low == high else 2 * (value(row, column) - low) / (high - low) - 1)
    return numbers


def slow_actions(body: Embodiment, length: int, start: int, stride: int) -> np.ndarray:
    """The 12 rows, from the 14 steps of the notes: row t - 1 is step t minus step 0, 4 or 8."""
    step = [slow_normal(body.action, action_value, min(max(start + stride * t, 0), length - 1)) for t in range(14)]
    rows = np.zeros((12, 384))
    for t in range(1, 13):
        base = 0 if t <= 4 else 4 if t <= 8 else 8
        for column in range(len(step[t])):
            rows[t - 1, body.slot + column] = step[t][column] - step[base][column]
    return rows


def test_the_ranges_are_those_of_the_release() -> None:
    if not RANGES.is_file():
        pytest.skip("the extracted ranges (shared/oracle/normalization_ranges.json) are not here")
    release = json.loads(RANGES.read_text())
    assert set(release) == set(PUBLISHED_BODIES)
    for name, parts in release.items():
        body = PUBLISHED_BODIES[name]
        for fields, part in ((body.action, parts["action"]), (body.state, parts["state"])):
            assert [[field.name, *field.source] for field in fields] == part["concat"]
            assert [value for field in fields for value in field.low] == part["min"]
            assert [value for field in fields for value in field.high] == part["max"]


def test_widths_slots_and_sampling_are_the_published_ones() -> None:
    found = {
        name: (body.action_dim, body.state_dim, body.slot, PUBLISHED_SAMPLING[name].stride)
        for name, body in PUBLISHED_BODIES.items()
    }
    assert found == {
        "gr1": (29, 29, 0, 2),
        "gr1_human": (29, 29, None, 2),
        "g1": (43, 43, 58, 2),
        "yam": (46, 46, 101, 4),
        "agibot": (22, 20, 147, 4),
    }
    cameras = {name: sampling.camera for name, sampling in PUBLISHED_SAMPLING.items()}
    assert cameras == {
        "gr1": "ego_view_freq20",
        "gr1_human": "ego_view_freq20",
        "g1": "ego_view",
        "yam": "top_camera-images-rgb",
        "agibot": "top_head",
    }
    assert all(body.relative for body in PUBLISHED_BODIES.values())
    assert all(field.resampling == "first" for body in PUBLISHED_BODIES.values() for field in body.action)
    ends = sorted(
        (body.slot, body.slot + body.action_dim) for body in PUBLISHED_BODIES.values() if body.slot is not None
    )
    assert ends == [(0, 29), (58, 101), (101, 147), (147, 169)] and RESERVED_SLOT.start == 169
    assert (LATENT_ACTION_SLOT.start, LATENT_ACTION_SLOT.stop, ACTION_WIDTH) == (352, 384, 384)


def test_normalisation_by_hand() -> None:
    """GR-1's first left arm joint runs from -2.291 to 1.046, so its middle is 0; a constant joint is 0."""
    body = find_body("gr1")
    action = np.zeros((2, 29), np.float32)
    action[:, 0] = (1.046176552772522 - 2.291214942932129) / 2, 1.046176552772522
    np.testing.assert_allclose(body.normalize_action(action)[:, 0], [0, 1], atol=1e-6)
    human = find_body("gr1_human")
    assert (human.normalize_action(np.full((2, 29), 7.0))[:, 26:] == 0).all()
    with pytest.raises(DataError, match=r"gr1 takes states of width 29 .*, got 44"):
        body.normalize_state(np.zeros(44))


@pytest.mark.parametrize("name", PUBLISHED_BODIES)
def test_a_wide_column_is_read_field_by_field_in_declared_order(datasets: dict[str, Dataset], name: str) -> None:
    dataset, body = datasets[name], PUBLISHED_BODIES[name]
    columns = [column for field in body.action for column in range(*field.source)]
    np.testing.assert_allclose(dataset.actions(1)[7], [action_value(7, c) for c in columns], rtol=1e-6)
    columns = [column for field in body.state for column in range(*field.source)]
    np.testing.assert_allclose(dataset.states(1)[7], [state_value(7, c) for c in columns], rtol=1e-6)
    if name == "gr1":
        assert columns == [*range(7), *range(22, 29), *range(7, 13), *range(29, 35), *range(41, 44)]


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize(("episode", "start"), [(0, 3), (1, 0), (1, 30), (0, -4)])
def test_a_robots_window_is_the_slow_formula(datasets: dict[str, Dataset], name: str, episode: int, start: int) -> None:
    dataset, body = datasets[name], PUBLISHED_BODIES[name]
    stride, length = PUBLISHED_SAMPLING[name].stride, LENGTHS[episode]
    window = published_window(dataset, body, episode, start)
    seen = [min(max(start + stride * t, 0), length - 1) for t in range(1, 14)]
    assert numbers_in(np.moveaxis(window.frames, 1, -1)) == [100 * episode + row for row in seen]
    expected = slow_actions(body, length, start, stride)
    np.testing.assert_allclose(window.actions, expected, atol=2e-6)
    assert np.abs(expected).max() > 0.01 and not window.actions[:, LATENT_ACTION_SLOT].any()
    state = slow_normal(body.state, state_value, min(max(start, 0), length - 1))
    np.testing.assert_allclose(window.state, state, atol=2e-6)

    faulty = published_window(dataset, body, episode, start, reference_compatible=True)
    expected[0, : min(29, len(state))] = state[:29]
    np.testing.assert_allclose(faulty.actions, expected, atol=2e-6)
    np.testing.assert_array_equal(faulty.actions[1:], window.actions[1:])
    assert not np.allclose(faulty.actions[0], window.actions[0])
    np.testing.assert_array_equal(faulty.frames, window.frames)


def test_before_the_first_frame_the_first_command_is_repeated(datasets: dict[str, Dataset]) -> None:
    window = published_window(datasets["gr1"], find_body("gr1"), 0, -2)
    assert numbers_in(np.moveaxis(window.frames[:1], 1, -1)) == [0]
    assert not window.actions[0].any() and window.actions[1].any()


def test_human_video_has_ones_in_the_latent_slot_and_nothing_else(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["gr1_human"]
    window = published_window(dataset, find_body("gr1_human"), 1, 5)
    assert (window.actions[:, 352:] == 1).all() and not window.actions[:, :352].any()
    assert numbers_in(np.moveaxis(window.frames, 1, -1)) == list(range(107, 133, 2))
    faulty = published_window(dataset, find_body("gr1_human"), 1, 5, reference_compatible=True)
    state = slow_normal(find_body("gr1_human").state, state_value, 5)
    np.testing.assert_allclose(faulty.actions[0, :29], state, atol=2e-6)
    np.testing.assert_array_equal(faulty.actions[1:], window.actions[1:])
    np.testing.assert_array_equal(faulty.actions[0, 29:], window.actions[0, 29:])


@pytest.mark.parametrize("body", [None, Embodiment(name="human")])
def test_plain_video_is_thirteen_consecutive_frames(datasets: dict[str, Dataset], body: Embodiment | None) -> None:
    for compatible in (False, True):
        window = published_window(datasets["gr1"], body, 0, 9, reference_compatible=compatible)
        assert numbers_in(np.moveaxis(window.frames, 1, -1)) == list(range(9, 22))
        assert window.state is None
        assert (window.actions[:, 352:] == 1).all() and not window.actions[:, :352].any()


def test_only_plain_video_is_resized_in_bytes_and_only_when_compatible(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["gr1"]
    source = dataset.frames(0, range(9, 22))
    fine, coarse = published_pictures(source), published_pictures(source, in_bytes=True)
    assert (fine != coarse).any()
    for body, compatible, start, expected in (
        (None, False, 9, fine),
        (None, True, 9, coarse),
        (find_body("gr1"), False, 8, fine),
        (find_body("gr1"), True, 8, fine),
    ):
        window = published_window(dataset, body, 0, start, stride=1, reference_compatible=compatible)
        np.testing.assert_array_equal(window.frames, expected)


def test_pairs_are_neighbours_at_half_the_size(datasets: dict[str, Dataset]) -> None:
    window = published_window(datasets["yam"], find_body("yam"), 0, 0)
    pairs = window.lam_pairs
    assert pairs.shape == (12, 2, 3, 240, 320) and pairs.dtype == np.float32
    quads = window.frames.reshape(13, 3, 240, 2, 320, 2).astype(np.float64).mean(axis=(3, 5)) / 255
    np.testing.assert_allclose(pairs[:, 0], quads[:-1], atol=1e-6)
    np.testing.assert_allclose(pairs[:, 1], quads[1:], atol=1e-6)


def test_pairs_average_no_further_than_two_pixels() -> None:
    """Without anti-aliasing a half-sized pixel is the mean of its own four and of no neighbour."""
    frames = np.zeros((2, 3, 480, 640), np.uint8)
    frames[1, :, 10, 20] = 255
    pairs = lam_pairs(frames)
    assert pairs[0, 1, 0, 5, 10] == pytest.approx(0.25) and (pairs > 0).sum() == 3


def test_pictures_are_averaged_with_a_triangle_of_four_and_truncated() -> None:
    """At half the size the weights are 1 3 3 1 over 8: beside an edge from 10 to 16 stand 10.75 and 15.25."""
    frames = np.full((2, 960, 1280, 3), 10, np.uint8)
    frames[1, :, 640:] = 16
    shown = published_pictures(frames)
    assert shown.shape == (2, 3, 480, 640) and (shown[0] == 10).all()
    assert shown[1, 2, 100, 317:323].tolist() == [10, 10, 10, 15, 16, 16]
    in_bytes = published_pictures(frames, in_bytes=True)
    assert in_bytes[1, 2, 100, 317:323].tolist() == [10, 10, 10, 16, 16, 16], "its own two pixels only"


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(480, 853, 0, 106), (600, 640, 60, 0), (480, 640, 0, 0), (481, 640, 0, 0)]
)
def test_pictures_are_cropped_at_their_centre(height: int, width: int, top: int, left: int) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    kept = frames[:, top : top + 480, left : left + 640].astype(np.float32)
    expected = (kept / np.float32(255) * np.float32(255)).astype(np.uint8)
    np.testing.assert_array_equal(published_pictures(frames), np.moveaxis(expected, -1, 1))


def test_every_grey_level_survives_the_truncation_as_in_the_release() -> None:
    levels = np.arange(256, dtype=np.uint8)
    frames = np.zeros((1, 480, 640, 3), np.uint8)
    frames[0, 0, :256] = levels[:, None]
    through = (torch.from_numpy(levels).float() / 255 * 255).to(torch.uint8).numpy()
    np.testing.assert_array_equal(published_pictures(frames)[0, 0, 0, :256], through)


def test_time_that_counts_from_the_end_of_a_frame_shows_late_frames_only_when_compatible(tmp_path: Path) -> None:
    dataset = open_dataset(write_published(tmp_path / "late", "gr1", lengths=(40,), late=True))
    body = find_body("gr1")
    own, faulty = (published_window(dataset, body, 0, 13, reference_compatible=flag) for flag in (False, True))
    rows = [13 + 2 * t for t in range(1, 14)]
    assert rows[-1] == 39, "the last frame, after which there is none"
    assert numbers_in(np.moveaxis(own.frames, 1, -1)) == rows
    assert numbers_in(np.moveaxis(faulty.frames, 1, -1)) == [min(row + 1, 39) for row in rows]


def test_a_timestamp_column_of_zeros_counts_for_nothing(tmp_path: Path) -> None:
    root = write_published(tmp_path / "zeros", "gr1", lengths=(40,))
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", pa.array(np.zeros(40))), path)
    dataset = open_dataset(root)
    np.testing.assert_allclose(dataset.timestamps(0), np.arange(40) / FPS)
    for compatible in (False, True):
        window = published_window(dataset, find_body("gr1"), 0, 5, reference_compatible=compatible)
        assert numbers_in(np.moveaxis(window.frames, 1, -1)) == [5 + 2 * t for t in range(1, 14)]


def test_windows_are_counted_in_whole_episodes_and_split_by_them(datasets: dict[str, Dataset]) -> None:
    dataset, body = datasets["gr1"], find_body("gr1")
    train, test = split_episodes(dataset, test_fraction=0.5, seed=0)
    of_train, of_test = (published_starts(dataset, body, episodes) for episodes in (train, test))
    assert {episode for episode, _ in of_train}.isdisjoint({episode for episode, _ in of_test})
    assert len(of_train) + len(of_test) == (60 - 26) + (56 - 26)
    assert max(start for episode, start in (*of_train, *of_test) if episode == 0) + 13 * 2 == 59
    assert len(published_starts(dataset, find_body("gr1"), [1], stride=4)) == 56 - 52
    assert len(published_starts(dataset, None, [1])) == 56 - 12
    with pytest.raises(DataError, match=r"at least one episode of 66 frames, the longest of 2 has 60"):
        published_starts(dataset, body, [0, 1], stride=5)


def test_a_window_outside_the_episode_is_refused(datasets: dict[str, Dataset]) -> None:
    for start in (60, -27):
        with pytest.raises(DataError, match="overlaps its frames 0 to 59, got frames"):
            published_window(datasets["gr1"], find_body("gr1"), 0, start)


def further(width: int) -> Embodiment:
    axes = tuple(str(number) for number in range(width))
    field = Field(name="all", axes=axes, unit="1", low=(-1.0,) * width, high=(1.0,) * width)
    return Embodiment(name="further", action=(field,))


def test_a_further_robot_goes_to_the_reserved_columns(datasets: dict[str, Dataset]) -> None:
    body = in_reserved_slot(further(51))
    assert (body.slot, body.relative) == (169, True)
    with pytest.raises(ConfigError, match=r"at most 51 numbers.*169 to 220, got 52"):
        in_reserved_slot(further(52))
    gr1 = dataclasses.replace(find_body("gr1"), name="gr1_of_ours")
    moved, here = in_reserved_slot(gr1), find_body("gr1")
    with pytest.raises(ConfigError, match=r"gr1_of_ours is none of the published .*give its stride"):
        published_window(datasets["gr1"], moved, 0, 0)
    ours = published_window(datasets["gr1"], moved, 0, 0, stride=2)
    theirs = published_window(datasets["gr1"], here, 0, 0)
    np.testing.assert_array_equal(ours.actions[:, 169 : 169 + 29], theirs.actions[:, :29])
    with pytest.raises(ConfigError, match="expected a slot in the wide action, got none"):
        published_window(datasets["gr1"], dataclasses.replace(gr1, slot=None), 0, 0, stride=2)
    with pytest.raises(ConfigError, match="a stride of at least 1"):
        published_window(datasets["gr1"], here, 0, 0, stride=-2)


def test_a_body_that_does_not_fit_the_columns_is_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="published bodies gr1, gr1_human, g1, yam, agibot, got 'gr2'"):
        find_body("gr2")
    with pytest.raises(
        DataError, match=r"read as yam: expected at least 46 numbers in column 'action' \(ee_.*found 44"
    ):
        open_dataset(roots["gr1"], embodiment=find_body("yam"))
    with pytest.raises(DataError, match=r"read as agibot: expected at least 20 numbers in column 'observation.state'"):
        info = write_published(tmp_path / "narrow", "agibot", lengths=(3,)) / "meta/info.json"
        info.write_text(info.read_text().replace('"shape": [20]', '"shape": [19]'))
        open_dataset(tmp_path / "narrow", embodiment=find_body("agibot"))
    with pytest.raises(DataError, match=r"read as g1: expected a column 'action' with left_leg 6, .*found the columns"):
        info.write_text(info.read_text().replace('"action"', '"commands"'))
        open_dataset(tmp_path / "narrow", embodiment=find_body("g1"))


def test_the_modality_file_says_where_the_fields_are(tmp_path: Path) -> None:
    root = write_published(tmp_path / "moved", "agibot", lengths=(3,))
    body = find_body("agibot")
    spans, position = {}, 22
    for field in body.action:
        position -= field.size
        spans[field.name] = {"start": position, "end": position + field.size}
    modality = root / "meta/modality.json"
    modality.write_text(json.dumps({"action": spans}))
    backwards = [c for field in body.action for c in range(spans[field.name]["start"], spans[field.name]["end"])]
    assert backwards != sorted(backwards)
    actions = open_dataset(root, embodiment=body).actions(0)
    np.testing.assert_allclose(actions[2], [action_value(2, column) for column in backwards], rtol=1e-6)
    modality.write_text(json.dumps({"action": {"left_arm": {"start": 0, "end": 22}}}))
    with pytest.raises(DataError, match=r"expected left_arm_joint_position in column 'action' .*found left_arm"):
        open_dataset(root, embodiment=body)
    spans["head_position"]["end"] += 1
    modality.write_text(json.dumps({"action": spans}))
    with pytest.raises(DataError, match=r"expected 2 numbers of head_position .*found columns 4 to 7"):
        open_dataset(root, embodiment=body)


def test_a_declared_body_is_not_overruled(tmp_path: Path) -> None:
    """Rewritten in our own format the fields stand side by side, under the same name and ranges."""
    body, root = find_body("agibot"), tmp_path / "own"
    cameras = {"head": CameraSpec(height=32, width=32)}
    codec = VideoCodec(preset="veryfast")
    shuffled = dataclasses.replace(
        body,
        action=tuple(dataclasses.replace(f, source=(21 - f.source[1] + 1, 22 - f.source[0])) for f in body.action),
    )
    actions = np.arange(66, dtype=np.float32).reshape(3, 22)
    with DatasetWriter(root, fps=10, embodiment=shuffled, cameras=cameras, codec=codec) as writer:
        episode = encode_episode(
            scratch=writer.scratch,
            index=0,
            fps=10,
            cameras=cameras,
            frames={"head": numbered(range(3), 32, 32)},
            columns={"action": actions, "observation.state": np.zeros((3, 20), np.float32)},
            task="",
            codec=codec,
        )
        writer.add(episode)
    dataset = open_dataset(root)
    assert dataset.embodiment == body.side_by_side()
    np.testing.assert_array_equal(dataset.actions(0), actions)
    np.testing.assert_array_equal(open_dataset(root, embodiment=body).actions(0), actions)
    with pytest.raises(DataError, match=r"read as g1, found agibot declared in meta/embodiment\.json"):
        open_dataset(root, embodiment=find_body("g1"))


def test_declarations_of_before_still_load() -> None:
    field = {"name": "arm", "axes": ["x"], "unit": "m", "low": [0.0], "high": [1.0]}
    old = {"name": "old", "action": [{**field, "resampling": "mean", "integrates": None}], "state": []}
    body = Embodiment.from_dict(old)
    assert (body.relative, body.slot, body.action[0].source) == (False, None, None)
    assert from_plain(Embodiment, old) == body
    for known in PUBLISHED_BODIES.values():
        plain = json.loads(json.dumps(known.to_dict()))
        assert Embodiment.from_dict(plain) == known == from_plain(Embodiment, plain)


def test_sources_that_cannot_be_are_refused() -> None:
    placed = find_body("agibot").action[0]
    with pytest.raises(ConfigError, match="expected a source of 7 columns, got columns 3 to 9"):
        dataclasses.replace(placed, source=(3, 9))
    with pytest.raises(ConfigError, match="for every action field or for none, got one for right_arm"):
        pair = (dataclasses.replace(placed, source=None), find_body("agibot").action[1])
        Embodiment(name="half", action=pair)
    with pytest.raises(ConfigError, match="expected a slot from 0 on, got -1"):
        Embodiment(name="negative", slot=-1)


def test_at_a_lower_rate_the_command_at_the_kept_frame_counts(datasets: dict[str, Dataset]) -> None:
    result = resample(datasets["g1"], 1, 10)
    assert result.frame_indices.tolist() == list(range(0, 56, 2)) and result.actions is not None
    np.testing.assert_array_equal(result.actions, datasets["g1"].actions(1)[:-2:2])


@pytest.mark.parametrize("k", [1, 4])
def test_a_stage_gives_relative_actions_from_the_first_on(datasets: dict[str, Dataset], tmp_path: Path, k: int) -> None:
    """28 frames at 10 Hz: the chunks of 7 latent frames after the first at 4 actions each, of 27 at 1."""
    tokenizer = dataclasses.replace(NANO.tokenizer, temporal_factor=k)
    preset = dataclasses.replace(
        NANO, tokenizer=tokenizer, world_model=dataclasses.replace(NANO.world_model, actions_per_latent=k)
    )
    run = Run(folder=tmp_path, preset=preset, compute=Compute(torch.device("cpu"), False, "tests"))
    dataset, body = datasets["agibot"], find_body("agibot")
    num_latents = 27 // k + 1
    key = CacheKey(kind="latent", dataset_hash=dataset.hash, model_hash="none", rate=10.0, gap=0)
    writer = CacheWriter(tmp_path / "latents", key, {1: num_latents}, (1, 2, 2), np.float16)
    writer.write(1, np.zeros((num_latents, 1, 2, 2), np.float16))
    writer.close()
    latents = open_cache(tmp_path / "latents", key)
    [episode] = stages.robot_episodes(run, Episodes(dataset=dataset, indices=(1,)), latents, 1, body)
    chunks = episode["chunk"].reshape(num_latents, k, 22)
    assert not chunks[0].any() and not chunks[1, 0].any() and chunks[2].any()
    normal = [slow_normal(body.action, action_value, 2 * row) for row in range(28)]
    for row in range(k * (num_latents - 1)):
        base = max(row // k * k - 1, 0)
        expected = [after - before for after, before in zip(normal[row], normal[base], strict=True)]
        np.testing.assert_allclose(chunks[1 + row // k, row % k], expected, atol=2e-6)


def test_a_command_reads_a_dataset_as_the_body_it_names(roots: dict[str, Path]) -> None:
    command = Posttrain(preset=NANO, robot=roots["gr1"], body="gr1", test_fraction=0.5)
    train, held_out = command.split()
    assert train.dataset.embodiment == find_body("gr1") and len(train.indices) == len(held_out.indices) == 1
    with pytest.raises(ConfigError, match="got 'gr2'"):
        dataclasses.replace(command, body="gr2").split()


@needs_gr1
def test_the_simulated_gr1_set_reads_as_the_published_body() -> None:
    dataset = open_dataset(GR1, embodiment=find_body("gr1"))
    assert dataset.actions(0).shape == dataset.states(0).shape == (416, 29)
    window = published_window(dataset, find_body("gr1"), 0, 100)
    assert window.frames.std() > 10 and np.isfinite(window.actions).all()
    joint = find_body("gr1").action[1]  # the right arm; its fourth joint stands in column 25 of 44
    earlier, later = open_dataset(GR1).actions(0)[[100, 102], 25]
    assert window.actions[0, 7 + 3] == pytest.approx(2 * (later - earlier) / (joint.high[3] - joint.low[3]), abs=1e-5)
