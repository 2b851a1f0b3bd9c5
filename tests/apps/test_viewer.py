"""Recordings in the Rerun viewer: what is logged where and when, and files that are read back."""

import importlib.util
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dreamdojo import cli
from dreamdojo.apps.viewer import Marks, located_marks, log_clips, log_episode, true_marks, viewing
from dreamdojo.dataset.depth import DepthRange
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, encode_episode
from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.evaluation.keypoints import Located, ProbeError
from dreamdojo.evaluation.predict import plan_clips
from dreamdojo.evaluation.rollouts import Clips, score_rollouts
from dreamdojo.evaluation.world_model import Evaluation
from tests.evaluation.test_predict import recording
from tests.test_chain import record
from tests.tiny import PUSHER

needs_rerun = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun-sdk (the extra rerun) is not installed"
)


@dataclass
class Listener:
    """A stream that remembers: place -> (frame, seconds, what) of everything logged there."""

    now: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, list[tuple]] = field(default_factory=dict)
    always: dict[str, Any] = field(default_factory=dict)

    def set_time(self, timeline, **value):
        (self.now[timeline],) = value.values()

    def log(self, entity_path, entity, **options):
        place = "/".join(entity_path)
        if options.get("static"):
            self.always[place] = entity
        else:
            self.logged.setdefault(place, []).append((self.now["frame"], self.now["time"], entity))


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "robot", robot=True, episodes=2, frames=12)


@pytest.fixture(scope="module")
def with_depth(tmp_path_factory):
    """One camera with depth: frame t is t / 10 m + 1 m away."""
    root, cameras = tmp_path_factory.mktemp("depth") / "robot", {"head": CameraSpec(height=32, width=48, depth=True)}
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    metres = np.broadcast_to((1 + np.arange(6) / 10)[:, None, None], (6, 32, 48)).astype(np.float32)
    with DatasetWriter(root, fps=10, embodiment=PUSHER, cameras=cameras) as writer:
        columns = {"action": np.zeros((6, 2), np.float32), "observation.state": np.zeros((6, 2), np.float32)}
        writer.add(
            encode_episode(
                scratch=writer.scratch,
                index=0,
                fps=10,
                cameras=cameras,
                frames={"head": frames},
                depth={"head": metres},
                columns=columns,
                task="look",
            )
        )
    return root


@needs_rerun
def test_pictures_actions_states_and_positions_are_in_step(robot):
    dataset, stream = open_dataset(robot), Listener()
    marks = {"hand": Marks(positions=np.full((12, 1, 2), 0.25), shown=np.arange(12)[:, None] < 5)}
    log_episode(stream, dataset, 1, marks=marks)
    assert set(stream.logged) == {"head/rgb", "head/rgb/hand", "action/velocity", "state/position"}
    for place, each in stream.logged.items():
        assert [row for row, _, _ in each] == list(range(12)), place
        np.testing.assert_allclose([seconds for _, seconds, _ in each], np.arange(12) / 10)
    actions = dataset.actions(1)
    for row, _, scalars in stream.logged["action/velocity"]:
        np.testing.assert_allclose(scalars.scalars.as_arrow_array().to_pylist(), actions[row], rtol=1e-6)
    names = stream.always["action/velocity"].names.as_arrow_array().to_pylist()
    assert names == ["x (m/s)", "y (m/s)"]
    shown = [each.positions.as_arrow_array().to_pylist() for _, _, each in stream.logged["head/rgb/hand"]]
    assert shown == [[[8.0, 8.0]]] * 5 + [[]] * 7  # in pixels of 32, and gone where it is hidden
    assert true_marks(dataset, 1) == {}


@needs_rerun
def test_depth_is_in_metres_beside_its_camera(with_depth):
    stream = Listener()
    log_episode(stream, open_dataset(with_depth), 0)
    places = stream.logged["head/depth"]
    assert [row for row, _, _ in places] == list(range(6))
    codes = np.array(places[3][2].buffer.as_arrow_array()[0].as_py(), np.uint8)
    metres = codes.view(np.float32)
    np.testing.assert_allclose(metres, 1.3, atol=DepthRange().error(np.array([1.3]))[0])
    assert places[3][2].meter.as_arrow_array().to_pylist() == [1.0]


class Corner:
    """A probe that sees the hand in the upper left corner, in every second frame it is shown."""

    error = ProbeError(mean=1.0, median=1.0, found=1.0, false_alarms=0.0, count=9, gate=2.0)

    def locate(self, frames):
        found = torch.arange(len(frames)) % 2 == 0
        return Located(position=torch.full((len(frames), 2), 0.125), found=found)


@needs_rerun
def test_clips_lie_beside_their_errors_depth_and_the_positions_that_a_probe_sees():
    recordings = [replace(recording(n, 12), depth=np.full((12, 16, 16), 1.0 + n, np.float32)) for n in range(2)]
    plan = plan_clips(recordings, context=3, horizon=4, seed=0, least_clips=2)
    assert plan.true_depth is not None
    predictions = {"student": plan.truth.clone()}
    clips = Clips(last_context=plan.given[:, -1], truth=plan.truth)
    evaluation = Evaluation(
        plan=plan,
        predictions=predictions,
        scores=score_rollouts(clips, predictions, other_actions={}, horizons=(1,)),
        fps={},
        tokenizer_psnr=30.0,
        latent_action=None,
        depths={"student": plan.true_depth + 0.5},
    )
    stream = Listener()
    log_clips(stream, evaluation, PUSHER, fps=10.0, marks=located_marks(Corner(), evaluation))
    panels = {"truth", "truth/depth", "student", "student/depth", "student/error", "action/velocity"}
    positions = {"truth/positions", "student/positions"}
    assert {
        place.removeprefix("clip 02/") for place in stream.logged if place.startswith("clip 02")
    } == panels | positions
    for name in panels:
        assert [row for row, _, _ in stream.logged[f"clip 01/{name}"]] == list(range(6 if "action" in name else 7))
    seen = stream.logged["clip 01/student/positions"]
    assert [(row, each.positions.as_arrow_array().to_pylist()) for row, _, each in seen] == [
        (3, [[2.0, 2.0]]),
        (4, []),
        (5, [[2.0, 2.0]]),
        (6, []),
    ]


@needs_rerun
def test_the_command_writes_a_file_that_reads_back(robot, tmp_path):
    from rerun.chunk import RrdReader

    cli.main(["show", str(robot), "--episode", "1", "--rerun", str(tmp_path / "episode.rrd")])
    rows: dict[str, int] = {}
    for chunk in RrdReader(tmp_path / "episode.rrd").stream():
        if not chunk.is_static:
            rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    assert {place: rows[place] for place in ("/head/rgb", "/action/velocity", "/state/position")} == {
        "/head/rgb": 12,
        "/action/velocity": 12,
        "/state/position": 12,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["episode.rrd"]


@needs_rerun
def test_an_episode_that_is_not_there_leaves_no_file(robot, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["show", str(robot), "--episode", "9", "--rerun", str(tmp_path / "episode.rrd")])
    assert "expected an episode from 0 to 1, got 9" in capsys.readouterr().err
    with pytest.raises(DataError), viewing("odd", file=tmp_path / "odd.rrd") as stream:
        log_episode(stream, open_dataset(robot), 9)
    assert not list(tmp_path.iterdir())


def test_one_place_to_write_to_and_the_extra_are_needed(tmp_path, monkeypatch):
    for file, spawn in ((None, False), (tmp_path / "a.rrd", True)):
        with (
            pytest.raises(ConfigError, match=r"a file to write .* or --spawn"),
            viewing("x", file=file, spawn=spawn),
        ):
            pass
    with pytest.raises(ConfigError, match=r"ends in \.rrd"), viewing("x", file=tmp_path / "a.mp4"):
        pass
    monkeypatch.setitem(sys.modules, "rerun", None)
    missing = pytest.raises(MissingDependencyError, match=r'pip install "dreamdojo\[rerun\]"')
    with missing, viewing("x", file=tmp_path / "a.rrd"):
        pass


def test_a_viewer_that_opens_gets_the_stream(monkeypatch):
    done: list[str] = []

    class Opened(Listener):
        def spawn(self):
            done.append("spawn")

        def send_recording_name(self, name):
            done.append(name)

        def flush(self):
            done.append("flush")

    monkeypatch.setitem(sys.modules, "rerun", SimpleNamespace(RecordingStream=lambda application: Opened()))
    with viewing("a title", spawn=True) as stream:
        stream.set_time("frame", sequence=0)
        done.append("logged")
    assert done == ["spawn", "a title", "logged", "flush"]
