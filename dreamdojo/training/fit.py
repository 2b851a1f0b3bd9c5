"""The training loop of every stage. A stage gives it a step and batches; nothing else differs.

Batch and noise of step `i` depend on `(seed, i)` only, so a run that was stopped and resumed equals one that was not,
bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dreamdojo.errors import CheckpointError, ConfigError, TrainingDiverged
from dreamdojo.files import written_whole
from dreamdojo.training.checkpoint import save_model
from dreamdojo.training.device import Compute
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.trackers import Tracker

Batch = TypeVar("Batch")
Metrics = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained, whatever it is."""

    steps: int
    """Optimizer steps in all."""
    batch_size: int
    """Samples per step."""
    learning_rate: float
    """Peak learning rate of AdamW."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from zero."""
    final_learning_rate: float = 0.1
    """Fraction of the peak that the cosine decay ends at."""
    weight_decay: float = 0.01
    """Decoupled decay of weight matrices; vectors are not decayed."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Momentum constants of AdamW."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.995
    """Decay of the averaged weights, which are what is saved; early steps use (1 + step) / (10 + step) if smaller."""
    save_every: int = 200
    """Steps between states from which the run can resume."""
    log_every: int = 20
    """Steps between rows of `metrics.jsonl`."""
    seed: int = 0
    """Seed of batches and noise."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then cosine decay to `final_learning_rate` of the peak."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)


@dataclass
class TrainingState(Generic[Batch]):
    """What a step function may need beside the batch."""

    step: int
    generator: torch.Generator
    """Noise of this step, seeded by (seed, step)."""
    averaged: dict[str, Tensor]
    """The averaged weights so far."""


Step = Callable[[Batch, TrainingState], tuple[Tensor, Metrics]]


def fit(
    model: nn.Module,
    step: Step,
    batches: Callable[[int], Batch],
    *,
    config: FitConfig,
    folder: Path,
    compute: Compute,
    about: Mapping[str, Any] = {},
    trackers: tuple[Tracker, ...] = (),
    report: Report = silent,
    stop_at: int | None = None,
) -> None:
    """Train `model` in place and write the averaged weights to `folder`; resumes where a former call was stopped.

    When it returns, `model` holds the averaged weights. A finished folder is loaded, not trained again.

    Args:
        model: The model; `step` must compute its loss through it.
        step: `(batch, state) -> (loss, metrics)`.
        batches: `step index -> batch`, the same batch for the same index.
        config: How to train.
        folder: Run folder: `model.safetensors`, `config.json`, `metrics.jsonl`, `state.pt`.
        compute: Device and precision.
        about: Kept in the checkpoint's `config.json`.
        trackers: Where metrics go beside `metrics.jsonl`.
        report: Progress.
        stop_at: Stop before this step, saving the state, as Ctrl-C does; for tests and for training in portions.

    Raises:
        TrainingDiverged: before the update, if the loss or a gradient is not finite.
        CheckpointError: if the folder's state belongs to another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(compute.device).train()
    optimizer = _optimizer(model, config)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    done = _resume(folder, model, optimizer, averaged, config)
    if done < config.steps:
        report(done, config.steps, "resumed" if done else "")
    try:
        for index in range(done, config.steps):
            if index == stop_at:
                raise KeyboardInterrupt
            started = time.monotonic()

            # forward and backward
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(index)
            generator = torch.Generator(compute.device).manual_seed(config.seed * 1_000_003 + index)
            batch = batches(index)
            with compute.autocasting():
                loss, metrics = step(batch, TrainingState(index, generator, averaged))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)

            # stop before the update
            if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
                raise TrainingDiverged(
                    f"step {index}: loss {loss.item():.4g}, gradient norm {norm.item():.4g}. The weights are those of "
                    f"before this step. Lower the learning rate (now {config.learning_rate_at(index):.2g}) or look at "
                    "the batch."
                )
            optimizer.step()
            _average(model, averaged, min(config.ema_decay, (1 + index) / (10 + index)))
            done = index + 1

            # once in a while: log and save
            if done % config.log_every == 0 or done == config.steps:
                row = {name: float(value.detach()) for name, value in metrics.items()}
                row |= {"loss": loss.item(), "gradient_norm": norm.item(), "seconds": time.monotonic() - started}
                _log(folder, done, row, trackers)
                report(done, config.steps, f"loss {loss.item():.4f}")
            if done % config.save_every == 0 and done < config.steps:
                _save_state(folder, model, optimizer, averaged, done, config)
    except KeyboardInterrupt:
        _save_state(folder, model, optimizer, averaged, done, config)
        raise
    _save_state(folder, model, optimizer, averaged, done, config)
    model.load_state_dict(averaged)
    model.eval()
    save_model(folder, model, about=about)


def is_finished(folder: Path, config: FitConfig) -> bool:
    """Whether `fit` has run to its last step in this folder."""
    if not (folder / "model.safetensors").exists() or not (folder / "state.pt").exists():
        return False
    return _read_state(folder)["step"] >= config.steps


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.AdamW:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


@torch.no_grad()
def _average(model: nn.Module, averaged: dict[str, Tensor], decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value, 1 - decay)
        else:
            averaged[name].copy_(value)


def _log(folder: Path, step: int, row: dict[str, float], trackers: tuple[Tracker, ...]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **row}) + "\n")
    for tracker in trackers:
        tracker.log(step, row)


def _save_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    step: int,
    config: FitConfig,
) -> None:
    state = {
        "step": step,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "model": model.state_dict(),
        "averaged": averaged,
        "optimizer": optimizer.state_dict(),
    }
    with written_whole(folder / "state.pt") as path:
        torch.save(state, path)


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{folder}/state.pt is not a whole training state ({type(error).__name__}: {error}). Delete it to start "
            "this stage again."
        ) from error


def _resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    config: FitConfig,
) -> int:
    if not (folder / "state.pt").exists():
        return 0
    state = _read_state(folder)
    for name in ("seed", "batch_size"):
        if state[name] != getattr(config, name):
            raise CheckpointError(
                f"{folder}/state.pt is of a run with {name}={state[name]}, this one has {getattr(config, name)}. "
                "Use another run folder or delete the old state."
            )
    try:
        model.load_state_dict(state["model"])
        for name, value in state["averaged"].items():
            averaged[name].copy_(value)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder}/state.pt is of another model: {error}. Use another run folder.") from error
    _truncate_log(folder, state["step"])
    return state["step"]


def _truncate_log(folder: Path, step: int) -> None:
    """Drop rows after `step`: the steps they tell of are about to be run again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        with written_whole(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
