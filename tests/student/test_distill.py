import json
from dataclasses import asdict

import pytest
import torch

from dreamdojo.errors import ConfigError
from dreamdojo.student.distill import StudentTraining, distil
from dreamdojo.training.checkpoint import read_about
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining
from tests.tiny import CPU, LATENT_DIM, latent_source, tiny_world_model

DATA = WorldModelTraining(fit=FitConfig(steps=1, batch_size=1, learning_rate=1.0), latent_frames=2)


def training(steps):
    return StudentTraining(
        fit=FitConfig(steps=steps, batch_size=16, learning_rate=3e-3, log_every=5, warmup_steps=2, ema_decay=0.9),
        sampler=SamplerConfig(steps=2),
        teacher=SamplerConfig(steps=8),
    )


def test_the_student_moves_towards_where_the_teachers_path_ends(tmp_path):
    teacher = tiny_world_model()
    student = distil(teacher, training(60), DATA, [latent_source(episodes=4)], tmp_path, compute=CPU)
    assert read_about(tmp_path)["sampler"] == asdict(SamplerConfig(steps=2))

    random = torch.Generator().manual_seed(0)
    start = torch.randn(16, 4, 4, 4, generator=random)
    chunk, noise = torch.randn(16, LATENT_DIM, generator=random), torch.randn(start.shape, generator=random)

    def end(model, steps):
        sampler = CausalSampler(model, SamplerConfig(steps=steps), 3)
        return sampler.predict(sampler.start(start), chunk, noise)

    target = end(teacher, 8)
    before, after = ((end(model, 2) - target).square().mean() for model in (teacher, student))
    assert after < before
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_teacher_and_the_students_adapters_are_left_alone(tmp_path):
    teacher = tiny_world_model()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = distil(teacher, training(5), DATA, [latent_source()], tmp_path, compute=CPU)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    for name, value in student.adapters.state_dict().items():
        torch.testing.assert_close(value, teacher.adapters.state_dict()[name])


def test_schedules_must_meet(tmp_path):
    training = StudentTraining(
        fit=FitConfig(steps=1, batch_size=1, learning_rate=1.0),
        sampler=SamplerConfig(steps=3),
        teacher=SamplerConfig(steps=8),
    )
    data = WorldModelTraining(fit=training.fit, latent_frames=2)
    with pytest.raises(ConfigError, match="got 8 and 3"):
        distil(tiny_world_model(), training, data, [], tmp_path, compute=CPU)
