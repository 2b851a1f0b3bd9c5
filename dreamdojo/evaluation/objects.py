"""Where is the object that is marked in the start frame now? A probe for predicted frames, trained on rendered ones.

The network sees the start frame with the object's mask, the frame in question, and how close the pixels of both are in
colour to the marked object. Most objects in most pairs of frames lie still, and a probe that answers "where it was" is
right about those and worthless. Therefore

* moved objects are half of the training pairs, and objects that were cut out and put elsewhere (behind the arm or in
  front of it) are many more, so that a handful of episodes teaches every place on the table and not a few courses;
* some objects are taken out of the frame altogether, and then the right answer is "nowhere";
* the probe is judged on moved objects alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import (
    BODY_LABEL,
    FIRST_OBJECT_LABEL,
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

MIN_VISIBLE_PIXELS = 8
"""An object with fewer pixels than this in a frame is not asked for there."""

PALETTE = 4
"""Colours that stand for an object."""

COLOUR_SCALE = 0.1
"""Distance in colour (of unit range) at which a pixel is no longer like the marked object."""


@dataclass(frozen=True, kw_only=True)
class ObjectProbeConfig(ProbeConfig):
    """How the probe of objects is trained, on pairs of frames. The defaults take a minute on a core at 64 x 64.

    It is judged on moved objects.
    """

    steps: int = 700
    gate: float = 3.0
    max_gap: int = 32
    """Largest distance in time between the start frame and the frame in question, in frames."""
    moved: float = 3.0
    """An object has moved if it is at least this many pixels from where it was."""
    relocated: float = 0.5
    """Share of training pairs whose object is cut out and put elsewhere."""


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


def object_areas(labels: UInt8[Tensor, "n h w"], num_objects: int) -> Int[Tensor, "n o"]:
    """Visible pixels of each object in each frame."""
    areas = [(labels == o + FIRST_OBJECT_LABEL).sum(dim=(-2, -1)) for o in range(num_objects)]
    return torch.stack(areas, dim=1)


def visible_objects(labels: UInt8[Tensor, "n h w"], num_objects: int) -> Bool[Tensor, "n o"]:
    """Which objects show enough of themselves to be asked for, at the size at which they are looked for."""
    return object_areas(labels, num_objects) >= MIN_VISIBLE_PIXELS


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
        visible: whether its position is in view; it is asked for where `visible_objects` agrees.
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
    still = train_pairs.visible & ~train_pairs.moved
    kinds = [kind.nonzero()[:, 0] for kind in (train_pairs.moved, still, ~train_pairs.visible)]
    plates = Plates.of(frames, labels, episodes)

    def sample(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        pair = train_pairs.rows(_balanced(kinds, config.batch, generator))
        start, picture = unit_range(frames[pair.start]), unit_range(frames[pair.current])
        label = (pair.which + FIRST_OBJECT_LABEL)[:, None, None]
        where, seen = positions[pair.current, pair.which], pair.visible

        thing, body = labels[pair.current] == label, labels[pair.current] == BODY_LABEL
        fate = torch.rand(config.batch, generator=generator)
        ghost = 0.25 * torch.rand(config.batch, generator=generator) * (fate < config.erased)
        bare, possible = plates.erase(picture, thing, pair.current, ghost)
        erased = possible & (fate < config.erased)
        elsewhere, place, shows = _relocated(picture, bare, thing, body, where, generator)
        relocated = possible & seen & shows & ~erased & (fate < config.erased + config.relocated)
        current = torch.where(erased[:, None, None, None], bare, picture)
        current = torch.where(relocated[:, None, None, None], elsewhere, current)
        where = torch.where(relocated[:, None], place, where)

        mask = labels[pair.start] == label
        own = thing & ~(erased | relocated)[:, None, None]
        kept = own | body | (relocated[:, None, None] & ((elsewhere - bare).abs().amax(dim=1) > 0.02))
        start, current = _with_strangers(
            start,
            current,
            picture,
            thing,
            kept_start=mask | (labels[pair.start] == BODY_LABEL),
            kept=kept,
            generator=generator,
        )
        start, mask, current, where = _another_look(start, mask, current, where, generator)
        return _inputs(start, mask, degraded(current, generator)), where, seen & ~erased

    net = train_keypoints(
        lambda: HeatmapNet(2 * frames.shape[1] + 3, width=config.width),
        sample,
        steps=config.steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=device,
    )
    judged = test_pairs.rows(_judged(test_pairs, episodes, seed=config.seed))
    mask = labels[judged.start] == (judged.which + FIRST_OBJECT_LABEL)[:, None, None]
    located = locate(net, _batches(frames[judged.start], mask, frames[judged.current]))
    thing = labels[judged.current] == (judged.which + FIRST_OBJECT_LABEL)[:, None, None]
    bare, possible = plates.erase(unit_range(frames[judged.current]), thing, judged.current, torch.zeros(len(thing)))
    emptied = locate(
        net, _batches(frames[judged.start][possible], mask[possible], (255 * bare[possible]).round().byte())
    )
    truth = positions[judged.current, judged.which]
    error = probe_error(
        located, truth, judged.visible, emptied=emptied.found, height=height, width=width, gate=config.gate
    )
    return ObjectProbe(net=net, error=error)


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Questions with known answers: this object, marked in that frame, sought in this one."""

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


def _all_pairs(
    labels: UInt8[Tensor, "n h w"],
    positions: Float[Tensor, "n o 2"],
    visible: Bool[Tensor, "n o"],
    episodes: Int[Tensor, " n"],
    config: ObjectProbeConfig,
) -> _Pairs:
    """Every pair of frames of an episode, at most `max_gap` apart, for every object that can be marked in the first.

    Left out are pairs in which the object shows a few pixels: neither "there" nor "nowhere" would be a fair answer.
    """
    areas = object_areas(labels, positions.shape[1])
    seen, gone = visible & (areas >= MIN_VISIBLE_PIXELS), areas == 0
    size = positions.new_tensor([labels.shape[-1], labels.shape[-2]])
    found: list[Tensor] = []
    for gap in range(1, config.max_gap + 1):
        start = (episodes[gap:] == episodes[:-gap]).nonzero()[:, 0]
        rows, which = (seen[start] & (seen | gone)[start + gap]).nonzero(as_tuple=True)
        found.append(torch.stack((start[rows], start[rows] + gap, which)))
    start, current, which = torch.cat(found, dim=1)
    there = seen[current, which]
    shift = ((positions[current, which] - positions[start, which]) * size).norm(dim=-1)
    return _Pairs(start=start, current=current, which=which, moved=there & (shift >= config.moved), visible=there)


def _balanced(kinds: list[Tensor], count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """`count` rows: about half of the first kind, a third of the second, a tenth of the last, where it occurs."""
    weight = torch.tensor([share if len(kind) else 0.0 for share, kind in zip((0.55, 0.35, 0.1), kinds, strict=True)])
    chosen = weight.multinomial(count, replacement=True, generator=generator).tolist()
    place = torch.rand(count, generator=generator).tolist()
    return torch.stack([kinds[k][int(p * len(kinds[k]))] for k, p in zip(chosen, place, strict=True)])


def _judged(pairs: _Pairs, episodes: Int[Tensor, " n"], *, seed: int, most: int = 12) -> Int[Tensor, " m"]:
    """Moved objects, and as many that are gone, at most `most` times each: no object may speak for the others."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for kind in (pairs.moved, ~pairs.visible):
        index = kind.nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        thing = episodes[pairs.start[index]] * 1000 + pairs.which[index]
        rows += [index[thing == one][:most] for one in thing.unique()]
    return torch.cat(rows)


def _relocated(
    current: Float[Tensor, "n c h w"],
    bare: Float[Tensor, "n c h w"],
    thing: Bool[Tensor, "n h w"],
    body: Bool[Tensor, "n h w"],
    where: Float[Tensor, "n 2"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Cut `thing` out of each frame and put it at a random place of the bare one, half of them behind the body.

    Returns the frames, the new positions, and whether enough of the thing still shows.
    """
    n, channels, height, width = current.shape
    place = 0.05 + 0.9 * torch.rand(n, 2, generator=generator)
    scale = (0.7 * torch.rand(n, 1, generator=generator) - 0.35).exp()
    u = ((torch.arange(width) + 0.5 - width * place[:, :1]) / scale + width * where[:, :1]).floor().long()
    v = ((torch.arange(height) + 0.5 - height * place[:, 1:]) / scale + height * where[:, 1:]).floor().long()
    inside = ((v >= 0) & (v < height))[:, :, None] & ((u >= 0) & (u < width))[:, None, :]
    source = v.clamp(0, height - 1)[:, :, None] * width + u.clamp(0, width - 1)[:, None, :]
    pixels = current.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, channels, -1)).view_as(current)
    shown = thing.flatten(1).gather(1, source.flatten(1)).view_as(thing) & inside
    behind = torch.rand(n, 1, 1, generator=generator) < 0.5
    shown = shown & ~(behind & body)
    return torch.where(shown[:, None], pixels, bare), place, shown.sum(dim=(-2, -1)) >= MIN_VISIBLE_PIXELS


def _with_strangers(
    start: Float[Tensor, "n c h w"],
    current: Float[Tensor, "n c h w"],
    picture: Float[Tensor, "n c h w"],
    thing: Bool[Tensor, "n h w"],
    *,
    kept_start: Bool[Tensor, "n h w"],
    kept: Bool[Tensor, "n h w"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Put the neighbouring sample's object into most pairs, at one place in both frames: alike is not the same."""
    stranger = thing.roll(1, dims=0) & (torch.rand(len(thing), 1, 1, generator=generator) < 0.6)
    pixels = picture.roll(1, dims=0)
    start = torch.where((stranger & ~kept_start)[:, None], pixels, start)
    return start, torch.where((stranger & ~kept)[:, None], pixels, current)


def _another_look(
    start: Float[Tensor, "n c h w"],
    mask: Bool[Tensor, "n h w"],
    current: Float[Tensor, "n c h w"],
    where: Float[Tensor, "n 2"],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both frames mirrored, recoloured and lit alike, but for a little: the object must stay recognisable."""
    n, channels = start.shape[:2]
    both = photometric(torch.cat((start, current), dim=1), generator, strength=0.3)
    order = torch.rand(n, channels, generator=generator).argsort(dim=1)
    both = both.gather(1, torch.cat((order, order + channels), dim=1)[..., None, None].expand_as(both))
    mirrored = torch.rand(n, generator=generator) < 0.5
    both = torch.where(mirrored[:, None, None, None], both.flip(-1), both)
    mask = torch.where(mirrored[:, None, None], mask.flip(-1), mask)
    u, v = where.unbind(dim=1)
    where = torch.stack((torch.where(mirrored, 1 - u, u), v), dim=1)
    return both[:, :channels], mask, both[:, channels:], where


def _inputs(
    start: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], current: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c2 h w"]:
    """What the network sees: both frames, the mask, and where either frame is like the marked object in colour."""
    colours = palette(start, mask)
    now, then = (likeness(frame, colours) for frame in (current, start))
    marked = mask[:, None].to(start)
    return torch.cat((current, start, marked, now, then * (1 - marked)), dim=1)


def palette(frames: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"]) -> Float[Tensor, "n colours c"]:
    """The marked object's colours from its darkest to its brightest side: it may turn another to the light."""
    brightness = frames.mean(dim=1).masked_fill(~mask, torch.inf).flatten(1)
    order = brightness.argsort(dim=1)
    last = (mask.sum(dim=(-2, -1)) - 1).clamp(min=0)
    ranks = torch.linspace(0.1, 0.9, PALETTE, device=frames.device)
    pixels = order.gather(1, (last[:, None] * ranks).round().long())
    return frames.flatten(2).mT.gather(1, pixels[..., None].expand(-1, -1, frames.shape[1]))


def likeness(frames: Float[Tensor, "n c h w"], colours: Float[Tensor, "n k c"]) -> Float[Tensor, "n 1 h w"]:
    """1 where a pixel has one of the colours, falling to 0 with the distance to the nearest of them."""
    distance = torch.cdist(frames.flatten(2).mT, colours).amin(dim=2).unflatten(1, frames.shape[-2:])
    return (-distance.square() / (2 * COLOUR_SCALE**2)).exp()[:, None]


def _batches(
    start: UInt8[Tensor, "n c h w"], mask: Bool[Tensor, "n h w"], frames: UInt8[Tensor, "n c h w"]
) -> Iterator[Float[Tensor, "n2 c2 h w"]]:
    for row in range(0, len(frames), LOCATE_BATCH):
        part = slice(row, row + LOCATE_BATCH)
        yield _inputs(unit_range(start[part]), mask[part], unit_range(frames[part]))
