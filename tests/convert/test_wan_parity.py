"""Our Wan tokenizer against numbers computed by the published code (random weights, tiny sizes)."""

import re

import pytest
import torch
from einops import rearrange

from dreamdojo.convert import names
from dreamdojo.errors import CheckpointError
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from tests.oracle import load_oracle, weights

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def published() -> tuple[WanTokenizer, dict]:
    oracle = load_oracle("wan_vae_tiny")
    model = WanTokenizer(WanConfig(width=8, latent_channels=4)).eval().requires_grad_(False)
    ours = names.from_published(weights(oracle), prefix=names.WAN_PREFIX, names=names.WAN_NAMES)
    model.load_state_dict({**ours, "latent_mean": oracle["scale.mean"], "latent_std": oracle["scale.std"]})
    return model, oracle


def time_first(video: torch.Tensor) -> torch.Tensor:
    return rearrange(video, "b c t h w -> b t c h w")


def test_latents_and_frames_of_a_video_are_the_published_ones():
    model, oracle = published()
    latents, _ = model.encode(time_first(oracle["in.video"]))
    torch.testing.assert_close(latents, time_first(oracle["out.latent"]), **CLOSE)
    frames, _ = model.decode(time_first(oracle["out.latent"]))
    torch.testing.assert_close(frames, time_first(oracle["out.recon"]), **CLOSE)


def test_latent_and_frame_of_an_image_are_the_published_ones():
    model, oracle = published()
    latents, _ = model.encode(time_first(oracle["in.video"][:, :, :1]))
    torch.testing.assert_close(latents, time_first(oracle["out.image_latent"]), **CLOSE)
    frames, _ = model.decode(latents)
    torch.testing.assert_close(frames, time_first(oracle["out.image_recon"]), **CLOSE)


@pytest.mark.parametrize("window", [4, 16])
def test_latents_of_a_video_in_parts_are_the_published_ones(window):
    model, oracle = published()
    video = time_first(oracle["in.video"])
    first, state = model.encode(video[:, :1])
    parts = [first]
    for part in video[:, 1:].split(window, dim=1):
        latents, state = model.encode(part, state)
        parts.append(latents)
    torch.testing.assert_close(torch.cat(parts, dim=1), time_first(oracle["out.latent"]), **CLOSE)


def test_frames_of_random_latents_are_the_published_ones():
    model, oracle = published()
    frames, _ = model.decode(time_first(oracle["in.z_random"]))
    torch.testing.assert_close(frames, time_first(oracle["out.decode_random"]), **CLOSE)


def test_every_published_entry_has_one_name_of_ours_and_every_weight_of_ours_a_published_entry():
    state = weights(load_oracle("wan_vae_tiny"))
    ours = names.from_published(state, prefix=names.WAN_PREFIX, names=names.WAN_NAMES)
    assert len(ours) == len(state) == 194
    model = WanTokenizer(WanConfig(width=8, latent_channels=4))
    assert {name: value.shape for name, value in ours.items()} == {n: p.shape for n, p in model.named_parameters()}
    back = names.to_published(ours, prefix=names.WAN_PREFIX, names=names.WAN_NAMES)
    assert back.keys() == state.keys() and all(back[name] is value for name, value in state.items())
    for name in state:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern, _ in names.WAN_NAMES) == 1, name


def test_an_entry_of_another_layout_is_refused():
    foreign = {"encoder.downsamples.2.residual.0.gamma": torch.ones(1)}  # a resampler stands there
    with pytest.raises(CheckpointError, match="not part of the published layout"):
        names.from_published(foreign, prefix=names.WAN_PREFIX, names=names.WAN_NAMES)
