"""Our classes against numbers computed by the published code (random weights, tiny sizes)."""

import torch
from einops import rearrange

from dreamdojo.convert import names
from dreamdojo.latent_action.losses import LossWeights, latent_action_loss
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.nn.patches import actions_to_chunks
from dreamdojo.world_model.dit import DiT, DiTConfig
from tests.oracle import load_oracle, weights

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def published_latent_action_model(oracle: dict) -> LatentActionModel:
    model = LatentActionModel(LatentActionConfig(dim=64, latent_dim=8, num_heads=4, encoder_blocks=2, decoder_blocks=2))
    ours = names.from_published(
        weights(oracle),
        prefix=names.LATENT_ACTION_PREFIX,
        names=names.LATENT_ACTION_NAMES,
        dropped=names.LATENT_ACTION_DROPPED,
    )
    model.load_state_dict(ours)
    return model


def test_latent_actions_and_reconstructions_are_the_published_ones():
    oracle = load_oracle("lam_tiny")
    model = published_latent_action_model(oracle)
    frames = rearrange(oracle["in.videos"], "b t h w c -> b t c h w")
    posterior = model.encode(frames)
    torch.testing.assert_close(posterior.mean[:, 0], oracle["out.z_mu"], **CLOSE)
    torch.testing.assert_close(posterior.log_variance[:, 0], oracle["out.z_logvar"], **CLOSE)
    redrawn = model.decode(frames[:, :-1], posterior.mean)
    torch.testing.assert_close(rearrange(redrawn, "b p c h w -> b p h w c"), oracle["out.recon"], **CLOSE)


def test_three_frames_give_two_latent_actions_each_at_its_own_sample_and_time():
    oracle = load_oracle("lam_tiny")
    model = published_latent_action_model(oracle)
    frames = rearrange(oracle["in3.videos"], "b t h w c -> b t c h w")
    posterior = model.encode(frames)
    torch.testing.assert_close(posterior.mean.flatten(0, 1), oracle["out3.z_mu"], **CLOSE)
    redrawn = model.decode(frames[:, :-1], posterior.mean)
    torch.testing.assert_close(rearrange(redrawn, "b p c h w -> b p h w c"), oracle["out3.recon"], **CLOSE)


def test_latent_action_training_loss_and_gradients_are_the_published_ones():
    oracle = load_oracle("lam_tiny")
    model = published_latent_action_model(oracle)
    frames = rearrange(oracle["in.videos"], "b t h w c -> b t c h w")
    posterior = model.encode(frames)
    sample = posterior.sample(oracle["train.eps"][:, None])
    loss = latent_action_loss(
        next_frames=frames[:, 1:],
        redrawn=model.decode(frames[:, :-1], sample),
        posterior=posterior,
        weights=LossWeights(kl=1e-6),
    )
    torch.testing.assert_close(loss.total[None], oracle["train.loss"], **CLOSE)
    torch.testing.assert_close(loss.kl[None], oracle["train.kl_loss"], **CLOSE)
    loss.total.backward()
    expected = names.from_published(
        {k.removeprefix("grad."): v for k, v in oracle.items() if k.startswith("grad.")},
        prefix=names.LATENT_ACTION_PREFIX,
        names=names.LATENT_ACTION_NAMES,
        dropped=names.LATENT_ACTION_DROPPED,
    )
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, **CLOSE)


def published_world_model(oracle: dict) -> DiT:
    model = DiT(
        DiTConfig(
            latent_channels=16,
            dim=64,
            num_heads=4,
            num_blocks=2,
            action_dim=16,
            modulation_rank=16,
            text_dim=32,
            text_features=48,
        )
    )
    ours = names.from_published(
        weights(oracle),
        prefix=names.WORLD_MODEL_PREFIX,
        names=names.WORLD_MODEL_NAMES,
        dropped=names.WORLD_MODEL_DROPPED,
    )
    model.load_state_dict(ours)
    return model


def run_world_model(model: DiT, oracle: dict, case: str) -> torch.Tensor:
    noisy = rearrange(oracle[f"{case}.x_B_C_T_H_W"], "b c t h w -> b t c h w")
    frames = noisy.shape[1]
    chunks = actions_to_chunks(oracle[f"{case}.action"], per_latent=4)
    out, _ = model(
        noisy,
        (oracle[f"{case}.timesteps_B_T"] * 0.001).expand(-1, frames),
        torch.cat([torch.zeros_like(chunks[:, :1]), chunks], dim=1),
        condition_mask=oracle[f"{case}.condition_video_input_mask_B_C_T_H_W"][:, 0, :, 0, 0],
        padding_mask=oracle[f"{case}.padding_mask"][:, 0],
        text=oracle[f"{case}.crossattn_emb"],
    )
    return rearrange(out, "b t c h w -> b c t h w")


def test_world_model_output_is_the_published_one():
    oracle = load_oracle("dit_action_tiny")
    model = published_world_model(oracle)
    torch.testing.assert_close(run_world_model(model, oracle, "in"), oracle["out"], **CLOSE)
    torch.testing.assert_close(run_world_model(model, oracle, "in2"), oracle["out2"], **CLOSE)


def test_rotary_angles_are_the_published_ones():
    oracle = load_oracle("dit_action_tiny")
    angles = published_world_model(oracle).rotary_angles(4, 4, 6)
    torch.testing.assert_close(torch.cat([angles, angles], dim=-1), oracle["rope_T4_H4_W6"][:, 0, 0], **CLOSE)


def test_world_model_gradients_are_the_published_ones():
    oracle = load_oracle("dit_action_tiny")
    model = published_world_model(oracle)
    loss = run_world_model(model, oracle, "in").square().mean()
    torch.testing.assert_close(loss[None], oracle["loss_mean_sq"], **CLOSE)
    loss.backward()
    gradients = {k.removeprefix("grad."): v for k, v in oracle.items() if k.startswith("grad.")}
    expected = names.from_published(gradients, prefix=names.WORLD_MODEL_PREFIX, names=names.WORLD_MODEL_NAMES)
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, **CLOSE)
