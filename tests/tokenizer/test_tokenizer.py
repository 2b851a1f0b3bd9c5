import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import Source
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig, from_pixels, to_pixels
from dreamdojo.tokenizer.train import TokenizerTraining, encode_episode, reconstruction_psnr, train_tokenizer
from dreamdojo.training.fit import FitConfig
from tests.tiny import CPU, tiny_tokenizer


@pytest.mark.parametrize("k", [1, 4])
def test_a_video_in_parts_equals_the_whole(k):
    model = tiny_tokenizer(k)
    frames = torch.rand(2, 1 + 3 * k, 3, 16, 16) * 2 - 1
    whole, _ = model.encode(frames)
    assert whole.shape == (2, 4, 4, 4, 4)
    first, state = model.encode(frames[:, : 1 + k])
    second, _ = model.encode(frames[:, 1 + k :], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-5, rtol=1e-4)

    redrawn, _ = model.decode(whole)
    assert redrawn.shape == frames.shape
    parts, state = [], None
    for i in range(4):
        part, state = model.decode(whole[:, i : i + 1], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), redrawn, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 4])
def test_latents_and_frames_do_not_see_the_future(k):
    model = tiny_tokenizer(k)
    frames = torch.rand(1, 1 + 2 * k, 3, 16, 16) * 2 - 1
    before, _ = model.encode(frames)
    frames[:, 1 + k :] *= -1
    after, _ = model.encode(frames)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:])
    with torch.no_grad():
        drawn, changed = model.decode(before)[0], model.decode(after)[0]
    torch.testing.assert_close(drawn[:, : 1 + k], changed[:, : 1 + k])


def test_the_first_latent_depends_on_the_first_frame_only():
    model = tiny_tokenizer(4)
    frames = torch.rand(1, 5, 3, 16, 16)
    alone, _ = model.encode(frames[:, :1])
    torch.testing.assert_close(model.encode(frames)[0][:, :1], alone)


def test_pixels_come_home():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_pixels(from_pixels(pixels)), pixels)


def test_a_number_of_frames_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"1 \+ 4 n"):
        tiny_tokenizer(4).encode(torch.zeros(1, 4, 3, 16, 16))
    with pytest.raises(DataError, match="spatial factor 4"):
        tiny_tokenizer().encode(torch.zeros(1, 1, 3, 18, 16))
    with pytest.raises(ConfigError, match="power of two"):
        TokenizerConfig(latent_channels=4, width=8, spatial_factor=3)


@pytest.mark.parametrize("k", [1, 4])
def test_training_redraws_better_and_normalises_latents(tmp_path, k):
    random = np.random.default_rng(0)
    colours = random.integers(0, 255, size=(6, 1, 3, 1, 1), dtype=np.uint8)
    episodes = [{"frames": np.broadcast_to(c, (9, 3, 16, 16))} for c in colours]
    config = TokenizerConfig(latent_channels=4, width=8, spatial_factor=4, temporal_factor=k, blocks=1)
    training = TokenizerTraining(fit=FitConfig(steps=120, batch_size=8, learning_rate=1e-2, warmup_steps=5))
    source = Source(embodiment="human", episodes=episodes)
    before = reconstruction_psnr(Tokenizer(config), episodes, CPU)
    model = train_tokenizer(config, training, [source], tmp_path, compute=CPU)
    assert reconstruction_psnr(model, episodes, CPU) > before + 2
    latents = np.stack([encode_episode(model, e["frames"], CPU) for e in episodes])
    assert abs(latents.mean()) < 1 and 0.3 < latents.std() < 3
    again = train_tokenizer(config, training, [source], tmp_path, compute=CPU)  # finished: loaded, not trained
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("k", [1, 4])
def test_an_episode_is_encoded_alike_in_chunks_of_any_size(k):
    model = tiny_tokenizer(k)
    frames = np.random.default_rng(0).integers(0, 255, size=(14, 3, 16, 16), dtype=np.uint8)
    whole = encode_episode(model, frames, CPU, chunk=64)
    assert len(whole) == model.num_latents(14)
    np.testing.assert_allclose(encode_episode(model, frames, CPU, chunk=2), whole, atol=2e-3)
