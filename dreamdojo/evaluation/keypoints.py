"""What the two position probes share: a small heatmap network, its training, and the gate it must pass.

A probe answers "where is it?" on predicted frames, where no simulator can. It is trained on rendered frames with true
positions and judged on rendered frames of episodes it has not seen. A probe whose own error there exceeds its gate is
not used: the number it would have given is reported as not measured, with the reason.

Positions are (u, v) in [0, 1] from the upper left corner, so the centre of pixel column `i` is `(i + 0.5) / width`;
errors are in pixels of the frame. A thing that is in view but not found counts as an error to the farthest corner of
the frame, the largest there can be, so that a model gains nothing by blurring it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from dreamdojo.errors import DataError, TrainingDiverged
from dreamdojo.training.device import autocast_where_fast
from dreamdojo.training.progress import Report, silent

TABLE_LABEL = 1
"""Segmentation: 0 background, 1 table, 2 the body, 3 and up the objects."""
BODY_LABEL = 2
FIRST_OBJECT_LABEL = 3

FOUND_MARGIN = 2.0
"""A thing is found unless "nowhere" is this much likelier (in logits) than all places together: a miss costs the whole
picture, a false alarm only its distance."""

Net = TypeVar("Net", bound=nn.Module)

LOCATE_BATCH = 64
"""Frames that a probe looks at together."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How a position probe is built and trained."""

    width: int = 16
    """Channels at half size; twice and four times as many below."""
    steps: int
    """Optimizer steps."""
    batch: int = 32
    """Samples per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""
    erased: float = 0.15
    """Share of the samples from which what is sought is taken away."""
    held_out: float = 0.15
    """Share of the episodes that the probe is judged on."""
    gate: float
    """Mean own error in pixels above which the probe is not used."""
    seed: int = 0
    """Decides the network's start, the held-out episodes and the order of training."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a probe sees what it looks for."""

    position: Float[Tensor, "n 2"]
    """(u, v) in [0, 1]; means nothing where `found` is False."""
    found: Bool[Tensor, " n"]
    """Whether it is seen at all."""


@dataclass(frozen=True, kw_only=True)
class ProbeError:
    """A probe's own error, on rendered frames of episodes it was not trained on."""

    mean: float
    """Mean distance in pixels; not found counts as the farthest corner."""
    median: float
    """Median distance in pixels."""
    found: float
    """Share of the things in view that were found."""
    false_alarms: float
    """Share of frames in which it was found although it had been taken out of the picture, or was hidden."""
    count: int
    """Things in view that it was judged on."""
    gate: float
    """The mean error in pixels above which the probe is not used."""

    @property
    def valid(self) -> bool:
        """Whether the probe may be used: its mean error is within the gate."""
        return self.mean <= self.gate

    def __str__(self) -> str:
        if self.valid:
            return f"the probe's own error is {self.mean:.1f} px"
        return f"not measured: the probe's own error is {self.mean:.1f} px, more than the {self.gate:g} px allowed"

    def to_json(self) -> dict[str, float | int | bool | None]:
        """Plain numbers for a results file."""
        numbers = {name: getattr(self, name) for name in ("mean", "median", "found", "false_alarms", "gate")}
        plain = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        return plain | {"count": self.count, "valid": self.valid}


def position_error(
    located: Located, truth: Float[Tensor, "n 2"], *, height: int, width: int, undetected: Literal["farthest", "nan"]
) -> Float[Tensor, " n"]:
    """Distance in pixels between what a probe sees and the truth; `undetected` says what a miss counts as."""
    size = truth.new_tensor([width, height])
    distance = ((located.position.to(truth) - truth) * size).norm(dim=-1)
    if undetected == "nan":
        return torch.where(located.found, distance, torch.nan)
    farthest = (torch.maximum(truth, 1 - truth) * size).norm(dim=-1)
    return torch.where(located.found, distance, farthest)


def probe_error(
    located: Located,
    truth: Float[Tensor, "n 2"],
    visible: Bool[Tensor, " n"],
    *,
    emptied: Bool[Tensor, " m"],
    height: int,
    width: int,
    gate: float,
) -> ProbeError:
    """Compare a probe with known positions; infinite (and so invalid) where nothing was in view to judge it on.

    `emptied` is what it claims to find in frames from which the thing has been taken away.
    """
    distance = position_error(located, truth, height=height, width=width, undetected="farthest")[visible]
    return ProbeError(
        mean=distance.mean().item() if len(distance) else math.inf,
        median=distance.median().item() if len(distance) else math.inf,
        found=located.found[visible].float().mean().item(),
        false_alarms=emptied.float().mean().item(),
        count=int(visible.sum()),
        gate=gate,
    )


class HeatmapNet(nn.Module):
    """Picture `n c h w` to a heatmap of half its size, and what speaks for "nowhere".

    A two-level U-Net in a few hundred thousand weights: half size for the position, an eighth for what is where. One
    softmax runs over all cells and one more place, "nowhere", so that being found rests on the same evidence as the
    position.
    """

    def __init__(self, in_channels: int, *, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv_block(in_channels, width, stride=2), conv_block(width, width))
        self.middle = nn.Sequential(conv_block(width, 2 * width, stride=2), conv_block(2 * width, 2 * width))
        self.coarse = nn.Sequential(
            conv_block(2 * width, 4 * width, stride=2),
            conv_block(4 * width, 4 * width),
            conv_block(4 * width, 4 * width),
        )
        self.up_middle = conv_block(4 * width, 2 * width)
        self.mix_middle = conv_block(2 * width, 2 * width)
        self.up_fine = conv_block(2 * width, width)
        self.mix_fine = conv_block(width, width)
        self.heat = nn.Conv2d(width, 1, 1)
        self.nowhere = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n h2 w2"], Float[Tensor, " n"]]:
        """Logits of the cells and of "nowhere"."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        up = self.mix_middle(_double(self.up_middle(coarse), like=middle) + middle)
        up = self.mix_fine(_double(self.up_fine(up), like=fine) + fine)
        heat = self.heat(up)[:, 0].float()
        # at first as likely as all cells together, and free to move faster than any one weight
        return heat, (10 * self.nowhere + math.log(heat[0].numel())).expand(len(x))


def soft_argmax(heat: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """The mean (u, v) in [0, 1] under the softmax of a heatmap."""
    height, width = heat.shape[-2:]
    mass = heat.flatten(1).softmax(dim=1).view_as(heat)
    u = (torch.arange(width, device=heat.device) + 0.5) / width
    v = (torch.arange(height, device=heat.device) + 0.5) / height
    return torch.stack(((mass.sum(dim=1) * u).sum(dim=1), (mass.sum(dim=2) * v).sum(dim=1)), dim=1)


def near_peak(heat: Float[Tensor, "n h w"], *, reach: int = 3) -> Float[Tensor, "n h w"]:
    """The heatmap without what is further than `reach` cells from its highest one: two guesses are not averaged."""
    height, width = heat.shape[-2:]
    peak = heat.flatten(1).argmax(dim=1)
    row = torch.arange(height, device=heat.device) - (peak // width)[:, None]
    column = torch.arange(width, device=heat.device) - (peak % width)[:, None]
    near = (row.abs() <= reach)[:, :, None] & (column.abs() <= reach)[:, None, :]
    return heat.masked_fill(~near, -torch.inf)


def keypoint_loss(
    heat: Float[Tensor, "n h w"],
    nowhere: Float[Tensor, " n"],
    position: Float[Tensor, "n 2"],
    visible: Bool[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Cross entropy with a Gaussian of one cell, or with "nowhere", plus the distance in cells of what is visible."""
    height, width = heat.shape[-2:]
    u = (torch.arange(width, device=heat.device) + 0.5) - position[:, :1] * width
    v = (torch.arange(height, device=heat.device) + 0.5) - position[:, 1:] * height
    there = (-0.5 * (u[:, None, :] ** 2 + v[:, :, None] ** 2)).flatten(1).softmax(dim=1)
    seen = visible.to(heat)
    target = torch.cat((there * seen[:, None], 1 - seen[:, None]), dim=1)
    entropy = -(target * torch.cat((heat.flatten(1), nowhere[:, None]), dim=1).log_softmax(dim=1)).sum(dim=1)
    cells = position.new_tensor([width, height])
    distance = ((soft_argmax(heat) - position) * cells).square().sum(dim=1).add(0.01).sqrt()
    return entropy.mean() + (distance * seen).sum() / seen.sum().clamp(min=1)


@torch.no_grad()
def locate(net: HeatmapNet, inputs: Iterable[Float[Tensor, "n c h w"]]) -> Located:
    """What a trained network sees in batches of inputs, in the precision that this machine trains it in."""
    device = next(net.parameters()).device
    positions, found = [], []
    for x in inputs:
        with autocast_where_fast(device):
            heat, nowhere = net(x.to(device).contiguous(memory_format=torch.channels_last))
        positions.append(soft_argmax(near_peak(heat)).cpu())
        found.append((heat.flatten(1).logsumexp(dim=1) > nowhere - FOUND_MARGIN).cpu())
    if not positions:
        return Located(position=torch.zeros(0, 2), found=torch.zeros(0, dtype=torch.bool))
    return Located(position=torch.cat(positions), found=torch.cat(found))


def train_keypoints(
    make_net: Callable[[], HeatmapNet],
    sample: Callable[[torch.Generator], tuple[Tensor, Tensor, Tensor]],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device | str,
    report: Report = silent,
) -> HeatmapNet:
    """Train a fresh network on `sample(generator) -> (input n c h w, position n 2, visible n)` and return it.

    The same seed gives the same network on the same machine.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """

    def loss(net: HeatmapNet, generator: torch.Generator) -> Tensor:
        x, position, visible = (part.to(device) for part in sample(generator))
        with autocast_where_fast(torch.device(device)):
            heat, nowhere = net(x.contiguous(memory_format=torch.channels_last))
        return keypoint_loss(heat, nowhere, position, visible)

    return train_net(make_net, loss, steps=steps, learning_rate=learning_rate, seed=seed, device=device, report=report)


def train_net(
    make_net: Callable[[], Net],
    loss_of: Callable[[Net, torch.Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device | str,
    report: Report = silent,
) -> Net:
    """Train a probe's small network for a minute: AdamW, one cycle of the learning rate, no state on disk.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make_net().to(device).train()
        for parameter in net.parameters():  # convolutions on one core are a fifth faster with channels last
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.15)
    for step in range(steps):
        loss = loss_of(net, generator)
        if not loss.isfinite():
            raise TrainingDiverged(
                f"probe training: the loss is {loss.item()} at step {step}. Lower the learning rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step + 1, steps, "steps")
    return net.eval()


def photometric(frames: Float[Tensor, "n c h w"], generator: torch.Generator, *, strength: float = 1.0) -> Tensor:
    """The same frames under another light: gain per channel, offset and contrast, one draw per sample."""
    n, c = frames.shape[:2]
    gain = 1 + 0.15 * strength * torch.randn(n, c, 1, 1, generator=generator)
    offset = 0.08 * strength * torch.randn(n, 1, 1, 1, generator=generator)
    return ((frames - 0.5) * gain + 0.5 + offset).clamp(0, 1)


def degraded(frames: Float[Tensor, "n c h w"], generator: torch.Generator) -> Tensor:
    """The first half of the frames blurred and grainy, as a small world model draws them; the others as they are."""
    soft, sharp = frames.tensor_split(2)
    sigma = 0.3 + 1.0 * torch.rand((), generator=generator).item()
    offset = torch.arange(-3, 4) / sigma
    weight = (-0.5 * offset.square()).exp()
    kernel = (weight / weight.sum()).expand(frames.shape[1], 1, 7)
    soft = F.pad(soft, (3, 3, 3, 3), mode="replicate")
    soft = F.conv2d(soft, kernel[:, :, None, :], groups=frames.shape[1])
    soft = F.conv2d(soft, kernel[:, :, :, None], groups=frames.shape[1])
    return torch.cat(((soft + 0.02 * torch.randn(soft.shape, generator=generator)).clamp(0, 1), sharp))


def held_out_rows(episodes: Int[Tensor, " n"], *, share: float, seed: int) -> Bool[Tensor, " n"]:
    """Marks the rows of a random `share` of the episodes, at least one and never all.

    Raises:
        DataError: if there are fewer than two episodes.
    """
    ids = episodes.unique()
    if len(ids) < 2:
        raise DataError(f"A probe needs at least two episodes, one of them to be judged on; got {len(ids)}.")
    order = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))]
    return torch.isin(episodes, order[: min(max(1, round(share * len(ids))), len(ids) - 1)])


@dataclass(frozen=True, kw_only=True)
class Plates:
    """Each episode's bare table: the mean of every pixel over the frames in which nothing covers it."""

    picture: UInt8[Tensor, "e c h w"]
    known: Bool[Tensor, "e h w"]
    """Where the table was ever seen."""
    row: Int[Tensor, " n"]
    """The plate that belongs to each frame."""

    @staticmethod
    def of(frames: UInt8[Tensor, "n c h w"], labels: UInt8[Tensor, "n h w"], episodes: Int[Tensor, " n"]) -> Plates:
        """The plates of all episodes of a labelled recording."""
        ids, row = episodes.unique(return_inverse=True)
        pictures, known = [], []
        for index in range(len(ids)):
            bare = labels[row == index] <= TABLE_LABEL
            total = (frames[row == index].float() * bare[:, None]).sum(dim=0)
            pictures.append((total / bare.sum(dim=0).clamp(min=1)).round().byte())
            known.append(bare.any(dim=0))
        return Plates(picture=torch.stack(pictures), known=torch.stack(known), row=row)

    def erase(
        self, frames: Float[Tensor, "n c h w"], thing: Bool[Tensor, "n h w"], index: Int[Tensor, " n"], ghost: Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
        """Frames `index` with `thing` taken away but for a share `ghost`, and where the plate knew what is behind."""
        thing = F.max_pool2d(thing[:, None].float(), 3, stride=1, padding=1)
        row = self.row[index]
        plate = self.picture[row].float() / 255
        unknown = (thing[:, 0] * ~self.known[row]).sum(dim=(-2, -1))
        possible = unknown <= 0.05 * thing[:, 0].sum(dim=(-2, -1))
        return frames + thing * (1 - ghost.view(-1, 1, 1, 1)) * (plate - frames), possible


def conv_block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, normalised over the batch."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _double(x: Tensor, *, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
