"""Pairs of neighbouring frames with the latent actions between them: what every part of the report looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.latent_action.model import LatentActionPosterior

CHUNK = 128
"""Pairs that go through a model at a time."""


@runtime_checkable
class PairModel(Protocol):
    """What the report asks of a latent action model. `LatentActionModel` is one."""

    def encode(self, frames: Float[Tensor, "b t c h w"]) -> LatentActionPosterior:
        """Frames in [0, 1] -> the posterior of the latent action of each neighbouring pair."""
        ...

    def decode(
        self, frames: Float[Tensor, "b p c h w"], latent_action: Float[Tensor, "b p l"]
    ) -> Float[Tensor, "b p c h w"]:
        """Each frame and its latent action -> the frame after it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Known quantities of every pair, in their own units."""

    names: tuple[str, ...]
    values: Float[Tensor, "n k"]

    def varying(self) -> Targets:
        """Without the quantities that never change, of which nothing can be learnt."""
        moves = (self.values.std(dim=0) > 1e-7).tolist()
        names = tuple(name for name, does in zip(self.names, moves, strict=True) if does)
        return Targets(names=names, values=self.values[:, torch.tensor(moves)])

    def only(self, names: Sequence[str]) -> Targets:
        """Some of the quantities, in the order asked for."""
        columns = [self.names.index(name) for name in names]
        return Targets(names=tuple(names), values=self.values[:, columns])


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All neighbouring pairs of some episodes of one body."""

    name: str
    """What to call the recording, e.g. `human`."""
    frames: tuple[Tensor, ...]
    """uint8 `t c h w` of each episode."""
    episode: Int[Tensor, " n"]
    """Which of `frames` a pair is from; pairs of one episode stand together and in order."""
    start: Int[Tensor, " n"]
    """The first frame of the pair."""
    mean: Float[Tensor, "n l"]
    """Posterior mean of its latent action: what the rest of the system uses."""
    log_variance: Float[Tensor, "n l"]
    motion: Targets | None = None
    """What truly moved, where it is known."""
    actions: Targets | None = None
    """What the robot was told to do, where the dataset has it."""

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def spread(self) -> float:
        """Root mean square distance of the latent actions from their mean: the unit in which they are measured."""
        return (self.mean - self.mean.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()

    def pictures(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m 2 c h w"]:
        """The frames of some pairs, in [0, 1]."""
        where = zip(self.episode[rows].tolist(), self.start[rows].tolist(), strict=True)
        return torch.stack([self.frames[episode][start : start + 2] for episode, start in where]).float() / 255

    def evenly(self, count: int) -> Int[Tensor, " m"]:
        """Rows of about `count` pairs, evenly over all episodes."""
        return torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()

    def by_episode(self, values: Float[Tensor, " m"], rows: Int[Tensor, " m"]) -> Float[Tensor, " e"]:
        """Means over the pairs of each episode that `rows` has: episodes are the unit of every interval."""
        episode = self.episode[rows]
        return torch.stack([values[episode == each].mean() for each in episode.unique()])


def make_pairs(
    name: str,
    episodes: Sequence[UInt8[Tensor, "t c h w"]],
    model: PairModel,
    *,
    motion: Targets | None = None,
    actions: Targets | None = None,
    device: torch.device | None = None,
) -> Pairs:
    """Encode every neighbouring pair of `episodes`.

    Raises:
        DataError: if there are fewer than two episodes of two frames, or the targets are not one per pair.
    """
    if len(episodes) < 2 or min(len(frames) for frames in episodes) < 2:
        raise DataError(
            f"{name}: expected at least 2 episodes of at least 2 frames, got {[len(frames) for frames in episodes]} "
            "frames. The report compares episodes with each other; give it more of them."
        )
    counts = [len(frames) - 1 for frames in episodes]
    for targets in (motion, actions):
        if targets is not None and len(targets.values) != sum(counts):
            raise DataError(
                f"{name}: expected one row of {', '.join(targets.names)} for each of {sum(counts)} pairs, "
                f"got {len(targets.values)}"
            )
    parts = [
        encode(model, torch.stack([frames[:-1], frames[1:]], dim=1).float() / 255, device=device) for frames in episodes
    ]
    return Pairs(
        name=name,
        frames=tuple(episodes),
        episode=torch.cat([torch.full((count,), i) for i, count in enumerate(counts)]),
        start=torch.cat([torch.arange(count) for count in counts]),
        mean=torch.cat([mean for mean, _ in parts]),
        log_variance=torch.cat([log_variance for _, log_variance in parts]),
        motion=motion,
        actions=actions,
    )


@torch.no_grad()
def encode(
    model: PairModel, pictures: Float[Tensor, "n 2 c h w"], *, device: torch.device | None = None
) -> tuple[Float[Tensor, "n l"], Float[Tensor, "n l"]]:
    """Mean and log-variance of the latent action of each pair, on the CPU."""
    parts = [model.encode(part.to(device)) for part in pictures.split(CHUNK)]
    return (
        torch.cat([part.mean[:, 0].float().cpu() for part in parts]),
        torch.cat([part.log_variance[:, 0].float().cpu() for part in parts]),
    )


@torch.no_grad()
def decode(
    model: PairModel,
    frames: Float[Tensor, "n c h w"],
    latent_action: Float[Tensor, "n l"],
    *,
    device: torch.device | None = None,
) -> Float[Tensor, "n c h w"]:
    """The frame after each frame, in [0, 1], on the CPU."""
    parts = zip(frames.split(CHUNK), latent_action.split(CHUNK), strict=True)
    drawn = [model.decode(f[:, None].to(device), z[:, None].to(device))[:, 0].float().cpu() for f, z in parts]
    return torch.cat(drawn).clamp(0, 1)
