"""Ensembles of policies to choose among: scripted ones that err in different ways, or the user's."""

from __future__ import annotations

from collections.abc import Mapping

from dreamdojo.apps.planning.errands import Errand, stroke_for
from dreamdojo.apps.planning.proposals import ScriptedProposal
from dreamdojo.dojo.plans import Skill
from dreamdojo.dojo.world import DojoWorld
from dreamdojo.world import Policy

MISTAKES: Mapping[str, tuple[Skill, tuple[float, float]]] = {
    "shaky": (Skill(aim_error=0.022, tremor=0.0, slip=0.1), (0.0, 0.0)),
    "hasty": (Skill(aim_error=0.010, tremor=0.0, slip=0.35), (0.0, 0.0)),
    "left": (Skill(aim_error=0.010, tremor=0.0, slip=0.1), (0.0, 0.025)),
    "near": (Skill(aim_error=0.010, tremor=0.0, slip=0.1), (-0.025, 0.0)),
    "wild": (Skill(aim_error=0.040, tremor=0.0, slip=0.2), (0.0, 0.0)),
}
"""What each scripted policy does wrong: its scatter, and where its aim is always off (x, y in metres)."""


def scripted_ensemble(world: DojoWorld, errand: Errand) -> dict[str, Policy]:
    """Five policies of `MISTAKES` for an errand. They look into the real scene, not into the dream."""
    stroke = stroke_for(errand, errand.object_place, world.embodiment, fps=world.fps)
    return {
        name: ScriptedProposal(world=world, task=errand.task, skill=skill, stroke=stroke, offset=offset)
        for name, (skill, offset) in MISTAKES.items()
    }
