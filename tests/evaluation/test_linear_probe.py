"""The linear probe finds what is there, nothing where there is nothing, and is not fooled by episodes."""

import json
import math

import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.evaluation.linear_probe import linear_probe, probe_episodes

EPISODES, LENGTH = 30, 20


def smooth_motion(num_dims, *, seed):
    """`n k` numbers that drift slowly within each episode: neighbours in time are alike, as in real motion."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(EPISODES, LENGTH, num_dims, generator=generator)
    return (torch.randn(EPISODES, 1, num_dims, generator=generator) + 0.2 * steps.cumsum(dim=1)).flatten(0, 1)


@pytest.fixture
def episodes():
    return torch.arange(EPISODES).repeat_interleave(LENGTH)


def test_a_hidden_linear_map_is_found_and_an_unrelated_target_is_not(episodes):
    truth, unrelated = smooth_motion(2, seed=0), smooth_motion(1, seed=1)
    generator = torch.Generator().manual_seed(2)
    features = truth @ torch.randn(2, 8, generator=generator) + 0.05 * torch.randn(600, 8, generator=generator)
    probe = linear_probe(features, torch.cat((truth, unrelated), 1), episodes, names=("x", "y", "other"), seed=0)
    x, y, other = probe.dimensions
    assert x.r2.mean > 0.95 and y.r2.mean > 0.95
    assert x.r2.low > x.null_high and y.r2.low > y.null_high
    assert other.r2.mean < 0.3 and other.r2.low < other.null_high
    assert (probe.train_episodes, probe.held_out_episodes) == (21, 9)


def test_the_null_is_near_zero_although_the_features_are_perfect(episodes):
    truth = smooth_motion(1, seed=0)
    probe = linear_probe(truth, truth, episodes, names=("x",), seed=0, permutations=40)
    assert probe.dimensions[0].r2.mean > 0.99
    assert -0.5 < probe.dimensions[0].null_mean < 0.1
    assert probe.dimensions[0].null_high < 0.5


def test_features_that_only_name_the_episode_explain_no_held_out_one(episodes):
    truth = smooth_motion(1, seed=0)
    probe = linear_probe(torch.nn.functional.one_hot(episodes).float(), truth, episodes, names=("x",), seed=0)
    assert probe.dimensions[0].r2.mean < 0.05


def test_many_useless_features_are_shrunk_away(episodes):
    truth = smooth_motion(1, seed=0)
    noise = torch.randn(600, 300, generator=torch.Generator().manual_seed(3))
    probe = linear_probe(noise, truth, episodes, names=("x",), seed=0, permutations=1)
    assert probe.dimensions[0].strength >= 10


def test_the_same_seed_gives_the_same_result_and_plain_numbers(episodes):
    truth = smooth_motion(2, seed=0)
    first = linear_probe(truth, truth, episodes, names=("x", "y"), seed=4, permutations=2)
    assert first == linear_probe(truth, truth, episodes, names=("x", "y"), seed=4, permutations=2)
    assert first.to_json()["held_out_episodes"] == 9


def test_a_target_that_never_changes_where_it_is_judged_has_no_r2_and_goes_into_a_file(episodes):
    truth = smooth_motion(1, seed=0)
    settings = {"names": ("x",), "seed": 0, "permutations": 2}
    truth[probe_episodes(truth, truth, episodes, **settings).held_out] = 0.25
    (x,) = linear_probe(truth, truth, episodes, **settings).dimensions
    assert math.isnan(x.r2.mean) and not x.above_chance
    assert json.loads(json.dumps(x.to_json(), allow_nan=False))["null_high"] is None


def test_too_few_episodes_are_refused():
    with pytest.raises(DataError, match="at least 5 training episodes"):
        linear_probe(torch.rand(40, 2), torch.rand(40, 1), torch.arange(40) // 10, names=("x",), seed=0)


def test_every_target_needs_a_name(episodes):
    truth = smooth_motion(2, seed=0)
    with pytest.raises(DataError, match="1 names, 2 targets"):
        linear_probe(truth, truth, episodes, names=("x",), seed=0)
