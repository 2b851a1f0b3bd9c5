"""Put the figures of `benchmarks/results/demo.json` between the README's two marks: `python benchmarks/readme.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
REAL_NOTE = (
    " The real clips come from 3 episodes only, so their intervals are narrower than they should be; that run shared "
    "the machine with other work. Moved objects are placed worse than by copying: see docs/log.md."
)
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NAMES = {
    "simulated": "simulated, from the shipped foundation",
    "from_scratch": "simulated, from scratch",
    "real": "real recordings, from scratch",
}


def main() -> None:
    results = json.loads((ROOT / "benchmarks/results/demo.json").read_text())
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + "\n" + table(results) + END + after)


def table(results: dict) -> str:
    """One row per arm and horizon."""
    lines = [
        "| demo | frames ahead | student | copy last frame | student minus copy | true minus other actions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    notes = []
    for arm, name in NAMES.items():
        summary = results["metrics"].get(arm)
        if summary is None:
            continue
        moving, student = summary["mean"]["moving_psnr"], summary["student_moving_psnr"]
        for h in ("1", "4", "8", "16"):
            cells = [
                f"{moving['student'][h]['mean']:.1f} dB",
                f"{moving['copy last frame'][h]['mean']:.1f} dB",
                interval(student["against_copy"][h]),
                interval(student["controllability"][h]),
            ]
            lines.append(f"| {name if h == '1' else ''} | {h} | " + " | ".join(cells) + " |")
        fps = summary["frames_per_second"]
        notes.append(
            f"{name}: {summary['minutes']:.1f} minutes, {summary['clips']} held-out clips, student "
            f"{fps['student']:.0f} and teacher {fps['teacher']:.0f} frames per second, tokenizer "
            f"{summary['tokenizer_psnr']:.1f} dB"
        )
    machine = results["conditions"]["machine"]
    lines.append("")
    lines.append(
        f"PSNR over the pixels that move, with 95 % intervals paired by clip; seed {results['conditions']['seed']}, "
        f"{machine}, {results['date']}. " + "; ".join(notes) + "." + (REAL_NOTE if "real" in results["metrics"] else "")
    )
    return "\n".join(lines) + "\n"


def interval(value: dict) -> str:
    return f"{value['mean']:+.1f} [{value['low']:+.1f}, {value['high']:+.1f}]"


if __name__ == "__main__":
    main()
