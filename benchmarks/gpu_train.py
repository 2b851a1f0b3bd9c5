"""Arms of `gpu.py` that train: whole steps of the product's own loops (data, loss, optimizer, average) on random data.

Weights stay in float32 and compute under bfloat16 autocast; the 2B computes each block's activations again in the
backward pass. A loop is left as soon as enough steps were timed, so nothing is ever saved.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.gpu_generate import CLIP, Arm, flops_of, grid_of, sized, world_model
from benchmarks.gpu_measure import Marks, Setting, graphs_compiled, peak_memory, rate, reset_peak, spread
from dreamdojo.dataset.windows import Source
from dreamdojo.latent_action.train import train_latent_action_model
from dreamdojo.presets.nano import NANO
from dreamdojo.presets.paper import PAPER_2B
from dreamdojo.tokenizer.model import Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.train import train_tokenizer
from dreamdojo.training.device import Compute, choose_compute
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.budget import count_parameters
from dreamdojo.world_model.lora import LoRAConfig, train_lora
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel, WorldModelConfig
from dreamdojo.world_model.train import latent_episode, train_world_model

LORA = LoRAConfig(rank=16, alpha=16.0, base="bfloat16")


class Enough(Exception):
    """Leaves a training loop without saving anything."""


class StepWatch:
    """A `Report` that times steps: the loop calls it after each."""

    def __init__(self, setting: Setting, *, seconds: float) -> None:
        self._setting, self._marks, self._seconds = setting, Marks(setting), seconds
        self._warm, self._least, self._most = (1, 1, 1) if setting.quick else (3, 5, 200)
        self._started = 0.0

    def __call__(self, done: int, total: int, words: str) -> None:
        if done < self._warm:
            return
        if done == self._warm:
            reset_peak(self._setting)
            self._started = time.monotonic()
        self._marks.mark()
        timed, elapsed = done - self._warm, time.monotonic() - self._started
        if timed >= self._most or (timed >= self._least and elapsed >= self._seconds):
            raise Enough

    def milliseconds(self) -> dict[str, float]:
        return spread(self._marks.milliseconds())


def timed_steps(train: Callable[[Path, StepWatch], object], setting: Setting, *, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step and memory of a training function that is given a folder and a report."""
    watch = StepWatch(setting, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        train(Path(folder), watch)
        raise AssertionError("the loop ended before enough steps were timed")
    return {"ms_per_step": watch.milliseconds(), **peak_memory(setting), **graphs_compiled(setting)}


def compute_of(setting: Setting) -> Compute:
    return choose_compute("cuda" if setting.cuda else "cpu", "bfloat16")


def endless(config: FitConfig, **changes: Any) -> FitConfig:
    """The same loop, reporting each step and never saving."""
    return replace(config, steps=10**6, log_every=1, save_every=10**6, micro_batches=1, **changes)


def latents(count: int, shape: tuple[int, ...], action_dim: int, k: int) -> Source:
    """Episodes of random latents and latent actions."""
    random = np.random.default_rng(0)
    return Source(
        embodiment=LATENT_ACTION,
        episodes=[
            latent_episode(
                random.standard_normal((count, *shape), dtype=np.float32),
                random.standard_normal((k * (count - 1), action_dim), dtype=np.float32),
                k,
            )
            for _ in range(4)
        ],
    )


def posttraining(batch: int, kind: Literal["all", "compiled", "lora"], setting: Setting) -> dict[str, Any]:
    """A post-training step of the 2B: all weights, the same with compiled blocks, or a LoRA on bfloat16 weights."""
    preset = sized(PAPER_2B, setting)
    model = world_model(preset, preset.world_model, setting, torch.float32).requires_grad_(True)
    grid, dit = grid_of(preset), preset.world_model
    training = replace(preset.posttraining, fit=endless(preset.posttraining.fit, batch_size=batch))
    source = latents(
        2 * CLIP,
        (dit.latent_channels, grid.rows, grid.columns),
        preset.latent_action.latent_dim,
        dit.actions_per_latent,
    )
    compute = compute_of(setting)
    if kind == "compiled" and setting.backend is not None:
        for block in model.dit.blocks:  # below the checkpoint, which wraps `forward` in the loop
            vars(block)["forward"] = torch.compile(
                block.forward, backend=setting.backend, fullgraph=True, dynamic=False
            )

    def train(folder: Path, report: StepWatch) -> None:
        if kind == "lora":
            train_lora(model, training, [source], folder, lora=LORA, compute=compute, report=report)
        else:
            train_world_model(model, training, [source], folder, compute=compute, report=report)

    figures = timed_steps(train, setting, seconds=5.0)
    ms = figures["ms_per_step"]["median"]
    forward = batch * flops_of(dit, preset, CLIP)
    # A LoRA's backward pass needs no gradient of the frozen weights: one product per layer, not two.
    useful = forward * (2 if kind == "lora" else 3)
    return {
        "batch": batch,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": count_parameters(model),
        **figures,
        "samples_per_second": batch * 1000 / ms,
        "tokens_per_second": batch * CLIP * grid.tokens(dit) * 1000 / ms,
        **rate(useful, ms),
        "tflop_per_second_with_recomputation": (useful + forward) / ms / 1e9,
    }


def nano(stage: Literal["tokenizer", "latent-action", "pretraining"], setting: Setting) -> dict[str, Any]:
    """A training step of `nano`, data included."""
    random = np.random.default_rng(0)
    frames = Source(
        embodiment="random",
        episodes=[{"frames": random.integers(0, 256, (64, 3, *NANO.size), dtype=np.uint8)} for _ in range(8)],
    )
    compute = compute_of(setting)

    def smaller(config: FitConfig) -> FitConfig:
        return endless(config, **({"batch_size": 2} if setting.quick else {}))

    def train(folder: Path, report: StepWatch) -> None:
        if stage == "tokenizer":
            assert NANO.tokenizer_training is not None
            recipe = replace(NANO.tokenizer_training, fit=smaller(NANO.tokenizer_training.fit))
            train_tokenizer(NANO.tokenizer, recipe, [frames], folder, compute=compute, report=report)
        elif stage == "latent-action":
            recipe = replace(NANO.latent_action_training, fit=smaller(NANO.latent_action_training.fit))
            assert isinstance(NANO.tokenizer, TokenizerConfig)
            train_latent_action_model(
                NANO.latent_action,
                recipe,
                [frames],
                folder,
                compute=compute,
                tokenizer=Tokenizer(NANO.tokenizer),
                report=report,
            )
        else:
            recipe = replace(NANO.pretraining, fit=smaller(NANO.pretraining.fit))
            dit, grid = NANO.world_model, grid_of(NANO)
            source = latents(64, (dit.latent_channels, grid.rows, grid.columns), dit.action_dim, dit.actions_per_latent)
            model = WorldModel(WorldModelConfig(dit=dit, size=NANO.size, rate=NANO.rate))
            train_world_model(model, recipe, [source], folder, compute=compute, report=report)

    fit = {
        "tokenizer": NANO.tokenizer_training,
        "latent-action": NANO.latent_action_training,
        "pretraining": NANO.pretraining,
    }[stage]
    assert fit is not None
    figures = timed_steps(train, setting, seconds=2.0)
    batch = smaller(fit.fit).batch_size
    return {"batch": batch, **figures, "samples_per_second": batch * 1000 / figures["ms_per_step"]["median"]}


ARMS: dict[str, Arm] = {
    **{f"train-2b/all/b{batch}": partial(posttraining, batch, "all") for batch in (1, 4, 8)},
    **{f"train-2b/compiled/b{batch}": partial(posttraining, batch, "compiled") for batch in (1, 4, 8)},
    **{f"train-2b/lora16/b{batch}": partial(posttraining, batch, "lora") for batch in (1, 4)},
    **{f"nano/{stage}": partial(nano, stage) for stage in ("tokenizer", "latent-action", "pretraining")},
}
