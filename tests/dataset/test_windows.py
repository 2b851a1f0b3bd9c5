import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import Source, WindowSampler
from dreamdojo.errors import ConfigError, DataError


def numbered(name, lengths, weight=1.0, offset=0):
    episodes = [{"x": np.arange(n) + 1000 * i + offset} for i, n in enumerate(lengths)]
    return Source(embodiment=name, episodes=episodes, weight=weight)


def test_a_batch_depends_on_seed_and_step_only():
    sources = [numbered("a", [10, 20]), numbered("b", [30])]
    one, two = (WindowSampler(sources, length=4, batch_size=8, seed=5) for _ in range(2))
    for step in (3, 0):
        assert torch.equal(one(step).cat("x"), two(step).cat("x"))
    assert not torch.equal(one(0).cat("x"), one(1).cat("x"))


def test_windows_stay_inside_an_episode_and_every_window_is_drawn():
    sampler = WindowSampler([numbered("a", [5, 3, 2])], length=3, batch_size=64, seed=0)
    rows = {tuple(row.tolist()) for step in range(5) for row in sampler(step).cat("x")}
    assert rows == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (1000, 1001, 1002)}


def test_strides_skip_rows():
    sampler = WindowSampler([numbered("a", [9])], length=3, batch_size=32, seed=0, strides=(1, 4))
    steps = {tuple(row.diff().tolist()) for row in sampler(0).cat("x")}
    assert steps == {(1, 1), (4, 4)}


def test_sources_are_mixed_by_weight_and_kept_apart_by_body():
    sources = [numbered("a", [50], weight=3), numbered("b", [50], weight=1, offset=500), numbered("c", [50], weight=0)]
    sampler = WindowSampler(sources, length=2, batch_size=400, seed=0)
    batch = sampler(0)
    counts = {name: len(samples["x"]) for name, samples in batch.by_embodiment.items()}
    assert set(counts) == {"a", "b"} and 250 < counts["a"] < 350
    assert (batch.by_embodiment["b"]["x"] >= 500).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match=r"at least one episode of 8 rows.*longest of 2 has 7"):
        WindowSampler([numbered("a", [7, 3])], length=8, batch_size=1, seed=0)
    with pytest.raises(ConfigError, match="positive weight"):
        WindowSampler([numbered("a", [7], weight=0)], length=2, batch_size=1, seed=0)
