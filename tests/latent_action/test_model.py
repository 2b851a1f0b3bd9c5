import torch

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
