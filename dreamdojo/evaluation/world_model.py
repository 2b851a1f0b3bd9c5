"""Score a run's teacher and student on held-out robot episodes and lay the findings out as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.linear_probe import LinearProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.predict import ClipPlan, frames_per_second, predict
from dreamdojo.evaluation.report import (
    Card,
    Cards,
    Clip,
    DataSheet,
    Panel,
    Report,
    Section,
    StageTimes,
    Text,
    Verdict,
)
from dreamdojo.evaluation.report.pictures import error_frames
from dreamdojo.evaluation.rollouts import COPY, HORIZONS, Clips, RolloutScores, SceneTruth, score_rollouts
from dreamdojo.evaluation.sections import (
    against_copy_section,
    clips_section,
    controllability_section,
    latent_action_section,
    picture_section,
    position_section,
)
from dreamdojo.rollout.session import Session
from dreamdojo.training.progress import Report as Progress
from dreamdojo.training.progress import silent

TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured of a run, and the pictures it was measured on."""

    plan: ClipPlan
    predictions: Mapping[str, Tensor]
    """Method -> `b horizon c h w` uint8, under the true actions."""
    scores: RolloutScores
    fps: Mapping[str, float]
    """Method -> predicted frames per second of one live session, decoding included."""
    tokenizer_psnr: float
    """dB, frames of held-out episodes encoded and decoded again."""
    latent_action: LinearProbe | None
    """True motion read off latent actions, where the true motion is known."""

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "frames_per_second": dict(self.fps),
            "tokenizer_psnr": self.tokenizer_psnr,
            "latent_action_probe": self.latent_action.to_json() if self.latent_action else None,
            "rollouts": self.scores.to_json(),
        }


def evaluate_sessions(
    sessions: Mapping[str, Session],
    plan: ClipPlan,
    *,
    scene: SceneTruth | None = None,
    effector_probe: EffectorProbe | None = None,
    object_probe: ObjectProbe | None = None,
    tokenizer_psnr: float,
    latent_action: LinearProbe | None = None,
    report: Progress = silent,
) -> Evaluation:
    """Let every session predict every clip, under the true and under another episode's actions, and score it."""
    total = 2 * len(sessions) + 1
    predictions, others, fps = {}, {}, {}
    for number, (name, session) in enumerate(sessions.items()):
        predictions[name] = predict(session, plan)
        report(2 * number + 1, total, f"{name}, true actions")
        others[name] = predict(session, plan, other_actions=True)
        report(2 * number + 2, total, f"{name}, other actions")
        fps[name] = frames_per_second(session, plan)
    clips = Clips(last_context=plan.given[:, -1], truth=plan.truth, scene=scene)
    scores = score_rollouts(
        clips,
        predictions,
        other_actions=others,
        horizons=tuple(range(1, plan.horizon + 1)),
        effector_probe=effector_probe,
        object_probe=object_probe,
    )
    report(total, total, "scored")
    return Evaluation(
        plan=plan,
        predictions=predictions,
        scores=scores,
        fps=fps,
        tokenizer_psnr=tokenizer_psnr,
        latent_action=latent_action,
    )


def build_report(
    evaluation: Evaluation,
    *,
    title: str,
    subtitle: str,
    facts: Sequence[str],
    data_sheet: Mapping[str, str],
    stage_seconds: Mapping[str, float],
    rate: float,
    shown: int = 4,
) -> Report:
    """The whole report; `shown` clips are played, the first of the plan, chosen before anything was scored."""
    scores = evaluation.scores
    horizons = tuple(h for h in HORIZONS if h <= evaluation.plan.horizon)
    sections = [
        _summary_section(evaluation, horizons),
        clips_section([_clip(evaluation, index) for index in range(min(shown, scores.clips))], fps=rate),
        picture_section(scores, horizons=horizons),
        against_copy_section(scores, horizons=horizons),
        controllability_section(scores, horizons=horizons),
    ]
    if scores.probes:
        sections.append(position_section(scores, horizons=horizons))
    if evaluation.latent_action is not None:
        sections.append(latent_action_section(evaluation.latent_action))
    sections.append(
        Section(
            title="What it is made from",
            lead="Data, settings and time.",
            blocks=(DataSheet(items=dict(data_sheet)), StageTimes(seconds=dict(stage_seconds))),
        )
    )
    return Report(title=title, subtitle=subtitle, facts=tuple(facts), sections=tuple(sections))


def _summary_section(evaluation: Evaluation, horizons: Sequence[int]) -> Section:
    scores = evaluation.scores
    far = 8 if 8 in horizons else horizons[-1]
    method = scores.methods[-1]
    gain = scores.against("moving_psnr", method, far)
    obeys = scores.controllability("moving_psnr", method, far)
    sharp = scores.mean("sharpness", method, far)
    cards = [
        Card(
            label=f"moving pixels, {far} frames ahead, against copying",
            value=f"{gain.mean:+.1f} dB",
            note=f"95 %: {gain.low:+.1f} to {gain.high:+.1f}",
            tone="good" if gain.low > 0 else "bad",
        ),
        Card(
            label="true actions against another episode's",
            value=f"{obeys.mean:+.1f} dB",
            note=f"95 %: {obeys.low:+.1f} to {obeys.high:+.1f}",
            tone="good" if obeys.low > 0 else "bad",
        ),
        *(
            Card(label=f"frames per second, {name}", value=f"{fps:.0f}", note="one session, decoding included")
            for name, fps in evaluation.fps.items()
        ),
        Card(label="tokenizer", value=f"{evaluation.tokenizer_psnr:.1f} dB", note="the ceiling of every prediction"),
    ]
    blurred = sharp.mean < 0.7
    verdict = Verdict(
        tone="bad" if blurred else "good",
        text=f"Where things move, the {method}'s pictures hold {sharp.mean:.0%} of the true sharpness at frame {far}"
        + (
            ": this is a blurry model. Minutes of training make an honest start, not a finished world; more steps help."
            if blurred
            else "."
        ),
    )
    return Section(
        title="In short",
        lead=f"{scores.clips} held-out robot clips that no stage was trained on.",
        blocks=(
            Cards(cards=tuple(cards)),
            verdict,
            Text(text=f"The baseline, {COPY}, is what a world in which nothing moves would show."),
        ),
    )


def _clip(evaluation: Evaluation, index: int) -> Clip:
    plan = evaluation.plan
    given = plan.given[index]
    truth = torch.cat([given, plan.truth[index]])
    panels = [Panel(label="truth", frames=truth)]
    for name, frames in evaluation.predictions.items():
        panels.append(Panel(label=name, frames=torch.cat([given, frames[index]])))
    last = panels[-1]
    panels.append(Panel(label=f"error of the {last.label}", frames=error_frames(last.frames, truth)))
    return Clip(title=f"Clip {index + 1}", panels=tuple(panels), context=plan.context)
