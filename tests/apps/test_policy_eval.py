"""Policies act in a model and in the truth from the same starts, and what is said of them is right."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdojo.apps.policy_eval.act import Trials, act
from dreamdojo.apps.policy_eval.compare import Protocol, Score, Truth, compare, score_policy, true_outcomes
from dreamdojo.apps.policy_eval.report import policy_report
from dreamdojo.apps.policy_eval.starts import Starts, dojo_starts, on_table
from dreamdojo.apps.policy_eval.success import FinderJudge, FunctionJudge, PixelJudge, PoseJudge
from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.dojo import DojoWorld
from dreamdojo.dojo.difficulty import GENTLE
from dreamdojo.dojo.goals import lifted, pushed
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.keypoints import Located
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.report import render
from dreamdojo.evaluation.reward import Outcome
from dreamdojo.policies.scripted import FinderConfig, ObjectFinder
from dreamdojo.policies.simple import RandomPolicy, RecordedPolicy
from dreamdojo.video import resize
from dreamdojo.world import Observation, World
from tests.tiny import PUSHER, tiny_session

NEW = partial(Simulation, "arm", difficulty=GENTLE)
FORWARD = torch.tensor([0.2, 0.0, -0.1, 0.0, 0.0])
PROTOCOL = Protocol(steps=3, batch=2, examples=2)


def first_frames(batch: int = 2) -> Observation:
    frames = torch.randint(0, 256, (batch, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Observation(frames={"head": frames}, state=torch.zeros(batch, 1, 2))


@pytest.fixture(scope="module")
def starts() -> Starts:
    return dojo_starts(NEW, split="test", count=3, size=(16, 16), first_index=77)


class Counting(RandomPolicy):
    """Counts how often it is asked."""

    asked = 0

    def act(self, observation: Observation) -> torch.Tensor:
        self.asked += 1
        return super().act(observation)


def test_a_chunk_is_carried_out_before_the_policy_is_asked_again() -> None:
    policy = Counting(PUSHER, chunk=4)
    trials = act(tiny_session(), policy, first_frames(), steps=8)
    assert policy.asked == 2 and trials.frames.shape == (2, 9, 3, 16, 16) and trials.actions.shape == (2, 8, 2)
    assert trials.state is not None
    integrated = 0.1 * trials.actions.sum(dim=1)
    torch.testing.assert_close(trials.state[:, -1], integrated)
    again = act(tiny_session(), RecordedPolicy(trials.actions), first_frames(), steps=8)
    assert torch.equal(again.frames, trials.frames), "the same seed and actions give the same dream"
    policy = Counting(PUSHER, chunk=3)
    act(tiny_session(k=2), policy, first_frames(), steps=4)
    assert policy.asked == 2, "the third action does not fill a step of two and is left out"


def test_actions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"velocity\.x"):
        act(tiny_session(), RecordedPolicy(torch.zeros(2, 1, 3)), first_frames(), steps=1)
    with pytest.raises(DataError, match="at least 2"):
        act(tiny_session(k=2), RecordedPolicy(torch.zeros(2, 1, 2)), first_frames(), steps=2)


def test_the_truth_is_the_dojos(starts: Starts) -> None:
    truth = TrueWorld(NEW, starts.names, size=(16, 16))
    assert isinstance(truth, World)
    actions = FORWARD[: truth.embodiment.action_dim].expand(3, 4, -1).clone()
    trials = act(truth, RecordedPolicy(actions), None, steps=4)
    assert torch.equal(trials.frames[:, :1], starts.observation.frames["head"]), "both begin at the same picture"
    dojo = DojoWorld("arm", size=128)
    dojo.reset(seed=starts.names[1])
    for index in range(4):
        seen = dojo.step(actions[1:2, index : index + 1])
    picture = resize(seen.frames["head"][0].permute(0, 2, 3, 1).numpy(), (16, 16))[0]
    np.testing.assert_array_equal(trials.frames[1, -1].permute(1, 2, 0).numpy(), picture)
    assert [poses.shape[0] for poses in truth.poses] == [5, 5, 5] and not truth.lost.any()
    np.testing.assert_allclose(truth.poses[1][-1], dojo.moments[0].object_poses)
    dojo.close()


def test_a_pixel_is_a_place_on_the_table(starts: Starts) -> None:
    marked = starts.marked
    assert marked is not None and marked.mask.any(dim=(1, 2)).all()
    for row, seed in enumerate(starts.names):
        simulation = NEW()
        simulation.reset(seed)
        poses = simulation.object_poses()
        index = int(np.linalg.norm(poses[:, :2] - marked.place[row].numpy(), axis=1).argmin())
        pixel = torch.from_numpy(simulation.pixel(poses[index, :3])).float()
        found = on_table(marked.to_table[row : row + 1], pixel[None])[0]
        torch.testing.assert_close(found, marked.place[row], atol=1e-3, rtol=0)


def test_goals_look_at_where_things_stood_first() -> None:
    poses = np.zeros((3, 2, 7))
    poses[1, 1, 0], poses[2, 1, :2] = 0.039, (0.03, 0.03)
    poses[2, 0, 2] = 0.05
    assert pushed(poses).tolist() == [False, False, True] and lifted(poses).tolist() == [False, False, True]


def test_portions_are_written_and_not_tried_again(starts: Starts, tmp_path: Path) -> None:
    model, policy = tiny_session(), Counting(PUSHER)
    judges = {"bright": FunctionJudge(lambda frames, state: frames[:, -1].float().mean(dim=(1, 2, 3)) > 128)}
    seen = Observation(frames=starts.observation.frames, state=torch.zeros(3, 1, 2))
    score = partial(
        score_policy,
        "wanderer",
        policy,
        model,
        Starts(names=starts.names, observation=seen),
        judges,
        folder=tmp_path,
    )
    first = score(PROTOCOL, about_model={"model": "a"})
    assert policy.asked == 6 and len(list(tmp_path.iterdir())) == 2, "two portions of three steps"
    assert len(first.model["bright"]) == 3 and first.predicted_frames.shape == (2, 4, 3, 16, 16)
    second = score(PROTOCOL, about_model={"model": "a"})
    assert policy.asked == 6 and torch.equal(first.model["bright"], second.model["bright"])
    (tmp_path / "model-00002.safetensors").unlink()
    assert torch.equal(score(PROTOCOL, about_model={"model": "a"}).model["bright"], first.model["bright"])
    assert policy.asked == 9, "only what was missing is tried"
    with pytest.raises(ConfigError, match="model differ"):
        score(PROTOCOL, about_model={"model": "b"})


def test_an_object_that_is_found_far_from_where_it_was_has_been_pushed() -> None:
    """A finder that reads its answer off the picture: x in centimetres, and whether it sees anything at all."""

    class Reader(ObjectFinder):
        def find(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x, seen = frames[:, 0, 0, 0].float() / 100, frames[:, 1, 0, 0] > 0
            return torch.stack([x, torch.zeros_like(x)], dim=1), seen

    places = [[10, 10, 15, 15, 15], [10, 14, 12, 12, 12], [10, 10, 10, 10, 15], [10, 10, 15, 15, 15]]
    seen = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 1], [1, 1, 0, 0, 0]]
    frames = torch.zeros(4, 5, 3, 8, 8, dtype=torch.uint8)
    frames[:, :, 0, 0, 0], frames[:, :, 1, 0, 0] = torch.tensor(places).byte(), torch.tensor(seen).byte()
    trials = Trials(frames=frames, actions=torch.zeros(4, 4, 5), state=None, world_seconds=0.0, policy_seconds=0.0)
    said = FinderJudge(Reader(FinderConfig()), distance=0.04)(
        trials, Starts(names=(0, 1, 2, 3), observation=first_frames(4))
    )
    assert said.tolist() == [True, False, True, False], "pushed; came back; seen in one frame only; in none"


def test_what_really_happens_is_tried_once_for_all_models(starts: Starts, tmp_path: Path) -> None:
    body = NEW().embodiment
    truth = Truth(world=partial(TrueWorld, NEW, size=(16, 16)), goal=pushed)
    policy, model = Counting(body), tiny_session(body=body)
    judges = {"never": FunctionJudge(lambda frames, state: torch.zeros(len(frames)))}
    arguments = ("wanderer", policy, starts, judges, PROTOCOL, truth, tmp_path)
    alone = true_outcomes(*arguments)
    assert policy.asked == 6 and alone["true_frames"].shape == (2, 4, 3, 16, 16)
    steps: list[tuple[int, int]] = []
    for number in range(2):
        score = score_policy(
            "wanderer",
            policy,
            model,
            starts,
            judges,
            PROTOCOL,
            truth=truth,
            folder=tmp_path,
            about_model={"model": number},
            report=lambda done, total, words: steps.append((done, total)),
        )
        assert policy.asked == 6 * (number + 2), "in the model alone"
        assert score.truth is not None and torch.equal(score.truth, alone["truth"].bool())
        assert steps == [(2, 6), (3, 6), (5, 6), (6, 6)] * (number + 1)
        for path in tmp_path.glob("model-*"):
            path.unlink()


def scored(name: str, truth: list[int], model: list[int]) -> Score:
    frames = torch.randint(0, 256, (len(truth), 3, 3, 16, 16), dtype=torch.uint8)
    answers, known = torch.tensor(model).bool(), torch.tensor(truth).bool()
    return Score(
        name=name,
        model={"judge": answers},
        truth=known,
        real={"judge": known},
        predicted_frames=frames,
        true_frames=frames,
        model_seconds=0.5,
        truth_seconds=0.2,
        policy_seconds=0.1,
    )


def test_a_comparison_counts_and_is_shown() -> None:
    scores = [
        scored("good", [1, 1, 1, 0], [1, 1, 1, 1]),
        scored("middling", [1, 1, 0, 0], [1, 1, 1, 0]),
        scored("bad", [0, 0, 0, 0], [0, 1, 0, 0]),
        scored("worse", [0, 0, 0, 0], [0, 0, 0, 0]),
    ]
    comparison = compare(scores, ("judge",))
    found = comparison.agreement("judge")
    assert found is not None and found.calibration.optimism.mean == pytest.approx(3 / 16)
    assert found.pearson.mean == pytest.approx(np.corrcoef([0.75, 0.5, 0, 0], [1, 0.75, 0.25, 0])[0, 1])
    error = comparison.judge_error("judge")
    assert error is not None and error.accuracy.mean == 1.0, "the truth's own frames were judged rightly"
    raw = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert raw["policies"][0]["outcomes"] == {"judge": "1111", "truth": "1110"}
    page = render(
        policy_report(
            comparison,
            title="t",
            subtitle="s",
            facts=(),
            data_sheet={"model": "m"},
            rate=10.0,
            groups={"two of them": ("good", "bad")},
        )
    )
    assert "success in the model, failure in truth" in page and "judge, two of them" in page
    assert page.count("<video") == 6, "a success and a failure where there is one: two, two, ... and one of the others"


def test_without_truth_there_is_success_and_nothing_to_compare_with() -> None:
    alone = [
        Score(**{**vars(scored(name, [0, 0], [1, 0])), "truth": None, "real": {}, "true_frames": None})
        for name in ("a", "b")
    ]
    comparison = compare(alone, ("judge",))
    assert comparison.agreement("judge") is None and comparison.floor is None
    page = render(policy_report(comparison, title="t", subtitle="", facts=(), data_sheet={}, rate=10.0))
    assert "Agreement with the truth" not in page and "error is not known" in page


def trials_of(frames: torch.Tensor) -> Trials:
    none = torch.zeros(len(frames), 1, 0)
    return Trials(frames=frames, actions=none, state=None, world_seconds=0, policy_seconds=0)


def test_object_pose_counts_the_last_frame_in_which_it_is_found(starts: Starts) -> None:
    marked = starts.marked
    assert marked is not None

    class Probe(ObjectProbe):
        """Sees the object 5 cm on in the last frame but one, and nothing in the last; never sees that of row 2."""

        calls = 0

        def locate(self, start: torch.Tensor, mask: torch.Tensor, frames: torch.Tensor) -> Located:
            del start, mask, frames
            Probe.calls += 1
            homogeneous = torch.cat([marked.place + torch.tensor([0.05, 0.0]), torch.ones(3, 1)], dim=1)
            pixel = torch.linalg.solve(marked.to_table, homogeneous[..., None])[..., 0]
            seen = torch.tensor([Probe.calls % 3 != 0, Probe.calls % 3 != 0, False])
            return Located(position=pixel[:, :2] / pixel[:, 2:], found=seen)

    frames = torch.zeros(3, 5, 3, 16, 16, dtype=torch.uint8)
    probe = object.__new__(Probe)
    assert PoseJudge(probe, distance=0.04)(trials_of(frames), starts).tolist() == [True, True, False]
    assert not PoseJudge(probe, distance=0.06)(trials_of(frames), starts).any()
    with pytest.raises(ConfigError, match="reward model"):
        PoseJudge(probe, distance=0.04)(trials_of(frames), Starts(names=starts.names, observation=starts.observation))


def test_the_pixel_baseline_asks_what_looks_alike() -> None:
    def outcome(level: int, success: float) -> Outcome:
        return Outcome(frames=np.full((4, 3, 8, 8), level, np.uint8), success=np.array([0, 0, 0, success], np.float32))

    judge = PixelJudge([outcome(10 + i, 0.0) for i in range(6)] + [outcome(200 + i, 1.0) for i in range(6)])
    frames = torch.stack([torch.full((4, 3, 8, 8), level, dtype=torch.uint8) for level in (20, 190)])
    start = Starts(names=(0, 1), observation=Observation(frames={"head": frames[:, :1]}))
    assert judge(trials_of(frames), start).tolist() == [False, True]
