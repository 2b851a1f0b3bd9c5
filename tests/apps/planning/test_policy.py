"""A planner as a policy: every row has its own plan, made once for the same start, in a world of the planner's own."""

import torch

from dreamdojo.apps.planning.planner import Fixed, Planner, always
from dreamdojo.apps.planning.policy import PlannedPolicy, rested
from dreamdojo.apps.planning.search import CEM
from dreamdojo.apps.planning.space import Knots
from dreamdojo.apps.policy_eval.act import act
from dreamdojo.world import Observation
from tests.rollout.test_session import first_frame
from tests.tiny import PUSHER, tiny_session


def starts(count=2):
    rows = [first_frame(seed=index) for index in range(count)]
    return Observation(
        frames={"head": torch.cat([row.frames["head"] for row in rows])},
        state=torch.cat([row.state for row in rows]),
    )


def to_the(side):
    """Plans that end as far to one side as they can."""
    return Planner(
        space=always(Knots(embodiment=PUSHER, horizon=4, knots=2, gain=1.0)),
        method=CEM(candidates=8, iterations=2, elites=2),
        objective=lambda imagined: -side * imagined.state[:, -1, 0],
    )


def test_each_row_goes_by_a_plan_of_its_own_in_a_world_that_is_not_the_planners():
    sides = iter([1.0, -1.0])
    policy = PlannedPolicy(tiny_session(), lambda observation: to_the(next(sides)))
    judge = tiny_session()
    trials = act(judge, policy, starts(), steps=4, seed=3)
    moved = trials.state[:, -1, 0] - trials.state[:, 0, 0]
    assert moved[0] > 0 > moved[1]
    again = act(tiny_session(), policy, starts(), steps=4, seed=3)  # `sides` is used up: the plans are known
    assert torch.equal(again.actions, trials.actions)


def test_another_start_or_seed_is_planned_anew():
    policy = PlannedPolicy(tiny_session(), lambda observation: to_the(1.0))
    found = []
    for seed, seen in ((0, starts()), (1, starts()), (1, starts(1))):
        policy.reset(seed=seed)
        found.append(policy.act(seen))
    assert not torch.equal(found[0], found[1]) and len(found[2]) == 1
    torch.testing.assert_close(found[2][0], found[1][0])  # a row's plan does not depend on the rows beside it


def test_a_short_plan_is_followed_by_rest():
    plan = torch.full((2, 2), 0.3)
    policy = PlannedPolicy(tiny_session(), lambda _: Fixed(actions=plan, cost=0.0, tried=1), length=5)
    policy.reset()
    actions = policy.act(starts())
    assert actions.shape == (2, 5, 2) and (actions[:, 2:] == 0).all() and (actions[:, :2] == 0.3).all()
    assert torch.equal(rested(plan, 2, PUSHER), plan)
