import pytest
import torch

from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.errors import ConfigError
from dreamdojo.student.consistency import cache_of, consistency_step, draw_given, predict
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, averaged_weights
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining
from tests.tiny import latent_source, tiny_world_model

CPU = torch.device("cpu")
DATA = WorldModelTraining(fit=FitConfig(steps=1, batch_size=2, learning_rate=1.0), latent_frames=5, start_fraction=1.0)


def batch(length=6, index=0):
    return WindowSampler([latent_source()], length=length, batch_size=2, seed=0, reference="latent")(index)


def given(model):
    return draw_given(model, batch(), DATA, torch.Generator().manual_seed(0), CPU)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"reference_latent": True}])
def test_a_frame_is_predicted_from_what_a_rollout_would_have_cached(changes):
    model = tiny_world_model(**changes)
    window = given(model)
    zero = torch.zeros(window.clean.shape[:2])
    noisy, sigma = torch.randn(window.clean.shape), torch.full_like(zero, 0.7)
    together = predict(model, window, cache_of(model, window, zero, noisy), noisy, sigma)
    sampler = CausalSampler(model, SamplerConfig(steps=1), model.config.dit.window)
    state = sampler.start(window.clean[:, 0])
    for index in range(1, window.clean.shape[1]):
        alone = sampler.clean(state, noisy[:, index], 0.7, window.chunk[:, index])
        torch.testing.assert_close(together[:, index], alone, atol=1e-5, rtol=1e-4)
        state = sampler.commit(state, window.chunk[:, index], window.clean[:, index], [])


@torch.no_grad()
@pytest.mark.parametrize("commit", ["extra_pass", "last_step"])
def test_a_student_that_already_ends_where_the_teacher_does_has_no_loss(commit):
    class Ends(torch.nn.Module):
        """A network whose clean latent never depends on the level: its path is straight."""

        def __init__(self, model):
            super().__init__()
            self.config = model.config.dit

        def forward(self, noisy, sigma, chunk, *, previous, **_):
            return 2 * previous, []

    model = tiny_world_model()
    model.dit = Ends(model)
    step = consistency_step(
        model,
        model,
        DATA,
        sampler=SamplerConfig(steps=2, commit=commit),
        schedule=SamplerConfig(steps=8),
        huber=0.1,
        device=CPU,
    )
    loss, _ = step(batch(), TrainingState(0, torch.Generator().manual_seed(0), {}))
    assert loss < 1e-6


def test_under_autocast_averaged_weights_are_gone_when_their_block_ends():
    layer = torch.nn.Linear(3, 3, bias=False)
    averaged = {"weight": torch.zeros(3, 3)}
    x = torch.randn(2, 3)
    with Compute(CPU, True, "tests").autocasting():
        with torch.no_grad(), averaged_weights(layer, averaged):
            assert not layer(x).any()
        assert layer(x).any()


def test_a_teacher_that_sees_the_future_is_refused():
    model = tiny_world_model(causal=False, window=None, previous_latent=False, prediction="velocity")
    with pytest.raises(ConfigError, match="warm_up='ode'"):
        consistency_step(
            model, model, DATA, sampler=SamplerConfig(steps=2), schedule=SamplerConfig(steps=8), huber=0.1, device=CPU
        )
