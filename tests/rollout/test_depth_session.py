"""A session that sees depth."""

from dataclasses import replace

import pytest
import torch

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.rollout.session import Session, load_session, observation
from dreamdojo.tokenizer.rgbd import join_parts
from dreamdojo.tokenizer.wan import WanTokenizer
from dreamdojo.training.checkpoint import save_model
from dreamdojo.world import Observation
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.widen import add_depth
from tests.rollout.test_session import chunks, first_frame
from tests.tiny import CPU, PUSHER, awake, tiny_rgbd_tokenizer, tiny_tokenizer, tiny_world_model
from tests.tokenizer.test_rgbd import CODING, WAN

SAMPLER = SamplerConfig(steps=2)


def sessions(k):
    """An RGB session, and one of the same weights with depth."""
    model, tokenizer = tiny_world_model(k), tiny_rgbd_tokenizer(k)
    rgb = Session(model, tiny_tokenizer(k), SAMPLER, embodiment=PUSHER, compute=CPU)
    return rgb, Session(add_depth(model, 2), tokenizer, SAMPLER, embodiment=PUSHER, compute=CPU)


def rgbd(k=1):
    """A session whose weights for depth are not those of the start."""
    model = awake(add_depth(tiny_world_model(k), 2))
    with torch.no_grad():
        for layer in (model.dit.patch_in, model.dit.patch_out):
            layer.weight.normal_(std=0.1)
    return Session(model, tiny_rgbd_tokenizer(k), SAMPLER, embodiment=PUSHER, compute=CPU)


def with_depth(seen, seed=0):
    frames = seen.frames["head"]
    shape = (*frames.shape[:2], 1, *frames.shape[3:])
    metres = 0.3 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return replace(seen, depth={"head": metres})


@pytest.mark.parametrize("k", [1, 4])
def test_an_rgb_model_that_got_depth_shows_the_same_frames(k):
    rgb, depth = sessions(k)
    real = Observation(frames={"head": torch.randint(0, 255, (1, k, 3, 16, 16), dtype=torch.uint8)})
    videos = []
    for world, prepare in ((rgb, lambda seen: seen), (depth, with_depth)):
        world.reset(prepare(first_frame()), seed=3)
        world.observe(prepare(real), chunks(k)[0])
        frames = [world.step(chunk).frames["head"] for chunk in chunks(k, n=4)]
        branch = world.fork(2)
        frames += [branch.step(chunk).frames["head"][:1] for chunk in chunks(k, n=2, batch=2, seed=4)]
        videos.append(torch.cat(frames, dim=1))
    assert videos[0].float().std() > 1
    assert torch.equal(videos[0], videos[1])


def test_the_published_way_of_clips_gets_depth_too():
    options = {"causal": False, "window": None, "prediction": "velocity", "previous_latent": False}
    model = tiny_world_model(4, mask_channels=True, **options)
    torch.manual_seed(0)
    wan = WanTokenizer(WAN).eval()
    sampler = SamplerConfig(steps=2, solver="unipc")
    rgb = Session(model, wan, sampler, embodiment=PUSHER, compute=CPU)
    depth = Session(add_depth(model, 4), join_parts(wan, None, CODING), sampler, embodiment=PUSHER, compute=CPU)
    rgb.reset(first_frame(), seed=1)
    depth.reset(with_depth(first_frame()), seed=1)
    for chunk in chunks(12, n=2):
        ours, theirs = depth.step(chunk), rgb.step(chunk)
        assert torch.equal(ours.frames["head"], theirs.frames["head"])
        assert ours.depth is not None and ours.depth["head"].shape == (1, 12, 1, 16, 16)


@pytest.mark.parametrize("k", [1, 4])
def test_depth_is_predicted_in_metres_and_depends_on_seed_and_depth(k):
    world = rgbd(k)
    found = []
    for seed, of_depth in ((0, 0), (0, 0), (1, 0), (0, 1)):
        world.reset(with_depth(first_frame(), of_depth), seed=seed)
        found.append(world.step(chunks(k)[0]).depth["head"])
    metres = found[0]
    assert metres.shape == (1, k, 1, 16, 16) and metres.dtype == torch.float32
    assert metres.min() >= 0.2 and metres.max() <= 3.0
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2]) and not torch.equal(found[0], found[3])


def test_a_fork_dreams_the_same_depth_and_leaves_its_parent_alone():
    world = rgbd()
    world.reset(with_depth(first_frame()), seed=3)
    world.step(chunks()[0])
    world.fork(3).step(chunks(batch=3)[0])
    branch = world.fork(1)
    assert torch.equal(branch.step(chunks()[1]).depth["head"], world.step(chunks()[1]).depth["head"])


def test_missing_or_misshapen_depth_is_said():
    world = rgbd()
    assert "16x16 px with depth" in repr(world) and world.depth == CODING
    with pytest.raises(DataError, match=r"sees depth.*metres.*\(1, 1, 1, 16, 16\).*got none"):
        world.reset(first_frame())
    seen = with_depth(first_frame())
    with pytest.raises(DataError, match=r"got torch.float32 \(1, 1, 16, 16\)"):
        world.reset(replace(seen, depth={"head": seen.depth["head"][:, :, 0]}))
    with pytest.raises(DataError, match=r"got torch\.uint8"):
        world.reset(replace(seen, depth={"head": seen.depth["head"].to(torch.uint8)}))
    world.reset(seen)
    with pytest.raises(DataError, match="got none"):
        world.observe(first_frame(), chunks()[0])
    with pytest.raises(ConfigError, match=r"4 latent channels.*one of 6"):
        Session(tiny_world_model(), tiny_rgbd_tokenizer(), SAMPLER, embodiment=PUSHER, compute=CPU)


def test_it_is_opened_from_its_folder_and_takes_pictures_of_any_size(tmp_path):
    save_model(tmp_path / "student", add_depth(tiny_world_model(), 2), about={"sampler": {"steps": 2}})
    save_model(tmp_path / "tokenizer", tiny_rgbd_tokenizer())
    world = load_session(tmp_path / "student", device="cpu")
    frame, metres = torch.zeros(40, 60, 3, dtype=torch.uint8).numpy(), torch.full((40, 60), 1.5).numpy()
    world.reset(observation(frame, None, world.size, metres))
    assert world.step(chunks()[0]).depth["head"].shape == (1, 1, 1, 16, 16)
