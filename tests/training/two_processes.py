"""What `test_distributed.py` runs under torchrun: the loop with a divided model, whole, stopped and resumed.

python -m torch.distributed.run --nproc-per-node 2 -m tests.training.two_processes FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from dreamdojo.errors import TrainingDiverged
from dreamdojo.student.distill import StudentTraining, distil
from dreamdojo.training.device import join_processes
from dreamdojo.training.fit import FitConfig, fit
from dreamdojo.world_model.lora import LoRAConfig, train_lora
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import WorldModelTraining, train_world_model
from tests.tiny import CPU, latent_source, tiny_world_model

FIT = FitConfig(
    steps=6,
    batch_size=2,
    micro_batches=4,
    learning_rate=1e-3,
    warmup_steps=2,
    gradient_clip=0.5,  # below the norm of every step, so that a wrong norm shows
    save_every=4,
    log_every=1,
)


def train(folder, compute=CPU, fit=FIT, before_forward=None):
    """A tiny world model on two bodies, the second of which is in some micro-batches, and some steps, only."""
    sources = [latent_source(), replace(latent_source(name="pusher", seed=1), weight=0.1)]
    training = WorldModelTraining(fit=fit, latent_frames=3, context_noise=0.1, emphasis=1.0)
    model = tiny_world_model(dim=36)  # two processes cannot halve all of its tensors
    if before_forward is not None:
        model.dit.register_forward_pre_hook(before_forward)
    return train_world_model(model, training, sources, folder, compute=compute)


def train_student(folder, compute=CPU):
    training = StudentTraining(fit=FIT, sampler=SamplerConfig(steps=2), teacher=SamplerConfig(steps=8))
    data = WorldModelTraining(fit=FIT, latent_frames=3)
    distil(tiny_world_model(), training, data, [latent_source()], folder, compute=compute)


def train_small_addition(folder, compute=CPU):
    torch.manual_seed(1)
    training = WorldModelTraining(fit=FIT, latent_frames=3)
    sources = [latent_source(name="pusher")]
    train_lora(tiny_world_model(), training, sources, folder, lora=LoRAConfig(rank=2, alpha=4.0), compute=compute)


def stop_in_the_third_step(process, per_step=2):
    """Send process 1 the signal of a scheduler; the other hears nothing."""
    calls = []

    def before_forward(*_):
        calls.append(None)
        if len(calls) == 2 * per_step + 1 and process == 1:
            signal.raise_signal(signal.SIGTERM)

    return before_forward


def train_until_one_loss_is_not_finite(folder, compute):
    model = tiny_world_model()

    def step(batch, state):
        bad = state.step == 1 and compute.processes.rank == 1
        prediction, _ = model.dit(batch, torch.ones(1, 2), torch.zeros(1, 2, 3), previous=batch)
        return prediction.square().mean() * (float("nan") if bad else 1.0), {}

    fit(model, step, lambda index: torch.ones(1, 2, 4, 4, 4), config=FIT, folder=folder, compute=compute)


def train_three_steps(folder):
    """With one process, which is then told to stop, and leaves its state in `spread`."""
    with contextlib.suppress(KeyboardInterrupt):
        train(folder / "spread", before_forward=stop_in_the_third_step(1, per_step=4))


def kill_in_the_fifth_step(note):
    """Once: the process leaves a note and is gone, as when a machine fails."""
    calls = []

    def before_forward(*_):
        calls.append(None)
        if len(calls) == 10 and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return before_forward


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    compute = join_processes(CPU)
    processes = compute.processes

    train(
        folder / "killed",
        compute,
        before_forward=kill_in_the_fifth_step(folder / "killed-1") if processes.rank == 1 else None,
    )
    train(folder / "bfloat16", replace(compute, autocast=True), replace(FIT, steps=2))
    train(folder / "spread", compute)
    train(folder / "two", compute, replace(FIT, checkpoint_activations=True))
    try:
        train(folder / "parts", compute, before_forward=stop_in_the_third_step(processes.rank))
    except KeyboardInterrupt:
        (folder / f"stopped-{processes.rank}").touch()
    if processes.is_main:
        shutil.copytree(folder / "parts", folder / "regrouped")
    processes.wait()
    train(folder / "parts", compute)
    train_student(folder / "student", compute)
    if find_spec("peft"):
        train_small_addition(folder / "lora", compute)
    try:
        train_until_one_loss_is_not_finite(folder / "diverged", compute)
    except TrainingDiverged as error:
        (folder / f"diverged-{processes.rank}").write_text(str(error))


if __name__ == "__main__":
    # In a process of their own, because signals reach a main thread, which is not always the one that runs the tests.
    {"alone": train_three_steps, "together": main}[sys.argv[1]](Path(sys.argv[2]))
