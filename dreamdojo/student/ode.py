"""Warm-up by regression on the teacher's trajectories, as published (CausVid, arXiv 2412.07772).

The teacher denoises clips, and the states at the student's levels are kept. The student sees a clip whose frames are
each at a level of their own and says where the trajectory ended; the first frame is given and clean:

    loss = mean (student(state, level) - end)^2       over the frames after the first

With a teacher that attends to the whole clip this asks a causal student for what depends on the future, and it answers
with the mean. It is here as published and as the baseline. Trajectories are made anew for every step: no noise is used
twice, and test windows are never among them (docs/faults.md, 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamdojo.dataset.windows import Windows
from dreamdojo.flow.rectified import per_frame, sigma_schedule
from dreamdojo.flow.unipc import unipc_schedule
from dreamdojo.training.fit import Step, TrainingState
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, ChunkSampler, SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining, all_latents, chunks_after_first


@dataclass(frozen=True)
class Trajectory:
    """States of clips on the teacher's way from noise to the end."""

    states: Tensor
    """`s b t c h w`; the last is the end."""
    levels: Tensor
    """`s` noise levels as the network is told them; the last is 0."""


def kept_steps(teacher: SamplerConfig, student: SamplerConfig) -> list[int]:
    """The teacher's steps before which a state is kept: 0, 9, 18 and 27 of 35 for a student of four."""
    apart = -(-teacher.steps // student.steps)
    return [apart * i for i in range(student.steps) if apart * i < teacher.steps]


@torch.no_grad()
def trajectory(
    teacher: WorldModel, config: SamplerConfig, first: Tensor, chunk: Tensor, noise: Tensor, kept: list[int]
) -> Trajectory:
    """Let the teacher continue `first` (`b c h w`) under `chunk` (`b t kl`, row 0 without meaning) from `noise`.

    A teacher of whole clips denoises them together; a causal one goes on from its own frames.
    """
    states: list[list[Tensor]] = [[] for _ in kept]

    def watch(index: int, noisy: Tensor) -> None:
        if index in kept:
            states[kept.index(index)].append(noisy)

    if not teacher.config.dit.causal:
        end = ChunkSampler(teacher, config).predict(first[:, None], chunk[:, 1:], noise, watch=watch)
        whole = [parts[0] for parts in states]
        unipc = config.solver == "unipc"
        levels = (
            unipc_schedule(config.steps, config.shift).time if unipc else sigma_schedule(config.steps, config.shift)
        )
    else:
        sampler = CausalSampler(teacher, config, teacher.config.dit.window)
        state, frames = sampler.start(first), [first]
        for index in range(1, noise.shape[1]):
            latent, own = sampler.denoise(state, chunk[:, index], noise[:, index], watch=watch)
            state = sampler.commit(state, chunk[:, index], latent, own)
            frames.append(latent)
        end, whole = torch.stack(frames, dim=1), [torch.stack([first, *parts], dim=1) for parts in states]
        levels = sampler.schedule
    told = torch.cat([levels[kept].float(), torch.zeros(1)]).to(first.device)
    return Trajectory(torch.stack([*whole, end]), told)


def regression_step(
    student: WorldModel,
    teacher: WorldModel,
    data: WorldModelTraining,
    *,
    sampler: SamplerConfig,
    schedule: SamplerConfig,
    device: torch.device,
) -> Step:
    """The training step; `sampler` is the student's, `schedule` the teacher's."""
    kept = kept_steps(schedule, sampler)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        latent, chunk = all_latents(batch, device), chunks_after_first(teacher, batch, device)
        b, t = latent.shape[:2]
        noise = torch.randn(latent.shape, generator=state.generator, device=device)
        path = trajectory(teacher, schedule, latent[:, 0], chunk, noise, kept)
        end = path.states[-1]
        pick = torch.randint(len(path.levels), (b, t), generator=state.generator, device=device)
        pick[:, 0] = len(kept)
        sigma = path.levels[pick]
        shown = path.states.movedim(0, 2)[torch.arange(b)[:, None], torch.arange(t), pick]
        shown = torch.cat([latent[:, :1], shown[:, 1:]], dim=1)
        dropped = torch.rand(b, generator=state.generator, device=device) < data.text_drop
        output, _ = student.dit(
            shown,
            sigma,
            chunk,
            previous=torch.cat([latent[:, :1], end[:, :-1]], dim=1) if student.config.dit.previous_latent else None,
            reference=latent[:, 0] if student.config.dit.reference_latent else None,
            text=student.context(b, dropped),
        )
        output = output.float()
        clean = output if student.config.dit.prediction == "clean" else shown - per_frame(sigma) * output
        loss = (clean - end)[:, 1:].square().mean()
        return loss, {"squared_error": loss.detach()}

    return step
