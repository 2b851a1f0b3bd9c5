from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import RGBDConfig, RGBDTokenizer, join_parts, rgb_tokenizer
from dreamdojo.tokenizer.train import encode_episode, reconstruction_depth_error, reconstruction_psnr
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.training.checkpoint import model_hash, save_model
from tests.tiny import CPU, tiny_rgbd_tokenizer, tiny_tokenizer

CODING = DepthCoding(near=0.2, far=3.0)
WAN = WanConfig(width=8, latent_channels=4, multipliers=(1, 1, 1), blocks=1, temporal_down=(True, True))


def wan():
    torch.manual_seed(0)
    return join_parts(WanTokenizer(WAN).eval(), None, CODING)


def video(frames, side=16, batch=1):
    random = torch.Generator().manual_seed(1)
    return 2 * torch.rand(batch, frames, 4, side, side, generator=random) - 1


@pytest.mark.parametrize(("make", "k"), [(tiny_rgbd_tokenizer, 1), (lambda: tiny_rgbd_tokenizer(4), 4), (wan, 4)])
@torch.no_grad()
def test_streaming_equals_the_whole_video_and_its_first_latents_are_those_of_rgb(make, k):
    tokenizer, frames = make(), video(1 + 2 * k)
    assert isinstance(tokenizer, VideoTokenizer)
    whole, _ = tokenizer.encode(frames)
    assert whole.shape == (1, 3, tokenizer.latent_channels, 4, 4) and tokenizer.num_latents(1 + 2 * k) == 3
    rgb = rgb_tokenizer(tokenizer)
    assert torch.equal(whole[:, :, : rgb.latent_channels], rgb.encode(frames[:, :, :3])[0])

    first, state = tokenizer.encode(frames[:, :1])
    rest, _ = tokenizer.encode(frames[:, 1:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    decoded, _ = tokenizer.decode(whole)
    assert decoded.shape == frames.shape
    assert torch.equal(decoded[:, :, :3], rgb.decode(whole[:, :, : rgb.latent_channels])[0])
    first, state = tokenizer.decode(whole[:, :1])
    state = tuple(part.expand(1, *part.shape[1:]) for part in state)  # as a fork does
    rest, _ = tokenizer.decode(whole[:, 1:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), decoded)


@pytest.mark.parametrize("make", [tiny_rgbd_tokenizer, wan])
@torch.no_grad()
def test_a_folder_holds_both_parts_and_once_what_they_share(make, tmp_path):
    tokenizer = make()
    save_model(tmp_path, tokenizer)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, RGBDTokenizer) and loaded.config == tokenizer.config
    frames = video(5 if make is wan else 2)
    assert torch.equal(loaded.encode(frames)[0], tokenizer.encode(frames)[0])
    names = set(tokenizer.state_dict())
    assert any(name.startswith("own_depth.") for name in names) == (make is tiny_rgbd_tokenizer)

    before = model_hash(tmp_path)
    save_model(tmp_path, join_parts(tokenizer.rgb, tokenizer.own_depth, replace(CODING, far=4.0)))
    assert model_hash(tmp_path) != before  # or a cache of latents would not know that depth means something else


def test_the_wan_tokenizer_with_depth_can_be_tiled(tmp_path):
    save_model(tmp_path, wan())
    tiled = load_tokenizer(tmp_path, tile=16)
    with torch.no_grad():
        latents, _ = tiled.encode(video(1, side=32))
        assert latents.shape == (1, 1, 8, 8, 8) and tiled.decode(latents)[0].shape == (1, 1, 4, 32, 32)


@torch.no_grad()
def test_episodes_are_encoded_with_their_depth_and_errors_are_in_centimetres():
    tokenizer, random = tiny_rgbd_tokenizer(), np.random.default_rng(0)
    frames = random.integers(0, 255, (6, 3, 16, 16), dtype=np.uint8)
    depth = random.uniform(0.5, 2, (6, 16, 16)).astype(np.float16)
    latents = encode_episode(tokenizer, frames, CPU, chunk=2, depth=depth)
    assert latents.shape == (6, 6, 4, 4) and latents.dtype == np.float16
    rgb = encode_episode(tokenizer.rgb_part, frames, CPU, chunk=2)
    np.testing.assert_array_equal(latents[:, :4], rgb)

    episodes = [{"frames": frames, "depth": depth}]
    assert reconstruction_psnr(tokenizer, episodes, CPU) == reconstruction_psnr(tokenizer.rgb_part, episodes, CPU)
    metres = torch.from_numpy(depth.astype(np.float32))
    codes = tokenizer.coding.encode(metres)[None, :, None]
    redrawn = tokenizer.coding.decode(tokenizer.depth_part.decode(tokenizer.depth_part.encode(codes)[0])[0])[0, :, 0]
    expected = float((redrawn - metres).abs().mean() * 100)
    assert reconstruction_depth_error(tokenizer, episodes, CPU) == pytest.approx(expected, rel=1e-5)


def test_parts_that_do_not_fit_are_refused():
    small = tiny_tokenizer().config
    with pytest.raises(ConfigError, match="temporal_factor=1"):
        RGBDConfig(rgb=small, depth=replace(small, channels=1, temporal_factor=4), coding=CODING)
    with pytest.raises(ConfigError, match="channels=1"):
        RGBDConfig(rgb=small, depth=small, coding=CODING)
    with pytest.raises(ConfigError, match="got a WanConfig"):
        RGBDConfig(rgb=WAN, depth=replace(small, channels=1), coding=CODING)
    with pytest.raises(DataError, match="b t 4 h w"):
        tiny_rgbd_tokenizer().encode(torch.zeros(1, 1, 3, 16, 16))
    with pytest.raises(DataError, match="equally many"):
        tiny_rgbd_tokenizer().decode(torch.zeros(1, 1, 6, 4, 4), (torch.zeros(1),))


def test_a_folder_with_something_else_is_refused(tmp_path):
    save_model(tmp_path, tiny_tokenizer())
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"Tokenizer"', '"Else"'))
    with pytest.raises(CheckpointError, match="found a Else"):
        load_tokenizer(tmp_path)
