import pytest
import torch

from dreamdojo.errors import ConfigError
from dreamdojo.world_model.widen import add_depth, add_reference
from tests.tiny import LATENT_DIM, tiny_world_model

RESIDUAL = {}
PUBLISHED = {
    "previous_latent": False,
    "causal": False,
    "window": None,
    "prediction": "velocity",
    "mask_channels": True,
}


REFERENCE = {"reference_latent": True}
CONVOLUTIONS = {"convolution_width": 8, "convolution_blocks": 1}


@pytest.mark.parametrize(
    "options", [RESIDUAL, PUBLISHED, {"previous_latent": False}, REFERENCE, CONVOLUTIONS, PUBLISHED | CONVOLUTIONS]
)
@torch.no_grad()
def test_what_the_model_says_of_rgb_is_the_same_whatever_depth_is(options):
    model = tiny_world_model(**options)
    wider = add_depth(model, 2)
    assert wider.config.dit.latent_channels == 6
    random = torch.Generator().manual_seed(0)
    sigma, action = torch.rand(2, 3, generator=random), torch.randn(2, 3, LATENT_DIM, generator=random)
    noisy, previous = (torch.randn(2, 3, 6, 4, 4, generator=random) for _ in range(2))
    reference = torch.randn(2, 6, 4, 4, generator=random)
    mask = torch.ones(2, 3) if model.config.dit.mask_channels else None

    def says(network, channels):
        given = previous[:, :, :channels] if model.config.dit.previous_latent else None
        first = reference[:, :channels] if model.config.dit.reference_latent else None
        return network.dit(noisy[:, :, :channels], sigma, action, previous=given, reference=first, condition_mask=mask)[
            0
        ]

    before, after = says(model, 4), says(wider, 6)
    assert torch.equal(after[:, :, :4], before)
    if model.config.dit.previous_latent:
        assert torch.equal(after[:, :, 4:], previous[:, :, 4:])  # at the start nothing moves
    else:
        assert (after[:, :, 4:].std() > 0).all()


def test_weights_are_copies_and_the_rest_of_the_model_is_the_same():
    model = tiny_world_model()
    wider = add_depth(model, 2)
    for name, value in model.state_dict().items():
        other = wider.state_dict()[name]
        assert other.data_ptr() != value.data_ptr()
        if name not in ("dit.patch_in.weight", "dit.patch_out.weight"):
            assert torch.equal(other, value)
    assert wider.config.embodiments == model.config.embodiments
    assert all(parameter.requires_grad for parameter in wider.parameters())
    with pytest.raises(ConfigError, match="at least one latent channel"):
        add_depth(model, 0)


@pytest.mark.parametrize("options", [RESIDUAL, {"previous_latent": False}, CONVOLUTIONS])
@torch.no_grad()
def test_a_model_that_gets_a_reference_says_what_it_said_and_can_learn_to_look_at_it(options):
    model = tiny_world_model(**options)
    wider = add_reference(model)
    random = torch.Generator().manual_seed(0)
    noisy, previous = (torch.randn(2, 3, 4, 4, 4, generator=random) for _ in range(2))
    sigma, action = torch.rand(2, 3, generator=random), torch.randn(2, 3, LATENT_DIM, generator=random)
    reference = torch.randn(2, 4, 4, 4, generator=random)
    given = previous if model.config.dit.previous_latent else None
    before = model.dit(noisy, sigma, action, previous=given)[0]
    assert torch.equal(wider.dit(noisy, sigma, action, previous=given, reference=reference)[0], before)

    entry = wider.dit.stem.conv_in.weight if wider.dit.stem else wider.dit.patch_in.weight
    entry.add_(0.1)
    looks = wider.dit(noisy, sigma, action, previous=given, reference=reference)[0]
    assert not torch.equal(wider.dit(noisy, sigma, action, previous=given, reference=-reference)[0], looks)
    with pytest.raises(ConfigError, match="already"):
        add_reference(wider)
