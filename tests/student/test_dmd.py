import math
from dataclasses import replace

import pytest
import torch

from dreamdojo.student.dmd import clean_prediction, critic_clip, critic_loss, draw_angle, generator_loss
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig
from tests.tiny import tiny_tokenizer, tiny_world_model


def clip(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_generators_gradient_points_from_the_teachers_to_the_critics_clip():
    made, teacher, fake = (clip(seed, 2, 4, 3, 2, 2) for seed in range(3))
    made.requires_grad_(True)
    generator_loss(made, teacher, fake).backward()
    scale = (made - teacher).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(made.grad, (2 * (fake - teacher) / scale / made.numel()).detach())


def test_a_critic_that_agrees_with_the_teacher_leaves_the_student_alone():
    made, teacher = clip(0, 1, 4, 3, 2, 2).requires_grad_(True), clip(1, 1, 4, 3, 2, 2)
    loss = generator_loss(made, teacher, teacher)
    loss.backward()
    assert loss == 0 and not made.grad.any()


def test_the_critic_learns_the_students_clip_and_weighs_by_the_angle():
    made, fake = clip(0, 2, 4, 3, 2, 2).requires_grad_(True), clip(1, 2, 4, 3, 2, 2).requires_grad_(True)
    t = torch.tensor([math.pi / 2, math.pi / 6]).double()
    loss = critic_loss(made, fake, t)
    expected = ((made - fake).square().mean(dim=(1, 2, 3, 4)) * torch.tensor([1.0, 4.0])).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(critic_loss(made, fake, t, 1.0), (made - fake).square().mean())
    loss.backward()
    assert made.grad is None and fake.grad.any()


def test_angles_follow_the_shifted_noise_levels():
    t = draw_angle(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(t, torch.tensor([0.0, math.atan(5.0), math.pi / 2]).double())


def test_a_long_rollout_becomes_a_clip_whose_first_latent_is_one_picture():
    tokenizer = tiny_tokenizer(4)
    latents = clip(0, 2, 7, 4, 4, 4)
    window = critic_clip(latents, tokenizer, 4)
    assert torch.equal(window[:, 1:], latents[:, 4:])
    pictures, _ = tokenizer.decode(latents[:, :4])
    torch.testing.assert_close(window[:, :1], tokenizer.encode(pictures[:, -1:])[0])
    assert critic_clip(latents[:, :4], tokenizer, 4) is not None
    assert torch.equal(critic_clip(latents[:, :4], tokenizer, 4), latents[:, :4])


def test_the_given_frame_comes_back_and_is_what_the_model_sees():
    dit = DiTConfig(latent_channels=4, dim=48, num_heads=2, num_blocks=1, action_dim=2, text_dim=None)
    model = WorldModel(WorldModelConfig(dit=dit, size=(16, 16), rate=10.0))
    torch.nn.init.normal_(model.dit.blocks[0].self_modulation.up.weight, std=0.5)
    made, given, noise, chunk = clip(0, 2, 4, 4, 4, 4), clip(1, 2, 4, 4, 4), clip(2, 2, 4, 4, 4, 4), clip(3, 2, 4, 8)
    t = torch.tensor([0.7, 1.2]).double()
    with torch.no_grad():
        first = clean_prediction(model, made, given, chunk, noise, t)
        assert torch.equal(first[:, 0], given)
        changed = made.clone()
        changed[:, 0] += 1
        torch.testing.assert_close(clean_prediction(model, changed, given, chunk, noise, t), first)
        assert not torch.allclose(clean_prediction(model, made, given + 1, chunk, noise, t)[:, 1:], first[:, 1:])


@pytest.mark.parametrize("kind", ["causal", "mask", "compatible"])
def test_the_given_frame_is_told_as_the_teacher_was_told_it_in_training(kind):
    if kind == "causal":
        model = tiny_world_model()
    else:
        dit = DiTConfig(latent_channels=4, dim=48, num_heads=2, num_blocks=1, action_dim=3, text_dim=None)
        dit = replace(dit, actions_per_latent=1)
        model = WorldModel(
            WorldModelConfig(dit=dit, size=(16, 16), rate=10.0, reference_compatible=kind == "compatible")
        )
    told = []
    model.dit.register_forward_pre_hook(lambda _, arguments: told.append(arguments[1]))
    t = torch.tensor([0.7, 1.2]).double()
    made, given, noise = clip(0, 2, 4, 4, 4, 4), clip(1, 2, 4, 4, 4), clip(2, 2, 4, 4, 4, 4)
    with torch.no_grad():
        clean_prediction(model, made, given, clip(3, 2, 4, 3), noise, t)
    others = t.tan() / (1 + t.tan())
    first = {"causal": torch.zeros(2), "mask": others, "compatible": torch.full((2,), 1e-4 / (1 + 1e-4))}[kind]
    torch.testing.assert_close(told[0][:, 0], first.float())
    torch.testing.assert_close(told[0][:, 1:], others.float()[:, None].expand(2, 3))


@torch.no_grad()
def test_a_causal_judge_sees_the_frames_before_as_they_are():
    model, noise = tiny_world_model(), clip(2, 1, 3, 4, 4, 4)
    made, given, chunk = clip(0, 1, 3, 4, 4, 4), clip(1, 1, 4, 4, 4), clip(3, 1, 3, 3)
    t = torch.tensor([0.9]).double()
    found = clean_prediction(model, made, given, chunk, noise, t)
    sigma = (t.tan() / (1 + t.tan())).float()
    noisy = (1 - sigma) * made + sigma * noise
    sampler = CausalSampler(model, SamplerConfig(steps=1), 3)
    state = sampler.start(given)
    alone = sampler.clean(state, noisy[:, 1], sigma.item(), chunk[:, 1])
    torch.testing.assert_close(found[:, 1], alone, atol=1e-5, rtol=1e-4)
