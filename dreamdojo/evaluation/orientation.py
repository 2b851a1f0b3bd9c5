"""Which way does the marked object point? A probe for predicted frames, trained on rendered ones.

The network sees what is where the object was found, and where that is like the marked object in colour, and says the
object's heading: the direction on the table of its longer side, its handle, its axis. An angle in the picture would mix
that with where the camera stands; the probe learns it away from scenes whose objects were put down again and again,
each time at another place and turned by any angle.

Headings that look alike count as alike: half a circle for a capsule, a quarter for a square box. A ball has none and is
never asked for. The probe is judged on scenes it has not seen, and is not used for a kind of scene on which it fails
its gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from dreamdojo.errors import DataError
from dreamdojo.evaluation.keypoints import (
    FIRST_OBJECT_LABEL,
    LOCATE_BATCH,
    conv_block,
    degraded,
    held_out_rows,
    photometric,
    train_net,
)
from dreamdojo.evaluation.objects import likeness, palette, visible_objects
from dreamdojo.metrics import unit_range
from dreamdojo.training.device import autocast_where_fast

FOLDS = (1, 2, 4)
"""How often a full turn of an object may look alike."""

CROP = 32
"""Side of what the network sees, in its own pixels."""


@dataclass(frozen=True, kw_only=True)
class HeadingProbeConfig:
    """How the probe is built and trained. The defaults take about a minute on one core at 64 x 64."""

    width: int = 24
    """Channels at half the crop's size; twice and four times as many below."""
    steps: int = 900
    """Optimizer steps."""
    batch: int = 48
    """Objects per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""
    window: float = 0.3
    """Side of what is cut out, as a share of the frame's height."""
    jitter: float = 0.012
    """Standard deviation of where the object is said to be, as a share of the frame: found, it is a little off."""
    held_out: float = 0.2
    """Share of the scenes that the probe is judged on."""
    gate: float = 20.0
    """Mean own error in degrees above which the probe is not used."""
    seed: int = 0
    """Decides the network's start, the held-out scenes and the order of training."""


@dataclass(frozen=True, kw_only=True)
class HeadingError:
    """A probe's own error, on rendered scenes it was not trained on."""

    mean: float
    """Mean error in degrees, over headings of every direction."""
    median: float
    """Median error in degrees."""
    chance: float
    """Mean error in degrees of a random direction, on the same objects."""
    count: int
    """Objects in frames that it was judged on."""
    gate: float
    """The mean error in degrees above which the probe is not used."""

    @property
    def valid(self) -> bool:
        """Whether the probe may be used: its mean error is within the gate."""
        return self.mean <= self.gate

    def __str__(self) -> str:
        words = f"the probe's own error is {self.mean:.1f}° (a guess: {self.chance:.1f}°)"
        return words if self.valid else f"not measured: {words}, more than the {self.gate:g}° allowed"

    def to_json(self) -> dict[str, float | int | bool | None]:
        """Plain numbers for a results file."""
        numbers = {name: getattr(self, name) for name in ("mean", "median", "chance", "gate")}
        plain = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        return plain | {"count": self.count, "valid": self.valid}


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Rendered scenes whose objects were put down several times."""

    frames: UInt8[Tensor, "n c h w"]
    labels: UInt8[Tensor, "n h w"]
    """Segmentation (3 is object 0, 4 is object 1, and so on)."""
    positions: Float[Tensor, "n o 2"]
    """True (u, v) in [0, 1]."""
    headings: Float[Tensor, "n o"]
    """Radians about the vertical; NaN where it cannot be seen, or there is no such object."""
    folds: Int[Tensor, "n o"]
    """Turns by a full circle over `fold`, one of `FOLDS`, look alike; 0 where no turn can be seen."""
    scene: Int[Tensor, " n"]
    """Which scene each frame shows."""
    kind: Int[Tensor, " n"]
    """What kind of scene it is, a number below that of `kinds`."""
    kinds: tuple[str, ...]
    """Their names."""


class HeadingNet(nn.Module):
    """A cut-out `n 4 32 32` to the directions `n 3 2` (cosine, sine) of `fold` times the heading, for all `FOLDS`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            conv_block(4, width, stride=2),
            conv_block(width, 2 * width),
            conv_block(2 * width, 4 * width, stride=2),
            conv_block(4 * width, 4 * width),
            nn.Flatten(),
        )
        self.say = nn.Sequential(nn.Linear(4 * width * (CROP // 4) ** 2, 128), nn.ReLU(), nn.Linear(128, 6))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 2"]:
        """Any length; only the direction counts."""
        return self.say(self.look(x)).float().unflatten(1, (len(FOLDS), 2))


@dataclass(frozen=True, kw_only=True)
class HeadingProbe:
    """A trained probe and its own error on each kind of scene."""

    net: HeadingNet
    window: float
    errors: dict[str, HeadingError]
    """By the name of the kind of scene."""

    @torch.no_grad()
    def heading(
        self,
        start: UInt8[Tensor, "n c h w"],
        mask: Bool[Tensor, "n h w"],
        frames: UInt8[Tensor, "n c h w"],
        position: Float[Tensor, "n 2"],
        fold: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """Radians, up to a circle over `fold`, of the object marked by `mask` in `start`; in `frames` it is at
        `position`."""
        device, found = next(self.net.parameters()).device, []
        for row in range(0, len(frames), LOCATE_BATCH):
            part = slice(row, row + LOCATE_BATCH)
            x = _inputs(unit_range(start[part]), mask[part], unit_range(frames[part]), position[part], self.window)
            found.append(_angle(self.net(x.to(device)).cpu(), fold[part]) / fold[part])
        return torch.cat(found) if found else torch.zeros(0)


def heading_error(
    heading: Float[Tensor, " n"], truth: Float[Tensor, " n"], fold: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Radians between two headings where those a circle over `fold` apart look alike: at most pi over `fold`."""
    off = fold * (heading - truth)
    return torch.atan2(off.sin(), off.cos()).abs() / fold


def train_heading_probe(
    scenes: Scenes, *, config: HeadingProbeConfig | None = None, device: torch.device | str = "cpu"
) -> HeadingProbe:
    """Learn which way objects point, and measure how well on scenes kept aside, kind by kind.

    Raises:
        DataError: if there are fewer than two scenes, or a part of them has no object whose heading can be seen.
    """
    config = config or HeadingProbeConfig()
    test = held_out_rows(scenes.scene, share=config.held_out, seed=config.seed)
    asked = _asked(scenes)
    train, judged = asked[:, ~test[asked[0]]], asked[:, test[asked[0]]]
    if not train.shape[1] or not judged.shape[1]:
        raise DataError(
            "The orientation probe learns from objects whose heading can be seen; found "
            f"{train.shape[1]} for training and {judged.shape[1]} to be judged on. Draw more scenes."
        )
    marked = _marked_in(scenes)

    def sample(rows: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Start frame with the object's mask, frame in question, place."""
        first = marked[rows, which]
        return (
            scenes.frames[first],
            scenes.labels[first] == (which + FIRST_OBJECT_LABEL)[:, None, None],
            scenes.frames[rows],
            scenes.positions[rows, which],
        )

    def loss(net: HeadingNet, generator: torch.Generator) -> Tensor:
        rows, which = train[:, torch.randint(train.shape[1], (config.batch,), generator=generator)]
        start, mask, current, place = sample(rows, which)
        both = torch.cat([unit_range(start), unit_range(current)], dim=1)
        first, second = photometric(both, generator, strength=0.3).tensor_split(2, dim=1)
        place = place + config.jitter * torch.randn(place.shape, generator=generator)
        x = _inputs(first, mask, degraded(second, generator), place, config.window)
        with autocast_where_fast(torch.device(device)):
            said = net(x.to(device).contiguous(memory_format=torch.channels_last))
        fold = scenes.folds[rows, which].to(device)
        truth = fold * scenes.headings[rows, which].to(device)
        target = torch.stack([truth.cos(), truth.sin()], dim=1)
        return (_of_fold(said, fold) - target).square().sum(dim=1).mean()

    net = train_net(
        lambda: HeadingNet(config.width),
        loss,
        steps=config.steps,
        learning_rate=config.learning_rate,
        seed=config.seed,
        device=device,
    )
    probe = HeadingProbe(net=net, window=config.window, errors={})
    for number, kind in enumerate(scenes.kinds):
        rows, which = judged[:, scenes.kind[judged[0]] == number]
        fold = scenes.folds[rows, which]
        said = probe.heading(*sample(rows, which), fold)
        own = heading_error(said, scenes.headings[rows, which], fold).rad2deg()
        probe.errors[kind] = HeadingError(
            mean=own.mean().item() if len(own) else math.inf,
            median=own.median().item() if len(own) else math.inf,
            chance=(90 / fold).mean().item() if len(own) else math.inf,
            count=len(own),
            gate=config.gate,
        )
    return probe


def _asked(scenes: Scenes) -> Int[Tensor, "2 m"]:
    """Every frame and object that can be asked for."""
    seen = visible_objects(scenes.labels, scenes.folds.shape[1]) & scenes.headings.isfinite() & (scenes.folds > 0)
    return torch.stack(seen.nonzero(as_tuple=True))


def _marked_in(scenes: Scenes) -> Int[Tensor, "n o"]:
    """For every frame and object another frame of the scene in which the object is marked; itself where none is."""
    visible = visible_objects(scenes.labels, scenes.folds.shape[1])
    order = torch.arange(len(visible))
    found = order[:, None].expand_as(visible).clone()
    for row in range(len(visible)):
        others = ((scenes.scene == scenes.scene[row]) & (order != row)).nonzero()[:, 0]
        for which in range(visible.shape[1]):
            there = others[visible[others, which]]
            if len(there):
                found[row, which] = there[row % len(there)]
    return found


def _of_fold(said: Float[Tensor, "n 3 2"], fold: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """The direction that is said for each one's fold."""
    return said[torch.arange(len(said)), torch.searchsorted(torch.tensor(FOLDS, device=fold.device), fold)]


def _angle(said: Float[Tensor, "n 3 2"], fold: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    cosine, sine = _of_fold(said, fold).unbind(dim=1)
    return torch.atan2(sine, cosine)


def _inputs(
    start: Float[Tensor, "n c h w"],
    mask: Bool[Tensor, "n h w"],
    current: Float[Tensor, "n c h w"],
    position: Float[Tensor, "n 2"],
    window: float,
) -> Float[Tensor, "n 4 s s"]:
    """The cut-out, and where it is like the marked object in colour."""
    now = _cut(current, position, window)
    return torch.cat([now, likeness(now, palette(start, mask))], dim=1)


def _cut(pictures: Float[Tensor, "n c h w"], centre: Float[Tensor, "n 2"], window: float) -> Float[Tensor, "n c s s"]:
    """A square of side `window` of the picture's around (u, v), enlarged; its border repeats outside the picture."""
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = window
    theta[:, :, 2] = 2 * centre - 1
    grid = F.affine_grid(theta, [len(pictures), 1, CROP, CROP], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
