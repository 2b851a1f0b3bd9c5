from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.rollout.session import Session, load_session
from dreamdojo.training.checkpoint import save_model
from dreamdojo.world import Observation, World
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, PUSHER, tiny_tokenizer, tiny_world_model


def session(k=1):
    return Session(tiny_world_model(k), tiny_tokenizer(k), SamplerConfig(steps=2), embodiment=PUSHER, compute=CPU)


def first_frame(batch=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    frame = torch.randint(0, 255, (batch, 1, 3, 16, 16), generator=random, dtype=torch.uint8)
    return Observation(frames={"head": frame}, state=torch.zeros(batch, 1, 2))


def drive(world, actions):
    return torch.cat([world.step(chunk).frames["head"] for chunk in actions], dim=1)


def chunks(k=1, n=5, batch=1, seed=0):
    return torch.rand(n, batch, k, 2, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_a_session_is_a_world():
    assert isinstance(session(), World)
    assert repr(session()) == "Session(pusher, 16x16 px, 10 fps, 2 steps a frame, batch 0)"


@pytest.mark.parametrize("k", [1, 4])
def test_the_same_seed_gives_the_same_frames_and_another_seed_others(k):
    world = session(k)
    videos = []
    for seed in (0, 0, 1):
        world.reset(first_frame(), seed=seed)
        videos.append(drive(world, chunks(k)))
    assert videos[0].shape == (1, 5 * k, 3, 16, 16) and videos[0].dtype == torch.uint8
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])


@pytest.mark.parametrize("k", [1, 4])
def test_a_fork_does_not_disturb_its_parent_and_starts_where_it_was(k):
    world = session(k)
    world.reset(first_frame(), seed=3)
    drive(world, chunks(k))
    branch = world.fork(4)
    explored = drive(branch, chunks(k, batch=4, seed=9))
    assert explored.shape == (4, 5 * k, 3, 16, 16)
    after = drive(world, chunks(k, seed=1))

    alone = session(k)
    alone.reset(first_frame(), seed=3)
    drive(alone, chunks(k))
    assert torch.equal(drive(alone, chunks(k, seed=1)), after)


def test_a_single_fork_sees_what_its_parent_would_have_seen():
    world = session()
    world.reset(first_frame(), seed=3)
    drive(world, chunks())
    branch = world.fork(1)
    assert torch.equal(drive(branch, chunks(seed=1)), drive(world, chunks(seed=1)))


@pytest.mark.parametrize("k", [1, 4])
def test_observing_forgets_what_was_dreamt_since_the_last_real_frame(k):
    real = Observation(frames={"head": torch.randint(0, 255, (1, k, 3, 16, 16), dtype=torch.uint8)})
    actions = chunks(k)[0]
    plain, dreamer = session(k), session(k)
    for world in (plain, dreamer):
        world.reset(first_frame(), seed=0)
    drive(dreamer, chunks(k, seed=5))
    for world in (plain, dreamer):
        world.observe(real, actions)
    a, b = (world._now.dream.rollout for world in (plain, dreamer))
    assert torch.equal(a.last, b.last)
    assert all(torch.equal(x.key, y.key) for x, y in zip(a.past, b.past, strict=True))


def test_predicted_state_is_the_integral_of_the_actions_and_says_so():
    world = session(4)
    world.reset(first_frame())
    actions = chunks(4)
    prediction = world.step(actions[0])
    assert prediction.state_source == "integrator"
    torch.testing.assert_close(prediction.state, actions[0].cumsum(dim=1) / 10)
    torch.testing.assert_close(world.step(actions[1]).state[:, -1], (actions[0] + actions[1]).sum(dim=1) / 10)


def test_at_its_limit_a_body_stands_still_whatever_is_commanded():
    edge = torch.tensor([[[1.0, 0.98]]])  # in x at the limit, in y a fifth of a step from it
    commanded, left = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[0.0, 0.2]]])
    seen = []
    for action in (commanded, left, commanded - 1):
        world = session()
        world.reset(replace(first_frame(), state=edge), seed=0)
        seen.append(world.step(action))
    out, cut, back = seen
    torch.testing.assert_close(out.state, torch.tensor([[[1.0, 1.0]]]))
    torch.testing.assert_close(out.state, cut.state)
    assert (out.frames["head"].int() - cut.frames["head"].int()).abs().max() <= 1, "the model is told what is left"
    torch.testing.assert_close(back.state, torch.tensor([[[0.95, 0.93]]]))


def test_what_cannot_be_is_said():
    world = session()
    with pytest.raises(ConfigError, match="call reset"):
        world.step(chunks()[0])
    with pytest.raises(ConfigError, match="starts from a real frame"):
        world.reset()
    with pytest.raises(DataError, match="expected a camera 'head', found: wrist"):
        world.reset(Observation(frames={"wrist": first_frame().frames["head"]}))
    with pytest.raises(DataError, match="b t 3 16 16"):
        world.reset(Observation(frames={"head": torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)}))
    world.reset(first_frame())
    with pytest.raises(DataError, match=r"width 2 \(velocity\.x, velocity\.y\), got 3"):
        world.step(torch.zeros(1, 1, 3))
    with pytest.raises(DataError, match=r"expected actions of shape \(1, 1, 2\)"):
        world.step(torch.zeros(2, 1, 2))
    with pytest.raises(DataError, match="finite"):
        world.step(torch.full((1, 1, 2), float("nan")))


def test_a_session_opens_from_its_folder(tmp_path):
    save_model(tmp_path / "student", tiny_world_model(), about={"sampler": {"steps": 2, "shift": 5.0}})
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_session(tmp_path / "student", device="cpu")
    save_model(tmp_path / "tokenizer", tiny_tokenizer())
    world = load_session(tmp_path / "student", device="cpu")
    assert world.embodiment == PUSHER
    world.reset(first_frame())
    assert np.isfinite(drive(world, chunks()).float().numpy()).all()
    with pytest.raises(ConfigError, match="it has: pusher"):
        load_session(tmp_path / "student", embodiment="other")


@pytest.mark.parametrize("k", [1, 4])
def test_a_fork_shares_nothing_with_its_parent(k):
    world = session(k)
    world.reset(first_frame(), seed=3)
    drive(world, chunks(k))
    branch = world.fork(2)
    before = [tensor.clone() for moment in (world._now, world._anchor) for tensor in moment.dream.tensors]
    for moment in (branch._now, branch._anchor):
        for tensor in moment.dream.tensors:
            tensor.fill_(7.0)
        moment.proprioception.fill(7.0)
    branch._generator.manual_seed(7)
    after = [tensor for moment in (world._now, world._anchor) for tensor in moment.dream.tensors]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not (world._now.proprioception == 7).any() and world._generator.initial_seed() == 3


def test_64_forks_cost_64_windows_however_long_the_rollout_was():
    world = session()
    world.reset(first_frame(), seed=3)
    anchor, costs = world.num_bytes, []
    for _ in range(2):
        drive(world, chunks(n=5))
        window = world.num_bytes - anchor
        branch = world.fork(64)
        room = 64 * (window + world._now.dream.rollout.reference.nbytes) + anchor
        assert branch.num_bytes <= room
        drive(branch, chunks(n=2, batch=64))
        costs.append(branch.num_bytes)
    assert costs[0] == costs[1] <= room


def test_every_fork_goes_back_to_the_last_real_frame():
    real = Observation(frames={"head": torch.randint(0, 255, (3, 1, 3, 16, 16), dtype=torch.uint8)})
    world = session()
    world.reset(first_frame(), seed=0)
    branch = world.fork(3)
    drive(branch, chunks(batch=3))
    actions = chunks(batch=3)[0]
    branch.observe(real, actions)
    alone = session()
    alone.reset(first_frame(), seed=0)
    alone.observe(Observation(frames={"head": real.frames["head"][1:2]}), actions[1:2])
    torch.testing.assert_close(branch._now.dream.rollout.last[1:2], alone._now.dream.rollout.last)


def test_no_pixel_is_encoded_twice_and_every_latent_is_decoded_once(monkeypatch):
    world, encoded, decoded = session(4), [], []
    tokenizer = world._dream._tokenizer
    encode, decode = tokenizer.encode, tokenizer.decode
    monkeypatch.setattr(tokenizer, "encode", lambda x, *state: encoded.append(x.shape[1]) or encode(x, *state))
    monkeypatch.setattr(tokenizer, "decode", lambda x, *state: decoded.append(x.shape[1]) or decode(x, *state))
    world.reset(first_frame())
    drive(world, chunks(4))
    drive(world.fork(2), chunks(4, batch=2))
    real = Observation(frames={"head": torch.zeros(1, 8, 3, 16, 16, dtype=torch.uint8)})
    world.observe(real, torch.zeros(1, 8, 2))
    assert encoded == [1, 8] and decoded == [1] * 11 + [2]
