from dataclasses import replace

import torch

from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.student.consistency import draw_given
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.train import WorldModelTraining, corrupt, draw_contrast, with_contrast
from tests.tiny import latent_source, tiny_world_model

CPU = torch.device("cpu")
TRAINING = WorldModelTraining(fit=FitConfig(steps=1, batch_size=4, learning_rate=1e-3), latent_frames=3)


def windows():
    return WindowSampler([latent_source()], length=4, batch_size=4, seed=0)(0)


def factor(value):
    return torch.full((1, 1, 1, 1, 1), value)


def test_contrast_of_the_whole_and_of_detail():
    latent = torch.randn(1, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(with_contrast(latent, factor(1.0), factor(1.0)), latent, atol=1e-6)
    assert torch.allclose(with_contrast(latent, factor(1.5), factor(1.0)), 1.5 * latent, atol=1e-5)
    flat = torch.full((1, 2, 3, 6, 6), 2.0)
    assert torch.allclose(with_contrast(flat, factor(1.0), factor(3.0)), flat), "a flat picture has no detail"
    sharper = with_contrast(latent, factor(1.0), factor(1.5))
    assert sharper.diff(dim=-1).square().mean() > latent.diff(dim=-1).square().mean()


def test_factors_stay_within_bounds_and_fill_them():
    whole, detail = draw_contrast(1000, 0.2, torch.Generator().manual_seed(0), CPU)
    for drawn in (whole, detail):
        assert 0.8 <= drawn.min() < 0.81 and 1.19 < drawn.max() <= 1.2
    assert not torch.equal(whole, detail)


def test_what_is_given_changes_and_what_is_to_be_predicted_does_not():
    model, batch = tiny_world_model(), windows()
    plain = corrupt(model, batch, TRAINING, torch.Generator().manual_seed(0), CPU)
    other = corrupt(model, batch, replace(TRAINING, context_contrast=0.3), torch.Generator().manual_seed(0), CPU)
    given = plain.counts == 0
    assert torch.equal(plain.clean, other.clean) and torch.equal(plain.counts, other.counts)
    assert torch.equal(plain.noisy[~given], other.noisy[~given])
    assert ((plain.noisy[given] - other.noisy[given]).abs().flatten(1).amax(1) > 0.01).all()
    assert ((plain.previous - other.previous).abs().flatten(2).amax(2) > 0.01).all()
    led_from = given[:, :-1]  # a given frame is the same thing beside the next one as in its own place
    assert torch.equal(other.noisy[:, :-1][led_from], other.previous[:, 1:][led_from])


def test_the_warm_up_sees_such_context_too():
    model, batch = tiny_world_model(), windows()
    plain = draw_given(model, batch, TRAINING, torch.Generator().manual_seed(0), CPU)
    other = draw_given(model, batch, replace(TRAINING, context_contrast=0.3), torch.Generator().manual_seed(0), CPU)
    assert torch.equal(plain.clean, other.clean)
    assert ((plain.shown - other.shown).abs().flatten(2).amax(2) > 0.01).all()
    assert torch.equal(other.previous[:, 1:], other.shown[:, :-1])
