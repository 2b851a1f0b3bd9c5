"""Where is the hand or gripper in this frame? A probe for predicted frames, trained on rendered ones.

Half of what makes it honest is what it is shown besides ordinary frames: blurred and grainy ones, as a small world
model draws them, and frames whose arm was taken away (replaced by the episode's bare table), for which the right answer
is "nowhere".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import (
    BODY_LABEL,
    LOCATE_BATCH,
    HeatmapNet,
    Located,
    Plates,
    ProbeConfig,
    ProbeError,
    degraded,
    held_out_rows,
    locate,
    photometric,
    probe_error,
    train_keypoints,
)
from dreamdojo.metrics import unit_range


@dataclass(frozen=True, kw_only=True)
class EffectorProbeConfig(ProbeConfig):
    """How the probe of the end effector is trained, on frames. The defaults take half a minute on a core at 64 x 64."""

    steps: int = 400
    gate: float = 2.5


@dataclass(frozen=True, kw_only=True)
class EffectorProbe:
    """A trained probe and its own error on rendered frames of held-out episodes."""

    net: HeatmapNet
    error: ProbeError

    def locate(self, frames: UInt8[Tensor, "n c h w"]) -> Located:
        """Where the hand or gripper is in each frame."""
        return locate(self.net, (unit_range(part) for part in frames.split(LOCATE_BATCH)))


def train_effector_probe(
    frames: UInt8[Tensor, "n c h w"],
    labels: UInt8[Tensor, "n h w"],
    positions: Float[Tensor, "n 2"],
    visible: Bool[Tensor, " n"],
    episodes: Int[Tensor, " n"],
    *,
    config: EffectorProbeConfig | None = None,
    device: torch.device | str = "cpu",
) -> EffectorProbe:
    """Learn to point at the end effector, and measure how well on episodes kept aside.

    Args:
        frames: rendered frames.
        labels: their segmentation (2 is the body).
        positions: true (u, v) of the effector in [0, 1]; ignored where it is not visible.
        visible: whether it is in view.
        episodes: which episode each frame belongs to.
        config: how to train; the defaults fit 64 x 64 frames.
        device: where to train.

    Raises:
        DataError: if there are fewer than two episodes, or the effector is never visible.
    """
    config = config or EffectorProbeConfig()
    height, width = frames.shape[-2:]
    test = held_out_rows(episodes, share=config.held_out, seed=config.seed)
    if not (visible & ~test).any():
        raise DataError("The effector is in view in no training frame. Check the ground-truth table and the camera.")
    train = (~test).nonzero()[:, 0]
    plates = Plates.of(frames, labels, episodes)

    def sample(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        index = train[torch.randint(len(train), (config.batch,), generator=generator)]
        picture = unit_range(frames[index])
        ghost = 0.25 * torch.rand(config.batch, generator=generator)
        bare, possible = plates.erase(picture, labels[index] == BODY_LABEL, index, ghost)
        erased = possible & (torch.rand(config.batch, generator=generator) < config.erased)
        picture = torch.where(erased[:, None, None, None], bare, picture)
        picture = degraded(photometric(picture, generator), generator)
        return picture, positions[index], visible[index] & ~erased

    net = train_keypoints(
        lambda: HeatmapNet(frames.shape[1], width=config.width),
        sample,
        steps=config.steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=device,
    )
    rows = test.nonzero()[:, 0]
    located = locate(net, (unit_range(part) for part in frames[rows].split(LOCATE_BATCH)))
    picture, thing = unit_range(frames[rows]), labels[rows] == BODY_LABEL
    bare, possible = plates.erase(picture, thing, rows, torch.zeros(len(rows)))
    emptied = locate(net, bare[possible & visible[rows]].split(LOCATE_BATCH)).found
    error = probe_error(
        located, positions[rows], visible[rows], emptied=emptied, height=height, width=width, gate=config.gate
    )
    return EffectorProbe(net=net, error=error)
