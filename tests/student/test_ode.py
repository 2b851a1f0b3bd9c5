import pytest
import torch

from dreamdojo.student.distill import student_of
from dreamdojo.student.ode import kept_steps, trajectory
from dreamdojo.world_model.sample import CausalSampler, ChunkSampler, SamplerConfig, roll_out
from tests.tiny import LATENT_DIM, tiny_world_model

WHOLE = {"causal": False, "window": None, "previous_latent": False, "prediction": "velocity"}


def test_the_published_states_are_kept():
    assert kept_steps(SamplerConfig(steps=35), SamplerConfig(steps=4)) == [0, 9, 18, 27]
    assert kept_steps(SamplerConfig(steps=8), SamplerConfig(steps=2)) == [0, 4]


@pytest.mark.parametrize("kind", ["causal", "whole clip, unipc", "whole clip, euler"])
def test_a_trajectory_begins_with_noise_and_ends_where_the_teacher_does(kind):
    model = tiny_world_model(**({} if kind == "causal" else WHOLE))
    config = SamplerConfig(steps=4, solver="unipc" if "unipc" in kind else "euler")
    random = torch.Generator().manual_seed(0)
    noise, chunk = torch.randn(2, 4, 4, 4, 4, generator=random), torch.randn(2, 4, LATENT_DIM, generator=random)
    first = torch.randn(2, 4, 4, 4, generator=random)
    path = trajectory(model, config, first, chunk, noise, [0, 2])
    assert path.states.shape == (3, 2, 4, 4, 4, 4) and path.levels[-1] == 0
    assert torch.equal(path.states[0][:, 1:], noise[:, 1:])
    if kind == "causal":
        end = roll_out(CausalSampler(model, config, 3), first[:, None], chunk[:, 1:], noise[:, 1:])
    else:
        end = ChunkSampler(model, config).predict(first[:, None], chunk[:, 1:], noise)
    assert torch.equal(path.states[-1], end)


def test_the_student_of_a_teacher_of_clips_is_causal_and_has_its_weights():
    teacher = tiny_world_model(**WHOLE)
    student = student_of(teacher, 4)
    assert student.config.dit.causal and student.config.dit.window == 4
    assert all(torch.equal(w, teacher.state_dict()[name]) for name, w in student.state_dict().items())
