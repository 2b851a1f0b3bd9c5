"""What can only be looked at: pairs whose latent actions are alike, and motion carried from one scene to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dreamdojo.evaluation.health.pairs import PairModel, Pairs, decode
from dreamdojo.metrics import psnr, unit_range


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """A pair, and the pairs of other episodes whose latent actions point the same way."""

    row: int
    """The pair that was asked for."""
    rows: tuple[int, ...]
    """Its nearest, one per episode, nearest first."""
    cosines: tuple[float, ...]
    """Of each with the pair, both measured from the mean latent action."""


def nearest(pairs: Pairs, row: int, *, count: int) -> Neighbours:
    """The pairs of `count` other episodes whose latent actions have the largest cosine with that of `row`."""
    directions = _directions(pairs)
    cosine = directions @ directions[row]
    cosine[pairs.episode == pairs.episode[row]] = -torch.inf
    rows: list[int] = []
    for candidate in cosine.argsort(descending=True).tolist():
        if cosine[candidate] == -torch.inf or len(rows) == count:
            break
        if all(pairs.episode[candidate] != pairs.episode[found] for found in rows):
            rows.append(candidate)
    return Neighbours(row=row, rows=tuple(rows), cosines=tuple(cosine[rows].tolist()))


def restless(pairs: Pairs, count: int) -> Int[Tensor, " m"]:
    """The pair in which most changes, of each of `count` episodes spread over the set: chosen by pixels alone."""
    episodes = torch.linspace(0, len(pairs.frames) - 1, min(count, len(pairs.frames))).round().long().unique()
    rows = []
    for episode in episodes.tolist():
        members = (pairs.episode == episode).nonzero()[:, 0]
        rows.append(members[change(pairs.frames[episode]).argmax()])
    return torch.stack(rows)


def change(frames: UInt8[Tensor, "t c h w"]) -> Float[Tensor, " p"]:
    """Mean absolute change from each frame to the next."""
    return (frames[1:].float() - frames[:-1].float()).abs().mean(dim=(1, 2, 3))


def agreement(pairs: Pairs, rows: Int[Tensor, " m"]) -> tuple[float, float] | None:
    """Mean cosine of the true motion of pairs with that of their nearest neighbour, and with a pair of the middle rank.

    Motion is standardised by dimension first. None where the true motion is not known.
    """
    if pairs.motion is None:
        return None
    values = pairs.motion.varying().values
    motion = nn.functional.normalize((values - values.mean(dim=0)) / values.std(dim=0), dim=1)
    directions = _directions(pairs)
    near, middle = [], []
    for row in rows.tolist():
        others = (pairs.episode != pairs.episode[row]).nonzero()[:, 0]
        order = others[(directions[others] @ directions[row]).argsort(descending=True)]
        near.append(motion[row] @ motion[order[0]])
        middle.append(motion[row] @ motion[order[len(order) // 2]])
    return torch.stack(near).mean().item(), torch.stack(middle).mean().item()


def difference(first: UInt8[Tensor, "*b c h w"], second: UInt8[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """What became brighter and what darker, doubled, around grey."""
    return (128 + 2 * (second.float() - first.float())).clamp(0, 255).round().to(torch.uint8)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The motion of one clip decoded step by step in the scene of another."""

    title: str
    source: UInt8[Tensor, "t c h w"]
    """Where the motion is from."""
    scene: UInt8[Tensor, "t c h w"]
    """The other clip, as it truly went on."""
    redrawn: UInt8[Tensor, "t c h w"]
    """Its first frame moved by its own latent actions: what the decoder can do at best."""
    carried: UInt8[Tensor, "t c h w"]
    """Its first frame moved by the latent actions of `source`."""

    @property
    def kept(self) -> tuple[float, float]:
        """PSNR of the last frame of `redrawn`, and of the first frame in its place: what is left after all steps."""
        scene = unit_range(self.scene)
        return psnr(unit_range(self.redrawn[-1]), scene[-1]).item(), psnr(scene[0], scene[-1]).item()


def carry(
    model: PairModel,
    source: Pairs,
    scene: Pairs,
    *,
    episode: int,
    onto: int,
    length: int,
    device: torch.device | None = None,
) -> Carried:
    """Move the scene of episode `onto` by the motion of `episode`, over the frames where `episode` moves most."""
    length = min(length, len(source.frames[episode]), len(scene.frames[onto]))
    begin, there = (_liveliest(p.frames[e], length) for p, e in ((source, episode), (scene, onto)))
    clip, other = source.frames[episode][begin:][:length], scene.frames[onto][there:][:length]

    def latents(pairs: Pairs, number: int, start: int) -> Tensor:
        return pairs.mean[pairs.episode == number][start:][: length - 1]

    return Carried(
        title=f"{source.name} {episode} onto {scene.name} {onto}",
        source=clip,
        scene=other,
        redrawn=replay(model, other[0], latents(scene, onto, there), device=device),
        carried=replay(model, other[0], latents(source, episode, begin), device=device),
    )


def replay(
    model: PairModel,
    frame: UInt8[Tensor, "c h w"],
    latent_action: Float[Tensor, "p l"],
    *,
    device: torch.device | None = None,
) -> UInt8[Tensor, "t c h w"]:
    """`frame` and what becomes of it, each frame decoded from the one decoded before it."""
    frames = [frame[None].float() / 255]
    for step in latent_action:
        frames.append(decode(model, frames[-1], step[None], device=device))
    return (torch.cat(frames) * 255).round().to(torch.uint8)


def _liveliest(frames: UInt8[Tensor, "t c h w"], length: int) -> int:
    """Where the window of `length` frames begins in which most changes."""
    return int(change(frames).unfold(0, length - 1, 1).sum(dim=1).argmax())


def _directions(pairs: Pairs) -> Float[Tensor, "n l"]:
    return nn.functional.normalize(pairs.mean - pairs.mean.mean(dim=0), dim=1)
