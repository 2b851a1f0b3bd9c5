"""Searches find what is cheap, within bounds, and hand on what they learned."""

import pytest
import torch

from dreamdojo.apps.planning.search import CEM, MPPI, Belief, coloured_noise, draw, icem, search
from dreamdojo.errors import ConfigError, SimulationError

GOAL = torch.tensor([[0.4, -0.7], [0.1, 0.2], [-0.9, 0.6]])
METHODS = {
    "cem": CEM(candidates=48, iterations=8, elites=8),
    "icem": icem(candidates=48, iterations=8, elites=8),
    "mppi": MPPI(candidates=48, iterations=12, temperature=0.2),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def belief(spread=0.5):
    return Belief(mean=torch.zeros(3, 2), spread=torch.full((3, 2), spread))


def distance(x):
    return (x - GOAL).square().sum(dim=(1, 2))


@pytest.mark.parametrize("name", METHODS)
def test_a_search_comes_close_to_the_cheapest_and_never_gets_worse(name):
    found = search(distance, belief(), METHODS[name], generator=generator())
    assert found.cost < 0.15 * float(distance(torch.zeros(1, 3, 2)))
    assert found.cost == pytest.approx(float(distance(found.answer[None])), abs=1e-5)
    assert list(found.least) == sorted(found.least, reverse=True)
    again = search(distance, belief(), METHODS[name], generator=generator())
    assert torch.equal(found.answer, again.answer)


@pytest.mark.parametrize("name", METHODS)
def test_candidates_stay_within_bounds(name):
    seen = []

    def cost(x):
        seen.append(x)
        return -x.sum(dim=(1, 2))  # the cheapest place is a corner

    search(cost, belief(2.0), METHODS[name], generator=generator())
    assert all(float(x.abs().max()) <= 1.0 for x in seen)


def test_a_search_that_begins_where_the_last_ended_starts_no_worse_than_it_ended():
    cold = search(distance, belief(), METHODS["icem"], generator=generator())
    warm = search(distance, cold.belief, METHODS["icem"], generator=generator(1))
    assert warm.least[0] < cold.least[0] and warm.cost <= cold.least[-2]
    assert torch.equal(cold.belief.spread, belief().spread)  # it looks as widely as at first


def test_icem_tries_fewer_from_round_to_round_and_keeps_its_elites():
    counts, rounds = [], []

    def cost(x):
        counts.append(len(x))
        rounds.append(x)
        return distance(x)

    search(cost, belief(), icem(candidates=40, iterations=3, elites=4), generator=generator())
    assert counts == [40, 32, 25]
    first = rounds[0][distance(rounds[0]).argmin()]
    assert (rounds[1] == first).all(dim=(1, 2)).any()


def test_what_breaks_is_never_chosen_and_nothing_but_broken_candidates_is_an_error():
    def cost(x):
        costs = distance(x)
        return torch.where(x[:, 0, 0] > 0, torch.nan, costs)

    found = search(cost, belief(), METHODS["mppi"], generator=generator())
    assert found.answer[0, 0] <= 0
    with pytest.raises(SimulationError, match="finite"):
        search(lambda x: x.sum(dim=(1, 2)) * torch.nan, belief(), CEM(), generator=generator())
    with pytest.raises(ConfigError, match="elites"):
        CEM(candidates=4, elites=8)
    with pytest.raises(ConfigError, match="iterations of 1"):
        MPPI(iterations=0)


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_coloured_noise_has_unit_variance_and_its_neighbours_agree_when_it_is_smooth(exponent):
    noise = coloured_noise((4000, 12, 1), exponent, generator())
    assert float(noise.var()) == pytest.approx(1.0, abs=0.06)
    together = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    assert float(together) > 0.7 if exponent else abs(float(together)) < 0.03


def test_the_mean_is_among_the_candidates():
    where = Belief(mean=GOAL, spread=torch.ones(3, 2))
    assert torch.equal(draw(where, CEM(), 0, generator())[0], GOAL)
