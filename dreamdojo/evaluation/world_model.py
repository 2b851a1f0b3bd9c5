"""Score a run's teacher and student on held-out robot episodes and lay the findings out as a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.linear_probe import LinearProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.perceptual import PictureDistance, VideoFeatures, frechet_video_distances
from dreamdojo.evaluation.predict import ClipPlan, frames_per_second, predict_all
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
    number,
)
from dreamdojo.evaluation.report.pictures import error_frames
from dreamdojo.evaluation.rollouts import (
    COPY,
    HORIZONS,
    Clips,
    DepthTruth,
    RolloutScores,
    SceneTruth,
    score_rollouts,
)
from dreamdojo.evaluation.sections import (
    against_copy_section,
    clips_section,
    controllability_section,
    depth_section,
    frechet_section,
    latent_action_section,
    picture_section,
    position_section,
)
from dreamdojo.metrics import Interval
from dreamdojo.rollout.session import Session
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.training.progress import Report as Progress
from dreamdojo.training.progress import silent
from dreamdojo.video import colour_depth

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
    tokenizer_depth_error: float | None = None
    """cm, depth of held-out episodes encoded and decoded again, of a tokenizer with depth."""
    depths: Mapping[str, Tensor] | None = None
    """Method -> `b horizon 1 h w` metres, of models that predict depth."""
    coding: DepthCoding | None = None
    """Which metres they can say."""
    frechet: Mapping[str, float] | None = None
    """Method, `COPY` among them -> Fréchet video distance to the true clips, where a feature network was given."""

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "frames_per_second": dict(self.fps),
            "tokenizer_psnr": self.tokenizer_psnr,
            **({} if self.coding is None else {"tokenizer_depth_error": self.tokenizer_depth_error}),
            **({} if self.frechet is None else {"frechet_video_distance": dict(self.frechet)}),
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
    tokenizer_depth_error: float | None = None,
    latent_action: LinearProbe | None = None,
    lpips: PictureDistance | None = None,
    features: VideoFeatures | None = None,
    seed: int = 0,
    report: Progress = silent,
) -> Evaluation:
    """Let every session predict every clip, under the true and under another episode's actions, and score it.

    `lpips` compares pictures, `features` are those of the Fréchet video distance, `seed` is that of the noise.
    """
    total = 2 * len(sessions) + 1
    predictions, others, depths, other_depths, fps = {}, {}, {}, {}, {}
    codings = [session.depth for session in sessions.values() if session.depth is not None]
    for done, (name, session) in enumerate(sessions.items()):
        true = predict_all(session, plan, seed=seed)
        predictions[name] = true.frames
        report(2 * done + 1, total, f"{name}, true actions")
        other = predict_all(session, plan, other_actions=True, seed=seed)
        others[name] = other.frames
        if true.depth is not None and other.depth is not None:
            depths[name], other_depths[name] = true.depth, other.depth
        report(2 * done + 2, total, f"{name}, other actions")
        fps[name] = frames_per_second(session, plan)
    depth = None
    if codings and plan.given_depth is not None and plan.true_depth is not None:
        counted = codings[0].within(plan.true_depth)
        depth = DepthTruth(last_context=plan.given_depth[:, -1], truth=plan.true_depth, counted=counted)
    clips = Clips(last_context=plan.given[:, -1], truth=plan.truth, scene=scene, depth=depth)
    scores = score_rollouts(
        clips,
        predictions,
        other_actions=others,
        horizons=tuple(range(1, plan.horizon + 1)),
        effector_probe=effector_probe,
        object_probe=object_probe,
        depths=depths,
        other_depths=other_depths,
        lpips=lpips,
    )
    frechet = None
    if features is not None:
        copied = plan.given[:, -1:].expand_as(plan.truth)
        frechet = frechet_video_distances(features, plan.truth, {**predictions, COPY: copied})
    report(total, total, "scored")
    return Evaluation(
        plan=plan,
        predictions=predictions,
        scores=scores,
        fps=fps,
        tokenizer_psnr=tokenizer_psnr,
        latent_action=latent_action,
        tokenizer_depth_error=tokenizer_depth_error,
        depths=depths or None,
        coding=codings[0] if codings else None,
        frechet=frechet,
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
    horizons = tuple(sorted({*(h for h in HORIZONS if h < evaluation.plan.horizon), evaluation.plan.horizon}))
    sections = [
        _summary_section(evaluation, horizons),
        clips_section([_clip(evaluation, index) for index in range(min(shown, scores.clips))], fps=rate),
        picture_section(scores, horizons=horizons),
        against_copy_section(scores, horizons=horizons),
        controllability_section(scores, horizons=horizons),
    ]
    if evaluation.frechet is not None:
        plan = evaluation.plan
        sections.append(frechet_section(evaluation.frechet, clips=len(plan.truth), frames=plan.horizon))
    if "depth_error" in scores.true_actions:
        sections.append(depth_section(scores, evaluation.tokenizer_depth_error, horizons=horizons))
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
        _difference_card(f"moving pixels, {far} frames ahead, against copying", gain),
        _difference_card("true actions against another episode's", obeys),
        *(
            Card(label=f"frames per second, {name}", value=f"{fps:.0f}", note="one session, decoding included")
            for name, fps in evaluation.fps.items()
        ),
        Card(label="tokenizer", value=f"{evaluation.tokenizer_psnr:.1f} dB", note="the ceiling of every prediction"),
    ]
    if "moving_depth_error" in scores.true_actions:
        off, copied = (scores.mean("moving_depth_error", name, far) for name in (method, COPY))
        cards.append(
            Card(
                label=f"depth error of moving pixels, {far} frames ahead",
                value=f"{off.mean:.1f} cm",
                note=f"copying the last frame: {copied.mean:.1f} cm",
                tone="good" if scores.against("moving_depth_error", method, far).below_zero else "bad",
            )
        )
    episodes = len(set(evaluation.plan.recording))
    dependent = (
        f" They come from {episodes} episodes only, and clips of one episode are alike: intervals are narrower than "
        "they should be."
        if episodes < scores.clips
        else ""
    )
    held = f"Where things move, the {method}'s pictures hold {sharp.mean:.0%} of the true sharpness at frame {far}"
    if not math.isfinite(sharp.mean):
        verdict = Verdict(tone="open", text=f"Too little moves at frame {far} to say how sharp the {method} is.")
    elif sharp.mean < 0.7:
        words = (
            "this is a blurry model. Minutes of training make an honest start, not a finished world; more steps help."
        )
        verdict = Verdict(tone="bad", text=f"{held}: {words}")
    else:
        verdict = Verdict(tone="good", text=f"{held}.")
    return Section(
        title="In short",
        lead=f"{scores.clips} held-out robot clips that no stage was trained on.{dependent}",
        blocks=(
            Cards(cards=tuple(cards)),
            verdict,
            Text(text=f"The baseline, {COPY}, is what a world in which nothing moves would show."),
        ),
    )


def _difference_card(label: str, found: Interval) -> Card:
    mean, low, high = (number(x, decimals=1, signed=True) for x in (found.mean, found.low, found.high))
    tone = "good" if found.above_zero else "bad" if math.isfinite(found.mean) else "open"
    return Card(label=label, value=f"{mean} dB", note=f"95 %: {low} to {high}", tone=tone)


def _clip(evaluation: Evaluation, index: int) -> Clip:
    plan = evaluation.plan
    given = plan.given[index]
    truth = torch.cat([given, plan.truth[index]])
    panels = [Panel(label="truth", frames=truth)]
    for name, frames in evaluation.predictions.items():
        panels.append(Panel(label=name, frames=torch.cat([given, frames[index]])))
    last = panels[-1]
    panels.append(Panel(label=f"error of the {last.label}", frames=error_frames(last.frames, truth)))
    coding = evaluation.coding
    if coding and evaluation.depths and plan.given_depth is not None and plan.true_depth is not None:
        context = plan.given_depth[index]
        shown = {"depth": plan.true_depth, **{f"depth, {name}": d for name, d in evaluation.depths.items()}}
        for label, metres in shown.items():
            coloured = colour_depth(torch.cat([context, metres[index]])[:, 0].numpy(), coding.near, coding.far)
            panels.append(Panel(label=label, frames=torch.from_numpy(np.moveaxis(coloured, -1, 1).copy())))
    return Clip(title=f"Clip {index + 1}", panels=tuple(panels), context=plan.context)
