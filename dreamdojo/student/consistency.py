"""Warm-up by causal consistency distillation: the student learns where the teacher's own path ends, frame by frame.

Teacher and student are causal and see the same real frames before a frame, through their own keys and values, and the
same actions; each frame has a noise level of its own. So the path from noise to the frame is one path, which it is not
where a teacher that sees the future is paired with a causal student. With neighbouring levels a > b of the teacher's
schedule (consistency models, arXiv 2303.01469, on the rectified-flow path):

    step to b  = noisy_a + (b - a) * (noisy_a - teacher(noisy_a, a)) / a
    target     = averaged_student(step to b, b)          (the step itself where b = 0)
    loss       = sqrt((student(noisy_a, a) - target)^2 + huber^2) - huber
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamdojo.dataset.windows import Windows
from dreamdojo.errors import ConfigError
from dreamdojo.flow.rectified import interpolate, per_frame, sigma_schedule
from dreamdojo.training.fit import Step, TrainingState, averaged_weights
from dreamdojo.world_model.dit import KeyValue
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining, all_latents, draw_contrast, reference_of, with_contrast


@dataclass(frozen=True)
class Given:
    """A batch of windows as context and as targets. All latents are `b t c h w`."""

    clean: Tensor
    shown: Tensor
    """The frames as context for later ones: noisy, or of another contrast, where the training asks for it."""
    previous: Tensor
    """The frame before each, as context."""
    reference: Tensor | None
    """`b c h w`, an earlier frame, for models that take one."""
    chunk: Tensor
    """`b t kl` conditioning."""
    has_action: Tensor
    """`b t`; 0 on the first frame of windows that are treated as the start of a recording."""


def consistency_step(
    student: WorldModel,
    teacher: WorldModel,
    data: WorldModelTraining,
    *,
    sampler: SamplerConfig,
    schedule: SamplerConfig,
    huber: float,
    device: torch.device,
) -> Step:
    """The training step; `sampler` is the student's, `schedule` the teacher's.

    Raises:
        ConfigError: if the teacher is not causal, or the levels of the two do not meet.
    """
    if not teacher.config.dit.causal:
        raise ConfigError(
            "consistency distillation needs a causal teacher, this one attends to the future. Use warm_up='ode'."
        )
    if schedule.steps % sampler.steps:
        raise ConfigError(
            "the teacher's steps must be a multiple of the student's, so that their levels meet: "
            f"got {schedule.steps} and {sampler.steps}"
        )
    levels = sigma_schedule(schedule.steps, schedule.shift).to(device)
    last_level = float(sigma_schedule(sampler.steps, sampler.shift)[-2])

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        given = draw_given(teacher, batch, data, state.generator, device)
        b, t = given.clean.shape[:2]
        index = torch.randint(schedule.steps, (b, t), generator=state.generator, device=device)
        sigma, following = levels[index], levels[index + 1]
        noise = torch.randn(given.clean.shape, generator=state.generator, device=device)
        noisy = interpolate(given.clean, noise, sigma).noisy
        written = torch.zeros(b, t, device=device)  # the level at which the student writes each frame into its cache
        if sampler.commit == "last_step":
            predicted = torch.rand(b, t, generator=state.generator, device=device) < 0.5
            written[:, 1:] = last_level * predicted[:, 1:]
        grain = torch.randn(given.clean.shape, generator=state.generator, device=device)

        with torch.no_grad():
            past = cache_of(teacher, given, torch.zeros_like(written), grain)
            clean = predict(teacher, given, past, noisy, sigma)
            slope = (noisy - clean) / per_frame(sigma)
            moved = noisy + per_frame(following - sigma) * slope
            with averaged_weights(student, state.averaged):
                target = predict(student, given, cache_of(student, given, written, grain), moved, following)
            target = torch.where(per_frame(following) > 0, target, moved)[:, 1:]

        prediction = predict(student, given, cache_of(student, given, written, grain), noisy, sigma)[:, 1:]
        error = prediction - target
        loss = ((error.square() + huber**2).sqrt() - huber).mean()
        return loss, {"squared_error": error.square().mean()}

    return step


def draw_given(
    model: WorldModel, batch: Windows, data: WorldModelTraining, generator: torch.Generator, device: torch.device
) -> Given:
    """Windows of `latent_frames + 1` rows, the first of which is only the frame before the second."""
    latent = all_latents(batch, device)
    chunk = torch.cat(
        [
            model.conditioning(name, samples["chunk"][:, 1:].to(device).float())
            for name, samples in batch.by_embodiment.items()
        ]
    )
    b, t = chunk.shape[:2]
    starts = torch.rand(b, generator=generator, device=device) < data.start_fraction
    level = data.context_noise * torch.rand(b, 1, 1, 1, 1, generator=generator, device=device)
    shown = latent + level * torch.randn(latent.shape, generator=generator, device=device)
    if data.context_contrast > 0:
        shown = with_contrast(shown, *draw_contrast(b, data.context_contrast, generator, device))
    first = torch.where(starts[:, None, None, None], shown[:, 1], shown[:, 0])
    has_action = torch.ones(b, t, device=device)
    has_action[:, 0] = (~starts).float()
    previous = torch.cat([first[:, None], shown[:, 1:-1]], dim=1)
    return Given(
        clean=latent[:, 1:],
        shown=shown[:, 1:],
        previous=previous,
        reference=reference_of(model, batch, starts, latent[:, 1]),
        chunk=chunk,
        has_action=has_action,
    )


def cache_of(model: WorldModel, given: Given, written: Tensor, grain: Tensor) -> list[KeyValue]:
    """Keys and values of all frames as context, each written at its level `b t`."""
    _, own = model.dit(
        interpolate(given.shown, grain, written).noisy,
        written,
        given.chunk,
        has_action=given.has_action,
        previous=given.previous if model.config.dit.previous_latent else None,
        reference=given.reference,
        text=model.context(len(given.clean)),
    )
    return own


def predict(model: WorldModel, given: Given, past: Sequence[KeyValue], noisy: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents of all frames but the first, each after the cached frames of its window; the first as it is."""
    config, frames = model.config.dit, [noisy[:, 0]]
    for index in range(1, noisy.shape[1]):
        oldest = 0 if config.window is None else max(0, index - config.window + 1)
        one = slice(index, index + 1)
        output, _ = model.dit(
            noisy[:, one],
            sigma[:, one],
            given.chunk[:, one],
            has_action=given.has_action[:, one],
            previous=given.previous[:, one] if config.previous_latent else None,
            reference=given.reference,
            text=model.context(len(noisy)),
            past=[KeyValue(kv.key[:, oldest:index], kv.value[:, oldest:index]) for kv in past]
            if oldest < index
            else None,
        )
        output = output[:, 0].float()
        clean = output if config.prediction == "clean" else noisy[:, index] - sigma[:, index, None, None, None] * output
        frames.append(clean)
    return torch.stack(frames, dim=1)
