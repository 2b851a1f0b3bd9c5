"""A model that takes a reference sees an earlier frame of the same recording, in a rollout the newest real one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import Source, WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.student.dmd import clean_prediction
from dreamdojo.student.self_forcing import roll
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining, corrupt, train_world_model
from tests.student.test_self_forcing import SELF
from tests.tiny import CPU, LATENT_DIM, latent_source, tiny_dit, tiny_world_model

TRAINING = WorldModelTraining(fit=FitConfig(steps=1, batch_size=8, learning_rate=1e-3), latent_frames=3)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def windows(step=0):
    return WindowSampler([latent_source()], length=4, batch_size=8, seed=0, reference="latent")(step)


def test_the_drawn_row_is_of_the_same_episode_and_not_after_the_window_began():
    episodes = [{"row": np.arange(10) + 100 * number, "other": np.zeros(10)} for number in range(3)]
    sampler = WindowSampler(
        [Source(embodiment="e", episodes=episodes)], length=3, batch_size=300, seed=0, reference="row"
    )
    samples = sampler(0).by_embodiment["e"]
    first, drawn = samples["row"][:, 0], samples["reference"][:, 0]
    assert drawn.shape == (300,)
    assert torch.equal(first // 100, drawn // 100) and (drawn <= first).all()
    late = first % 100 == 7
    assert set((drawn[late] % 100).tolist()) == set(range(8)), "any of them, itself included"


def test_a_window_that_is_a_start_has_itself_for_reference_and_others_the_drawn_row():
    model, batch = tiny_world_model(reference_latent=True), windows()
    given = corrupt(model, batch, replace(TRAINING, context_noise=0.5), torch.Generator().manual_seed(0), CPU.device)
    starts = given.has_action[:, 0] == 0
    assert starts.any() and not starts.all()
    assert torch.equal(given.reference[starts], given.clean[starts, 0]), "the true frame, not the noisy one"
    assert torch.equal(given.reference[~starts], batch.cat("reference")[~starts, 0])
    assert corrupt(tiny_world_model(), batch, TRAINING, torch.Generator().manual_seed(0), CPU.device).reference is None


@torch.no_grad()
def test_a_rollout_keeps_its_newest_real_frame_when_the_window_has_passed_it():
    model = tiny_world_model(reference_latent=True)
    sampler = CausalSampler(model, SamplerConfig(steps=1), model.config.dit.window)
    frames, chunks, noise = random(2, 6, 4, 4, 4), random(2, 6, LATENT_DIM, seed=1), random(2, 4, 4, 4, seed=2)

    def last(real):
        state = sampler.append(sampler.start(frames[:, 0]), real, chunks[:, 0])
        for index in range(1, 6):
            state = sampler.commit(state, chunks[:, index], frames[:, index], [])
        assert torch.equal(state.reference, real)
        assert torch.equal(state.expand(2).reference, torch.cat([real, real]))
        return sampler.clean(replace(state, past=unrelated), noise, 0.7, chunks[:, 0])

    unrelated = sampler.append(sampler.start(frames[:, 1]), frames[:, 2], chunks[:, 2]).past
    assert not torch.allclose(last(frames[:, 0]), last(-frames[:, 0]))


@torch.no_grad()
def test_the_judges_of_a_rollout_see_the_frame_that_it_began_with():
    model = tiny_world_model(reference_latent=True)
    truth, chunk = random(2, 6, 4, 4, 4), random(2, 6, LATENT_DIM, seed=1)
    causal = CausalSampler(model, SamplerConfig(steps=1), model.config.dit.window)
    end = roll(causal, replace(SELF, shortest=6), truth, chunk, torch.Generator().manual_seed(0), None)
    assert torch.equal(end.first, truth[:, 0]) and not torch.equal(end.given, truth[:, 0])
    seen = []
    model.dit.register_forward_pre_hook(lambda _, __, named: seen.append(named["reference"]), with_kwargs=True)
    noise, t = torch.zeros_like(end.made), torch.full((2,), 0.7).double()
    clean_prediction(model, end.made, end.given, end.chunk, noise, t, end.first)
    clean_prediction(model, end.made, end.given, end.chunk, noise, t)
    assert torch.equal(seen[0], truth[:, 0]) and torch.equal(seen[1], end.given)


def test_it_trains_and_every_weight_that_sees_the_reference_learns(tmp_path):
    model = tiny_world_model(reference_latent=True)
    before = model.dit.patch_in.weight.detach().clone()
    training = replace(TRAINING, fit=replace(TRAINING.fit, steps=2, weight_decay=0.0), own_context=0.5)
    train_world_model(model, training, [latent_source()], tmp_path, compute=CPU)
    changed = (model.dit.patch_in.weight != before).reshape(len(before), model.config.dit.input_channels, -1)
    assert changed[:, 8:12].all(dim=0).all(), "noisy and previous latents are the first eight channels"


def test_a_missing_reference_and_a_model_of_whole_clips_are_refused():
    model = tiny_world_model(reference_latent=True)
    noisy = random(1, 2, 4, 4, 4)
    with pytest.raises(DataError, match="expected `reference`"):
        model.dit(noisy, torch.rand(1, 2), random(1, 2, LATENT_DIM), previous=noisy)
    with pytest.raises(ConfigError, match="needs causal=True"):
        tiny_dit(reference_latent=True, causal=False, window=None, previous_latent=False)
