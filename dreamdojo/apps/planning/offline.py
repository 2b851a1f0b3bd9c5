"""Thousands of candidates scored in one job that can be stopped, before the best one is executed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.apps.planning.imagine import BATCH, imagine
from dreamdojo.apps.planning.planner import Objective
from dreamdojo.errors import ConfigError, SimulationError
from dreamdojo.files import locked, read_json, write_json
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import World


def score_offline(
    world: World,
    candidates: Float[Tensor, "n t a"],
    objective: Objective,
    file: Path,
    *,
    about: Mapping[str, Any],
    batch: int = BATCH,
    every: int = 4,
    report: Report = silent,
) -> Float[Tensor, " n"]:
    """What each candidate costs from where `world` stands, infinite where its physics broke.

    Costs are kept in `file`; the same call goes on where a stopped one was, with the same result, for every batch
    starts from the same world and the same noise.

    Args:
        world: of batch 1; it stays where it is.
        candidates: actions in the embodiment's units.
        objective: what they cost.
        file: JSON of the costs so far.
        about: what else the costs depend on (model, scene, objective), as plain values.
        batch: candidates that are imagined together.
        every: batches between two writes.
        report: progress.

    Raises:
        ConfigError: if `file` holds the costs of other candidates, or under other conditions.
        DataError: if another process is at it.
        SimulationError: if no candidate has a finite cost.
    """
    what = {**about, "batch": batch, "candidates": _fingerprint(candidates)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock")):
        stored = read_json(file, of="costs of candidates") if file.exists() else {"about": what, "costs": []}
        if stored["about"] != json.loads(json.dumps(what)):
            raise ConfigError(f"{file} holds the costs of other candidates or conditions. Choose another folder.")
        costs: list[float | None] = stored["costs"]
        try:
            for turn, start in enumerate(range(len(costs), len(candidates), batch)):
                part = objective(imagine(world, candidates[start : start + batch], batch=batch)).tolist()
                costs += [cost if math.isfinite(cost) else None for cost in part]
                if turn % every == every - 1:
                    write_json(file, {"about": what, "costs": costs})
                report(len(costs), len(candidates), "candidates")
        finally:
            write_json(file, {"about": what, "costs": costs})
    found = torch.tensor([math.inf if cost is None else cost for cost in costs])
    if not found.isfinite().any():
        raise SimulationError(f"none of {len(found)} candidates has a finite cost. Look at the objective.")
    return found


def _fingerprint(candidates: Tensor) -> str:
    data = candidates.float().contiguous().numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:16] + f" {tuple(candidates.shape)}"
