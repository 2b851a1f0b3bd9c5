"""`docs/results.md` from `benchmarks/results/*.json`: every goal beside what was measured, and the tables behind it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
TITLES = {
    "demo": "The demo",
    "latent_action": "Latent actions",
    "pretraining_ablation": "Does pre-training on latent actions pay?",
    "physics": "Physics",
    "physics_long": "Physics, at the shipped model's number of steps",
    "curation": "Curation",
    "parity": "The published code",
    "realtime": "Real time",
    "planning": "Planning",
    "pusht": "Planning on gym-pusht",
    "policy_evaluation": "Policy evaluation",
    "teleop": "Teleoperation",
    "teleop_serving": "Teleoperation, as it is served",
}
HEAD = """# Results

Made by `python -m benchmarks.readme` from the files in [`benchmarks/results`](../benchmarks/results), which the
benchmarks write. Every goal stands here, met or not; a value is the end of a 95 % interval where its name says so. What
was tried, and what went wrong, is in [log.md](log.md).
"""


def results_page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page; `results` are the files by name."""
    parts = [HEAD]
    for name in [*(n for n in TITLES if n in results), *sorted(set(results) - set(TITLES))]:
        found = results[name]
        parts.append(f"## {TITLES.get(name, name)}\n\n`benchmarks/results/{name}.json`, {found['date']}.\n")
        parts.append(goals(found.get("goals", {})))
        parts += TABLES[name](found["metrics"]) if name in TABLES else []
    return "\n".join(parts)


def goals(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per goal."""
    rows = [
        (name, number(one["value"]), f"{one['op']} {number(one['bound'])}", verdict(one)) for name, one in found.items()
    ]
    return rows_of(("goal", "measured", "aimed at", ""), rows)


def verdict(goal: Mapping[str, Any]) -> str:
    """Met, missed or not measured."""
    if goal["value"] is None:
        return f"not measured: {goal.get('reason', 'not run')}"
    return "met" if OPERATORS[goal["op"]](goal["value"], goal["bound"]) else "**missed**"


def demo(metrics: Mapping[str, Any]) -> list[str]:
    """Every arm's figures, some frames ahead."""
    parts = []
    for arm, found in metrics.items():
        if "mean" not in found:
            continue
        columns = [(metric, h) for metric in DEMO if metric in found["mean"] for h in ("1", "8", "16")]
        rows = [
            (method, *(number(found["mean"][m].get(method, {}).get(h, {}).get("mean")) for m, h in columns))
            for method in ("teacher", "student", "copy last frame")
        ]
        parts += [
            f"### {arm.replace('_', ' ').capitalize()}, {found['clips']} held-out clips\n",
            rows_of(("", *(f"{LABELS[m]}, {h}" for m, h in columns)), rows),
        ]
    return parts


def latent_action(metrics: Mapping[str, Any]) -> list[str]:
    """The arms of the objectives, and the curves of the alignments."""
    arms = {key: arm for key, arm in metrics.items() if " steps, seed " in key}
    rows = [
        (
            key,
            *(number(arm["r2"]["test"][axis]) for axis in ("x", "y", "z", "yaw", "opening")),
            *(number(arm["r2"][split]["z"]) for split in ("ood_colour", "ood_lighting")),
        )
        for key, arm in arms.items()
    ]
    head = ("arm", "x", "y", "z", "yaw", "opening", "z, unseen colours", "z, unseen light")
    parts = [
        "R2 of the hand's true motion from the latent action by ridge regression, on held-out episodes. Each arm "
        "is a model of its own, trained for the steps that it names, and changes one thing of `base` (antisymmetric "
        "convolutions, contrastive on moved views); one seed each.\n",
        rows_of(head, rows),
        "Models examined after a full training; the goals above are of the one that ships, or of the last one here "
        "where that is not among them.\n",
        rows_of(("model", *head[1:]), [examined(key, one) for key, one in metrics.items() if key.startswith("health")]),
    ]
    for key, found in metrics.items():
        if key.startswith("alignment"):
            parts += alignment(key, found)
    return parts


def examined(key: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """One model's row, in the order of the arms' table."""
    own = found["sets"][0]["motion"]["linear"]["r2"]
    elsewhere = {told["target"]: told["r2"] for told in found["out_of_distribution"]}
    return (
        key.removeprefix("health, model "),
        *(number(own[axis]["mean"]) for axis in ("x", "y", "z", "yaw", "opening")),
        *(number(elsewhere[name]["z"]["mean"]) if name in elsewhere else "–" for name in UNLIKE),
    )


def alignment(name: str, found: Mapping[str, Any]) -> list[str]:
    """What an amount of robot data gives: R2 of its actions, pushes repeated, demonstrations repeated."""
    imitated = {round(one["seconds"]): one["scores"] for one in found["imitation"]}
    replayed = {round(float(seconds)): one["scores"] for seconds, one in found["retargeting"].items()}
    rows = []
    for point in found["curve"]["mlp"]:
        seconds = round(point["seconds"])
        pushes, demos = replayed.get(seconds), imitated.get(seconds)
        rows.append(
            (
                f"{seconds}",
                interval(point["mean"]),
                interval(pushes["aligned"]["agreement"]) if pushes else "",
                interval(demos["closed loop"]["success"]) if demos else "",
            )
        )
    pushes = replayed[max(replayed)]
    beside = ", ".join(
        f"{name} {number(one['agreement']['mean'])}" for name, one in pushes.items() if name != "aligned"
    )
    demos = imitated[max(imitated)]
    others = ", ".join(
        f"{name} {number(one['success']['mean'])}" for name, one in demos.items() if name != "closed loop"
    )
    fields = {key: value for key, value in found["curve"]["mlp"][-1].items() if key not in ("seconds", "mean")}
    told = ", ".join(f"{key} {number(value['mean'])}" for key, value in fields.items())
    return [
        f"### {name}\n",
        rows_of(("seconds of robot data", "R2 of its actions", "agreement of pushes", "demonstrations repeated"), rows),
        f"Pushes are scored at four amounts. With all of the data, R2 by number: {told}. Pushes of the same scenes by "
        f"{beside}. Demonstrations repeated by {others}. {found['answer']['mlp']}\n",
    ]


def pretraining(metrics: Mapping[str, Any]) -> list[str]:
    """The arms on the held-out scenes, and the latent arm against the others."""
    parts = []
    for split, title in (("test", "Held-out scenes"), ("ood", "Unseen shapes")):
        for minutes, found in metrics.get(split, {}).items():
            columns = [
                (m, h) for m in ("psnr", "moving_psnr", "effector_error", "sharpness") for h in ("1", "8") if m in found
            ]
            arms = [arm for arm, mean in found["psnr"]["8"].items() if isinstance(mean, float)]
            arms = [arm for arm in arms if not arm.startswith("recovered")]
            against = [name for name in found["psnr"]["8"] if name.startswith("latent minus")]
            rows = [(arm, *(number(found[m][h].get(arm)) for m, h in columns)) for arm in arms]
            rows += [(f"*{name}*", *(interval(found[m][h][name]) for m, h in columns)) for name in against]
            parts += [
                f"### {title}, {minutes} of robot data\n",
                rows_of(("arm", *(f"{LABELS[m]}, {h}" for m, h in columns)), rows),
            ]
    return parts + (action_interface(metrics["action interface"]) if "action interface" in metrics else [])


def action_interface(found: Mapping[str, Any]) -> list[str]:
    """What each part of the published action interface adds to the one before it, 8 frames ahead."""
    columns = [metric for metric in ("psnr", "moving_psnr", "effector_error") if metric in found]
    rows = []
    for arm in found[columns[0]]:
        cells = [found[metric].get(arm, {}).get("8", {}) for metric in columns]
        gains = [next((one for key, one in cell.items() if key.startswith("minus ")), None) for cell in cells]
        shown = [interval(cell["mean"]) if cell else "–" for cell in cells]
        rows.append((arm, *shown, *(interval(gain) if gain else "" for gain in gains)))
    names = [LABELS[metric] for metric in columns]
    seeds = max(len(each) for each in found["conditions"]["seeds"].values())
    return [
        "### The action interface, five minutes of a robot commanded by joint targets\n",
        f"Eight frames ahead, {found['conditions']['clips']} clips, {found['conditions']['made_of']['steps']} steps, "
        f"seeds: {seeds}. Each arm adds one thing to the one above it; the last columns say what it brought.\n",
        rows_of(("arm", *names, *(f"{name}: brought" for name in names)), rows),
    ]


def physics(metrics: Mapping[str, Any]) -> list[str]:
    """Every kind of scene, and the recipe search."""
    scenes = {name: found["own"] for name, found in metrics.items() if isinstance(found, dict) and "own" in found}
    parts = [part for name, own in scenes.items() for part in scene(name, own)]
    return parts + recipe(metrics)


def scene(name: str, own: Mapping[str, Any]) -> list[str]:
    """One kind of scene: where objects and gripper are, arm by arm."""
    columns = [(metric, h) for metric in SCENE for h in ("1", "8", "24")]
    arms = [arm for arm in own["effector_error"] if arm != "lower by"]
    rows = [(arm, *(number(own[m].get(arm, {}).get(h, {}).get("mean")) for m, h in columns)) for arm in arms]
    lower = own["pose_error, contact"].get("lower by", {})
    said = "; ".join(f"than {arm} by {interval(one)}" for arm, one in lower.items())
    return [
        f"### {name[:1].upper()}{name[1:]}: objects and gripper, px\n",
        rows_of(("arm", *(f"{SCENE[m]}, {h}" for m, h in columns)), rows),
        *(
            [f"Pose error of touched objects up to frame 24, share by which `latent` is lower: {said}.\n"]
            if said
            else []
        ),
    ]


def recipe(metrics: Mapping[str, Any]) -> list[str]:
    """The recipe search: every arm, sampled in several ways."""
    columns = [("effector_error", "1"), *((metric, "8") for metric in RECIPE)]
    parts = []
    for search in sorted(key for key in metrics if key.startswith("recipe")):
        rows = []
        for key, arm in metrics[search].items():
            methods = {m: one for m, one in arm["scores"]["true"].items() if " steps, shift" in m}
            rows += [(key, m, *(number(one[c][h]["mean"]) for c, h in columns)) for m, one in methods.items()]
        parts += [
            f"### {search.capitalize()}: world models from scratch, the same arithmetic\n",
            "On twenty minutes of a robot; 64 held-out clips. Sharpness is gradient energy of moving regions, 1 is the "
            "truth's. Steps are those of the base; an arm that costs more takes fewer.\n",
            rows_of(("arm", "sampled", *(f"{LABELS[c]}, {h}" for c, h in columns)), rows),
        ]
    return parts


def pusht(metrics: Mapping[str, Any]) -> list[str]:
    """Every arm's success, and what it took."""
    rows = [
        (
            arm,
            str(found["success"]["count"]),
            interval(found["success"]),
            interval(found["success where the block has to move"]),
            number(found["distance at the end, px"]),
            number(found["seconds per decision"]),
        )
        for arm, found in metrics.items()
        if "success" in found
    ]
    head = (
        "arm",
        "errands",
        "success in 50 actions",
        "block has to move",
        "off at the end, px",
        "seconds per decision",
    )
    return [rows_of(head, rows)]


DEMO = ("psnr", "moving_psnr", "effector_error", "sharpness", "object_error", "moving_depth_error")
SCENE = {
    "pose_error, contact": "touched",
    "pose_error, no contact": "untouched",
    "effector_error": "gripper",
}
RECIPE = ("effector_error", "effector_found", "sharpness", "moving_psnr", "psnr")
UNLIKE = ("unlike video 1", "unlike video 3")
"""What the health benchmark calls its sets of unseen colours and of unseen light."""
LABELS = {
    "psnr": "PSNR",
    "moving_psnr": "PSNR, moving",
    "effector_error": "gripper off, px",
    "effector_found": "gripper found",
    "object_error": "object off, px",
    "moving_depth_error": "depth of moving pixels off, cm",
    "sharpness": "sharpness",
}


def policy_evaluation(metrics: Mapping[str, Any]) -> list[str]:
    """Every policy's success, in truth and in the model, and how far they agree."""
    parts = []
    for split in (name for name, found in metrics.items() if "policies" in found):
        found = metrics[split]
        judges = list(found["policies"][0]["model"])
        rows = [
            (
                one["policy"],
                interval(one["truth"]),
                number(one["judges on true frames"][judges[0]]["mean"]),
                *(
                    interval(one["model"][judge]) if judge == judges[0] else number(one["model"][judge]["mean"])
                    for judge in judges
                ),
            )
            for one in sorted(found["policies"], key=lambda one: -one["truth"]["mean"])
        ]
        agreed = [
            (
                judge,
                interval(one["pearson"]),
                number(one["permutation_p"]),
                number(one["spearman"]),
                *(number(value) for value in one["mmrv"].values()),
                interval(one["calibration"]["optimism"]),
            )
            for judge, one in found["agreement"].items()
        ]
        parts += [
            f"### {split}: {found['starts']} starts of each policy\n",
            "Share of successes, with 95 % intervals: in truth, by the judge on true frames, and in the model.\n",
            rows_of(("policy", "truth", f"{judges[0]}, true frames", *(f"{judge}, model" for judge in judges)), rows),
            "How far success in the model tells true success, one point per policy.\n",
            rows_of(("judge", "Pearson", "p", "Spearman", "MMRV, true gaps", "MMRV, model's gaps", "optimism"), agreed),
        ]
    return parts


TABLES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "demo": demo,
    "latent_action": latent_action,
    "pretraining_ablation": pretraining,
    "physics": physics,
    "physics_long": physics,
    "pusht": pusht,
    "policy_evaluation": policy_evaluation,
}


def interval(value: Mapping[str, Any]) -> str:
    """A mean and its 95 % interval."""
    if value["low"] is None:
        return number(value["mean"])
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return "–"
    return (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.005 or not value else f"{value:.1e}"
    )


def rows_of(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
