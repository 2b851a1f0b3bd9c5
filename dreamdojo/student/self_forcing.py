"""Self-forcing: the student learns from its own rollouts by distribution matching (arXiv 2506.08009, 2405.14867).

    rollout    frame 0 is real; every further frame takes a random number of steps and enters the student's own cache.
               Gradients go through the last step of the last frames alone; the cache has none.
    window     the last frames of a rollout of random length, with the real frame before them as the given one
    student    follows (critic - teacher) on the noisy window         every `critic_steps + 1`-th step, the first too
    critic     learns what the student makes                          all other steps

A rollout much longer than the window is the long stage: its cache has rolled, its end is judged, and its first frames
are real ones from all over the recordings. `temporal_weight` adds

    mean | diff_t student - diff_t teacher |      of the window and the teacher's own, from the same frame and noise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import ConfigError
from dreamdojo.student.dmd import clean_prediction, critic_clip, critic_loss, draw_angle, generator_loss
from dreamdojo.student.health import continue_with, moving_energy, spread, stop_if_lost
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.training.checkpoint import save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, Step, TrainingState, Turn, fit
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig
from dreamdojo.world_model.train import all_latents, chunks_after_first


@dataclass(frozen=True, kw_only=True)
class SelfForcing:
    """How the student learns from its own rollouts."""

    fit: FitConfig
    """The loop's settings; the learning rate is the student's. Its weights are averaged at every step, also at those of
    the critic: a decay d per student step is d ** (1 / (critic_steps + 1)) here."""
    critic_learning_rate: float = 5.0
    """The critic's learning rate in units of the student's."""
    critic_steps: int = 4
    """Steps of the critic between two of the student."""
    shortest: int
    """Latent frames of the shortest rollout, the real first one included."""
    longest: int
    """Latent frames of the longest."""
    window: int = 4
    """Latent frames that are judged, the given one included."""
    shift: float = 5.0
    """Shift of the noise levels at which teacher and critic compare."""
    noise_floor: float = 0.0
    """Below this `sin t` the critic's loss is no longer weighed up; 0 as published, more for models that predict the
    clean latent, whose error does not vanish with the noise."""
    given: Literal["truth", "own"] = "truth"
    """The frame before the judged ones: the real one, so that a drifted student is told where it should be, or its own.
    """
    temporal_weight: float = 0.0
    """Weight of the agreement between changes of neighbouring frames in the student's and the teacher's rollout."""

    def __post_init__(self) -> None:
        if not 2 <= self.window <= self.shortest <= self.longest:
            raise ConfigError(
                "expected 2 <= window <= shortest <= longest latent frames, got "
                f"{self.window}, {self.shortest} and {self.longest}"
            )
        if self.critic_steps < 1:
            raise ConfigError(f"the critic needs at least one step between two of the student: {self.critic_steps}")

    def turn(self, step: int) -> Turn:
        """Whose step it is."""
        if step % (self.critic_steps + 1) == 0:
            return Turn("student")
        return Turn("critic", self.critic_learning_rate)


class StudentAndCritic(nn.Module):
    """The two networks that one loop trains in turns."""

    def __init__(self, student: WorldModel, critic: WorldModel) -> None:
        super().__init__()
        self.student, self.critic = student, critic


@dataclass(frozen=True)
class Rollout:
    """The end of a student's rollout beside what really happened. Row 0 is the frame before the judged ones."""

    made: Tensor
    """`b w c h w`, with gradients after row 0."""
    truth: Tensor
    chunk: Tensor
    """`b w kl`; row 0 has no meaning."""
    given: Tensor
    """`b c h w`, what teacher and critic are given."""
    first: Tensor
    """`b c h w`, the real frame that the rollout began with."""


def roll(
    sampler: CausalSampler,
    training: SelfForcing,
    truth: Tensor,
    chunk: Tensor,
    generator: torch.Generator,
    tokenizer: VideoTokenizer | None,
) -> Rollout:
    """Roll the student out to a random length, with a random number of steps per frame.

    Where the last step writes the cache, frames that are only context take all steps, as they do when the student is
    used. With a `tokenizer` (a teacher of clips) the frame before the judged ones is made a clip's first.
    """
    device = truth.device
    length = int(torch.randint(training.shortest, training.longest + 1, (), generator=generator, device=device))
    steps = int(torch.randint(1, sampler.sampler.steps + 1, (), generator=generator, device=device))
    truth, chunk = truth[:, :length], chunk[:, :length]
    noise = torch.randn(truth.shape, generator=generator, device=device)
    first_judged = length - training.window + 1
    state, frames = sampler.start(truth[:, 0]), [truth[:, 0]]
    differentiate = torch.is_grad_enabled()
    for index in range(1, length):
        judged = index >= first_judged
        with torch.set_grad_enabled(differentiate and judged):
            latent, own = sampler.denoise(
                state,
                chunk[:, index],
                noise[:, index],
                steps=steps if judged or sampler.sampler.commit == "extra_pass" else None,
            )
        state = sampler.commit(state, chunk[:, index], latent, own)
        frames.append(latent)
    made, start = torch.stack(frames, dim=1), first_judged - 1
    if tokenizer is None:
        made, truth = made[:, start:], truth[:, start:]
    else:
        with torch.no_grad():
            first = critic_clip(made.detach(), tokenizer, training.window)[:, :1]
            truth = critic_clip(truth, tokenizer, training.window)
        made = torch.cat([first, made[:, first_judged:]], dim=1)
    given = truth[:, 0] if training.given == "truth" else made[:, 0].detach()
    return Rollout(made, truth, chunk[:, start:], given, frames[0])


def self_forcing_step(
    both: StudentAndCritic,
    teacher: WorldModel,
    training: SelfForcing,
    *,
    sampler: SamplerConfig,
    schedule: SamplerConfig,
    device: torch.device,
    tokenizer: VideoTokenizer | None = None,
) -> Step:
    """The training step; rows that are logged also tell the student's health."""
    student, critic = both.student, both.critic
    causal = CausalSampler(student, sampler, student.config.dit.window)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        latent, chunk = all_latents(batch, device), chunks_after_first(teacher, batch, device)
        is_student = training.turn(state.step).part == "student"
        with torch.set_grad_enabled(is_student):
            end = roll(causal, training, latent, chunk, state.generator, tokenizer)
        stop_if_lost(end.made, end.truth, state.step)
        noise = torch.randn(end.made.shape, generator=state.generator, device=device)
        t = draw_angle(torch.rand(len(latent), generator=state.generator, device=device), training.shift)
        clip = end.made.detach()

        def judge(model: WorldModel) -> Tensor:
            return clean_prediction(model, clip, end.given, end.chunk, noise, t, end.first)

        if not is_student:
            loss, metrics = critic_loss(clip, judge(critic), t, training.noise_floor), {}
        else:
            with torch.no_grad():
                matched, fake = judge(teacher), judge(critic)
            matching = generator_loss(end.made, matched, fake)
            loss, metrics = matching, {"matching": matching}
            if training.temporal_weight:
                own = continue_with(teacher, schedule, end.given, end.chunk, noise)
                gap = torch.diff(end.made[:, 1:], dim=1) - torch.diff(own[:, 1:], dim=1)
                temporal = gap.abs().mean()
                loss, metrics = matching + training.temporal_weight * temporal, {**metrics, "temporal": temporal}
        if (state.step + 1) % training.fit.log_every == 0:
            with torch.no_grad():
                sharpness, motion = moving_energy(clip, end.truth)
                pair = (student, sampler), (teacher, schedule)
                metrics |= {
                    "sharpness": sharpness,
                    "motion": motion,
                    "spread": spread(*pair, end.truth[:, 0], end.chunk, state.generator),
                }
        return loss, metrics

    return step


def self_force(
    student: WorldModel,
    teacher: WorldModel,
    training: SelfForcing,
    sources: Sequence[Source],
    folder: Path,
    *,
    sampler: SamplerConfig,
    schedule: SamplerConfig,
    compute: Compute,
    about: Mapping[str, Any] = {},
    tokenizer: VideoTokenizer | None = None,
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
) -> WorldModel:
    """Train the student in place on its own rollouts and write it to `folder`; its adapters stay the teacher's.

    Raises:
        TrainingDiverged: if a loss or gradient is not finite, or the student leaves the range of real latents.
    """
    critic = WorldModel(teacher.config)
    critic.load_state_dict(teacher.state_dict())
    both = StudentAndCritic(student, critic)
    for model in (student, critic):
        for parameter in model.adapters.parameters():
            parameter.requires_grad_(False)

    def save(weights: Mapping[str, Tensor]) -> None:
        own = {name.removeprefix("student."): w for name, w in weights.items() if name.startswith("student.")}
        save_model(folder, student, weights=own, about={"sampler": asdict(sampler), **about})

    fit(
        both,
        self_forcing_step(
            both,
            teacher,
            training,
            sampler=sampler,
            schedule=schedule,
            device=compute.device,
            tokenizer=tokenizer,
        ),
        WindowSampler(sources, length=training.longest, batch_size=training.fit.batch_size, seed=training.fit.seed),
        config=training.fit,
        folder=folder,
        compute=compute,
        trackers=trackers,
        report=report,
        save=save,
        turns=training.turn,
    )
    return student
