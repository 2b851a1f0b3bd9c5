"""Candidates become actions within bounds, and strokes go where they say."""

import numpy as np
import pytest
import torch

from dreamdojo.apps.planning.search import Belief
from dreamdojo.apps.planning.space import Knots, PickPlace, Push
from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.body import Body
from dreamdojo.dojo.control import embodiment_of
from dreamdojo.errors import ConfigError, DataError
from tests.tiny import PUSHER

ARM = embodiment_of(BODIES["arm"], "end_effector_velocity")


def state(x=0.0, y=0.0, z=0.15, yaw=0.2):
    values = torch.zeros(ARM.state_dim)
    values[:5] = torch.tensor([x, y, z, yaw, 1.0])
    return values


def end(actions, start):
    """Where the declared velocities lead."""
    now = start[None].repeat(len(actions), 1).numpy()
    places = []
    for index in range(actions.shape[1]):
        now = ARM.integrate(now, actions[:, index].numpy(), 0.1)
        places.append(now)
    return np.stack(places, axis=1)


def pick_place(**changes):
    centre, spread = (0.05, -0.05, 0.03, 0.3, 0.0, 0.1), (0.02, 0.02, 0.01, 0.5, 0.01, 0.01)
    return PickPlace(**{"embodiment": ARM, "fps": 10.0, "centre": centre, "spread": spread, **changes})


def test_knots_are_met_and_lines_lie_between_them_within_the_gain():
    knots = Knots(embodiment=PUSHER, horizon=9, knots=3, gain=0.5)
    x = torch.tensor([[[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]])
    actions = knots.actions(x, None)[0]
    np.testing.assert_allclose(actions[[0, 4, 8], 0], [0.25, 0.0, -0.25], atol=1e-6)
    np.testing.assert_allclose(np.diff(actions[:, 1]), np.full(8, 0.0625), atol=1e-6)
    wild = knots.actions(10 * torch.randn(20, 3, 2), None)
    assert float(wild.abs().max()) <= 0.25 + 1e-6


def test_a_shifted_belief_does_later_what_was_planned_for_later():
    knots = Knots(embodiment=PUSHER, horizon=9, knots=5)
    mean = torch.linspace(-1, 1, 5)[:, None].repeat(1, 2)
    belief = Belief(mean=mean, spread=knots.belief().spread, kept=mean[None])
    moved = knots.shift(belief, 4)
    before, after = knots.actions(mean[None], None)[0], knots.actions(moved.mean[None], None)[0]
    torch.testing.assert_close(after[:5], before[4:])
    torch.testing.assert_close(after[5:], before[-1:].expand(4, -1))
    torch.testing.assert_close(moved.kept[0], moved.mean)
    assert knots.shift(belief, 9) is None


def test_a_stroke_goes_through_what_its_numbers_say_at_its_speed():
    space = pick_place()
    actions = space.actions(space.belief().mean[None], state())
    places = end(actions, state())[0]
    closed = actions[0, :, 4] < 0.5
    taken, put = places[closed][0], places[closed][-1]
    np.testing.assert_allclose(taken[:4], [0.05, -0.05, 0.03, 0.3], atol=0.01)
    np.testing.assert_allclose(put[:3], [0.0, 0.1, 0.034], atol=0.01)
    assert places[closed][:, 2].max() > 0.1 and actions[0, -1, 4] == 1.0
    assert float(actions[0, :, :3].norm(dim=1).max()) <= 0.2 + 1e-6


def test_a_candidate_does_not_depend_on_its_neighbours():
    space = pick_place()
    x = torch.rand(5, 1, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = space.actions(x, state())
    for index in range(5):
        alone = space.actions(x[index : index + 1], state())[0]
        torch.testing.assert_close(together[index, : len(alone)], alone)


def test_a_push_stays_low_and_closed_and_numbers_cover_the_workspace():
    space = Push(embodiment=ARM, fps=10.0, centre=(0.1, 0.0, -0.05, 0.05), spread=(0.02,) * 4)
    corner = space.actions(torch.ones(1, 1, 4), state())
    places = end(corner, state())[0]
    assert (corner[..., 4] == 0).all()
    body: Body = BODIES["arm"]
    np.testing.assert_allclose(places[-1, :2], body.workspace_high[:2], atol=0.01)
    assert places[:, 2].min() == pytest.approx(space.level, abs=0.007)


def test_what_cannot_work_is_said():
    with pytest.raises(DataError, match="state"):
        pick_place().actions(torch.zeros(1, 1, 6), None)
    with pytest.raises(ConfigError, match="effector_velocity"):
        pick_place(embodiment=embodiment_of(BODIES["arm"], "joint_position")).actions(torch.zeros(1, 1, 6), state())
    with pytest.raises(ConfigError, match="knots"):
        Knots(embodiment=PUSHER, horizon=3, knots=4)
