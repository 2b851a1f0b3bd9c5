"""Scores of physics on drawn trials whose answer is known, with instruments that read exactly or not at all."""

import math

import numpy as np
import pytest
import torch

from dreamdojo.dojo.trials import Course, Trial
from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import Located, ProbeError
from dreamdojo.evaluation.orientation import (
    HeadingProbeConfig,
    Scenes,
    heading_error,
    train_heading_probe,
)
from dreamdojo.evaluation.physics import (
    Instruments,
    branch_truth,
    score_answer,
    score_permanence,
    score_poses,
    score_stillness,
    seen_again,
    trial_plan,
    within,
)

SIDE, RADIUS = 32, 3


def course(places, *, touched=(), hidden=(), headings=None, shade=200):
    """Bright squares on a dark table, one per object; `places` is `t n 2` in pixels, the middle of each."""
    places = np.asarray(places, np.float32)
    length, count = places.shape[:2]
    labels, touching = np.ones((length, SIDE, SIDE), np.uint8), np.zeros((length, count), bool)
    for time in range(length):
        for index in range(count):
            u, v = places[time, index].astype(int)
            if (time, index) not in hidden:
                labels[time, v - RADIUS : v + RADIUS, u - RADIUS : u + RADIUS] = 3 + index
    for time, index in touched:
        touching[time, index] = True
    frames = np.where(labels[..., None] >= 3, shade + labels[..., None], 20).repeat(3, axis=-1).astype(np.uint8)
    return Course(
        frames=frames,
        labels=labels,
        actions=np.zeros((length, 2), np.float32),
        pixels=places / SIDE,
        headings=np.zeros((length, count), np.float32) if headings is None else np.asarray(headings, np.float32),
        touched=touching,
        effector=np.full((length, 2), 0.5, np.float32),
        effector_visible=np.ones(length, bool),
    )


def trial(seed, branches, folds=(1, 0)):
    start = [[[8, 8], [20, 20]]] * 2
    return Trial(seed=seed, folds=np.array(folds), given=course(start), branches=branches)


class Exact:
    """Finds a marked object by its brightness."""

    error = ProbeError(mean=0.0, median=0.0, found=1.0, false_alarms=0.0, count=1, gate=1.0)

    def locate(self, start, mask, frames):
        value = (start[:, 0] * mask).flatten(1).amax(dim=1)
        shown = frames[:, 0] == value[:, None, None]
        grid = (torch.arange(SIDE) + 0.5) / SIDE
        total = shown.sum(dim=(1, 2)).clamp(min=1)
        u, v = (shown.sum(dim=1) * grid).sum(dim=1) / total, (shown.sum(dim=2) * grid).sum(dim=1) / total
        return Located(position=torch.stack([u, v], dim=1), found=shown.any(dim=2).any(dim=1))


class Pointing:
    """Says one heading of everything."""

    def __init__(self, radians):
        self.radians = radians

    def heading(self, start, mask, frames, position, fold):
        return torch.full((len(frames),), self.radians)


def instruments(heading=None):
    return Instruments(effector=None, objects=Exact(), heading=heading)


def moving(dx):
    """The first object is touched in frame 1 and moves; the second lies still."""
    return course([[[8, 8], [20, 20]], *([[8 + dx * t, 8], [20, 20]] for t in (1, 2))], touched=[(1, 0)])


@pytest.fixture
def truth():
    return branch_truth([trial(0, {"own": moving(3)}), trial(1, {"own": moving(5)})], "own")


def test_touched_objects_are_counted_apart_from_the_moment_they_are_touched(truth):
    scores = score_poses(truth, truth.copied, (1, 2, 3), instruments())
    contact = scores["position_error, contact"]
    assert contact[:, 0].isnan().all()
    torch.testing.assert_close(contact[:, 1:], torch.tensor([[3.0, 6.0], [5.0, 10.0]]), atol=1e-3, rtol=0)
    assert scores["position_error, no contact"].abs().max() < 1e-3
    torch.testing.assert_close(scores["position_error, all"][:, 2], torch.tensor([3.0, 5.0]), atol=1e-3, rtol=0)
    exact = score_poses(truth, truth.frames, (1, 2, 3), instruments())
    assert exact["pose_error, all"].max() < 1e-3 and (exact["found, all"] == 1).all()


def test_a_vanished_object_counts_as_the_largest_error(truth):
    gone = torch.full_like(truth.frames, 20)
    scores = score_poses(truth, gone, (3,), instruments(Pointing(0.0)))
    assert (scores["found, all"] == 0).all() and (scores["heading_error, contact"] == 180).all()
    farthest = math.hypot(SIDE - 14, SIDE - 8)
    assert scores["pose_error, contact"][0, 0] == pytest.approx(farthest, abs=1e-3)


def test_a_pose_error_joins_position_and_turn(truth):
    scores = score_poses(truth, truth.copied, (3,), instruments(Pointing(0.6)))
    spread = math.sqrt(2 * np.var(np.arange(2 * RADIUS)))
    assert scores["heading_error, contact"][0, 0] == pytest.approx(math.degrees(0.6), abs=1e-3)
    expected = math.hypot(6, 2 * spread * math.sin(0.3))
    assert scores["pose_error, contact"][0, 0] == pytest.approx(expected, abs=1e-3)
    assert scores["heading_error, no contact"].isnan().all()  # nothing shows how the second object is turned
    assert scores["pose_error, no contact"].max() < 1e-3


def test_the_right_answer_is_nearer_to_its_own_actions():
    trials = [trial(i, {"own": moving(3), "other": moving(8)}) for i in range(2)]
    own, other = branch_truth(trials, "own"), branch_truth(trials, "other")
    right = score_answer(other, other.frames, own.frames, (1, 3))
    wrong = score_answer(other, own.frames, own.frames, (1, 3))
    assert right["answer_margin"][:, 0].isnan().all() and right["answer_right"][:, 0].isnan().all()
    assert (right["answer_right"][:, 1] == 1).all() and (wrong["answer_right"][:, 1] == 0).all()
    torch.testing.assert_close(right["answer_margin"][:, 1], -wrong["answer_margin"][:, 1])


def test_what_was_hidden_is_asked_for_when_it_is_to_be_seen_again():
    still = [[[8, 8], [20, 20]]] * 5
    shown = course(still, hidden={(1, 0), (2, 0)})
    truth = branch_truth([trial(0, {"own": shown}), trial(1, {"own": course(still)})], "own")
    again = seen_again(truth)
    assert again.nonzero().tolist() == [[0, 3, 0]]
    there = score_permanence(truth, truth.frames, instruments())
    assert there["there"][0, 0] == 1 and there["there"][1, 0].isnan()
    gone = truth.frames.clone()
    gone[:, 3:] = 20
    lost = score_permanence(truth, gone, instruments())
    assert lost["there"][0, 0] == lost["there_found"][0, 0] == 0 and lost["there_error"][0, 0] > 20


def test_stillness_counts_change_and_energy():
    rest = course([[[8, 8], [20, 20]]] * 3)
    truth = branch_truth([trial(i, {"still": rest}) for i in range(2)], "still")
    calm = score_stillness(truth, truth.frames, (1, 3), instruments())
    assert calm["change"].max() == 0 and calm["energy"].max() == 0 and calm["position_error, all"].max() < 1e-3
    brighter = (truth.frames.float() + torch.tensor([2.0, 4.0, 6.0]).view(3, 1, 1, 1)).byte()
    drifting = score_stillness(truth, brighter, (1, 3), instruments())
    torch.testing.assert_close(drifting["change"], torch.tensor([[2.0, 6.0]] * 2))
    torch.testing.assert_close(drifting["energy"], torch.tensor([[4.0, 4.0]] * 2))


def test_a_plan_gives_what_was_given_and_asks_for_the_branch():
    trials = [trial(i, {"own": moving(3), "other": moving(8)}) for i in range(2)]
    plan = trial_plan(trials, "other")
    assert (plan.context, plan.horizon) == (2, 3) and plan.actions.shape == (2, 4, 2)
    assert torch.equal(plan.truth, branch_truth(trials, "other").frames)
    assert torch.equal(plan.given[:, -1], branch_truth(trials, "other").last_given)
    with pytest.raises(DataError, match="two trials"):
        trial_plan(trials[:1], "own")
    with pytest.raises(DataError, match="no still"):
        branch_truth(trials, "still")


def test_horizons_are_those_that_a_branch_has():
    assert within((1, 8, 24), 8) == (1, 8)


def test_headings_that_look_alike_are_alike():
    said, true = torch.tensor([0.1, math.pi + 0.1, math.pi / 2 + 0.1]), torch.zeros(3)
    torch.testing.assert_close(heading_error(said, true, torch.tensor([1, 2, 4])), torch.full((3,), 0.1))
    assert heading_error(torch.rand(50) * 9, torch.zeros(50), torch.full((50,), 2)).max() <= math.pi / 2 + 1e-5


def bars(scenes, seed=0, views=4):
    """Bars on a table of another colour, each view of a scene turned and placed otherwise."""
    random, rows = np.random.default_rng(seed), {"frames": [], "labels": [], "positions": [], "headings": []}
    grid = (np.mgrid[:SIDE, :SIDE] + 0.5).astype(np.float32)
    for _ in range(scenes):
        table, colour = random.uniform(0, 90, 3), random.uniform(150, 255, 3)
        for _ in range(views):
            turn, (v, u) = random.uniform(-math.pi, math.pi), random.uniform(10, SIDE - 10, 2)
            along = (grid[1] - u) * math.cos(turn) + (grid[0] - v) * math.sin(turn)
            across = (grid[0] - v) * math.cos(turn) - (grid[1] - u) * math.sin(turn)
            inside = (abs(along) < 5) & (abs(across) < 2)
            rows["frames"].append(np.where(inside[..., None], colour, table).astype(np.uint8).transpose(2, 0, 1))
            rows["labels"].append(np.where(inside, 3, 1).astype(np.uint8))
            rows["positions"].append(np.array([[u, v]], np.float32) / SIDE)
            rows["headings"].append(np.array([turn], np.float32))
    parts = {name: torch.from_numpy(np.stack(value)) for name, value in rows.items()}
    number = torch.arange(scenes).repeat_interleave(views)
    return Scenes(**parts, folds=torch.full((len(number), 1), 2), scene=number, kind=number % 2, kinds=("even", "odd"))


def test_the_orientation_probe_learns_and_is_judged_kind_by_kind():
    config = HeadingProbeConfig(steps=70, batch=24, width=8, window=0.5, learning_rate=1e-2)
    probe = train_heading_probe(bars(50), config=config)
    assert set(probe.errors) == {"even", "odd"}
    assert all(error.mean < 15 < error.chance and error.valid for error in probe.errors.values())
    untrained = train_heading_probe(bars(20), config=HeadingProbeConfig(steps=1, batch=4, width=8)).errors["odd"]
    assert not untrained.valid and str(untrained).startswith("not measured")


def test_an_orientation_probe_without_anything_to_read_is_refused():
    scenes = bars(4)
    scenes.headings[:] = torch.nan
    with pytest.raises(DataError, match="heading can be seen"):
        train_heading_probe(scenes, config=HeadingProbeConfig(steps=1))
