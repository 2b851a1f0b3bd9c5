"""OpenVINO computes what PyTorch computes, in everything that a session does."""

import importlib.util
import sys
from dataclasses import replace

import jaxtyping
import pytest
import torch

from dreamdojo.errors import ConfigError
from dreamdojo.rollout.session import Session
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.training.device import Compute, choose_compute
from dreamdojo.world import Observation
from dreamdojo.world_model import sample
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, PUSHER, tiny_rgbd_tokenizer, tiny_tokenizer, tiny_world_model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")

SAMPLER = SamplerConfig(steps=2)


@pytest.fixture(autouse=True)
def _without_type_checks():
    """A trace sees numbers as tensors, which the checks that tests run under would refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def session(backend, *, tokenizer=tiny_tokenizer, k=1, sampler=SAMPLER, compute=CPU, **changes):
    model = tiny_world_model(k, **changes)
    return Session(model, tokenizer(k), sampler, embodiment=PUSHER, compute=compute, backend=backend)


def look(world, batch=1, frames=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 255, (batch, frames, 3, 16, 16), generator=random, dtype=torch.uint8)
    depth = {"head": 0.3 + torch.rand(batch, frames, 1, 16, 16, generator=random)} if world.depth else None
    return Observation(frames={"head": pictures}, depth=depth)


def live(world, k):
    """All that a world shows while it is driven, forked, shown real frames and driven on: latents, frames, depth."""
    actions = torch.rand(16, 1, k, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    world.reset(look(world), seed=3)
    shown = [world.step(chunk) for chunk in actions[:8]]
    branches = world.fork(3)
    shown += [branches.step(chunk.expand(3, -1, -1)) for chunk in actions[8:11]]
    world.observe(look(world, frames=k, seed=1), actions[11])
    shown += [world.step(chunk) for chunk in actions[12:]]
    seen = [frame for each in shown for frame in each.frames["head"].float().flatten()]
    seen += [value * 255 for each in shown if each.depth for value in each.depth["head"].flatten()]
    return torch.stack(seen), world._now.dream.rollout.last


@pytest.mark.parametrize(
    "setting",
    [
        {"k": 4, "convolution_width": 8},
        {"reference_latent": True},
        {"previous_latent": False, "prediction": "velocity", "window": 2},
        {"window": 1, "sampler": SamplerConfig(steps=1, commit="last_step", solver="renoise")},
        {"window": 5, "sampler": SamplerConfig(steps=2, window=3, sink=1)},
        {"tokenizer": tiny_rgbd_tokenizer, "latent_channels": 6},
    ],
    ids=", ".join,
)
def test_a_life_is_the_same(setting):
    torch_shown, torch_latent = live(session("torch", **setting), setting.get("k", 1))
    shown, latent = live(session("openvino", **setting), setting.get("k", 1))
    assert torch_latent.std() > 0.1
    torch.testing.assert_close(latent, torch_latent, atol=2e-4, rtol=2e-3)
    assert (shown - torch_shown).abs().max() <= 1


def test_bfloat16_is_as_near_as_pytorchs_own():
    half = Compute(torch.device("cpu"), True, "tests")
    _, exact = live(session("torch"), 1)
    _, torch_half = live(session("torch", compute=half), 1)
    _, ours = live(session("openvino", compute=half), 1)
    assert (ours - exact).abs().mean() < 3 * (torch_half - exact).abs().mean() + 1e-6


def test_once_the_window_is_full_pytorch_computes_nothing(monkeypatch):
    world = session("openvino")
    world.reset(look(world))
    for _ in range(3):
        world.step(torch.zeros(1, 1, 2))

    def refused(*_, **__):
        raise AssertionError("PyTorch was called")

    monkeypatch.setattr(type(world._model.dit), "forward", refused)
    monkeypatch.setattr(Tokenizer, "decode", refused)
    monkeypatch.setattr(RGBDTokenizer, "decode", refused)
    world.use_steps(1)
    world.step(torch.zeros(1, 1, 2))


def test_while_it_computes_pytorch_has_one_thread_and_all_of_them_before_and_after(monkeypatch):
    counts = {"in DiT": [], "in settled": []}

    def counting(where, function):
        return lambda *a, **k: (counts[where].append(torch.get_num_threads()), function(*a, **k))[1]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        world = session("openvino")
        monkeypatch.setattr(type(world._model.dit), "forward", counting("in DiT", type(world._model.dit).forward))
        monkeypatch.setattr(sample, "settled", counting("in settled", sample.settled))
        world.reset(look(world))
        for _ in range(3):
            world.step(torch.zeros(1, 1, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(counts["in DiT"]) == {2} and set(counts["in settled"]) == {1}


def test_what_it_cannot_run_is_refused_by_name_and_left_to_pytorch_by_auto(monkeypatch):
    with pytest.raises(ConfigError, match="frame by frame within a window and without text"):
        session("openvino", causal=False, window=None, previous_latent=False, prediction="velocity")
    with pytest.raises(ConfigError, match="on the CPU, not on meta"):
        session("openvino", compute=replace(CPU, device=torch.device("meta")))
    assert "openvino" in repr(session("auto"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "openvino" not in repr(session("auto"))
    with pytest.raises(ConfigError, match=r'needs `pip install "dreamdojo\[openvino\]"`'):
        session("openvino")


def test_backends_and_devices_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match="there is no backend 'tensorrt'; there are: auto, torch, openvino"):
        session("tensorrt")
    with pytest.raises(ConfigError, match="there is no device 'gpu'; there are: auto, cuda, mps, cpu"):
        choose_compute("gpu")  # pyright: ignore[reportArgumentType]


def test_what_does_not_compile_is_said_and_computed_by_pytorch(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setattr("dreamdojo.rollout.openvino.Program", fails)
    with pytest.warns(UserWarning, match="model: RuntimeError: no such operation. PyTorch computes instead"):
        world = session("auto")
    live(world, 1)
    with pytest.raises(ConfigError, match="no such operation"):
        session("openvino")


def test_it_tells_nobody_that_it_is_in_use():
    session("openvino")
    assert sys.modules["openvino_telemetry"] is None
