"""Put the figures of `benchmarks/results/` between the marks of README and docs: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.results_page import results_page

ROOT = Path(__file__).parents[1]
REAL_NOTE = (
    " Real recordings: DROID film as unlabelled video, a Unitree G1 as the robot; their clips come from 3 episodes "
    "only, so their intervals are narrower than they should be; these runs shared the machine "
    "with other work, and the second ran on one thread and took the first one's latent actions."
)
FEW = 30
"""Below so many clips a figure says how many it is of."""
NAMES = {
    "simulated": "simulated, from the shipped foundation",
    "from_scratch": "simulated, from scratch",
    "real": "real recordings, from scratch",
    "real_taef2": "the same over TAEF2, 128 px",
}


def main() -> None:
    put("README.md", "results", table(load("demo")))
    for page in ("README.md", "docs/published.md"):
        put(page, "parity", parity(load("parity")))
    if (ROOT / "benchmarks" / "results" / "curation.json").is_file():
        put("docs/curation.md", "curation", curation(load("curation")))
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    (ROOT / "docs" / "results.md").write_text(results_page({path.stem: load(path.stem) for path in files}))


def load(name: str) -> dict:
    """A results file."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def put(page: str, mark: str, text: str) -> None:
    """Replace what stands between a page's two marks."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    path = ROOT / page
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(before + begin + "\n" + text + end + after)


def parity(results: dict) -> str:
    """How close, and what the size costs."""
    found, chunk = results["metrics"]["fixtures"], results["metrics"]["chunk"]
    differences = [value for value in found["largest_difference"].values() if value is not None]
    assert found["passed"] == found["of"], "a comparison failed: run benchmarks/parity.py again"
    return (
        f"All {len(differences)} comparisons with fixtures of the published code (random weights, float32) agree; the "
        f"largest absolute difference is {max(differences):.1e}. With random weights of the 2B size "
        f"one clip of 12 frames at 480x640 with one denoising step takes {chunk['seconds_clip']:.0f} s and "
        f"{chunk['peak_memory_gib']:.1f} GiB at its peak, {chunk['weights_gib']:.1f} of them weights mapped from disk "
        f"({results['conditions']['machine']}, bfloat16, {results['date']}; another process ran beside it). "
        "The default of 35 steps has not been timed here.\n"
    )


def curation(results: dict) -> str:
    """What judging and writing video costs, and what 44,000 hours of it would."""
    speeds, hours = results["metrics"]["speed"], 44_000
    lines = ["| what | hours of video per core-hour | 44,000 hours | on 96 cores |", "| --- | --- | --- | --- |"]
    for name, one in speeds.items():
        if isinstance(one, dict) and "hours_per_core_hour" in one:
            rate = one["hours_per_core_hour"]
            lines.append(f"| {name} | {rate:.1f} | {hours / rate:,.0f} core-hours | {hours / rate / 96:,.1f} h |")
    per = ", ".join(f"{name} {cost:.1f} ms" for name, cost in speeds["stages, per look of two frames, ms"].items())
    lines += [
        "",
        f"One look of two frames at 320 px: {per}. Processor time of one thread, {results['date']}, commit "
        f"{speeds['measured_at']}, while {speeds['load']} processes wanted {results['conditions']['cores']} cores, "
        "which slows each down: compare with raw decode, measured in the same minutes. The projection is a division: "
        "it knows nothing of disks, networks or other film.",
        "",
        *right(results["metrics"]),
    ]
    return "\n".join(lines) + "\n"


def right(metrics: dict) -> list[str]:
    """How often each stage is right, on film whose truth is known."""

    def share(one: dict) -> str:
        if one["mean"] is None:
            return "–"
        return f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}], n = {one['count']}"

    judged = {
        "contact, under true hand boxes": metrics["contact"],
        **{f"filter: {kind}": rates for kind, rates in metrics["filters"].items() if isinstance(rates, dict)},
        "cuts": metrics["shots"],
        "near-duplicates": metrics["duplicates"],
    }
    lines = ["| rendered truth | precision | recall |", "| --- | --- | --- |"]
    lines += [f"| {name} | {share(one['precision'])} | {share(one['recall'])} |" for name, one in judged.items()]
    clips, seen = metrics["contact"]["clips"], metrics["detector"]
    wrong = round((1 - metrics["contact"]["precision"]["mean"]) * metrics["contact"]["precision"]["count"])
    return [
        *lines,
        "",
        f"Contact: of {clips['free']} clips in which nothing is touched, {wrong} were taken for contact; "
        f"{clips['contact']} have contact, so precision depends on that mix.",
        "",
        f"Detector: {seen['photos']['mean']:.0%} of {seen['photos']['count']} photographs of people with hands; made "
        "worse: "
        + ", ".join(f"{found} {kind}" for kind, found in seen["photos made worse"].items())
        + f". {seen['robot clips kept']['mean']:.0%} of {seen['robot clips kept']['count']} clips of robot film kept; "
        f"a hand seen in {share(seen['robot frames with a hand'])} of its frames. Its views and thresholds were chosen "
        "on these very pictures. Hands found in "
        f"{seen['rendered hands, test']['mean']:.0%} of the dojo's renderings, each with a skin of its own "
        f"({seen['rendered hands, ood_lighting']['mean']:.0%} under unseen light): it does not take them for people's.",
    ]


def table(results: dict) -> str:
    """One row per arm and horizon."""
    lines = [
        "| demo | frames ahead | student | copy last frame | student minus copy | true minus other actions | "
        "gripper off, px (copy) | objects off, px (copy) | sharpness |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
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
                off(summary["mean"].get("effector_error"), h),
                off(summary["mean"].get("object_error"), h),
                f"{summary['mean']['sharpness']['student'][h]['mean']:.2f}",
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
        "PSNR over the pixels that move, with 95 % intervals paired by clip; gripper and moved objects as found by "
        "probes, a miss counts as the largest error; sharpness of moving regions, 1 is the truth's; "
        f"seed {results['conditions']['seed']}, {machine}, {results['date']}. "
        + "; ".join(notes)
        + "."
        + (REAL_NOTE if "real" in results["metrics"] else "")
        + (depth(results["metrics"]["depth"]) if "depth" in results["metrics"] else "")
    )
    return "\n".join(lines) + "\n"


def depth(summary: dict) -> str:
    """A sentence on the demo with depth."""
    error = summary["mean"]["moving_depth_error"]
    return (
        f" With depth (`dreamdojo demo nano-rgbd`, from the shipped foundation too, {summary['clips']} "
        f"clips): the depth of moving pixels is {error['student']['8']['mean']:.0f} cm off "
        f"after 8 frames, the copied frame's {error['copy last frame']['8']['mean']:.0f} cm; gripper "
        f"{off(summary['mean'].get('effector_error'), '8')} px."
    )


def off(errors: dict | None, horizon: str) -> str:
    """The student's position error and, in brackets, that of copying; a dash where no probe was valid."""
    means = [(errors or {}).get(name, {}).get(horizon, {}).get("mean") for name in ("student", "copy last frame")]
    if None in means:
        return "–"
    count = (errors or {})["student"][horizon]["count"]
    return f"{means[0]:.1f} ({means[1]:.1f})" + (f", n = {count}" if count < FEW else "")


def interval(value: dict) -> str:
    return f"{value['mean']:+.1f} [{value['low']:+.1f}, {value['high']:+.1f}]"


if __name__ == "__main__":
    main()
