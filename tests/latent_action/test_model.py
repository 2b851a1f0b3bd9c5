import pytest
import torch

from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from tests.tiny import awake


def model(**changes):
    torch.manual_seed(0)
    settings = {"dim": 16, "latent_dim": 3, "num_heads": 2, "encoder_blocks": 1, "decoder_blocks": 1, "patch_size": 8}
    return awake(LatentActionModel(LatentActionConfig(**settings, **changes)))


def clip(frames=4):
    return torch.rand(2, frames, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_backwards_a_motion_is_its_negative_and_stillness_is_zero():
    for fused in (True, False):
        lam = model(antisymmetric=True, early_fusion=fused)
        forwards, backwards = lam.encode(clip()), lam.encode(clip().flip(1))
        torch.testing.assert_close(backwards.mean.flip(1), -forwards.mean)
        torch.testing.assert_close(backwards.log_variance.flip(1), forwards.log_variance)
        assert forwards.mean.abs().max() > 1e-3
        assert not lam.encode(clip()[:, :1].expand(-1, 2, -1, -1, -1)).mean.any()


def test_without_it_a_still_pair_has_a_latent_action_of_its_own():
    assert model(early_fusion=True).encode(clip()[:, :1].expand(-1, 2, -1, -1, -1)).mean.any()


CONVOLUTIONAL = {"convolutional": True, "early_fusion": True, "residual": True, "dim": 64}


def convolutional(**changes):
    torch.manual_seed(0)
    settings = {"latent_dim": 3, "num_heads": 2, "encoder_blocks": 1, "decoder_blocks": 1, "patch_size": 8}
    return LatentActionModel(LatentActionConfig(**settings, **CONVOLUTIONAL, **changes))


def test_convolutions_keep_samples_and_pairs_apart():
    lam = awake(convolutional(antisymmetric=True))
    frames = torch.rand(2, 3, 3, 20, 36, generator=torch.Generator().manual_seed(0))
    posterior = lam.encode(frames)
    assert posterior.mean.shape == (2, 2, 3)
    alone = lam.encode(frames[1:, 1:])
    torch.testing.assert_close(posterior.mean[1, 1], alone.mean[0, 0])
    redrawn = lam.decode(frames[:, :-1], posterior.mean)
    assert redrawn.shape == (2, 2, 3, 16, 32)
    torch.testing.assert_close(redrawn[1, 1], lam.decode(frames[1:, 1:2], posterior.mean[1:, 1:])[0, 0])
    assert not lam.encode(frames[:, :1].expand(-1, 2, -1, -1, -1)).mean.any()


def test_an_untrained_convolutional_decoder_repeats_the_frame_and_an_awake_one_obeys():
    frames, action = clip(frames=2), torch.ones(2, 2, 3)
    torch.testing.assert_close(convolutional().decode(frames, action), frames)
    lam = awake(convolutional())
    assert (lam.decode(frames, action) - lam.decode(frames, -action)).abs().max() > 1e-3


@pytest.mark.parametrize("change", [{"residual": False}, {"patch_size": 4}, {"dim": 32}])
def test_convolutions_say_what_they_need(change):
    settings = {"latent_dim": 3, "num_heads": 2, "encoder_blocks": 1, "decoder_blocks": 1, "patch_size": 8}
    with pytest.raises(ConfigError, match="convolutional"):
        LatentActionConfig(**{**settings, **CONVOLUTIONAL, **change})
