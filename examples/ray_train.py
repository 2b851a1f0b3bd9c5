"""Train a stage on a Ray cluster: `python examples/ray_train.py --workers 16 --gpu -- pretrain 2b --run FOLDER ...`.

What follows `--` is the dreamdojo command. Each worker runs it as a process of torchrun would; when one fails, Ray
starts all of them again and the stage goes on from its run folder, which all machines must share.
"""

import argparse
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict) -> None:
    """In each worker, which Ray has told its rank and joined with the others."""
    from dreamdojo.cli import main

    try:
        main(settings["command"])
    except SystemExit as end:  # Ray only takes exceptions for failures
        if end.code:
            raise RuntimeError(f"dreamdojo {' '.join(settings['command'])} ended with {end.code}, see its log") from end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True, help="processes; one per GPU")
    parser.add_argument("--gpu", action="store_true", help="give each worker a GPU")
    parser.add_argument("--cpus", type=float, default=1.0, help="cores of each worker")
    parser.add_argument("--failures", type=int, default=10, help="how often to start again")
    parser.add_argument("--storage", type=Path, default=Path("runs/ray"), help="for Ray's own notes; a shared folder")
    parser.add_argument("command", nargs="+", help="the dreamdojo command, after --")
    given = parser.parse_args()
    trainer = TorchTrainer(
        work,
        train_loop_config={"command": given.command},
        scaling_config=ScalingConfig(
            num_workers=given.workers,
            use_gpu=given.gpu,
            resources_per_worker={"CPU": given.cpus, "GPU": int(given.gpu)},
        ),
        run_config=RunConfig(
            storage_path=str(given.storage.absolute()), failure_config=FailureConfig(max_failures=given.failures)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
