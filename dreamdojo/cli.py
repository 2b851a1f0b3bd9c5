"""One command, typed from dataclasses. `dreamdojo --help` imports nothing heavy; each command loads what it needs."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from dreamdojo.errors import ConfigError, DreamDojoError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("dreamdojo.demo:Demo", "The whole chain: from video to a robot world model you can drive, and a report."),
    "simulate": ("dreamdojo.commands:Simulate", "Write datasets from the dojo: human video, robot episodes."),
    "curate": ("dreamdojo.curate:Curate", "Turn video into a dataset of clips, with a reason for every one left out."),
    "train-tokenizer": ("dreamdojo.commands:TrainTokenizer", "Train the video tokenizer."),
    "encode": ("dreamdojo.commands:Encode", "Encode a dataset's frames to latents."),
    "train-latent-action": (
        "dreamdojo.commands:TrainLatentAction",
        "Train the latent action model on unlabelled video.",
    ),
    "infer-latent-actions": ("dreamdojo.commands:InferLatentActions", "Infer the latent actions of a dataset."),
    "latent-action report": (
        "dreamdojo.commands:LatentActionReport",
        "Tell a healthy latent action model from a collapsed one.",
    ),
    "latent-action align": (
        "dreamdojo.commands:LatentActionAlign",
        "Align latent actions with a robot's actions, and say whether its data are enough.",
    ),
    "pretrain": ("dreamdojo.commands:Pretrain", "Train the world model on human video and its latent actions."),
    "posttrain": ("dreamdojo.commands:Posttrain", "Teach the world model a robot from its episodes."),
    "distill": ("dreamdojo.commands:Distill", "Distil the teacher into a student of few steps."),
    "evaluate world-model": (
        "dreamdojo.evaluate_world_model:EvaluateWorldModel",
        "Score world models on held-out episodes, beside copying the last frame: report.html, results.json.",
    ),
    "evaluate policy": (
        "dreamdojo.evaluate_policy:EvaluatePolicy",
        "Let policies act in a world model from real first frames and judge them, beside the truth where there is one.",
    ),
    "train-policy": ("dreamdojo.evaluate_policy:TrainPolicy", "Train a policy from pixels on a robot's episodes."),
    "show": ("dreamdojo.show:Show", "Open an episode of a dataset in the Rerun viewer."),
    "generate": ("dreamdojo.generate:Generate", "Predict a recorded episode and lay it beside the recording."),
    "info": ("dreamdojo.commands:Info", "What a preset costs: parameters, memory, arithmetic, and whether it fits."),
    "convert": ("dreamdojo.commands:Convert", "Turn the published weights into models, or models back into them."),
    "plan": ("dreamdojo.plan:Plan", "Plan an errand in the dojo inside a world model, or in the simulator, and do it."),
    "train-foundation": ("dreamdojo.shipping:TrainFoundation", "Train the models that ship with the package."),
    "play": ("dreamdojo.play:Play", "Drive a world model in the browser."),
    "teleop": ("dreamdojo.teleop:Teleop", "Drive a robot in the browser, a second ahead of its late camera."),
    "teleop calibrate": (
        "dreamdojo.teleop:TeleopCalibrate",
        "Measure how wrong the predictions are, and teach what looks for hazards.",
    ),
    "teleop replay": ("dreamdojo.teleop:TeleopReplay", "Live a recorded session again and compare its frames."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors raised on purpose are printed as one message, and Ctrl-C says how to go on."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            if not arguments or arguments[0] in ("-h", "--help"):
                sys.stdout.write(_overview() + "\n")
            else:
                parse(arguments).run()
        finally:
            sys.stdout.flush()
    except DreamDojoError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader of our output, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was done is kept: the same command goes on from there.\n")
        raise SystemExit(130) from None


def parse(words: list[str]) -> Any:
    """The command that `words` call for, its options filled in, ready to `run`.

    Raises:
        ConfigError: if there is no such command.
        SystemExit: if its options are wrong, or only help was asked for.
    """
    length = 2 if " ".join(words[:2]) in COMMANDS else 1
    name, arguments = " ".join(words[:length]), words[length:]
    if name not in COMMANDS:
        close = [known for known in COMMANDS if known.startswith(f"{name} ")]
        close = close or difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Perhaps you meant {' or '.join(close)}." if close else "dreamdojo --help lists them."
        raise ConfigError(f"there is no command {name!r}. {hint}")
    import tyro

    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    preset, rest = command.preset_and_rest(arguments)
    return tyro.cli(
        command,
        prog=f"dreamdojo {name}" + (f" {preset.name}" if preset else ""),
        description=COMMANDS[name][1],
        args=rest,
        default=command.with_preset(preset) if preset else None,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dreamdojo COMMAND [PRESET] [OPTIONS]",
            "",
            "A robot world model: learn from unlabelled egocentric video, drive it, judge in it.",
            "",
            *lines,
            "",
            "dreamdojo COMMAND --help shows a command's options.",
            "Presets: nano; nano128 has twice the resolution, nano-rgbd depth; nano-taef2 suits real recordings;",
            "nano-robot learns from two hours of a robot in place of minutes; nano-foundation makes what ships.",
        ]
    )
