"""Success of policies in the model, beside the truth where it is known: scores, statistics, a raw table.

Starts are taken in portions; each portion of each policy is written when it ends, so that a job that was stopped goes
on where it was. What really happens does not depend on the model, so it is kept apart and serves every model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from jaxtyping import Bool, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamdojo.apps.policy_eval.act import Trials, act
from dreamdojo.apps.policy_eval.starts import Starts
from dreamdojo.apps.policy_eval.success import Judge
from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.reward import JudgeError, judge_error
from dreamdojo.files import written_whole
from dreamdojo.metrics import Interval, paired_interval, wilson_interval
from dreamdojo.metrics.agreement import Agreement, Floor, agreement, agreement_floor
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Policy, World

TRUTH = "truth"
"""Tensors of a portion: what really happened, ..."""
MODEL, REAL = "model/", "real/"
"""... what a judge says of predicted frames, and of the true frames of the same policy."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How policies are tried."""

    steps: int
    """Actions of an episode."""
    batch: int
    """Starts that run side by side."""
    seed: int = 0
    """Of the model's noise and the policies' own."""
    examples: int = 8
    """Episodes of each policy whose frames are kept for the report."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One policy from all starts."""

    name: str
    model: Mapping[str, Bool[Tensor, " n"]]
    """Judge -> what it says of the predicted episodes."""
    truth: Bool[Tensor, " n"] | None
    """What really happened, where it is known."""
    real: Mapping[str, Bool[Tensor, " n"]]
    """Judge -> what it says of the true episodes; empty where there are none."""
    predicted_frames: UInt8[Tensor, "e t c h w"]
    """The first episodes, predicted."""
    true_frames: UInt8[Tensor, "e t c h w"] | None
    """The same, as they really went."""
    model_seconds: float
    """Per episode, in the model."""
    truth_seconds: float
    """Per episode, in the truth."""
    policy_seconds: float
    """Per episode, in the policy."""

    def rate(self, judge: str) -> Interval:
        """Success in the model, with Wilson's interval."""
        return _rate(self.model[judge])

    @property
    def true_rate(self) -> Interval | None:
        """True success, with Wilson's interval."""
        return None if self.truth is None else _rate(self.truth)

    def optimism(self, judge: str) -> Interval | None:
        """Success in the model minus true success, paired by start."""
        return None if self.truth is None else paired_interval(self.model[judge].float(), self.truth.float())

    def to_json(self) -> dict[str, Any]:
        """One row of the raw table, with every start's outcome as a string of 0 and 1."""
        truth = self.true_rate
        row: dict[str, Any] = {
            "policy": self.name,
            "truth": None if truth is None else truth.to_json(),
            "model": {judge: self.rate(judge).to_json() for judge in self.model},
            "judges on true frames": {judge: _rate(said).to_json() for judge, said in self.real.items()},
            "seconds per episode": {
                "model": self.model_seconds,
                "truth": self.truth_seconds,
                "policy": self.policy_seconds,
            },
            "outcomes": {judge: _bits(said) for judge, said in self.model.items()},
        }
        if self.truth is not None:
            row["outcomes"][TRUTH] = _bits(self.truth)
            row["optimism"] = {judge: gap.to_json() for judge in self.model if (gap := self.optimism(judge))}
        return row


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where policies act for real."""

    world: Callable[[Sequence[int]], TrueWorld]
    """Seeds -> the dojo from these starts."""
    goal: Callable[[np.ndarray], np.ndarray]
    """Poses `t n 7` -> `t` bool; an episode succeeds where it is reached at the end."""


def score_policy(
    name: str,
    policy: Policy,
    world: World,
    starts: Starts,
    judges: Mapping[str, Judge],
    protocol: Protocol,
    *,
    truth: Truth | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] = {},
    about_model: Mapping[str, Any] = {},
    report: Report = silent,
) -> Score:
    """Let a policy act from every start, in the model and, where there is one, in the truth.

    Args:
        name: of the policy.
        policy: who acts.
        world: the model.
        starts: where.
        judges: who says whether predicted episodes succeeded.
        protocol: how.
        truth: what really happens.
        folder: where each portion is written when it ends, and read from if it is there.
        about: what all portions depend on; portions of something else are refused.
        about_model: what those of the model depend on besides.
        report: progress, in starts, those in the truth after those in the model.

    Raises:
        ConfigError: if the folder holds portions of other settings.
    """

    def in_model(part: Starts, first: int) -> dict[str, Tensor]:
        trials = act(world, policy, part.observation, steps=protocol.steps, seed=protocol.seed + first)
        said = {MODEL + judge: says(trials, part).byte() for judge, says in judges.items()}
        seconds = torch.tensor([[trials.world_seconds, trials.policy_seconds]], dtype=torch.float64)
        world.close()
        return {**said, "predicted_frames": _kept(trials, protocol, first), "seconds": seconds}

    keep = Portions(folder, "model", {"policy": name, **_plain(protocol), **about, **about_model})
    total = len(starts) * (1 if truth is None else 2)
    joined = keep.all(starts, protocol.batch, in_model, lambda done: report(done, total, name))
    real: dict[str, Tensor] = {}
    if truth is not None:
        later: Report = lambda done, _, words: report(len(starts) + done, total, words)  # noqa: E731
        real = true_outcomes(name, policy, starts, judges, protocol, truth, folder, about, later)
    model_seconds, policy_seconds = (joined["seconds"].sum(dim=0) / len(starts)).tolist()
    return Score(
        name=name,
        model={judge: joined[MODEL + judge].bool() for judge in judges},
        truth=real[TRUTH].bool() if real else None,
        real={judge: real[REAL + judge].bool() for judge in judges if real},
        predicted_frames=joined["predicted_frames"],
        true_frames=real.get("true_frames"),
        model_seconds=model_seconds,
        truth_seconds=real["true_seconds"].sum().item() / len(starts) if real else 0.0,
        policy_seconds=policy_seconds,
    )


def true_outcomes(
    name: str,
    policy: Policy,
    starts: Starts,
    judges: Mapping[str, Judge],
    protocol: Protocol,
    truth: Truth,
    folder: Path | None = None,
    about: Mapping[str, Any] = {},
    report: Report = silent,
) -> dict[str, Tensor]:
    """What really happens where a policy acts, and what the judges say of it; arguments as for `score_policy`.

    Raises:
        ConfigError: if the folder holds portions of other settings.
    """

    def in_truth(part: Starts, first: int) -> dict[str, Tensor]:
        world = truth.world(part.names)
        trials = act(world, policy, None, steps=protocol.steps, seed=protocol.seed + first)
        reached = np.array([bool(truth.goal(poses)[-1]) for poses in world.poses]) & ~world.lost
        world.close()
        return {
            TRUTH: torch.from_numpy(reached).byte(),
            **{REAL + judge: says(trials, part).byte() for judge, says in judges.items()},
            "true_frames": _kept(trials, protocol, first),
            "true_seconds": torch.tensor([trials.world_seconds], dtype=torch.float64),
        }

    keep = Portions(folder, TRUTH, {"policy": name, **_plain(protocol), **about})
    return keep.all(starts, protocol.batch, in_truth, lambda done: report(done, len(starts), f"{name}, truth"))


@dataclass(frozen=True)
class Portions:
    """Results of some starts at a time, each written when it is there and read where it was written."""

    folder: Path | None
    """None writes nothing."""
    kind: str
    """Begins the files' names."""
    settings: Mapping[str, Any]
    """What they depend on."""

    def all(
        self,
        starts: Starts,
        batch: int,
        make: Callable[[Starts, int], dict[str, Tensor]],
        report: Callable[[int], None],
    ) -> dict[str, Tensor]:
        """Those of all starts, joined; `make(part, first)` makes what is missing.

        Raises:
            ConfigError: if there are portions of other settings.
        """
        found = []
        for first in range(0, len(starts), batch):
            part = starts.part(first, first + batch)
            path = None if self.folder is None else self.folder / f"{self.kind}-{first:05d}.safetensors"
            settings = {"starts": list(part.names), **self.settings}
            portion = None if path is None else _read(path, settings)
            if portion is None:
                portion = make(part, first)
                if path is not None:
                    _write(path, portion, settings)
            found.append(portion)
            report(first + len(part))
        return {key: torch.cat([portion[key] for portion in found]) for key in found[0]}


def _kept(trials: Trials, protocol: Protocol, first: int) -> UInt8[Tensor, "e t c h w"]:
    return trials.frames[: max(0, protocol.examples - first)].contiguous()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several policies, judged alike."""

    scores: tuple[Score, ...]
    judges: tuple[str, ...]
    """The first is the one that counts; the others stand beside it."""
    floor: Floor | None
    """What perfect agreement would score from as many starts, where the truth is known."""

    def rates(self, judge: str | None, among: Sequence[str] | None = None) -> Tensor:
        """Success rates by a judge, or the true ones (None), of all policies or those named."""
        chosen = [score for score in self.scores if among is None or score.name in among]
        return torch.tensor([_share(score.truth if judge is None else score.model[judge]) for score in chosen])

    def agreement(self, judge: str, among: Sequence[str] | None = None) -> Agreement | None:
        """How far success in the model tells true success; None without truth, or with fewer than two policies."""
        chosen = [score for score in self.scores if among is None or score.name in among]
        if len(chosen) < 2 or any(score.truth is None for score in chosen):
            return None
        return agreement(self.rates(None, among), self.rates(judge, among))

    def judge_error(self, judge: str) -> JudgeError | None:
        """How often a judge is wrong about the true episodes of these policies, which it did not learn from."""
        known = [(score.real[judge], score.truth) for score in self.scores if score.truth is not None]
        if not known:
            return None
        return judge_error(torch.cat([said for said, _ in known]), torch.cat([truth for _, truth in known]))

    def to_json(self) -> dict[str, Any]:
        """Raw table, agreement per judge, and how wrong each judge is on real frames."""
        agreements = {judge: found.to_json() for judge in self.judges if (found := self.agreement(judge))}
        errors = {judge: found.to_json() for judge in self.judges if (found := self.judge_error(judge))}
        return {
            "policies": [score.to_json() for score in self.scores],
            "agreement": agreements,
            "judges on true frames": errors,
            "floor": None if self.floor is None else {k: _number(v) for k, v in vars(self.floor).items()},
        }


def compare(scores: Sequence[Score], judges: Sequence[str]) -> Comparison:
    """Lay the scores of several policies side by side; the first judge is the one that counts."""
    truths = [score.truth for score in scores if score.truth is not None]
    floor = agreement_floor(torch.stack(truths)) if len(truths) == len(scores) >= 2 else None
    return Comparison(scores=tuple(scores), judges=tuple(judges), floor=floor)


def _rate(success: Tensor) -> Interval:
    return wilson_interval(int(success.sum()), len(success))


def _share(success: Tensor | None) -> float:
    assert success is not None  # callers look first
    return success.float().mean().item()


def _bits(success: Tensor) -> str:
    return "".join(map(str, success.int().tolist()))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _plain(protocol: Protocol) -> dict[str, Any]:
    return dict(vars(protocol))


def _read(path: Path, settings: Mapping[str, Any]) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        stored = json.loads((file.metadata() or {}).get("settings", "{}"))
    if stored != json.loads(json.dumps(dict(settings))):
        changed = sorted(
            key for key in {*stored, *settings} if stored.get(key) != json.loads(json.dumps(settings)).get(key)
        )
        raise ConfigError(
            f"{path}: expected a portion made with these settings, found another ({', '.join(changed)} differ). Choose "
            "another output folder, or remove this one."
        )
    return load_file(path)


def _write(path: Path, portion: dict[str, Tensor], settings: Mapping[str, Any]) -> None:
    with written_whole(path) as temporary:
        save_file(portion, temporary, metadata={"settings": json.dumps(dict(settings))})
