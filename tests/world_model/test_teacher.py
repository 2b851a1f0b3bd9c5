"""The published teacher: how a clip is trained on and sampled, against slow formulas written out here."""

import pytest
import torch

from dreamdojo.dataset.windows import Windows
from dreamdojo.errors import ConfigError
from dreamdojo.flow.rectified import interpolate, sample_table_sigma
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.losses import flow_loss
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import ChunkSampler, SamplerConfig, published_noise
from dreamdojo.world_model.train import WorldModelTraining, corrupt_after_first
from tests.tiny import PUSHER

CPU = torch.device("cpu")


def teacher(*, text=True, slot=None, reference_compatible=False, **changes) -> WorldModel:
    dit = DiTConfig(
        latent_channels=4,
        dim=48,
        num_heads=2,
        num_blocks=2,
        action_dim=6,
        modulation_rank=8,
        text_dim=8 if text else None,
        **changes,
    )
    torch.manual_seed(0)
    model = WorldModel(
        WorldModelConfig(
            dit=dit,
            size=(16, 16),
            rate=10.0,
            text_tokens=3 if text else None,
            latent_action_slot=slot,
            reference_compatible=reference_compatible,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if model.text is not None and model.no_text is not None:
        torch.nn.init.normal_(model.text)
        torch.nn.init.normal_(model.no_text)
    return model


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_a_sampled_clip_begins_with_the_given_frame_and_obeys_its_actions(solver):
    sampler = ChunkSampler(teacher(), SamplerConfig(steps=6, solver=solver))
    given, chunks, start = noise(0, 2, 1, 4, 4, 4), noise(1, 2, 3, 24), noise(2, 2, 4, 4, 4, 4)
    clip = sampler.predict(given, chunks, start)
    torch.testing.assert_close(clip[:, :1], given, atol=2e-3, rtol=0)
    other = sampler.predict(given, chunks + 1, start)
    assert (clip - other)[:, 1:].abs().max() > 1e-3


def test_samples_of_a_batch_do_not_touch_each_other():
    sampler = ChunkSampler(teacher(), SamplerConfig(steps=3, solver="unipc"))
    given, chunks, start = noise(0, 2, 1, 4, 4, 4), noise(1, 2, 3, 24), noise(2, 2, 4, 4, 4, 4)
    both = sampler.predict(given, chunks, start)
    alone = sampler.predict(given[1:], chunks[1:], start[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_without_guidance_a_step_is_one_pass_and_with_it_two():
    model = teacher()
    passes = []
    model.dit.register_forward_hook(lambda *_: passes.append(1))
    arguments = noise(0, 1, 1, 4, 4, 4), noise(1, 1, 3, 24), noise(2, 1, 4, 4, 4, 4)
    plain = ChunkSampler(model, SamplerConfig(steps=5, solver="unipc")).predict(*arguments)
    assert len(passes) == 5
    guided = ChunkSampler(model, SamplerConfig(steps=5, solver="unipc", guidance=2.0)).predict(*arguments)
    assert len(passes) == 15
    assert not torch.allclose(plain, guided)


def test_guidance_moves_the_velocity_away_from_the_one_without_text():
    model = teacher()
    given, chunks, start = noise(0, 1, 1, 4, 4, 4), noise(1, 1, 3, 24), noise(2, 1, 4, 4, 4, 4)
    guided = ChunkSampler(model, SamplerConfig(steps=1, solver="euler", guidance=3.0)).predict(given, chunks, start)

    def velocity(dropped):
        return model.dit(
            torch.cat([given, start[:, 1:]], dim=1),
            torch.ones(1, 4),
            torch.cat([torch.zeros(1, 1, 24), chunks], dim=1),
            condition_mask=torch.tensor([[1.0, 0, 0, 0]]),
            text=model.context(1, torch.tensor([dropped])),
        )[0]

    with torch.no_grad():
        with_text, without = velocity(False), velocity(True)
    expected = start - (with_text + 3 * (with_text - without))
    torch.testing.assert_close(guided[:, 1:], expected[:, 1:])


def test_the_sampler_shows_every_state_before_its_step():
    seen = {}
    start = noise(2, 1, 4, 4, 4, 4)
    ChunkSampler(teacher(), SamplerConfig(steps=4, solver="unipc")).predict(
        noise(0, 1, 1, 4, 4, 4), noise(1, 1, 3, 24), start, watch=lambda step, noisy: seen.update({step: noisy})
    )
    assert list(seen) == [0, 1, 2, 3] and torch.equal(seen[0], start)


def test_published_noise_is_drawn_with_channels_before_time():
    import numpy as np

    drawn = np.random.RandomState(7).standard_normal((1, 4, 3, 2, 2)).astype(np.float32)
    assert torch.equal(published_noise(7, (1, 3, 4, 2, 2)), torch.from_numpy(drawn).permute(0, 2, 1, 3, 4))


def window(batch=2, **more):
    samples = {"latent": noise(0, batch, 4, 4, 4, 4), "chunk": noise(1, batch, 4, 8), **more}
    return Windows({PUSHER.name: samples})


def training(**changes):
    fit = FitConfig(steps=1, batch_size=2, learning_rate=1e-3)
    return WorldModelTraining(fit=fit, latent_frames=4, scheme="first_frame", **changes)


def test_the_published_scheme_gives_the_first_frame_clean_and_shares_one_level():
    model = teacher().with_embodiments(PUSHER)
    batch = window()
    given = corrupt_after_first(model, batch, training(), torch.Generator().manual_seed(0), CPU)
    latent = batch.cat("latent")
    assert torch.equal(given.noisy[:, 0], latent[:, 0])
    assert (given.sigma == given.sigma[:, :1]).all() and given.sigma[0, 0] != given.sigma[1, 0]
    expected = interpolate(latent, given.noise, given.sigma).noisy
    assert torch.equal(given.noisy[:, 1:], expected[:, 1:])
    for mask in (given.condition_mask, 1 - given.counts, 1 - given.has_action):
        assert torch.equal(mask, torch.tensor([[1.0, 0, 0, 0]] * 2))


def test_the_published_loss_is_what_its_formula_says_on_both_axes():
    prediction, clean, eps = (noise(seed, 2, 4, 3, 2, 2) for seed in range(3))
    sigma, counts = torch.full((2, 4), 0.5), torch.tensor([[0.0, 1, 1, 1]] * 2)
    config = DiTConfig(latent_channels=3, dim=48, num_heads=2, num_blocks=1, action_dim=2)
    for compatible in (False, True):
        loss = flow_loss(
            prediction,
            config=config,
            clean=clean,
            point=interpolate(clean, eps, sigma),
            sigma=sigma,
            counts=counts,
            motion_weight=0.1,
            given_count=True,
            reference_compatible=compatible,
        )
        guess, target = prediction.clone(), eps - clean
        guess[:, 0] = target[:, 0]  # the given frame's output is replaced by the exact target
        plain, motion = [], []
        for sample in range(2):
            plain.append((guess[sample] - target[sample]).square().mean())
            steps = []
            for index in range((3 if compatible else 4) - 1):
                pick = (lambda x, i: x[:, i]) if compatible else (lambda x, i: x[i])
                of_guess = pick(guess[sample], index + 1) - pick(guess[sample], index)
                of_target = pick(target[sample], index + 1) - pick(target[sample], index)
                steps.append((of_guess - of_target).square())
            motion.append(torch.stack(steps).mean())
        torch.testing.assert_close(loss.total, torch.stack(plain).mean() + 0.1 * torch.stack(motion).mean())


def test_noise_levels_are_entries_of_the_published_table():
    generator = torch.Generator().manual_seed(0)
    sigma = sample_table_sigma((4000,), shift=5.0, generator=generator, device=CPU)
    even = sigma / (5 - 4 * sigma)
    torch.testing.assert_close((even * 1000).round() / 1000, even, atol=1e-5, rtol=0)
    assert sigma.min() > 0.0049 and sigma.max() <= 1
    median = 5 * 0.5 / (1 + 4 * 0.5)
    assert abs(sigma.median() - median) < 0.01
    high = sample_table_sigma((4000,), shift=5.0, generator=generator, device=CPU, high_fraction=0.5)
    assert (high >= 0.98).float().mean() > 0.5 > (sigma >= 0.98).float().mean()


def test_text_is_dropped_for_its_share_of_samples():
    model = teacher().with_embodiments(PUSHER)
    model.text, model.no_text = torch.ones(3, 8), torch.zeros(8)
    batch = window(64)
    for share, expected in ((0.0, 1.0), (1.0, 0.0)):
        given = corrupt_after_first(model, batch, training(text_drop=share), torch.Generator().manual_seed(0), CPU)
        assert (given.text == expected).all()


@pytest.mark.parametrize("compatible", [False, True])
def test_only_a_compatible_model_lets_the_state_overwrite_the_first_action(compatible):
    from dataclasses import replace

    model = teacher(reference_compatible=compatible).with_embodiments(replace(PUSHER, slot=3))
    batch = window(2, state=torch.full((2, 4, 2), 9.0))
    given = corrupt_after_first(model, batch, training(), torch.Generator().manual_seed(0), CPU)
    actions = given.chunk.unflatten(-1, (4, 6))
    plain = torch.nn.functional.pad(batch.by_embodiment[PUSHER.name]["chunk"].unflatten(-1, (4, 2)), (3, 1))
    if compatible:
        assert (actions[:, 1, 0, :2] == 9).all()
        assert torch.equal(actions[:, 1, 0, 2:], plain[:, 1, 0, 2:])
    else:
        assert torch.equal(actions[:, 1, 0], plain[:, 1, 0])
    assert torch.equal(actions[:, 1, 1:], plain[:, 1, 1:]) and torch.equal(actions[:, 2:], plain[:, 2:])


def test_latent_actions_enter_their_slot_raw():
    model = teacher(slot=4)
    placed = model.conditioning(LATENT_ACTION, noise(0, 2, 3, 8)).unflatten(-1, (4, 6))
    assert torch.equal(placed[..., 4:], noise(0, 2, 3, 8).unflatten(-1, (4, 2)))
    assert not placed[..., :4].any()


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ConfigError, match="causal=False"):
        ChunkSampler(teacher(causal=True), SamplerConfig(steps=1))
    with pytest.raises(ConfigError, match="renoise"):
        ChunkSampler(teacher(), SamplerConfig(steps=1, solver="renoise"))
