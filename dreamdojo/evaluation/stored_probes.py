"""Position probes on disk, trained once: `effector.safetensors`, `probes.json`, and `object.safetensors` if learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dreamdojo.errors import CheckpointError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.keypoints import HeatmapNet, ProbeError
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.files import read_json, write_json, written_whole

FILE = "probes.json"


def save_probes(folder: Path, effector: EffectorProbe, objects: ObjectProbe | None) -> None:
    """Write the probes and their own errors; `probes.json` last, which says that they are whole."""
    probes = {"effector": effector} if objects is None else {"effector": effector, "object": objects}
    for name, probe in probes.items():
        with written_whole(folder / f"{name}.safetensors") as path:
            save_file({key: value.contiguous().cpu() for key, value in probe.net.state_dict().items()}, path)
    write_json(folder / FILE, {"errors": {name: probe.error.to_json() for name, probe in probes.items()}})


def load_probes(folder: Path) -> tuple[EffectorProbe, ObjectProbe | None]:
    """The probes that `save_probes` wrote, whether they are good enough (`probe.error.valid`) or not.

    Raises:
        DataError: if there are none.
        CheckpointError: if a file is not what it should be.
    """
    errors = read_json(folder / FILE, of="position probes")["errors"]
    nets = {name: _net(folder / f"{name}.safetensors") for name in errors}
    return (
        EffectorProbe(net=nets["effector"], error=_error(errors["effector"])),
        ObjectProbe(net=nets["object"], error=_error(errors["object"])) if "object" in nets else None,
    )


def _net(path: Path) -> HeatmapNet:
    try:
        weights = load_file(path)
        first = weights["fine.0.0.weight"]  # the first convolution tells the sizes
        net = HeatmapNet(first.shape[1], width=first.shape[0])
        net.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: expected a position probe, found {error}. Train the probes again.") from error
    return net.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]


def _error(raw: dict[str, Any]) -> ProbeError:
    names = ("mean", "median", "found", "false_alarms", "gate")
    numbers = {name: float("inf") if raw[name] is None else raw[name] for name in names}
    return ProbeError(**numbers, count=raw["count"])
