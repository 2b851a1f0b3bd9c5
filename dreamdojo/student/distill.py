"""Distil the teacher into a student of few steps by causal consistency distillation.

Both are causal and see the same context and actions, so the student learns where the teacher's own path ends, frame by
frame (consistency models, arXiv 2303.01469, on the rectified-flow path). With neighbouring levels a > b of the
teacher's schedule:

    step to b  = noisy_a + (b - a) * (noisy_a - teacher(noisy_a, a)) / a
    target     = averaged_student(step to b, b)          (the step itself where b = 0)
    loss       = huber(student(noisy_a, a) - target)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import ConfigError
from dreamdojo.flow.rectified import interpolate, per_frame, sigma_schedule
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, averaged_weights, fit
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining, corrupt


@dataclass(frozen=True, kw_only=True)
class StudentTraining:
    """How the student is distilled."""

    fit: FitConfig
    """The loop's settings."""
    sampler: SamplerConfig
    """The few steps that the student takes."""
    teacher: SamplerConfig
    """The teacher's schedule, whose neighbouring levels the student learns to agree between."""
    huber: float = 0.1
    """Where the loss turns from quadratic to linear, in units of the latent's standard deviation."""


def distil(
    teacher: WorldModel,
    training: StudentTraining,
    data: WorldModelTraining,
    sources: Sequence[Source],
    folder: Path,
    *,
    compute: Compute,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> WorldModel:
    """Return the student; `data` says how windows are drawn and how the context is corrupted."""
    teacher = teacher.to(compute.device).eval()
    if teacher.config.dit.prediction != "clean" or not teacher.config.dit.causal:
        raise ConfigError("consistency distillation needs a causal teacher that predicts the clean latent")
    if training.teacher.steps % training.sampler.steps:
        raise ConfigError(
            "the teacher's steps must be a multiple of the student's, so that their levels meet: "
            f"got {training.teacher.steps} and {training.sampler.steps}"
        )
    student = WorldModel(teacher.config)
    student.load_state_dict(teacher.state_dict())
    for parameter in student.adapters.parameters():
        parameter.requires_grad_(False)
    sampler = WindowSampler(
        sources, length=data.latent_frames + 1, batch_size=training.fit.batch_size, seed=training.fit.seed
    )
    levels = sigma_schedule(training.teacher.steps, training.teacher.shift).to(compute.device)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        given = corrupt(teacher, batch, data, state.generator, compute.device)
        index = torch.randint(
            training.teacher.steps, given.sigma.shape, generator=state.generator, device=compute.device
        )
        is_target = given.counts
        sigma, following = levels[index] * is_target, levels[index + 1] * is_target
        noisy = interpolate(given.clean, given.noise, sigma).noisy
        noisy = torch.where(per_frame(is_target) > 0, noisy, given.noisy)

        def predict(model: WorldModel, latents: Tensor, level: Tensor) -> Tensor:
            return model.dit(latents, level, given.chunk, has_action=given.has_action, previous=given.previous)[
                0
            ].float()

        with torch.no_grad():
            clean = predict(teacher, noisy, sigma)
            slope = (noisy - clean) / per_frame(sigma.clamp(min=1e-3))
            moved = torch.where(per_frame(is_target) > 0, noisy + per_frame(following - sigma) * slope, noisy)
            with averaged_weights(student, state.averaged):
                target = predict(student, moved, following)
            target = torch.where(per_frame(following) > 0, target, moved)

        error = predict(student, noisy, sigma) - target
        distance = (error.square() + training.huber**2).sqrt() - training.huber
        loss = (distance * per_frame(is_target)).sum() / (is_target.sum() * error[0, 0].numel()).clamp(min=1)
        return loss, {"squared_error": (error.square() * per_frame(is_target)).mean()}

    fit(
        student,
        step,
        sampler,
        config=training.fit,
        folder=folder,
        compute=compute,
        about={"sampler": asdict(training.sampler)},
        trackers=trackers,
        report=report,
    )
    return student
