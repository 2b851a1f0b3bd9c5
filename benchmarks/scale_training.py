"""Training on 1, 2 and 4 processes that are killed, stopped and regrouped: the part `training` of `benchmarks.scale`.

The processes are those of a cluster (torchrun, FSDP2, gloo), all on this machine. What is trained is a small world
model on made latents: a pattern that moves as the actions say. Under torchrun this file is the program that trains.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dreamdojo.dataset.windows import Source
from dreamdojo.training.device import choose_compute, join_processes
from dreamdojo.training.fit import FitConfig, fit
from dreamdojo.training.speed import SPEEDS
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel, WorldModelConfig
from dreamdojo.world_model.train import WorldModelTraining, latent_episode, train_world_model

STEPS, SAVE_EVERY = 40, 10
KILLS = {2: (0, 1, 2), 4: (3, 4)}
"""Processes -> the seeds that draw which of them is killed, and in which step."""
ROUNDING = 1e-5
"""Relative difference of losses that counts as rounding: sums of float32 in another order, over all steps."""
DIT = DiTConfig(
    latent_channels=4,
    dim=64,
    num_heads=2,
    num_blocks=3,
    action_dim=2,
    actions_per_latent=1,
    patch_size=2,
    modulation_rank=16,
    text_dim=None,
    mask_channels=False,
    sigma_scale=1000.0,
    prediction="clean",
    causal=True,
    window=4,
    previous_latent=True,
)


def fit_config(steps: int) -> FitConfig:
    return FitConfig(
        steps=steps,
        batch_size=2,
        micro_batches=4,
        learning_rate=2e-3,
        warmup_steps=5,
        save_every=SAVE_EVERY,
        log_every=1,
    )


def moving_patterns(episodes: int = 8, frames: int = 24) -> Source:
    """Latents `t 4 8 8` of waves that are pushed about by random actions."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8] * (2 * np.pi / 8)
    made = []
    for _ in range(episodes):
        actions = random.normal(scale=0.6, size=(frames - 1, 2)).astype(np.float32)
        place = np.concatenate([random.uniform(0, 2 * np.pi, (1, 2)), actions]).cumsum(axis=0)
        waves = [
            np.sin((c // 2 + 1) * (y if c % 2 else x) + place[:, c % 2, None, None]) for c in range(DIT.latent_channels)
        ]
        made.append(latent_episode(np.stack(waves, axis=1).astype(np.float32), actions, 1))
    return Source(embodiment=LATENT_ACTION, episodes=made)


def train(folder: Path, steps: int) -> None:
    """What each process runs; it leaves its number and which start this is, so that it can be found and killed."""
    torch.set_num_threads(1)
    compute = join_processes(choose_compute("cpu", "float32"))
    (folder / "processes").mkdir(parents=True, exist_ok=True)
    (folder / "processes" / str(compute.processes.rank)).write_text(str(os.getpid()))
    (folder / f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}").touch()
    torch.manual_seed(0)
    model = WorldModel(world_model_config())
    training = WorldModelTraining(fit=fit_config(steps), latent_frames=4, context_noise=0.1)
    train_world_model(model, training, [moving_patterns()], folder, compute=compute)


@dataclass
class Launch:
    """A torchrun that trains in a folder, or has."""

    folder: Path
    process: subprocess.Popen | None = None

    def rows(self) -> list[dict[str, float]]:
        """The log so far, without speeds and a row that is being written."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [{name: value for name, value in row.items() if name not in SPEEDS} for row in rows]

    def when_at(self, step: int, act: Callable[[], None]) -> None:
        """Do something as soon as a step is in the log."""
        while not any(row["step"] >= step for row in self.rows()):
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"{self.folder}: ended before step {step}, see {self.folder}.log")
            time.sleep(0.01)
        act()

    def signal(self, rank: int, number: signal.Signals) -> None:
        os.kill(int((self.folder / "processes" / str(rank)).read_text()), number)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, now or in an earlier call of this benchmark."""
        return (self.folder / "config.json").exists()

    def end(self) -> Launch:
        """Wait until torchrun ends, well or because it was told to stop."""
        if self.process is not None:
            self.process.wait(timeout=3600)
        return self

    def end_well(self) -> Launch:
        if not self.end().finished:
            raise RuntimeError(f"{self.folder}: torchrun failed, see {self.folder}.log")
        return self


def launch(folder: Path, processes: int, steps: int, *, restarts: int = 0, node: Sequence[str] = ()) -> Launch:
    """Start torchrun; `node` makes it one of several."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += [*(node or ["--standalone"]), "--max-restarts", str(restarts), "--monitor-interval", "0.2"]
    command += ["-m", "benchmarks.scale_training", str(folder), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    if not node:  # as someone starts it who has not read the page
        del environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"]
    with folder.with_suffix(".log").open("a") as log:
        return Launch(
            folder, subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        )


def whole(folder: Path, processes: int, steps: int) -> Launch:
    return Launch(folder) if Launch(folder).finished else launch(folder, processes, steps).end_well()


def killed(folder: Path, processes: int, steps: int, seed: int) -> tuple[Launch, dict[str, int]]:
    """Kill -9 a random process when a random step is in the log; torchrun starts all again."""
    random = np.random.default_rng(seed)
    step, rank = int(random.integers(2, steps - 5)), int(random.integers(processes))
    run = Launch(folder)
    if not run.finished:
        shutil.rmtree(folder, ignore_errors=True)
        run = launch(folder, processes, steps, restarts=3)
        run.when_at(step, lambda: run.signal(rank, signal.SIGKILL))
        run.end_well()
    starts = len(list(folder.glob("start-*")))
    return run, {"processes": processes, "seed": seed, "step": step, "rank": rank, "starts": starts}


def regrouped(folder: Path, steps: int) -> Launch:
    """Four processes, of which one is told to stop (as a scheduler tells), then two, then one."""
    if Launch(folder).finished:
        return Launch(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for processes, until in ((4, steps // 3), (2, 2 * steps // 3)):
        run = launch(folder, processes, steps)
        run.when_at(until, lambda run=run: run.signal(0, signal.SIGTERM))
        run.end()
    return whole(folder, 1, steps)


def machine_lost(folder: Path, steps: int) -> tuple[Launch, int]:
    """Two torchruns as on two machines, of which one dies with its process in mid-run; the other goes on alone."""
    if Launch(folder).finished:
        return Launch(folder), len(list((folder / "processes").iterdir()))
    shutil.rmtree(folder, ignore_errors=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    join = ["--nnodes", "1:2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "lost"]
    join += ["--rdzv-conf", "last_call_timeout=60,keep_alive_interval=3,keep_alive_max_attempt=10"]
    stays = launch(folder, 1, steps, restarts=3, node=[*join, "--local-addr", "127.0.0.1"])
    time.sleep(2)  # the first to come hosts the meeting place, and must be the one that stays
    leaves = launch(folder, 1, steps, restarts=3, node=[*join, "--local-addr", "127.0.0.1"])
    stays.when_at(steps // 2, lambda: None)
    count = len(list((folder / "processes").iterdir()))
    assert leaves.process is not None
    for process in children(leaves.process.pid):
        os.kill(process, signal.SIGKILL)
    leaves.process.kill()
    leaves.process.wait()
    return stays.end_well(), count


def children(parent: int) -> list[int]:
    """Processes that a process has started itself."""
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def difference(a: Launch, b: Launch) -> float:
    """The largest relative difference of two runs' losses, over all steps."""
    pairs = zip(a.rows(), b.rows(), strict=True)
    return max(abs(x["loss"] - y["loss"]) / abs(x["loss"]) for x, y in pairs)


def fingerprint(run: Launch) -> dict[str, str]:
    """Of everything that a run leaves: model, config, the state it ends in, and the log without its speeds."""
    (state,) = (run.folder / "state").iterdir()
    files = [run.folder / "model.safetensors", run.folder / "config.json", *sorted(state.iterdir())]
    prints = {str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {**prints, "log": hashlib.sha256(json.dumps(run.rows()).encode()).hexdigest()}


def hidden_wait(folder: Path, steps: int) -> dict[str, float]:
    """How much of the time that a batch takes to come is hidden behind the model's work on the one before."""

    class Layers(nn.Sequential):
        config = fit_config(1)

    def seconds_a_step(wait: float) -> float:
        torch.manual_seed(0)
        model = Layers(*(nn.Linear(512, 512) for _ in range(8)))
        seconds = []

        def step(batch: torch.Tensor, state: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            seconds.append(time.perf_counter())
            return model(batch).square().mean(), {}

        def batches(index: int) -> torch.Tensor:
            time.sleep(wait)  # a disk, an object store, a decoder: whatever leaves this processor free
            return torch.ones(512, 512)

        config = FitConfig(steps=steps, batch_size=1, learning_rate=1e-4, save_every=steps, log_every=steps)
        fit(
            model,
            step,
            batches,
            config=config,
            folder=folder / f"wait-{wait}",
            compute=choose_compute("cpu", "float32"),
        )
        return statistics.median(np.diff(seconds))

    alone = seconds_a_step(0.0)
    wait = 0.8 * alone
    together = seconds_a_step(wait)
    return {
        "compute_seconds": alone,
        "wait_seconds": wait,
        "step_seconds": together,
        "hidden": 1 - (together - alone) / wait,
    }


def training(run: Path, quick: bool) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """Metrics, goals and conditions."""
    steps = 12 if quick else STEPS
    one, two, four = (whole(run / f"whole-{count}", count, steps) for count in (1, 2, 4))
    again = [whole(run / f"again-{number}", 1, steps) for number in (1, 2)]
    kills = []
    for processes, seeds in ({2: (0,)} if quick else KILLS).items():
        of = {2: two, 4: four}[processes]
        for seed in seeds:
            run_, about = killed(run / f"killed-{processes}-{seed}", processes, steps, seed)
            same = fingerprint(run_) == fingerprint(of)
            kills.append({**about, "same_bytes": same, "loss_difference": difference(of, run_)})
            print(kills[-1], flush=True)
    parted = regrouped(run / "regrouped", steps)
    lost, machines = machine_lost(run / "lost", steps)
    wait = hidden_wait(run, 20 if quick else 60)
    losses = [row["loss"] for row in one.rows()]
    logged = [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
    prints = {json.dumps(fingerprint(each)) for each in (one, *again)}
    metrics = {
        "loss": {"first": losses[0], "last_ten": statistics.mean(losses[-10:])},
        "loss_difference": {
            "two processes": difference(one, two),
            "four processes": difference(one, four),
            "four, then two, then one": difference(one, parted),
            "one of two machines lost": difference(one, lost),
        },
        "kills": kills,
        "machines_before_the_loss": machines,
        "different_results_of_three_runs": len(prints),
        "waiting": wait,
        "speed_of_one_process": {
            name: statistics.median(row[name] for row in logged[5:]) for name in SPEEDS if name in logged[-1]
        },
    }
    rounding = {
        f"loss_difference: {name}": {"value": value, "bound": ROUNDING, "op": "<="}
        for name, value in metrics["loss_difference"].items()
    }
    restarted = [kill for kill in kills if kill["starts"] > 1]
    goals = {
        **rounding,
        "killed_runs_that_ended_as_if_nothing_had_been": {
            "value": sum(kill["same_bytes"] for kill in restarted) / len(kills),
            "bound": 1.0,
            "op": "==",
        },
        "different_results_of_three_runs": {"value": len(prints), "bound": 1, "op": "=="},
        "wait_for_batches_that_is_hidden": {"value": wait["hidden"], "bound": 0.8, "op": ">="},
    }
    conditions = {
        "processes": f"gloo, FSDP2, torchrun, all on one machine of {os.cpu_count()} cores that did other work too",
        "model": f"{sum(p.numel() for p in WorldModel(world_model_config()).parameters())} parameters, float32",
        "steps": f"{steps} of 4 micro-batches of 2 windows of 4 latent frames; a state every {SAVE_EVERY}",
        "loss_difference": "largest relative difference of the loss over all steps, against one process",
        "same_bytes": "SHA-256 of model, config, last state and log (without speeds) against the uninterrupted run",
        "waiting": "the batches sleep for 0.8 of a step's time",
        "peak": "measured: a product of two 1024 x 1024 float32 matrices, one thread",
    }
    return metrics, goals, conditions


def world_model_config() -> WorldModelConfig:
    return WorldModelConfig(dit=DIT, size=(32, 32), rate=10.0, embodiments=(), adapter_hidden=8)


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]))
