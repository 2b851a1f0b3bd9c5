"""Run the demo and keep what it measured: `python benchmarks/demo.py [nano] [demo options]`.

Writes `benchmarks/results/demo.json`; with `--robot` the figures go under the name given by `--as`, in the same file.
Every arm is kept, so the simulated demo, the one from scratch and one on real recordings stand side by side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "demo.json"
HORIZONS = ("1", "4", "8", "16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="nano", help="preset of the demo")
    parser.add_argument("--as", dest="arm", default="simulated", help="name of this arm in the results")
    parser.add_argument("--run", default="runs/benchmark", help="run folder; a finished one is only read")
    parser.add_argument("--data-name", default="", help="what to call the data in the results")
    arguments, options = parser.parse_known_args()
    run = Path(arguments.run)
    if not (run / "results.json").exists():
        command = [sys.executable, "-m", "dreamdojo", "demo", arguments.preset, "--run", str(run), "--no-play"]
        command += options
        started = time.monotonic()
        subprocess.run(command, check=True)
        (run / "wall_seconds.json").write_text(json.dumps(time.monotonic() - started))
    results = json.loads((run / "results.json").read_text())
    wall = run / "wall_seconds.json"
    minutes = (json.loads(wall.read_text()) if wall.exists() else sum(results["conditions"]["seconds"].values())) / 60
    write(arguments.arm, arm_summary(results, minutes, options, arguments.data_name))


def arm_summary(results: dict, minutes: float, options: list[str], data_name: str) -> dict:
    """The figures of one run that are worth keeping, with their conditions."""
    rollouts, conditions = results["rollouts"], dict(results["conditions"])
    if data_name:
        conditions["data"] = data_name
    metrics = [key for key in rollouts["mean"]]
    means = {
        key: {
            method: {h: rollouts["mean"][key][method][h] for h in HORIZONS if h in rollouts["mean"][key][method]}
            for method in rollouts["mean"][key]
        }
        for key in metrics
    }
    student = {
        part: {h: rollouts[part]["moving_psnr"]["student"][h] for h in HORIZONS}
        for part in ("against_copy", "controllability")
    }
    return {
        "conditions": {**conditions, "options": [o for o in options if "/" not in o]},
        "minutes": minutes,
        "clips": rollouts["clips"],
        "frames_per_second": results["frames_per_second"],
        "tokenizer_psnr": results["tokenizer_psnr"],
        "tokenizer_depth_error": results.get("tokenizer_depth_error"),
        "latent_action_probe": results["latent_action_probe"],
        "probes": rollouts["probes"],
        "mean": means,
        "student_moving_psnr": student,
    }


def write(arm: str, summary: dict) -> None:
    """Put an arm into the results file; the goals are those of the simulated arm."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"name": "demo", "metrics": {}}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    made = {"commit": commit.strip(), "date": date.today().isoformat()}
    stored["metrics"][arm] = {**made, **summary}
    stored |= made
    if "simulated" in stored["metrics"]:
        stored["conditions"] = stored["metrics"]["simulated"]["conditions"]
    stored["goals"] = goals(stored["metrics"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def goals(arms: dict) -> dict:
    """What the demo is held to; a goal whose arm was not run is null."""

    def goal(value: float | None, bound: float, op: str) -> dict:
        return {"value": value, "bound": bound, "op": op} | ({} if value is not None else {"reason": "not run"})

    def low_end(arm: str, part: str, horizon: str) -> float | None:
        return arms[arm]["student_moving_psnr"][part][horizon]["low"] if arm in arms else None

    found = {}
    for arm in ("simulated", "from_scratch"):
        found[f"{arm}: minutes"] = goal(arms[arm]["minutes"] if arm in arms else None, 15, "<=")
    for arm in ("simulated", "real"):
        for h in ("4", "8"):
            copy, other = low_end(arm, "against_copy", h), low_end(arm, "controllability", h)
            found[f"{arm}: student minus copy on moving pixels at {h}, low end of 95 %, dB"] = goal(copy, 0, ">=")
            found[f"{arm}: true minus other actions at {h}, low end of 95 %, dB"] = goal(other, 0, ">=")
    mean = arms["simulated"]["mean"] if "simulated" in arms else {}

    def at_8(metric: str, method: str = "student") -> float | None:
        return mean[metric][method]["8"]["mean"] if metric in mean else None

    off, copied = at_8("effector_error"), at_8("effector_error", "copy last frame")
    share = off / copied if off is not None and copied else None
    found["simulated: gripper off at 8 frames, share of the copied frame's"] = goal(share, 0.5, "<=")
    found["simulated: gripper found at 8 frames, share of clips"] = goal(at_8("effector_found"), 0.95, ">=")
    found["simulated: sharpness of moving regions at 8 frames, mean share of the truth's"] = goal(
        at_8("sharpness"), 0.7, ">="
    )
    for arm, words in (("play", "play at full speed"), ("play_openvino", "play at full speed with OpenVINO")):
        page = arms.get(arm)
        fps = page["fps_step_ms_and_key_to_picture_ms"]["full_speed"]["fps"] if page else None
        found[f"{words}: frames per second in the browser, dojo beside the dream"] = goal(fps, 10, ">=")
    return found


if __name__ == "__main__":
    main()
