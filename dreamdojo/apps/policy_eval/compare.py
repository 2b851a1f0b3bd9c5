"""Success of policies in the model, beside the truth where it is known: scores, statistics, a raw table.

Starts are taken in portions; each portion of each policy is written when it ends, so that a job that was stopped goes
on where it was.
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

from dreamdojo.apps.policy_eval.act import act
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


def score_policy(
    name: str,
    policy: Policy,
    world: World,
    starts: Starts,
    judges: Mapping[str, Judge],
    protocol: Protocol,
    *,
    true_world: Callable[[Sequence[int]], TrueWorld] | None = None,
    goal: Callable[[np.ndarray], np.ndarray] | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] = {},
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
        true_world: seeds -> the dojo from these starts; needs `goal`.
        goal: poses `t n 7` -> `t` bool; an episode succeeds where it is reached at the end.
        folder: where each portion is written when it ends, and read from if it is there.
        about: what the portions depend on; portions of something else are refused.
        report: progress, in starts.

    Raises:
        ConfigError: if the folder holds portions of other settings.
    """
    portions = []
    for first in range(0, len(starts), protocol.batch):
        part = starts.part(first, first + protocol.batch)
        kept = max(0, min(protocol.examples - first, len(part)))
        path = None if folder is None else folder / f"{first:05d}.safetensors"
        settings = {"policy": name, "starts": list(part.names), **_plain(protocol), **about}
        portion = None if path is None else _read(path, settings)
        if portion is None:
            portion = _try(policy, world, part, judges, protocol, first, kept, true_world, goal)
            if path is not None:
                _write(path, portion, settings)
        portions.append(portion)
        report(min(first + protocol.batch, len(starts)), len(starts), name)
    joined = {key: torch.cat([portion[key] for portion in portions]) for key in portions[0]}
    seconds = (joined["seconds"].sum(dim=0) / len(starts)).tolist()
    return Score(
        name=name,
        model={judge: joined[MODEL + judge].bool() for judge in judges},
        truth=joined[TRUTH].bool() if TRUTH in joined else None,
        real={judge: joined[REAL + judge].bool() for judge in judges if REAL + judge in joined},
        predicted_frames=joined["predicted_frames"],
        true_frames=joined.get("true_frames"),
        model_seconds=seconds[0],
        truth_seconds=seconds[1],
        policy_seconds=seconds[2],
    )


def _try(
    policy: Policy,
    world: World,
    starts: Starts,
    judges: Mapping[str, Judge],
    protocol: Protocol,
    first: int,
    kept: int,
    true_world: Callable[[Sequence[int]], TrueWorld] | None,
    goal: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, Tensor]:
    seed = protocol.seed + first
    trials = act(world, policy, starts.observation, steps=protocol.steps, seed=seed)
    found = {MODEL + name: judge(trials, starts).byte() for name, judge in judges.items()}
    found["predicted_frames"] = trials.frames[:kept].contiguous()
    seconds = [trials.world_seconds, 0.0, trials.policy_seconds]
    if true_world is not None and goal is not None:
        truth = true_world(starts.names)
        true_trials = act(truth, policy, None, steps=protocol.steps, seed=seed)
        reached = np.array([bool(goal(poses)[-1]) for poses in truth.poses]) & ~truth.lost
        truth.close()
        found[TRUTH] = torch.from_numpy(reached).byte()
        found |= {REAL + name: judge(true_trials, starts).byte() for name, judge in judges.items()}
        found["true_frames"] = true_trials.frames[:kept].contiguous()
        seconds[1] = true_trials.world_seconds
    world.close()
    found["seconds"] = torch.tensor([seconds], dtype=torch.float64)
    return found


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
