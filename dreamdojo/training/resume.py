"""The state from which a run resumes: weights, averaged weights, the optimizer's moments and the step.

It is a folder `state/STEP/` with one file per process that wrote it (`parts.py`); any number of processes reads it.
Frozen weights are not in it: they are those that the model is built with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdojo.errors import CheckpointError, DataError
from dreamdojo.files import read_json, write_json, written_whole
from dreamdojo.training.checkpoint import check_format
from dreamdojo.training.distributed import Processes
from dreamdojo.training.parts import part_names, read_parts, write_part

STATE_FORMAT = "dreamdojo-training-state/1"


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: parameters that have a gradient, and buffers. Shares the model's memory."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def saved_step(folder: Path) -> int | None:
    """How many steps the newest state in `folder` has behind it; None where there is no state."""
    if (newest := _newest(folder)) is not None:
        return int(newest.name)
    return _read_old(folder)["step"] if (folder / "state.pt").exists() else None


@dataclass(frozen=True)
class Resumable:
    """A run, as far as it must be remembered."""

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    settings: dict[str, int | str]
    """Settings that a resumed run must share, because its batches and its moments follow from them."""
    processes: Processes

    def save(self, step: int) -> None:
        """Write the state after `step` steps; it replaces the one before.

        Raises:
            CheckpointError: if the processes do not see each other's files.
        """
        final, partial = self.folder / "state" / str(step), self.folder / "state" / ".partial"
        if final.exists():  # asked to stop right after it was saved
            return
        if self.processes.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.processes.wait()
        count = self.processes.count
        write_part(
            partial / f"{self.processes.rank}.safetensors", {**self._weights(), **self._moments()}, self.processes
        )
        self.processes.wait()
        if self.processes.is_main:
            if missing := [path.name for path in _parts(partial, count) if not path.exists()]:
                raise CheckpointError(
                    f"{partial}: expected a part of each of the {count} processes, found none of {missing[:3]}. All "
                    "machines of a run must share its folder."
                )
            write_json(
                partial / "settings.json", {"format": STATE_FORMAT, "step": step, "parts": count, **self.settings}
            )
            partial.rename(final)
            for older in final.parent.iterdir():
                if older != final:
                    shutil.rmtree(older)
            (self.folder / "state.pt").unlink(missing_ok=True)
        self.processes.wait()

    def load(self) -> int:
        """Go back to the newest state and return its step; 0 where there is none.

        Raises:
            CheckpointError: if the state is cut short, of another version, or belongs to another run.
        """
        newest = _newest(self.folder)
        if newest is not None:
            step = self._load(newest)
        elif (self.folder / "state.pt").exists():
            step = self._load_old()
        else:
            return 0
        self.processes.wait()  # nobody goes on, and replaces the state, before all have read it
        if self.processes.is_main:
            _truncate_log(self.folder, step)
        return step

    def _load(self, state: Path) -> int:
        advice = "Use another run folder, or delete the state to start this stage again."
        try:
            found = read_json(state / "settings.json", of=f"training state {state}")
        except DataError as error:
            raise CheckpointError(f"{state} is not a whole training state: {error} {advice}") from error
        check_format(state / "settings.json", found.get("format"), STATE_FORMAT)
        self._check_settings(f"state/{state.name}", found)
        parts = _parts(state, found["parts"])
        try:
            self._expect_moments(name for name in sorted(part_names(parts)) if name.startswith("optimizer/"))
            read_parts(parts, {**self._weights(), **self._moments()}, self.processes)
        except (CheckpointError, KeyError) as error:
            raise CheckpointError(f"{state} is cut short or of another model: {error}. {advice}") from error
        return found["step"]

    def _load_old(self) -> int:
        """Go on with the `state.pt` of earlier versions, of one process."""
        if self.processes.several:
            raise CheckpointError(
                f"{self.folder}/state.pt is of an earlier version, which one process alone can read, found "
                f"{self.processes.count}. Go on with one process, use another run folder, or delete the state to start "
                "this stage again."
            )
        state = _read_old(self.folder)
        moments = state.pop("optimizer", {})  # torch itself judges which optimizer they are of
        as_it_was = {"micro_batches": 1, "optimizer": self.settings["optimizer"]}
        self._check_settings("state.pt", as_it_was | state)
        try:
            missing, foreign = self.model.load_state_dict(state["model"], strict=False)
            if lost := [*foreign, *(trained_weights(self.model).keys() & missing)]:
                raise KeyError(*lost)
            for name, value in self.averaged.items():
                value.copy_(state["averaged"][name])
            self.optimizer.load_state_dict(moments)
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder}/state.pt is of another model or optimizer: {error}. Use another run folder."
            ) from error
        return state["step"]

    def _weights(self) -> dict[str, Tensor]:
        model = {f"model/{name}": value for name, value in trained_weights(self.model).items()}
        return model | {f"averaged/{name}": value for name, value in self.averaged.items()}

    def _moments(self) -> dict[str, Tensor]:
        name_of: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            f"optimizer/{name_of[parameter]}/{moment}": value
            for parameter, moments in self.optimizer.state.items()
            for moment, value in moments.items()
        }

    def _expect_moments(self, names: Iterable[str]) -> None:
        """Make room for the optimizer's moments, which it has only of parameters that have had a gradient."""
        parameters = dict(self.model.named_parameters())
        for _, name, moment in (name.split("/") for name in names):
            like = parameters[name].detach()
            empty = torch.zeros((), device=like.device) if moment == "step" else torch.zeros_like(like)
            self.optimizer.state[parameters[name]][moment] = empty

    def _check_settings(self, file: str, found: Mapping[str, Any]) -> None:
        for name, value in self.settings.items():
            if found.get(name) != value:
                raise CheckpointError(
                    f"{self.folder}/{file} is of a run with {name}={found.get(name)}, this one has {value}. "
                    "Use another run folder or delete the old state."
                )


def _parts(state: Path, count: int) -> list[Path]:
    return [state / f"{rank}.safetensors" for rank in range(count)]


def _read_old(folder: Path) -> dict[str, Any]:
    try:
        return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{folder}/state.pt is not a whole training state ({type(error).__name__}: {error}). Delete it to start "
            "this stage again."
        ) from error


def _newest(folder: Path) -> Path | None:
    whole = [path for path in (folder / "state").glob("*") if path.name.isdigit()]
    return max(whole, key=lambda path: int(path.name), default=None)


def _truncate_log(folder: Path, step: int) -> None:
    """Drop rows after `step`, which are about to be run again, and a last one that was not written to its end."""
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with written_whole(path) as temporary:
            temporary.write_text("".join(kept))
