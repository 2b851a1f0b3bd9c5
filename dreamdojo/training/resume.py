"""The state from which a run resumes: weights, averaged weights, the optimizer's moments and the step.

One process writes `state.pt`. Several write their parts into `state/STEP/` (torch.distributed.checkpoint), which any
number of processes reads. Frozen weights are in neither: they are those that the model is built with.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdojo.errors import CheckpointError
from dreamdojo.files import read_json, write_json, written_whole
from dreamdojo.training.distributed import Processes


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: parameters that have a gradient, and buffers. Shares the model's memory."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def saved_step(folder: Path) -> int | None:
    """How many steps the newest state in `folder` has behind it; None where there is no state."""
    if (folder / "state.pt").exists():
        return _read_one(folder)["step"]
    newest = _newest(folder)
    return None if newest is None else int(newest.name)


@dataclass(frozen=True)
class Resumable:
    """A run, as far as it must be remembered."""

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    settings: Mapping[str, int]
    """Settings that a resumed run must share, because the batches follow from them."""
    processes: Processes

    def save(self, step: int) -> None:
        """Write the state after `step` steps; it replaces the one before."""
        if self.processes.several:
            self._save_parts(step)
            return
        state = {
            "step": step,
            **self.settings,
            "model": trained_weights(self.model),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
        }
        with written_whole(self.folder / "state.pt") as path:
            torch.save(state, path)
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def load(self) -> int:
        """Go back to the newest state and return its step; 0 where there is none.

        Raises:
            CheckpointError: if the state is cut short, or belongs to another run.
        """
        one, parts = self.folder / "state.pt", _newest(self.folder)
        if one.exists() and self.processes.several:
            raise CheckpointError(
                f"{one} is the state of a single process, this run has {self.processes.count} processes. Go on with "
                "one process, use another run folder, or delete the state to start this stage again."
            )
        if not one.exists() and parts is None:
            return 0
        if one.exists():
            step = self._load_one()
        else:
            assert parts is not None
            step = self._load_parts(parts)
        if self.processes.is_main:
            _truncate_log(self.folder, step)
        return step

    def _load_one(self) -> int:
        state = _read_one(self.folder)
        self._check_settings("state.pt", {"micro_batches": 1} | state)  # older states have no micro-batches
        try:
            missing, foreign = self.model.load_state_dict(state["model"], strict=False)
            if lost := [*foreign, *(trained_weights(self.model).keys() & missing)]:
                raise KeyError(*lost)
            for name, value in self.averaged.items():
                value.copy_(state["averaged"][name])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder}/state.pt is of another model or optimizer: {error}. Use another run folder."
            ) from error
        return state["step"]

    def _save_parts(self, step: int) -> None:
        from torch.distributed.checkpoint.state_dict_saver import save

        final, partial = self.folder / "state" / str(step), self.folder / "state" / ".partial"
        if self.processes.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        self.processes.wait()
        if final.exists():  # asked to stop right after it was saved
            return
        save({**self._weights(), **self._moments()}, checkpoint_id=partial)
        if self.processes.is_main:
            write_json(partial / "settings.json", {"step": step, **self.settings})
            partial.rename(final)
            for older in final.parent.iterdir():
                if older != final:
                    shutil.rmtree(older)
        self.processes.wait()

    def _load_parts(self, parts: Path) -> int:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        found = read_json(parts / "settings.json", of=f"training state {parts}")
        self._check_settings(f"state/{parts.name}", found)
        try:
            saved = FileSystemReader(parts).read_metadata().state_dict_metadata
            self._expect_moments(name for name in saved if name.startswith("optimizer/"))
            weights = {**self._weights(), **self._moments()}
            if saved.keys() != weights.keys():
                raise KeyError(*sorted(saved.keys() ^ weights.keys())[:3])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be in one process
                load(weights, checkpoint_id=parts, no_dist=not self.processes.several)
        except (CheckpointException, OSError, EOFError, RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{parts} is cut short or of another model ({type(error).__name__}: {error}). Use another run folder, "
                "or delete the state to start this stage again."
            ) from error
        return found["step"]

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
            if found[name] != value:
                raise CheckpointError(
                    f"{self.folder}/{file} is of a run with {name}={found[name]}, this one has {value}. "
                    "Use another run folder or delete the old state."
                )


def _read_one(folder: Path) -> dict[str, Any]:
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
    """Drop rows after `step`: the steps they tell of are about to be run again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        with written_whole(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
