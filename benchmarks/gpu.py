"""Measure generation and training on one GPU with random weights of the published sizes: `python -m benchmarks.gpu`.

Each arm's result is written when it ends, to `benchmarks/results/gpu.json` or `--out`. Run again, arms with a result of
this commit are skipped, so a lease that ends early is gone on with later. An arm that fails, hangs or takes the process
down is recorded with its error, and the others go on in a new process.

    python -m benchmarks.gpu                          all arms, until the minutes are used up
    python -m benchmarks.gpu --only 'student-2b/*/b1/*' --again
    python -m benchmarks.gpu --quick                  every arm at tiny sizes, on a CPU too; writes nothing
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_generate, gpu_train
from benchmarks.gpu_generate import SMALL_WIDTH, WINDOW, Arm
from benchmarks.gpu_measure import DATASHEET_FLOPS, SEED, Setting, fresh_start
from dreamdojo.files import written_whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/gpu.json"
ARMS: dict[str, Arm] = {**gpu_generate.ARMS, **gpu_train.ARMS}
GOALS = {"dit": ("DiT alone", 80), "small": ("with a small decoder", 60), "wan": ("with the Wan decoder", 40)}
GOAL_DEVICE = "NVIDIA H200"
ARM_SECONDS = 150
"""An arm that takes longer is stopped."""
CUDA_BROKEN = 3
"""Exit status of a worker whose device answers no more after an arm's error."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of arms, as patterns with * separated by commas")
    parser.add_argument("--again", action="store_true", help="also arms that have a result of this commit")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file; goes on from the repository's own")
    parser.add_argument("--commit", help="commit of this tree, where git cannot tell")
    parser.add_argument("--minutes", type=float, default=8.5, help="no arm is started after so many minutes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that every arm runs; writes nothing")
    parser.add_argument("--device", help="with --quick, cuda to try the arms on a GPU; the CPU by default")
    parser.add_argument("--list", action="store_true", help="name the arms")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = chosen(options.only)
    if options.list:
        print("\n".join(names))
    elif options.quick:
        device = torch.device(options.device or "cpu")
        setting = Setting(device, quick=True, backend="inductor" if device.type == "cuda" else "aot_eager")
        records = {name: run_arm(ARMS[name], setting) for name in names}
        print(table(records))
        sys.exit(any("error" in record for record in records.values()))
    elif options.worker:
        work(options.worker.split(","), Results(options.out, commit_of(options.commit), conditions()), options.ends)
    else:
        results = Results(options.out, commit_of(options.commit), conditions())
        names = [name for name in names if options.again or not results.is_done(name)]
        ends = time.time() + 60 * options.minutes
        supervise(names, results, lambda left: start_worker(left, options, results.commit, ends))
        print(table(results.arms))
        print(f"\n{options.out}: {sum(map(results.is_done, ARMS))} of {len(ARMS)} arms of commit {results.commit}")


def chosen(patterns: str) -> list[str]:
    """The arms that patterns name, in order."""
    names = [name for name in ARMS if any(fnmatch(name, pattern) for pattern in patterns.split(","))]
    if not names:
        raise SystemExit(f"no arm is named {patterns}; --list names them")
    return names


def run_arm(arm: Arm, setting: Setting) -> dict[str, Any]:
    """An arm's figures, or its error."""
    started = time.monotonic()
    try:
        fresh_start(setting)
        record = arm(setting)
    except Exception as error:
        traceback.print_exc()
        record = {"error": f"{type(error).__name__}: {error}"[:600]}
    return {**record, "wall_seconds": round(time.monotonic() - started, 1)}


class Results:
    """The results file. Figures of a CPU never come here: `conditions` refuses to be without a GPU."""

    def __init__(self, path: Path, commit: str, conditions: Mapping[str, Any]) -> None:
        self.path, self.commit, self.conditions = path, commit, conditions
        found = next((each for each in (path, RESULTS) if each.exists()), None)
        self.arms: dict[str, dict[str, Any]] = json.loads(found.read_text())["metrics"] if found else {}

    def is_done(self, name: str) -> bool:
        """Whether the arm has figures of this commit; a tree that differs from its commit has none."""
        record = self.arms.get(name, {"error": "not run"})
        return "error" not in record and record["commit"] == self.commit and not self.commit.endswith("dirty")

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep an arm's record and write the file."""
        self.arms[name] = {**record, "commit": self.commit, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        ordered = {each: self.arms[each] for each in (*ARMS, *self.arms) if each in self.arms}
        whole = {
            "name": "gpu",
            "commit": self.commit,
            "date": date.today().isoformat(),
            "conditions": dict(self.conditions),
            "metrics": with_utilisation(ordered, self.conditions["device"]),
            "goals": goals(ordered, self.conditions["device"]),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path) as file:
            file.write_text(json.dumps(whole, indent=1) + "\n")


def work(names: Iterable[str], results: Results, ends: float) -> None:
    """Run arms one after another in this process; `ends` is the clock's time after which none is started."""
    setting = Setting(torch.device("cuda"))
    for name in names:
        if time.time() > ends:
            return
        print(f"{name} ...", flush=True)
        results.put(name, {"error": f"did not end: the process died, or the arm took more than {ARM_SECONDS} s"})
        faulthandler.dump_traceback_later(ARM_SECONDS, exit=True)
        record = run_arm(ARMS[name], setting)
        faulthandler.cancel_dump_traceback_later()
        results.put(name, record)
        print("\n".join(table({name: results.arms[name]}).splitlines()[1:]), flush=True)
        if "error" in record:
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                sys.exit(CUDA_BROKEN)


def supervise(names: list[str], results: Results, start: Callable[[list[str]], int]) -> None:
    """Run the arms in workers: where one dies, the arm it was at keeps its error and a new one goes on after it.

    `start` runs a worker on the arms that are left and returns its exit status; the worker writes the results file.
    """
    while names:
        status = start(names)
        before, results.arms = results.arms, Results(results.path, results.commit, results.conditions).arms
        left = [name for name in names if results.arms.get(name) == before.get(name)]
        if status == 0 or left == names:
            if status:
                print(f"the worker ended with status {status} before its first arm", file=sys.stderr)
            if left:
                print(f"{len(left)} arms are left for another run: {', '.join(left)}")
            return
        names = left


def start_worker(names: list[str], options: argparse.Namespace, commit: str, ends: float) -> int:
    """Run arms in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", ",".join(names), "--ends", str(ends)]
    more = ["--out", str(options.out.resolve()), "--commit", commit]
    return subprocess.run([*command, *more], cwd=ROOT, check=False).returncode


def commit_of(given: str | None) -> str:
    """The commit of this tree, with `-dirty` where code differs from it."""
    if given:
        return given

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--", "dreamdojo", "benchmarks/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("git does not tell this tree's commit: say it with --commit") from None


def conditions() -> dict[str, Any]:
    """What the figures were measured on and with.

    Raises:
        SystemExit: without a GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("a GPU is needed: no figure is ever written from a CPU. --quick shows that the arms run.")
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "driver_and_clocks": nvidia_smi("driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "weights": "random, of the published sizes; bfloat16, in training float32 under bfloat16 autocast",
        "frames": "480x640, one latent frame is four frames",
        "student": f"4 steps and one pass that commits, window of {WINDOW} latent frames, 512 text tokens",
        "small_decoder": f"the small tokenizer, width {SMALL_WIDTH}, factors 8 and 4, 16 latent channels",
        "seed": SEED,
        "datasheet_tflop_per_second": DATASHEET_FLOPS.get(properties.name, 0) / 1e12 or None,
        "timing": "device events around each call, after warm-up: median, tenth and ninetieth per cent",
    }


def nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"


def with_utilisation(arms: Mapping[str, dict[str, Any]], device: str) -> dict[str, dict[str, Any]]:
    """The arms with the share that they reach of the data sheet's rate, and of that of a measured product."""
    peaks = {"mfu_of_datasheet": DATASHEET_FLOPS.get(device, 0) / 1e12}
    peaks["mfu_of_measured_product"] = arms.get("device", {}).get("matmul_tflop_per_second", 0)
    return {
        name: {
            **record,
            **{
                key: record["tflop_per_second"] / peak
                for key, peak in peaks.items()
                if peak and "tflop_per_second" in record
            },
        }
        for name, record in arms.items()
    }


def goals(arms: Mapping[str, dict[str, Any]], device: str) -> dict[str, dict[str, Any]]:
    """The speed that the 2B student is held to, each the best of its modes at batch 1."""
    found = {}
    for decoder, (words, bound) in GOALS.items():
        tried = {name: record for name, record in arms.items() if name.startswith(f"student-2b/{decoder}/b1/")}
        ended = {name: record["frames_per_second"] for name, record in tried.items() if "error" not in record}
        goal: dict[str, Any] = {"value": None, "bound": bound, "op": ">="}
        if device != GOAL_DEVICE:
            goal["reason"] = f"measured on {device}"
        elif not ended:
            goal["reason"] = "; ".join(sorted({record["error"] for record in tried.values()})) or "not run"
        else:
            arm = max(ended, key=lambda name: ended[name])
            goal |= {"value": ended[arm], "arm": arm, "commit": tried[arm]["commit"]}
        found[f"2B 480x640 student, 4 steps, one H200, {words}: frames per second"] = goal
    return found


def table(arms: Mapping[str, dict[str, Any]]) -> str:
    """One line per arm."""
    lines = [f"{'arm':42} {'ms':>10} {'frames/s':>9} {'TFLOP/s':>8} {'peak GiB':>8} {'wall s':>6}"]
    for name, record in arms.items():
        if "error" in record:
            lines.append(f"{name:42} {record['error'].splitlines()[0][:100]}")
            continue
        ms = next((v["median"] for k, v in record.items() if "ms" in k and isinstance(v, dict)), None)
        per_second = record.get("frames_per_second") or record.get("samples_per_second")
        speed = record.get("tflop_per_second") or record.get("matmul_tflop_per_second")
        cells = [(ms, 10, 2), (per_second, 9, 1), (speed, 8, 0), (record.get("peak_gib"), 8, 1)]
        text = " ".join(f"{'' if value is None else f'{value:.{digits}f}':>{width}}" for value, width, digits in cells)
        lines.append(f"{name:42} {text} {record.get('wall_seconds', 0):6.1f}")
        for part, value in record.items():
            if isinstance(value, dict) and "tflop_per_second" in value:
                lines.append(f"    {part:38} {value['ms']['median']:10.3f} {'':9} {value['tflop_per_second']:8.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
