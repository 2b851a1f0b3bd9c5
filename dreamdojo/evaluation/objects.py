"""Where is the object that is marked in the start frame now? A probe for predicted frames, trained on rendered ones.

The network sees the start frame with the object's mask, the frame in question, and how close each of its pixels is in
colour to the marked object. Most objects in most pairs of frames lie still, and a probe that answers "where it was" is
right about those and worthless: moved objects are therefore half of the training, and the probe is judged on moved
objects alone. As for the effector, some objects are taken out of the frame, and then the right answer is "nowhere".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import (
    FIRST_OBJECT_LABEL,
    LOCATE_BATCH,
    MIN_VISIBLE_PIXELS,
    HeatmapNet,
    Located,
    Plates,
    ProbeError,
    degraded,
    held_out_rows,
    locate,
    photometric,
    probe_error,
    train_keypoints,
)
from dreamdojo.metrics import unit_range

COLOUR_SCALE = 0.15
"""Distance in colour (of unit range) at which a pixel is no longer like the marked object."""


@dataclass(frozen=True, kw_only=True)
class ObjectProbeConfig:
    """How the probe is built and trained. The defaults take about a minute on one core at 64 x 64."""

    width: int = 16
    """Channels at half size; twice and four times as many below."""
    steps: int = 900
    """Optimizer steps."""
    batch: int = 32
    """Pairs of frames per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""
    max_gap: int = 32
    """Largest distance in time between the start frame and the frame in question, in frames."""
    moved: float = 3.0
    """An object has moved if it is at least this many pixels from where it was."""
    erased: float = 0.1
    """Share of training pairs whose object is taken away."""
    held_out: float = 0.15
    """Share of the episodes that the probe is judged on."""
    gate: float = 3.0
    """Mean own error on moved objects in pixels above which the probe is not used."""
    seed: int = 0
    """Decides the network's start, the held-out episodes and the order of training."""


@dataclass(frozen=True, kw_only=True)
class ObjectProbe:
    """A trained probe and its own error on moved objects in rendered frames of held-out episodes."""

    net: HeatmapNet
    error: ProbeError

    def locate(
        self, start: UInt8[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], frames: UInt8[Tensor, "n c h w"]
    ) -> Located:
        """Where the object marked by `mask` in `start` is in each of `frames`."""
        return locate(self.net, _batches(start, mask, frames))


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Questions with known answers: this object, marked in that frame, seen in this one."""

    start: Int[Tensor, " n"]
    current: Int[Tensor, " n"]
    which: Int[Tensor, " n"]
    moved: Bool[Tensor, " n"]
    visible: Bool[Tensor, " n"]

    def rows(self, index: Tensor) -> _Pairs:
        return _Pairs(
            start=self.start[index],
            current=self.current[index],
            which=self.which[index],
            moved=self.moved[index],
            visible=self.visible[index],
        )


def train_object_probe(
    frames: UInt8[Tensor, "n c h w"],
    labels: UInt8[Tensor, "n h w"],
    positions: Float[Tensor, "n o 2"],
    visible: Bool[Tensor, "n o"],
    episodes: Int[Tensor, " n"],
    *,
    config: ObjectProbeConfig | None = None,
    device: torch.device | str = "cpu",
) -> ObjectProbe:
    """Learn to find a marked object again, and measure how well for moved objects of episodes kept aside.

    Args:
        frames: rendered frames, those of an episode together and in order.
        labels: their segmentation (3 is object 0, 4 is object 1, and so on).
        positions: true (u, v) of each object in [0, 1]; ignored where it is not visible.
        visible: whether it is in view and not hidden.
        episodes: which episode each frame belongs to.
        config: how to train; the defaults fit 64 x 64 frames.
        device: where to train.

    Raises:
        DataError: if there are fewer than two episodes, or no object ever moves in one part of them.
    """
    config = config or ObjectProbeConfig()
    height, width = frames.shape[-2:]
    test = held_out_rows(episodes, share=config.held_out, seed=config.seed)
    pairs = _all_pairs(labels, positions, visible, episodes, config)
    train_pairs, test_pairs = pairs.rows(~test[pairs.start]), pairs.rows(test[pairs.start])
    if not (train_pairs.moved.any() and test_pairs.moved.any()):
        raise DataError(
            f"The object probe learns from objects that move by {config.moved:g} px within {config.max_gap} frames; "
            f"found {int(train_pairs.moved.sum())} for training and {int(test_pairs.moved.sum())} to be judged on. "
            "Simulate more episodes, or livelier ones."
        )
    plates = Plates.of(frames, labels, episodes)
    kinds = [
        kind.nonzero()[:, 0]
        for kind in (train_pairs.moved, train_pairs.visible & ~train_pairs.moved, ~train_pairs.visible)
    ]

    def sample(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        index = _balanced(kinds, (0.55, 0.35, 0.1), config.batch, generator)
        pair = train_pairs.rows(index)
        start, current = unit_range(frames[pair.start]), unit_range(frames[pair.current])
        object_label = (pair.which + FIRST_OBJECT_LABEL)[:, None, None]
        ghost = 0.25 * torch.rand(config.batch, generator=generator)
        bare, possible = plates.erase(current, labels[pair.current] == object_label, pair.current, ghost)
        erased = possible & (torch.rand(config.batch, generator=generator) < config.erased)
        current = torch.where(erased[:, None, None, None], bare, current)
        mask = labels[pair.start] == object_label
        where = positions[pair.current, pair.which]

        both = photometric(torch.cat((start, current), dim=1), generator, strength=0.3)
        flip = torch.rand(config.batch, generator=generator) < 0.5
        both = torch.where(flip[:, None, None, None], both.flip(-1), both)
        mask = torch.where(flip[:, None, None], mask.flip(-1), mask)
        where = torch.where(flip[:, None] & where.new_tensor([True, False]).bool(), 1 - where, where)
        channels = torch.rand(config.batch, frames.shape[1], generator=generator).argsort(dim=1)[..., None, None]
        start, current = (part.gather(1, channels.expand_as(part)) for part in both.chunk(2, dim=1))
        return _inputs(start, mask, degraded(current, generator)), where, pair.visible & ~erased

    net = train_keypoints(
        lambda: HeatmapNet(2 * frames.shape[1] + 2, width=config.width),
        sample,
        steps=config.steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=device,
    )
    judged = test_pairs.rows(_judged(test_pairs, seed=config.seed))
    mask = labels[judged.start] == (judged.which + FIRST_OBJECT_LABEL)[:, None, None]
    located = locate(net, _batches(frames[judged.start], mask, frames[judged.current]))
    error = probe_error(
        located,
        positions[judged.current, judged.which],
        judged.visible,
        height=height,
        width=width,
        gate=config.gate,
    )
    return ObjectProbe(net=net, error=error)


def _all_pairs(
    labels: UInt8[Tensor, "n h w"],
    positions: Float[Tensor, "n o 2"],
    visible: Bool[Tensor, "n o"],
    episodes: Int[Tensor, " n"],
    config: ObjectProbeConfig,
) -> _Pairs:
    """Every pair of frames of an episode, at most `max_gap` apart, for every object that can be marked in the first."""
    num_objects = positions.shape[1]
    shown = torch.stack(
        [(labels == o + FIRST_OBJECT_LABEL).sum(dim=(-2, -1)) >= MIN_VISIBLE_PIXELS for o in range(num_objects)], dim=1
    )
    size = positions.new_tensor([labels.shape[-1], labels.shape[-2]])
    found: list[Tensor] = []
    for gap in range(1, config.max_gap + 1):
        start = (episodes[gap:] == episodes[:-gap]).nonzero()[:, 0]
        rows, which = (shown[start] & visible[start]).nonzero(as_tuple=True)
        found.append(torch.stack((start[rows], start[rows] + gap, which)))
    start, current, which = torch.cat(found, dim=1)
    in_view = visible[current, which] & shown[current, which]
    shift = ((positions[current, which] - positions[start, which]) * size).norm(dim=-1)
    return _Pairs(start=start, current=current, which=which, moved=in_view & (shift >= config.moved), visible=in_view)


def _balanced(
    kinds: list[Tensor], shares: tuple[float, ...], count: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """`count` rows of which each kind has its share; the share of a kind that does not occur goes to the first."""
    weight = torch.tensor([share if len(kind) else 0.0 for share, kind in zip(shares, kinds, strict=True)])
    chosen = weight.multinomial(count, replacement=True, generator=generator)
    place = torch.rand(count, generator=generator)
    return torch.stack([kinds[k][int(p * len(kinds[k]))] for k, p in zip(chosen.tolist(), place.tolist(), strict=True)])


def _judged(pairs: _Pairs, *, seed: int, most: int = 600) -> Int[Tensor, " n"]:
    """Up to `most` moved objects and a fifth as many that are not in view."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for kind, limit in ((pairs.moved, most), (~pairs.visible, most // 5)):
        index = kind.nonzero()[:, 0]
        rows.append(index[torch.randperm(len(index), generator=generator)[:limit]])
    return torch.cat(rows)


def _inputs(
    start: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], current: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c2 h w"]:
    """What the network sees: both frames, the mask, and the likeness in colour to the marked object."""
    marked = mask[:, None].to(start)
    colour = (start * marked).sum(dim=(-2, -1), keepdim=True) / marked.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    distance = (current - colour).square().sum(dim=1, keepdim=True)
    return torch.cat((current, start, marked, (-distance / (2 * COLOUR_SCALE**2)).exp()), dim=1)


def _batches(
    start: UInt8[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], frames: UInt8[Tensor, "n c h w"]
) -> Iterator[Float[Tensor, "n2 c2 h w"]]:
    for row in range(0, len(frames), LOCATE_BATCH):
        part = slice(row, row + LOCATE_BATCH)
        yield _inputs(unit_range(start[part]), mask[part], unit_range(frames[part]))
