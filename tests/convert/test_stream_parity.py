"""The published causal student, its cache, its noise levels and its solver, against the published code's numbers."""

import pytest
import torch
from einops import rearrange

from dreamdojo.convert import names
from dreamdojo.flow.trigflow import angle_of_sigma, precondition, round_bfloat16
from dreamdojo.flow.unipc import UniPC, unipc_schedule
from dreamdojo.nn.patches import actions_to_chunks
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig, roll_out
from tests.oracle import load_oracle, weights

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def published_student(oracle: dict, case: str, *, reference_compatible: bool) -> WorldModel:
    """The tiny student with its text projected once."""
    text = oracle[f"{case}.crossattn_emb"][0]
    published = names.from_published(
        weights(oracle),
        prefix=names.WORLD_MODEL_PREFIX,
        names=names.WORLD_MODEL_NAMES,
        dropped=names.WORLD_MODEL_DROPPED,
    )
    weight, bias = published.pop("text_projection.0.weight"), published.pop("text_projection.0.bias")
    dit = DiTConfig(
        latent_channels=16,
        dim=64,
        num_heads=4,
        num_blocks=2,
        action_dim=16,
        modulation_rank=16,
        text_dim=32,
        causal=True,
    )
    model = WorldModel(
        WorldModelConfig(
            dit=dit, size=(64, 96), rate=10.0, text_tokens=len(text), reference_compatible=reference_compatible
        )
    )
    model.dit.load_state_dict(published)
    model.text = torch.nn.functional.gelu(text @ weight.T + bias)
    return model.eval()


def streamed(oracle: dict, case: str, *, context: int, window: int | None, steps: int, compatible: bool, action=None):
    model = published_student(oracle, case, reference_compatible=compatible)
    sampler = CausalSampler(model, SamplerConfig(steps=steps, solver="renoise"), window)
    frames, noise = (rearrange(oracle[f"{case}.{name}"], "b c t h w -> b t c h w") for name in ("gt_frames", "noise"))
    action = oracle[f"{case}.action"] if action is None else action
    out = roll_out(sampler, frames[:, :context], actions_to_chunks(action, 4), noise[:, context:])
    return rearrange(out, "b t c h w -> b c t h w")


@pytest.mark.parametrize(
    ("name", "window", "steps"),
    [("out_window3_steps4", 4, 4), ("out_full_steps4", None, 4), ("out_window3_steps1", 4, 1)],
)
def test_a_rollout_with_its_cache_is_the_published_one(name, window, steps):
    oracle = load_oracle("dit_causal_stream_tiny")
    out = streamed(oracle, "A", context=1, window=window, steps=steps, compatible=True)
    torch.testing.assert_close(out, oracle[f"A.{name}"], **CLOSE)


def test_unrounded_coefficients_are_close_to_the_published_ones_but_not_equal():
    oracle = load_oracle("dit_causal_stream_tiny")
    out = streamed(oracle, "A", context=1, window=4, steps=4, compatible=False)
    difference = (out - oracle["A.out_window3_steps4"]).abs().max()
    assert 1e-3 < difference < 0.2


def test_with_context_frames_the_published_student_reads_actions_of_eight_steps_before():
    oracle = load_oracle("dit_causal_stream_tiny")
    out = streamed(oracle, "B", context=3, window=4, steps=4, compatible=True)
    torch.testing.assert_close(out, oracle["B.out_start3_steps4"], **CLOSE)


@pytest.mark.parametrize("compatible", [True, False])
def test_which_actions_the_new_frame_depends_on(compatible):
    oracle = load_oracle("dit_causal_stream_tiny")
    arguments = {"context": 3, "window": 4, "steps": 2, "compatible": compatible}
    before = streamed(oracle, "B", **arguments)[:, :, 3]
    felt = []
    for index in range(12):
        action = oracle["B.action"].clone()
        action[:, index] += 1
        # a context frame's own actions reach the new frame through the cache: only its direct reading is asked for
        changed = streamed(oracle, "B", **arguments, action=action)[:, :, 3]
        felt.append(not torch.equal(before, changed))
    assert felt[8:] == ([False] * 4 if compatible else [True] * 4)


def test_the_coefficients_of_each_angle_are_the_published_ones():
    oracle = load_oracle("dit_causal_stream_tiny")
    c = precondition(oracle["scm.t"])
    for ours, theirs in ((c.skip, "c_skip"), (c.out, "c_out"), (c.input, "c_in"), (c.noise, "c_noise")):
        torch.testing.assert_close(ours, oracle[f"scm.{theirs}"], atol=1e-12, rtol=1e-12)
    t = round_bfloat16(angle_of_sigma(torch.tensor([1.0, 0.9375, 5 / 6, 0.625])))
    rounded = precondition(t, reference_compatible=True)
    torch.testing.assert_close(t.float(), oracle["scm.t_bf16"], atol=0, rtol=0)
    torch.testing.assert_close(rounded.noise.float(), oracle["scm.c_noise_bf16"], atol=0, rtol=0)
    torch.testing.assert_close(rounded.out.float(), oracle["scm.c_out_bf16"], atol=0, rtol=0)
    torch.testing.assert_close(rounded.skip.float(), oracle["scm.c_skip_bf16"], atol=0, rtol=0)


@pytest.mark.parametrize("steps", [35, 10, 4])
def test_unipc_follows_the_published_trajectory(steps):
    oracle = load_oracle("unipc")
    schedule = unipc_schedule(steps, 5.0)
    torch.testing.assert_close(schedule.sigma, oracle[f"s{steps}.sigmas"], atol=1e-7, rtol=0)
    assert torch.equal((1000 * schedule.time).round().long(), oracle[f"s{steps}.timesteps"])
    solver, x = UniPC(schedule.sigma), oracle[f"s{steps}.init"]
    for index in range(steps):
        velocity = torch.tanh(x) * (0.5 + schedule.time[index]) + 0.3 * torch.cos(3 * x)
        x = solver.step(x, x - schedule.sigma[index] * velocity)
        torch.testing.assert_close(x, oracle[f"s{steps}.traj"][index], **CLOSE)
    torch.testing.assert_close(x, oracle[f"s{steps}.final"], **CLOSE)
