"""From one machine to many, measured on this one: `python -m benchmarks.scale [--only PART] [--run FOLDER]`.

Parts are a queue: each writes its entry of `benchmarks/results/scale.json` when it ends. `--quick` is for tests and
writes no result. `benchmarks/readme.py` puts the plan for 44,000 hours that follows from it into `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.arms import today
from benchmarks.scale_data import data, pipeline
from benchmarks.scale_training import training
from dreamdojo.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "scale.json"


@dataclass
class Part:
    """What a part found."""

    metrics: dict[str, Any]
    goals: dict[str, dict[str, Any]]
    conditions: dict[str, Any] = field(default_factory=dict)


PARTS: dict[str, Callable[[Path, bool], Part]] = {
    "training": lambda run, quick: Part(*training(run, quick)),
    "data": lambda run, quick: Part(*data(run, quick)),
    "pipeline": lambda run, quick: Part(*pipeline(measured_before(), quick)),
}
"""Name -> what measures it, in `FOLDER`; quickly and meaninglessly where asked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append")
    parser.add_argument("--run", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with folder(given.run) as run:
        for name in given.only or PARTS:
            part = PARTS[name](run, given.quick)
            print(name, part.metrics, part.goals)
            if not given.quick:
                keep(RESULTS, name, part)


def measured_before() -> Mapping[str, Any]:
    """Metrics of the parts that have run."""
    if not RESULTS.exists():
        raise SystemExit(f"{RESULTS} is missing: run the part `data` first")
    return read_json(RESULTS, of="results")["metrics"]


def keep(path: Path, name: str, part: Part) -> None:
    """Put a part's entry into the file; those of other parts stay."""
    old = read_json(path, of="results") if path.exists() else {}
    goals = {key: value for key, value in old.get("goals", {}).items() if value.get("part") != name}
    write_json(
        path,
        {
            "name": "scale",
            **today(),
            "conditions": {"machine": platform.machine(), **old.get("conditions", {}), name: part.conditions},
            "metrics": {**old.get("metrics", {}), name: part.metrics},
            "goals": {**goals, **{key: {**value, "part": name} for key, value in part.goals.items()}},
        },
    )


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The folder given, or one that goes away afterwards."""
    path = given or Path(tempfile.mkdtemp())
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        if given is None:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
