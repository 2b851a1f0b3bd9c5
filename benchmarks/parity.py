"""How close this is to the published system, and what its size costs here: `python benchmarks/parity.py [--only ARM]`.

Arms, each written to `benchmarks/results/parity.json` when it ends:

    fixtures    the parity tests against numbers computed by the published code: the largest absolute difference of each
    counts      parameters of the published sizes, on the meta device
    processes   training with two gloo processes against one
    chunk       a 2B model with random weights makes one 480x640 clip with one denoising step: seconds, peak memory
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch

from dreamdojo.dataset.embodiment import Embodiment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "parity.json"
PUBLISHED_COUNTS = {"2b": 2_151_474_176, "14b": 14_850_453_504, "latent_action": 709_778_240, "tokenizer": 126_892_531}
MEMORY_GIB = 24


class LargestDifference:
    """A pytest plugin: what every `assert_close` of every test saw."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.outcome: dict[str, str] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        plain = torch.testing.assert_close

        def watched(actual: object, expected: object, **keywords: object) -> None:
            if isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor) and expected.numel():
                gap = float((actual.detach().double() - expected.detach().double()).abs().max())
                self.seen[item.name] = max(gap, self.seen.get(item.name, 0.0))
            plain(actual, expected, **keywords)

        torch.testing.assert_close = watched
        yield
        torch.testing.assert_close = plain

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped:
            self.outcome[report.nodeid.rpartition("::")[2]] = report.outcome


def fixtures() -> dict:
    """Run the parity tests and keep their differences."""
    plugin = LargestDifference()
    files = ("test_parity.py", "test_stream_parity.py", "test_wan_parity.py")
    pytest.main(
        ["-o", "addopts=", "-q", "--no-header", *(str(ROOT / "tests" / "convert" / name) for name in files)],
        plugins=[plugin],
    )
    passed = sum(outcome == "passed" for outcome in plugin.outcome.values())
    return {
        "passed": passed,
        "of": len(plugin.outcome),
        "largest_difference": {
            name: plugin.seen.get(name) for name, outcome in plugin.outcome.items() if outcome == "passed"
        },
    }


def counts() -> dict:
    """Parameters as the publication counts them: text projection and 384 action columns in place."""
    from dreamdojo.latent_action.model import LatentActionModel
    from dreamdojo.presets import PAPER_2B, PAPER_14B
    from dreamdojo.presets.costs import TEXT_FEATURES
    from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
    from dreamdojo.world_model.budget import count_parameters, dit_on_meta

    with torch.device("meta"):
        latent_action = LatentActionModel(PAPER_2B.latent_action)
        tokenizer = WanTokenizer(WanConfig())
    encoder = PAPER_2B.latent_action
    # the publication counts the fixed rotary frequencies of the encoder's temporal attention; here they are computed
    frequencies = encoder.encoder_blocks * encoder.dim // encoder.num_heads // 2
    return {
        **{
            preset.name: count_parameters(dit_on_meta(replace(preset.world_model, text_features=TEXT_FEATURES)))
            for preset in (PAPER_2B, PAPER_14B)
        },
        "latent_action": count_parameters(latent_action) + frequencies,
        "tokenizer": count_parameters(tokenizer),
    }


def processes() -> dict:
    """The tests that train with two processes and with one."""
    plugin = LargestDifference()
    code = pytest.main(
        ["-o", "addopts=", "-q", "--no-header", str(ROOT / "tests" / "training" / "test_distributed.py")],
        plugins=[plugin],
    )
    return {"exit": int(code), "outcome": plugin.outcome, "largest_difference": plugin.seen}


def chunk() -> dict:
    """Write random weights of the published size, then generate with them in a process of its own."""
    from dreamdojo.dataset.read import open_dataset
    from dreamdojo.dojo.simulate import SimulateSettings, simulate

    with tempfile.TemporaryDirectory(prefix="dreamdojo-2b-") as name:
        folder = Path(name)
        simulate(
            SimulateSettings(body="arm", split="test", episodes=1, frames=16, size=128), folder / "data", workers=1
        )
        started = time.monotonic()
        write_random_models(folder / "model", open_dataset(folder / "data").embodiment)
        written = time.monotonic() - started
        script = (
            "import json, resource, sys; from dreamdojo.cli import main; main(sys.argv[1:]);"
            "print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))"
        )
        options = ["generate", str(folder / "model" / "world_model"), "--robot", str(folder / "data")]
        options += ["--out", str(folder / "out"), "--steps", "1", "--frames", "12", "--device", "cpu"]
        started = time.monotonic()
        ran = subprocess.run([sys.executable, "-c", script, *options], check=True, stdout=subprocess.PIPE, text=True)
        wall = time.monotonic() - started
        metrics = json.loads((folder / "out" / "metrics.json").read_text())
        size = sum(path.stat().st_size for path in (folder / "model").rglob("*.safetensors"))
    return {
        "size": "2b, 480x640, random bfloat16 weights, 1 UniPC step, 12 new frames",
        "seconds_writing_weights": written,
        "seconds_clip": metrics["seconds"],
        "seconds_wall": wall,
        "peak_memory_gib": json.loads(ran.stdout.splitlines()[-1]),
        "weights_gib": size / 2**30,
    }


def write_random_models(folder: Path, body: Embodiment) -> None:
    """A 2B world model that knows the dojo's arm, and a Wan tokenizer, of random bfloat16 weights."""
    from dreamdojo.dataset.published import in_reserved_slot
    from dreamdojo.presets import PAPER_2B as PRESET
    from dreamdojo.tokenizer.wan import WanTokenizer
    from dreamdojo.training.checkpoint import save_model
    from dreamdojo.world_model.model import WorldModel, WorldModelConfig

    config = WorldModelConfig(
        dit=PRESET.world_model,
        size=PRESET.size,
        rate=PRESET.rate,
        embodiments=(in_reserved_slot(body),),
        text_tokens=PRESET.text_tokens,
        latent_action_slot=PRESET.latent_action_slot,
    )
    sampler = {"sampler": {"steps": 35, "shift": 5.0, "solver": "unipc"}}
    save_model(folder / "world_model", random_weights(lambda: WorldModel(config)), about=sampler)
    save_model(folder / "tokenizer", random_weights(lambda: WanTokenizer(PRESET.tokenizer)))


def random_weights(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A model in bfloat16 whose weights are normal with the spread that keeps signals of unit size."""
    with torch.device("meta"):
        model = make()
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            fan_in = value[0].numel() if value.ndim > 1 else 1
            value.normal_(std=fan_in**-0.5, generator=generator) if value.ndim > 1 else value.fill_(1.0)
    return model


ARMS: dict[str, Callable[[], dict]] = {"fixtures": fixtures, "counts": counts, "processes": processes, "chunk": chunk}


def goals(metrics: dict) -> dict:
    """Every goal of the parity work, reached or not."""
    found = {name: metrics.get(name, {}) for name in ARMS}
    goal = {
        "fixture tests passed": (found["fixtures"].get("passed"), found["fixtures"].get("of", 1), "=="),
        "two processes' tests failed": (found["processes"].get("exit"), 0, "=="),
        "peak memory of a 2B clip, GiB": (found["chunk"].get("peak_memory_gib"), MEMORY_GIB, "<="),
        **{f"parameters {name}": (found["counts"].get(name), count, "==") for name, count in PUBLISHED_COUNTS.items()},
    }
    return {
        key: {"value": value, "bound": bound, "op": op, **({"reason": "not run"} if value is None else {})}
        for key, (value, bound, op) in goal.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARMS, action="append", help="run this arm; may be given again")
    for arm in parser.parse_args().only or ARMS:
        result = ARMS[arm]()
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "parity", "metrics": {}}
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        stored["metrics"][arm] = {**result, "commit": commit.stdout.strip(), "date": date.today().isoformat()}
        stored |= {"commit": commit.stdout.strip(), "date": date.today().isoformat(), "conditions": conditions()}
        stored["goals"] = goals(stored["metrics"])
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
        print(json.dumps({arm: result}, indent=1))


def conditions() -> dict:
    """The machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "torch": torch.__version__,
        "seed": 0,
    }


if __name__ == "__main__":
    main()
