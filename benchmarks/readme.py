"""Put the figures of `benchmarks/results/` between the marks of README and docs: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.results_page import results_page
from benchmarks.scale_plan import measured, plan
from dreamdojo.presets import PRESETS
from dreamdojo.presets.costs import costs_of, in_flops, in_gib

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
        put("docs/stages/curation.md", "curation", curation(load("curation")))
    if (ROOT / "benchmarks" / "results" / "scale.json").is_file():
        put("docs/scale.md", "data", measured(load("scale")))
        put("docs/scale.md", "plan", plan(load("curation"), load("scale")))
    for page, texts in stage_figures(load("demo")).items():
        for mark, text in texts.items():
            put(f"docs/stages/{page}.md", mark, text)
    put("docs/hardware.md", "hardware", hardware())
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


def stage_figures(demo: dict) -> dict[str, dict[str, str]]:
    """What the demo and the making of the foundation say of single stages: page -> mark -> text."""
    arm, conditions = demo["metrics"]["simulated"], demo["conditions"]
    foundation = json.loads((ROOT / "dreamdojo" / "weights" / "nano" / "foundation.json").read_text())
    of_demo = f"[the demo](../results.md#the-demo) of {demo['date']} on {conditions['machine']}"

    def took(stage: str) -> str:
        return f"{conditions['seconds'][stage]:.0f} s in {of_demo}"

    def made(stage: str) -> str:
        return (
            f"For the foundation that ships: {foundation['seconds'][stage]:,} s for {foundation['steps'][stage]:,} "
            f"steps, film of {foundation['data']['human video'].partition(', ')[2]}; {foundation['machine']}.\n"
        )

    def ahead(method: str) -> str:
        at = arm["mean"]["moving_psnr"]
        pairs = (f"{at[method][h]['mean']:.1f} ({at['copy last frame'][h]['mean']:.1f})" for h in ("1", "8", "16"))
        return (
            f"PSNR of moving pixels 1, 8 and 16 frames ahead, and in brackets that of copying the last frame: "
            f"{', '.join(pairs)} dB; {arm['clips']} held-out clips, {of_demo}.\n"
        )

    psnr = [
        f"| {NAMES.get(name, name)} | {'x'.join(map(str, PRESETS[one['conditions']['preset']].size))} | "
        f"{one['tokenizer_psnr']:.1f} dB |"
        for name, one in demo["metrics"].items()
        if "tokenizer_psnr" in one
    ]
    probe = arm["latent_action_probe"]["r2"]
    motion = [
        f"| {name} | {one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}] | {one['null_high']:.2f} |"
        for name, one in probe.items()
    ]
    rates, pages = arm["frames_per_second"], ("play", "play_openvino")
    full = [demo["metrics"][page]["fps_step_ms_and_key_to_picture_ms"]["full_speed"] for page in pages]
    data = conditions["data"]
    return {
        "dojo": {
            "dojo": f"{took('data')}: human video ({data['human video']}), a robot ({data['robot']}) and "
            f"{data['held out']}.\n",
        },
        "tokenizer": {
            "tokenizer": "\n".join(["| demo | picture | PSNR |", "| --- | --- | --- |", *psnr]) + "\n",
            "tokenizer-cost": made("tokenizer"),
        },
        "latent_action": {
            "latent_action": "\n".join(["| motion | R2 [95 %] | shuffled, at most |", "| --- | --- | --- |", *motion])
            + f"\n\n{arm['latent_action_probe']['held_out_episodes']} held-out episodes, {of_demo}.\n",
            "latent_action-cost": made("latent actions"),
        },
        "world_model": {
            "world_model": ahead("teacher"),
            "world_model-cost": made("pre-training")
            + f"\nPost-training: {took('post-training')}, {conditions['steps']['post-training']:,} steps.\n",
        },
        "student": {
            "student": ahead("student"),
            "student-cost": f"{took('student')}, {conditions['steps']['student']:,} steps in all stages.\n",
        },
        "rollout": {
            "rollout": f"Frames per second, one session: student {rates['student']:.0f}, teacher "
            f"{rates['teacher']:.0f}; {of_demo}.\n",
        },
        "evaluation": {
            "evaluation": f"{took('evaluation')}, with the probes: {arm['clips']} clips, teacher and student.\n",
        },
        "play": {
            "play": f"At full speed, the dojo beside the dream: {full[0]['fps']:.1f} frames per second with PyTorch, "
            f"{full[1]['fps']:.1f} with OpenVINO; from key to picture {full[0]['latency']:.0f} and "
            f"{full[1]['latency']:.0f} ms ([the demo](../results.md#the-demo), {demo['metrics']['play']['date']}, two "
            "CPU cores).\n",
        },
    }


def hardware() -> str:
    """What each preset needs, counted from its settings."""
    lines = [
        "| preset | picture | world model | tokenizer | latent action model | to generate | post-train with a LoRA | "
        "post-train all weights | teacher, per frame (steps) | student, per frame (steps) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, preset in PRESETS.items():
        costs = costs_of(preset)
        counts = [f"{costs.parameters[of] / 1e6:,.1f} M" for of in ("world model", "tokenizer", "latent action model")]
        memory = [in_gib(count) for count in (costs.generation_bytes, costs.lora_bytes, costs.training_bytes)]
        work = [
            f"{in_flops(flops)} ({steps})"
            for flops, steps in ((costs.teacher_flops, costs.teacher_steps), (costs.student_flops, costs.student_steps))
        ]
        size = "x".join(map(str, preset.size)) + (", depth" if preset.modality == "rgbd" else "")
        lines.append("| " + " | ".join([f"`{name}`", size, *counts, *memory, *work]) + " |")
    return "\n".join(lines) + "\n"


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
            f"{summary['tokenizer_psnr']:.1f} dB" + earlier(summary, results)
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
        + (depth(results["metrics"]["depth"], results) if "depth" in results["metrics"] else "")
    )
    return "\n".join(lines) + "\n"


def earlier(summary: dict, results: dict) -> str:
    """That an arm was run before the newest one, with the recipe and on the machine of its day."""
    if summary["date"] == results["date"]:
        return ""
    return f" ({summary['date']}, with the recipe of that day, on {summary['conditions']['machine']})"


def depth(summary: dict, results: dict) -> str:
    """A sentence on the demo with depth."""
    error = summary["mean"]["moving_depth_error"]
    return (
        f" With depth (`dreamdojo demo nano-rgbd`, from the shipped foundation too, {summary['clips']} "
        f"clips): the depth of moving pixels is {error['student']['8']['mean']:.0f} cm off "
        f"after 8 frames, the copied frame's {error['copy last frame']['8']['mean']:.0f} cm; gripper "
        f"{off(summary['mean'].get('effector_error'), '8')} px{earlier(summary, results)}."
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
