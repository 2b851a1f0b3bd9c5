from dataclasses import replace

import torch

from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model import train
from dreamdojo.world_model.train import WorldModelTraining, corrupt, own_predictions
from tests.tiny import latent_source, tiny_world_model

CPU = torch.device("cpu")
TRAINING = WorldModelTraining(fit=FitConfig(steps=1, batch_size=4, learning_rate=1e-3), latent_frames=3)


def corrupted(model, own_context):
    batch = WindowSampler([latent_source()], length=4, batch_size=4, seed=0)(0)
    return corrupt(model, batch, replace(TRAINING, own_context=own_context), torch.Generator().manual_seed(0), CPU)


def test_context_is_the_models_own_prediction_and_what_it_must_predict_is_not(monkeypatch):
    said = torch.tensor(7.0)
    monkeypatch.setattr(train, "own_predictions", lambda model, noisy, *rest: said.expand_as(noisy))
    given = corrupted(tiny_world_model(), 1.0)
    led_to = given.has_action > 0  # the first frame of a recording is nobody's prediction
    shown = (given.noisy == said).flatten(2).all(-1)
    assert torch.equal(shown, (given.counts == 0) & led_to)
    assert ((given.previous[:, 1:] == said).flatten(2).all(-1) == led_to[:, :-1]).all()
    assert not (given.clean == said).any()


def test_without_it_the_context_is_the_truth():
    given = corrupted(tiny_world_model(), 0.0)
    is_context = given.counts == 0
    assert torch.equal(given.noisy[is_context], given.clean[is_context])


def test_predicting_first_leaves_every_gradient_of_the_step(monkeypatch):
    model = tiny_world_model()
    with torch.autocast("cpu", torch.bfloat16):
        given = corrupted(model, 0.5)
        arguments = {"has_action": given.has_action, "previous": given.previous, "reference": given.reference}
        own = own_predictions(model, given.noisy, given.sigma, given.chunk.detach(), **arguments)
        prediction, _ = model.dit(given.noisy, given.sigma, given.chunk, **arguments)
    assert not own.requires_grad
    prediction.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.dit.blocks.parameters())
