"""Everything the health report measures of a latent action model, as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dreamdojo.evaluation.health.decoding import Decoding, Utilisation, measure_decoding, measure_utilisation
from dreamdojo.evaluation.health.looks import (
    Carried,
    Neighbours,
    agreement,
    carry,
    nearest,
    restless,
)
from dreamdojo.evaluation.health.pairs import PairModel, Pairs
from dreamdojo.evaluation.health.probing import MotionProbes, Transfer, probe_motion, read_elsewhere, transfer_probe
from dreamdojo.evaluation.health.response import Response, measure_response, still_latents
from dreamdojo.evaluation.health.spread import Spread, measure_spread
from dreamdojo.training.progress import Report, silent

DECODED = 512
"""Pairs of each set that are decoded and shown in other lights."""


@dataclass(frozen=True, kw_only=True)
class SetHealth:
    """What was measured on one set of pairs."""

    pairs: Pairs
    decoding: Decoding
    spread: Spread
    response: Response
    motion: MotionProbes | None
    """Probes of true motion; None where it is not known."""
    actions: MotionProbes | None
    """Probes of a robot's actions; None where there are none."""

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "name": self.pairs.name,
            "episodes": len(self.pairs.frames),
            "pairs": len(self.pairs),
            "decoding": self.decoding.to_json(),
            "spread": self.spread.to_json(),
            "response": self.response.to_json(),
            "motion": None if self.motion is None else self.motion.to_json(),
            "actions": None if self.actions is None else self.actions.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Health:
    """What was measured of a model."""

    human: SetHealth
    """The kind of video the model was trained on."""
    robot: SetHealth | None
    ood: tuple[SetHealth, ...]
    """Video unlike that of training."""
    utilisation: Utilisation
    """On the human set."""
    elsewhere: tuple[Transfer, ...]
    """The human set's line read on each set of `ood` that knows its true motion."""
    transfers: tuple[Transfer, ...]
    """Lines from human to robot and back, each plain and with latent actions standardised by body."""
    agreement: tuple[float, float] | None
    """Mean cosine of true motion between nearest neighbours, and between pairs of the middle rank."""
    neighbours: tuple[Neighbours, ...]
    """Of some pairs of the human set."""
    carried: tuple[Carried, ...]

    @property
    def sets(self) -> tuple[SetHealth, ...]:
        """All sets, the human one first."""
        return (self.human, *((self.robot,) if self.robot else ()), *self.ood)

    @property
    def degrees_of_freedom(self) -> int | None:
        """Dimensions in which the human hand truly moves; None where this is not known."""
        return None if self.human.motion is None else len(self.human.motion.names)

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "sets": [each.to_json() for each in self.sets],
            "degrees_of_freedom": self.degrees_of_freedom,
            "utilisation": self.utilisation.to_json(),
            "out_of_distribution": [each.to_json() for each in self.elsewhere],
            "transfer": [each.to_json() for each in self.transfers],
            "carried_psnr": [
                {"title": each.title, "redrawn": each.kept[0], "first_frame": each.kept[1]} for each in self.carried
            ],
            "neighbour_motion_cosine": None
            if self.agreement is None
            else {"nearest": self.agreement[0], "middle": self.agreement[1]},
        }


def examine(
    model: PairModel,
    human: Pairs,
    *,
    robot: Pairs | None = None,
    ood: Sequence[Pairs] = (),
    oracle_pairs: int = 48,
    oracle_steps: int = 100,
    permutations: int = 20,
    clip_frames: int = 9,
    seed: int = 0,
    device: torch.device | None = None,
    report: Report = silent,
) -> Health:
    """Measure a model on pairs that it was not trained on.

    Args:
        model: the model, ready for inference on `device`.
        human: the kind of video it was trained on.
        robot: another body, for transfer and for probes of its actions.
        ood: sets unlike those of training.
        oracle_pairs: pairs of the human set whose best latent action is searched.
        oracle_steps: steps of each search.
        permutations: shuffles for the null of each linear probe.
        clip_frames: frames of the videos of carried motion.
        seed: decides splits, shuffles, lights and cameras.
        device: where the model is.
        report: told what is being measured.

    Raises:
        DataError: if a set with known motion has too few episodes to probe.
    """
    sets = [human, *([robot] if robot else []), *ood]
    total = len(sets) + 3
    measured = []
    for done, pairs in enumerate(sets):
        report(done, total, f"measuring {pairs.name}")
        measured.append(examine_set(model, pairs, permutations=permutations, seed=seed, device=device))
    report(len(sets), total, "searching the best latent actions")
    utilisation = measure_utilisation(
        model, human, human.evenly(oracle_pairs), steps=oracle_steps, seed=seed, device=device
    )
    report(len(sets) + 1, total, "reading one body with another's line")
    ways = [] if robot is None else [(human, robot), (robot, human)]
    transfers = [
        transfer_probe(*way, seed=seed, standardised=standardised) for way in ways for standardised in (False, True)
    ]
    elsewhere = [read_elsewhere(human, pairs, seed=seed) for pairs in ood]
    report(len(sets) + 2, total, "carrying motion to other scenes")
    last = len(human.frames) - 1
    carried = [
        carry(model, human, human, episode=a, onto=b, length=clip_frames, device=device)
        for a, b in ((0, last), (last, last // 2))
    ]
    if robot is not None:
        carried.append(carry(model, human, robot, episode=0, onto=0, length=clip_frames, device=device))
        carried.append(carry(model, robot, human, episode=0, onto=0, length=clip_frames, device=device))
    report(total, total, "done")
    return Health(
        human=measured[0],
        robot=measured[1] if robot is not None else None,
        ood=tuple(measured[1 if robot is None else 2 :]),
        utilisation=utilisation,
        elsewhere=tuple(each for each in elsewhere if each is not None),
        transfers=tuple(each for each in transfers if each is not None),
        agreement=agreement(human, human.evenly(256)),
        neighbours=tuple(nearest(human, row, count=4) for row in restless(human, 3).tolist()),
        carried=tuple(carried),
    )


def examine_set(
    model: PairModel, pairs: Pairs, *, permutations: int, seed: int, device: torch.device | None = None
) -> SetHealth:
    """Measure a model on one set of pairs.

    Raises:
        DataError: if its motion is known and it has too few episodes to probe.
    """
    rows = pairs.evenly(DECODED)
    still = still_latents(model, pairs, rows, device=device)
    motion, actions = (
        None
        if targets is None or not targets.varying().names
        else probe_motion(pairs, targets, still, rows, seed=seed, permutations=permutations)
        for targets in (pairs.motion, pairs.actions)
    )
    return SetHealth(
        pairs=pairs,
        decoding=measure_decoding(model, pairs, rows, device=device),
        spread=measure_spread(pairs),
        response=measure_response(model, pairs, rows, still, seed=seed, device=device),
        motion=motion,
        actions=actions,
    )
