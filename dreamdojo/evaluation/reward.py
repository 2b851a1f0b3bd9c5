"""Did it work? A small network that says so from two frames: the first of an episode, and one in question.

It learns from real frames whose outcome is known, of whoever acted in them; the policies that it later judges must not
be among them. What it says about predicted frames is worth as much as its own error there, so that is measured too:
recorded actions of held-out episodes are carried out in the world model, and what the network says about the predicted
end is compared with how the recording really ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from dreamdojo.dataset.windows import Source, Windows, WindowSampler
from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import LOCATE_BATCH, degraded, photometric
from dreamdojo.metrics import Interval, unit_range, wilson_interval
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute
from dreamdojo.training.fit import FitConfig, TrainingState, fit, is_finished
from dreamdojo.training.progress import Report, silent

LAST = 3
"""An episode ended well if the network thinks so of its last frames, on average over so many."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The network."""

    width: int = 24
    """Channels at half size; twice and four times as many below."""


@dataclass(frozen=True, kw_only=True)
class RewardTraining:
    """How it is trained."""

    fit: FitConfig = field(
        default_factory=lambda: FitConfig(steps=600, batch_size=64, learning_rate=2e-3, weight_decay=0.01)
    )
    """The loop's settings."""
    held_out: float = 0.2
    """Share of the episodes that its error is measured on."""


class RewardModel(nn.Module):
    """First frame and frame in question -> logit of success."""

    def __init__(self, config: RewardConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.look = nn.Sequential(
            _conv(9, w), _conv(w, 2 * w), _conv(2 * w, 4 * w), nn.Conv2d(4 * w, 4 * w, 3, padding=1), nn.SiLU()
        )
        self.decide = nn.Sequential(nn.Linear(8 * w, 4 * w), nn.SiLU(), nn.Linear(4 * w, 1))

    def forward(self, first: Float[Tensor, "b 3 h w"], last: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Logits, from frames in [0, 1]."""
        seen = self.look(2 * torch.cat([first, last, last - first], dim=1))
        return self.decide(torch.cat([seen.amax(dim=(2, 3)), seen.mean(dim=(2, 3))], dim=1))[:, 0].float()

    @torch.no_grad()
    def probability(self, frames: UInt8[Tensor, "b t c h w"]) -> Float[Tensor, " b"]:
        """That episodes ended well, from their first and last frames."""
        last = frames[:, 1:][:, -LAST:]
        first = frames[:, :1].expand_as(last)
        device = next(self.parameters()).device
        pairs = zip(first.flatten(0, 1).split(LOCATE_BATCH), last.flatten(0, 1).split(LOCATE_BATCH), strict=True)
        said = [self(unit_range(a.to(device)), unit_range(b.to(device))).sigmoid().cpu() for a, b in pairs]
        return torch.cat(said).unflatten(0, last.shape[:2]).mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class JudgeError:
    """How often a judge of success is wrong, on episodes whose outcome is known."""

    accuracy: Interval
    """Share it is right about (Wilson)."""
    false_success: Interval
    """Share of the failures that it takes for successes."""
    missed: Interval
    """Share of the successes that it takes for failures."""

    def __str__(self) -> str:
        def percent(share: Interval) -> str:
            return f"{100 * share.mean:.0f} %" if share.count else "none"

        right, called, missed = self.accuracy, self.false_success, self.missed
        return (
            f"right about {percent(right)} of {right.count} episodes; takes {percent(called)} of {called.count} "
            f"failures for successes and misses {percent(missed)} of {missed.count} successes"
        )

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a results file."""
        return {name: getattr(self, name).to_json() for name in ("accuracy", "false_success", "missed")}


def judge_error(said: Bool[Tensor, " b"], truth: Bool[Tensor, " b"]) -> JudgeError:
    """Compare what a judge says with what is known."""
    return JudgeError(
        accuracy=wilson_interval(int((said == truth).sum()), len(truth)),
        false_success=wilson_interval(int((said & ~truth).sum()), int((~truth).sum())),
        missed=wilson_interval(int((~said & truth).sum()), int(truth.sum())),
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An episode whose success is known at each frame."""

    frames: UInt8[np.ndarray, "t c h w"]
    success: Float[np.ndarray, " t"]
    """1 done, 0 not done, NaN unknown."""


def train_reward_model(
    outcomes: Sequence[Outcome],
    folder: Path,
    *,
    compute: Compute,
    config: RewardConfig | None = None,
    training: RewardTraining | None = None,
    report: Report = silent,
) -> RewardModel:
    """Learn to tell success; as many successes as failures are shown. A finished folder is loaded.

    Raises:
        DataError: if not both successes and failures are known.
    """
    config, training = config or RewardConfig(), training or RewardTraining()
    if is_finished(folder, training.fit):
        return load_model(folder, RewardModel).to(compute.device)
    pairs = [_pairs(outcome) for outcome in outcomes]
    good, bad = ([{key: rows[key][rows["success"] == side] for key in rows} for rows in pairs] for side in (1.0, 0.0))
    counts = [sum(len(rows["success"]) for rows in side) for side in (good, bad)]
    if not all(counts):
        raise DataError(
            f"a reward model learns from successes and failures: found {counts[0]} frames of success and "
            f"{counts[1]} of failure. Record episodes of both."
        )
    torch.manual_seed(training.fit.seed)
    model = RewardModel(config)
    sources = [
        Source(embodiment=name, episodes=[rows for rows in side if len(rows["success"])])
        for name, side in (("success", good), ("failure", bad))
    ]
    sampler = WindowSampler(sources, length=1, batch_size=training.fit.batch_size, seed=training.fit.seed)

    def step(batch: Windows, state: TrainingState) -> tuple[Tensor, dict[str, Tensor]]:
        # photometric and degraded draw on the CPU
        generator = torch.Generator().manual_seed(training.fit.seed * 1_000_003 + state.step)
        frames = torch.cat([batch.cat("first")[:, 0], batch.cat("last")[:, 0]], dim=1)
        frames = photometric(unit_range(frames), generator, strength=0.3)
        order = torch.randperm(len(frames), generator=generator)
        first, last = frames[order].split(3, dim=1)
        said = model(first.to(compute.device), degraded(last, generator).to(compute.device))
        truth = batch.cat("success")[:, 0][order].to(compute.device)
        loss = F.binary_cross_entropy_with_logits(said, truth)
        return loss, {"accuracy": ((said > 0) == (truth > 0.5)).float().mean()}

    fit(model, step, sampler, config=training.fit, folder=folder, compute=compute, report=report)
    return model


def _pairs(outcome: Outcome) -> dict[str, np.ndarray]:
    """Rows of `first`, `last` and `success` for every later frame whose outcome is known."""
    first = np.broadcast_to(outcome.frames[:1], outcome.frames.shape)
    return {"first": first[1:], "last": outcome.frames[1:], "success": outcome.success[1:].astype(np.float32)}


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.SiLU())
