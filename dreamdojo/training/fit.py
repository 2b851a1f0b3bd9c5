"""The training loop of every stage. A stage gives it a step and batches; nothing else differs.

A step is the mean over its micro-batches, which several processes share out among themselves. Batch and noise of
micro-batch `i` depend on `(seed, i)` only, so a run that was stopped and resumed equals one that was not, bit for bit
on a CPU, and several processes compute what one does, up to rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, TrainingDiverged
from dreamdojo.training.activations import checkpoint_activations
from dreamdojo.training.checkpoint import save_model
from dreamdojo.training.compiled import compile_parts, compiler_fault
from dreamdojo.training.device import Compute
from dreamdojo.training.distributed import (
    HasShards,
    Processes,
    average_gradients,
    clip_gradients,
    gather,
    local,
    noting_stops,
    place,
)
from dreamdojo.training.optimizer import OptimizerName, make_optimizer
from dreamdojo.training.prefetch import prefetched
from dreamdojo.training.progress import Report, silent
from dreamdojo.training.resume import Resumable, saved_step, trained_weights
from dreamdojo.training.speed import Speedometer, Work, in_words
from dreamdojo.training.trackers import Tracker

Batch = TypeVar("Batch")
Metrics = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained, whatever it is."""

    steps: int
    """Optimizer steps in all."""
    batch_size: int
    """Samples of a micro-batch."""
    learning_rate: float
    """Peak learning rate."""
    optimizer: OptimizerName = "adamw"
    """`muon` turns the updates of the blocks' matrices orthogonal (Muon, Jordan et al. 2024), scaled to the size of
    AdamW's; the rest is trained by AdamW. In one process only."""
    micro_batches: int = 1
    """Micro-batches whose mean is one step, over all processes together; a multiple of their number."""
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
    checkpoint_activations: bool = False
    """Compute each block again in the backward pass: less memory, about a third more time, the same gradients."""
    compile: bool = False
    """Compile the model's blocks first: a minute, then shorter steps. The last bits of a run depend on it."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batches", "save_every", "log_every"):
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
    """Noise of this micro-batch, seeded by (seed, its index)."""
    averaged: dict[str, Tensor]
    """The averaged weights so far, of what is trained; `averaged_weights` puts them into the model."""


@contextmanager
def averaged_weights(model: nn.Module, averaged: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, `model` has the averaged weights. Nothing may be differentiated across the borders of the block."""
    state = model.state_dict()
    pairs = [(local(state[name]), local(value)) for name, value in averaged.items()]

    @torch.no_grad()
    def exchange() -> None:
        for own, average in pairs:
            held = own.clone()
            own.copy_(average)
            average.copy_(held)
        torch.clear_autocast_cache()  # it holds the weights as they were, in bfloat16

    exchange()
    try:
        yield
    finally:
        exchange()


Step = Callable[[Batch, TrainingState], tuple[Tensor, Metrics]]


@dataclass(frozen=True)
class Turn:
    """Which part of a model a step trains, where parts take turns."""

    part: str
    """Its name, put before the names of the step's loss and gradient norm in the log."""
    learning_rate: float = 1.0
    """Factor on the learning rate."""


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
    work: Work | None = None,
    save: Callable[[Mapping[str, Tensor]], None] | None = None,
    turns: Callable[[int], Turn] | None = None,
    stop_at: int | None = None,
) -> None:
    """Train `model` in place and write the averaged weights to `folder`; resumes where a former call was stopped.

    When it returns, `model` holds the averaged weights; several processes still hold its shards in parts, so that
    anything but more training loads it from the folder. A finished folder is loaded, not trained again.

    Args:
        model: The model; `step` must compute its loss through it.
        step: `(batch, state) -> (loss, metrics)`, with the same metrics for all micro-batches of a step.
        batches: `index -> batch`, the same batch for the same index; step i takes `micro_batches` of them from index
            `i * micro_batches` on. A thread calls it, while the model computes.
        config: How to train.
        folder: Run folder: `model.safetensors`, `config.json`, `metrics.jsonl`, and `state/`, from which it resumes.
        compute: Device, precision and processes.
        about: Kept in the checkpoint's `config.json`.
        trackers: Where metrics go beside `metrics.jsonl`.
        report: Progress.
        work: What one sample costs, for frames and tokens per second and the utilisation of the hardware in the log.
        save: Called once at the end, in the main process, with all weights of the model; by default it is saved as it
            is, with `about`.
        turns: What each step trains, for models whose parts take turns: a part without a gradient is left as it is. A
            row of the log holds the newest number of each name.
        stop_at: Stop before this step, saving the state; for tests and for training in portions. Ctrl-C and SIGTERM do
            the same after the step that is under way.

    Raises:
        TrainingDiverged: before the update, if the loss or a gradient is not finite.
        CheckpointError: if the folder's state belongs to another run.
        ConfigError: if the processes cannot share the micro-batches evenly.
    """
    processes = compute.processes
    mine = processes.share(config.micro_batches)
    folder.mkdir(parents=True, exist_ok=True)
    restore = _compiled(model, report, main=processes.is_main) if config.compile else None
    place(model, compute.device, processes, bfloat16=compute.autocast)
    model.train()
    optimizer = make_optimizer(
        model,
        config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    averaged = {name: value.detach().clone() for name, value in trained_weights(model).items()}
    settings = {name: getattr(config, name) for name in ("seed", "batch_size", "micro_batches", "optimizer")}
    run = Resumable(folder, model, optimizer, averaged, settings, processes)
    done = run.load()
    if done < config.steps and processes.is_main:
        report(done, config.steps, "resumed" if done else "")
    latest: dict[str, float] = {}
    speed = Speedometer(compute, config.batch_size * config.micro_batches, work)
    numbers = (index * config.micro_batches + micro for index in range(done, config.steps) for micro in mine)
    try:
        with ExitStack() as during:
            if restore is not None:
                during.callback(restore)
            if config.checkpoint_activations and isinstance(model, HasShards):
                during.enter_context(checkpoint_activations(model.shards().blocks))
            asked_to_stop = during.enter_context(noting_stops(processes))
            prepared = during.enter_context(prefetched(batches, numbers, compute.device))
            for index in range(done, config.steps):
                if index == stop_at:
                    raise KeyboardInterrupt
                started = time.monotonic()

                # forward and backward
                turn = Turn("") if turns is None else turns(index)
                learning_rate = config.learning_rate_at(index) * turn.learning_rate
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                optimizer.zero_grad(set_to_none=True)
                rows = []
                for number, batch in islice(prepared, len(mine)):
                    generator = torch.Generator(compute.device).manual_seed(config.seed * 1_000_003 + number)
                    with compute.autocasting():
                        loss, metrics = step(batch, TrainingState(index, generator, averaged))
                    (loss / len(mine)).backward()
                    rows.append({name: value.detach() for name, value in metrics.items()} | {"loss": loss.detach()})
                average_gradients(model, processes)
                norm = clip_gradients(model, config.gradient_clip, processes).item()
                row, stopping = _agree(rows, asked_to_stop(), processes)

                # stop before the update
                if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
                    raise TrainingDiverged(
                        f"step {index}{turn.part and f' of the {turn.part}'}: loss {row['loss']:.4g}, gradient norm "
                        f"{norm:.4g}. The weights are those of before this step. Lower the learning rate (now "
                        f"{learning_rate:.2g}) or look at the batch."
                    )
                optimizer.step()
                _average(model, averaged, min(config.ema_decay, (1 + index) / (10 + index)))
                done = index + 1
                speed.step_done()

                # once in a while: log and save
                row |= {"gradient_norm": norm}
                if turn.part:
                    row |= {f"{turn.part}_{name}": row.pop(name) for name in ("loss", "gradient_norm")}
                latest |= row
                if (done % config.log_every == 0 or done == config.steps) and processes.is_main:
                    speeds = speed.read()
                    _log(folder, done, latest | {"seconds": time.monotonic() - started} | speeds, trackers)
                    loss = f"{turn.part}_loss" if turn.part else "loss"
                    report(done, config.steps, f"{loss.replace('_', ' ')} {row[loss]:.4f}, {in_words(speeds)}")
                if stopping:
                    raise KeyboardInterrupt
                if done % config.save_every == 0 and done < config.steps:
                    run.save(done)
    except KeyboardInterrupt:  # only raised above, between two steps
        run.save(done)
        raise
    weights = gather({**model.state_dict(), **averaged}, processes)
    if processes.is_main and save is not None:
        save(weights)
    elif processes.is_main:
        save_model(folder, model, weights=weights, about=about)
    processes.wait()
    run.save(done)  # after the model, so that a state of the last step says that the model is there
    for name, value in trained_weights(model).items():
        local(value).copy_(local(averaged[name]))
    model.eval()


def _compiled(model: nn.Module, report: Report, *, main: bool) -> Callable[[], None] | None:
    if (fault := compiler_fault()) is None:
        return compile_parts(model)
    if main:
        report(0, 1, f"not compiled ({fault}); steps take longer")
    return None


def is_finished(folder: Path, config: FitConfig) -> bool:
    """Whether `fit` has run to its last step in this folder."""
    if not (folder / "config.json").exists():  # which is written after the weights
        return False
    step = saved_step(folder)
    return step is not None and step >= config.steps


def _agree(
    rows: Sequence[Mapping[str, Tensor]], asked_to_stop: bool, processes: Processes
) -> tuple[dict[str, float], bool]:
    """Mean metrics of the micro-batches of all processes, and whether any process was asked to stop."""
    means = [torch.stack([row[name].float() for row in rows]).mean() for name in rows[0]]
    agreed = processes.mean(torch.stack([*means, torch.tensor(float(asked_to_stop), device=means[0].device)])).tolist()
    return dict(zip(rows[0], agreed, strict=False)), agreed[-1] > 0


@torch.no_grad()
def _average(model: nn.Module, averaged: dict[str, Tensor], decay: float) -> None:
    for name, value in trained_weights(model).items():
        average = local(averaged[name])
        if value.is_floating_point():
            average.lerp_(local(value), 1 - decay)
        else:
            average.copy_(local(value))


def _log(folder: Path, step: int, row: dict[str, float], trackers: tuple[Tracker, ...]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **row}) + "\n")
    for tracker in trackers:
        tracker.log(step, row)
