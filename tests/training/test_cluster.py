"""The launches of docs/cluster.md, as they stand in `examples/`, on one machine."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

PROGRAM = """
import json, os, pathlib, signal, sys
rank, start = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
folder = pathlib.Path(sys.argv[2])
if start == "0" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, lambda *_: (folder.joinpath(f"saved-{rank}-{start}").touch(), sys.exit(130)))
names = ("WORLD_SIZE", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE")
told = {"arguments": sys.argv[1:], **{name: os.environ[name] for name in names}}
partial = folder / f".{rank}-{start}"
partial.write_text(json.dumps(told))
partial.rename(folder / f"told-{rank}-{start}")
signal.pause()
"""
"""What runs in dreamdojo's place: it notes what it was told and waits to be stopped; at first, one process dies."""


def wait_for(*paths, process):
    deadline = time.monotonic() + 200
    while not all(path.exists() for path in paths):
        assert process.poll() is None and time.monotonic() < deadline, paths
        time.sleep(0.05)


def command(folder, name, lines):
    (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
    (folder / name).chmod(0o755)


def test_the_batch_script_starts_restarts_and_queues_again(tmp_path):
    """The script as it is, with SLURM's commands played by stand-ins and torchrun as it is."""
    (tmp_path / "dreamdojo").mkdir()
    (tmp_path / "dreamdojo" / "__init__.py").touch()  # a package, which hides the real one
    (tmp_path / "dreamdojo" / "__main__.py").write_text(PROGRAM)
    command(tmp_path, "srun", 'exec "$@"')
    command(tmp_path, "torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"')
    command(tmp_path, "scontrol", f'if [ $1 = show ]; then echo localhost; else echo "$@" > {tmp_path}/queued; fi')
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": "1"}
    environment = {**os.environ, **slurm, "SLURM_GPUS_ON_NODE": "2", "PYTHONPATH": str(tmp_path)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    words = ["bash", str(EXAMPLES / "slurm.sbatch"), "pretrain", str(tmp_path), "--pretraining.fit.steps", "7"]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(tmp_path / "told-0-1", tmp_path / "told-1-1", process=job)
        told = json.loads((tmp_path / "told-1-1").read_text())
        job.send_signal(signal.SIGTERM)  # what --signal=B:TERM sends
        assert job.wait(timeout=100) == 0
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert told["arguments"] == words[2:]
    assert (told["WORLD_SIZE"], told["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"]) == ("2", "1")
    assert (tmp_path / "saved-0-1").exists() and (tmp_path / "saved-1-1").exists()
    assert (tmp_path / "queued").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_ray_gives_each_worker_the_command_and_hears_of_its_failure(tmp_path, monkeypatch, capsys):
    """With a stand-in for the cluster, which runs one worker here; docs/cluster.md has the launch."""
    trainers = pytest.importorskip("ray.train.torch", reason='needs Ray: pip install "dreamdojo[ray]"')

    class Trainer:
        def __init__(self, work, *, train_loop_config, scaling_config, run_config):
            assert (scaling_config.num_workers, scaling_config.use_gpu) == (2, False)
            assert run_config.failure_config.max_failures == 3 and run_config.storage_path == str(tmp_path)
            self.fit = lambda: work(train_loop_config)

    monkeypatch.setattr(trainers, "TorchTrainer", Trainer)
    words = ["ray_train.py", "--workers", "2", "--failures", "3", "--storage", str(tmp_path), "--"]
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    runpy.run_path(str(EXAMPLES / "ray_train.py"), run_name="__main__")
    assert "posttrain" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "nonsense", "--steps", "3"])
    with pytest.raises(RuntimeError, match="dreamdojo nonsense --steps 3 ended with 1"):
        runpy.run_path(str(EXAMPLES / "ray_train.py"), run_name="__main__")
    assert "there is no command 'nonsense'" in capsys.readouterr().err
