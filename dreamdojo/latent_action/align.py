"""Latent actions and a robot's actions, each from the other, learned from minutes of the robot's own video.

    action        = base + map(latent_action)          a human clip becomes commands
    latent_action = map(action - base)                 a command becomes what the world model is conditioned on

A map is ridge regression on standardised columns, its strength chosen by cross-validation over episodes; kind `mlp`
adds a two-layer network that starts at zero and stops when episodes it does not learn from no longer gain. What the
base of an action is, `pairs.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.pairs import (
    PairedEpisode,
    _enough_episodes,
    check_pairs,
    needs_base,
    paired_rows,
    state_base,
)
from dreamdojo.metrics import ChosenRidge, ExplainedVariance, Interval, choose_ridge, explained_variance
from dreamdojo.nn.init import init_linear
from dreamdojo.training.hub import Pretrained

Kind = Literal["ridge", "mlp"]

_FOLDS = 5
_BATCH, _STEPS, _CHECK_EVERY, _PATIENCE, _LEARNING_RATE, _DECAY = 256, 2000, 25, 12, 2e-3, 1e-2


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Whose actions, which latent actions, and how they are mapped."""

    embodiment: Embodiment
    """The robot; its ranges normalise the actions."""
    latent_dim: int
    """Numbers in one latent action."""
    chunk: int = 1
    """Actions, and latent actions, that are mapped together (`k`)."""
    kind: Kind = "mlp"
    """`ridge` is linear, `mlp` adds two layers to it."""
    hidden: int = 128
    """Width of the MLP."""

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.latent_dim < 1 or self.hidden < 1:
            raise ConfigError(
                f"chunk, latent_dim and hidden must be positive, got {self.chunk}, {self.latent_dim} and {self.hidden}"
            )
        if not self.embodiment.action_dim:
            raise DataError(
                f"embodiment {self.embodiment.name}: expected action fields to align with, found none. Give a robot's "
                "dataset; human video has no actions."
            )

    @property
    def action_names(self) -> list[str]:
        """`field.axis` for each number of a chunk of actions."""
        names = self.embodiment.action_names()
        return names if self.chunk == 1 else [f"{name}[{i}]" for i in range(self.chunk) for name in names]


class Map(nn.Module):
    """A linear map of standardised columns, plus an MLP where there is one; starts as its linear part."""

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, dim_in: int, dim_out: int, *, hidden: int | None) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.register_buffer("mean", torch.zeros(dim_in))
        self.register_buffer("std", torch.ones(dim_in))
        self.register_buffer("scale", torch.ones(dim_out))
        self.mlp = None
        if hidden is not None:
            self.mlp = nn.Sequential(nn.Linear(dim_in, hidden), nn.GELU(), nn.Linear(hidden, dim_out))
            init_linear(self.mlp[0])
            init_linear(self.mlp[2], zero=True)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """Map each row."""
        mapped = self.linear(x)
        return mapped if self.mlp is None else mapped + self.scale * self.mlp((x - self.mean) / self.std)

    @torch.no_grad()
    def start_from(self, ridge: ChosenRidge, x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> None:
        """Set the linear part, and the scales that the MLP works at."""
        self.linear.weight.copy_(ridge.weight.T)
        self.linear.bias.copy_(ridge.bias)
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(x.std(dim=0, correction=0).clamp(min=1e-6))
        self.scale.copy_(y.std(dim=0, correction=0))


class Alignment(Pretrained):
    """Chunks of latent actions to a body's normalised action chunks, and back."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        action, latent = config.chunk * config.embodiment.action_dim, config.chunk * config.latent_dim
        hidden = config.hidden if config.kind == "mlp" else None
        self.action_map = Map(latent, action, hidden=hidden)
        self.latent_map = Map(action, latent, hidden=hidden)

    def to_action(
        self, latent_action: Float[Tensor, "*b kl"], base: Float[Tensor, "*b a"] | None = None
    ) -> Float[Tensor, "*b ka"]:
        """The normalised action chunk that looks like a latent action chunk, from a normalised base.

        Raises:
            ConfigError: if the body's actions have a base and none is given.
        """
        return self.action_map(latent_action) + self._repeated(base)

    def to_latent_action(
        self, action: Float[Tensor, "*b ka"], base: Float[Tensor, "*b a"] | None = None
    ) -> Float[Tensor, "*b kl"]:
        """The latent action chunk that a normalised action chunk looks like.

        Raises:
            ConfigError: if the body's actions have a base and none is given.
        """
        return self.latent_map(action - self._repeated(base))

    def commands(
        self, latent_action: np.ndarray, *, state: np.ndarray | None = None, before: np.ndarray | None = None
    ) -> np.ndarray:
        """Latent actions `(k, l)` -> actions `(k, a)` in the body's units, for a body in `state` that did `before`.

        Raises:
            ConfigError: if the body needs its state, or its last action, and it is not given.
        """
        with torch.no_grad():
            told = self.action_map(torch.from_numpy(latent_action.astype(np.float32)).flatten())
        return self._as_commands(told, state, before)

    def mean_commands(self, *, state: np.ndarray | None = None, before: np.ndarray | None = None) -> np.ndarray:
        """What the robot did on average while it was aligned, as `commands` gives it: the baseline of seeing nothing.

        Raises:
            ConfigError: if the body needs its state, or its last action, and it is not given.
        """
        with torch.no_grad():
            return self._as_commands(self.action_map.linear(self.action_map.mean), state, before)

    def _as_commands(self, told: Tensor, state: np.ndarray | None, before: np.ndarray | None) -> np.ndarray:
        body, base = self.config.embodiment, None
        if body.relative and before is not None:
            base = torch.from_numpy(body.normalize_action(before))
        elif not body.relative and state is not None:
            base = torch.from_numpy(state_base(body, state))
        chunk = (told + self._repeated(base)).reshape(self.config.chunk, body.action_dim)
        return body.denormalize_action(chunk.numpy())

    def _repeated(self, base: Tensor | None) -> Tensor | float:
        if base is None:
            if needs_base(self.config.embodiment):
                raise ConfigError(
                    f"embodiment {self.config.embodiment.name}: expected the base that its actions are told from (its "
                    "state, or its last action), got none"
                )
            return 0.0
        return base.repeat(*(1,) * (base.ndim - 1), self.config.chunk)


@dataclass(frozen=True, kw_only=True)
class AlignmentFit:
    """An alignment and what it explains on episodes that it was not fitted on."""

    alignment: Alignment
    to_action: ExplainedVariance
    """R2 of each number of an action chunk, minus its base, from the latent action."""
    to_latent_action: ExplainedVariance
    """R2 of each number of a latent action chunk from the action."""
    strengths: tuple[float, ...]
    """Ridge strength chosen for each number of an action chunk."""
    train_episodes: int
    held_out_episodes: int

    def to_json(self) -> dict[str, Any]:
        """Plain structures for a file."""
        config = self.alignment.config
        return {
            "embodiment": config.embodiment.name,
            "kind": config.kind,
            "train_episodes": self.train_episodes,
            "held_out_episodes": self.held_out_episodes,
            "action_r2": self.to_action.to_json(config.action_names),
            "latent_action_r2": {"mean": self.to_latent_action.mean.to_json()},
            "ridge_strength": dict(zip(config.action_names, self.strengths, strict=True)),
        }


def hold_out(count: int, *, fraction: float = 0.3, seed: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the episodes to fit on and of those to hold out, at least one of these.

    Raises:
        DataError: if there are fewer than three episodes.
    """
    _enough_episodes(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = min(max(1, round(fraction * count)), count - 2)
    return sorted(order[held_out:]), sorted(order[:held_out])


def fit_alignment(
    train: Sequence[PairedEpisode],
    held_out: Sequence[PairedEpisode],
    embodiment: Embodiment,
    *,
    kind: Kind = "mlp",
    chunk: int = 1,
    hidden: int = 128,
    seed: int = 0,
) -> AlignmentFit:
    """Fit both directions on `train` and score them on `held_out`. The same seed gives the same weights.

    Raises:
        DataError: if the body has no actions, there are fewer than three episodes (two to fit on, one to hold out), or
            a number is not finite.
    """
    check_pairs(train, held_out, embodiment)
    latent_dim = train[0].latent_action.shape[1] // chunk
    config = AlignmentConfig(embodiment=embodiment, latent_dim=latent_dim, chunk=chunk, kind=kind, hidden=hidden)
    latent, action, groups = paired_rows(train, chunk)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        alignment = Alignment(config)
    ridge = fit_map(alignment.action_map, latent, action, groups, seed=seed)
    fit_map(alignment.latent_map, action, latent, groups, seed=seed)
    alignment = alignment.eval().requires_grad_(False)
    latent, action, groups = paired_rows(held_out, chunk)
    return AlignmentFit(
        alignment=alignment,
        to_action=_explained(alignment.action_map, latent, action, groups, seed),
        to_latent_action=_explained(alignment.latent_map, action, latent, groups, seed),
        strengths=ridge.strengths,
        train_episodes=len(train),
        held_out_episodes=len(held_out),
    )


def ridge_map(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], groups: Int[Tensor, " n"]) -> ChosenRidge:
    """The linear part of an alignment: ridge regression with its strength chosen over groups of rows (episodes).

    Fewer than three episodes are cut into five stretches of time instead.
    """
    return choose_ridge(x, y, _folds(groups))


def transfer_r2(
    alignment: Alignment, episodes: Sequence[PairedEpisode], embodiment: Embodiment, *, seed: int = 0
) -> dict[str, Interval]:
    """R2 of another body's actions by this alignment, for the action columns that both declare by the same name.

    Raises:
        DataError: if they share none, or their latent actions differ in width.
    """
    other = AlignmentConfig(
        embodiment=embodiment, latent_dim=alignment.config.latent_dim, chunk=alignment.config.chunk
    ).action_names
    own = alignment.config.action_names
    shared = [name for name in own if name in other]
    width = alignment.config.latent_dim * alignment.config.chunk
    if not shared or not episodes or episodes[0].latent_action.shape[1] != width:
        raise DataError(
            f"expected episodes of a body that shares action columns with {alignment.config.embodiment.name}, and "
            f"latent actions of {width} numbers; found {len(episodes)} episodes of {embodiment.name} sharing "
            f"{shared or 'none'}"
        )
    latent, action, groups = paired_rows(episodes, alignment.config.chunk)
    truth = action[:, [other.index(name) for name in shared]]
    with torch.no_grad():
        predicted = alignment.action_map(latent)[:, [own.index(name) for name in shared]]
    found = explained_variance((predicted - truth).square(), truth, groups, seed=seed)
    return dict(zip(shared, found.columns, strict=True))


def fit_map(mapping: Map, x: Tensor, y: Tensor, groups: Tensor, *, seed: int) -> ChosenRidge:
    """Fit a map to rows `x` `(n, d)` and `y` `(n, k)` of the episodes `groups` `(n,)`; returns its linear part."""
    ridge = ridge_map(x, y, groups)
    mapping.start_from(ridge, x, y)
    if mapping.mlp is not None:
        _train(mapping, mapping.mlp, x, y, groups, seed=seed)
    return ridge


def _train(mapping: Map, mlp: nn.Sequential, x: Tensor, y: Tensor, groups: Tensor, *, seed: int) -> None:
    """Train the MLP on what the linear part leaves over, and keep the weights that did best on a fifth of the rows."""
    fold = _folds(groups)
    unseen = fold == int(fold.max())
    with torch.no_grad():
        features = (x - mapping.mean) / mapping.std
        left_over = (y - mapping.linear(x)) / mapping.scale.clamp(min=1e-6) * (mapping.scale > 1e-6)
    learn, target = features[~unseen], left_over[~unseen]
    check, wanted = features[unseen], left_over[unseen]
    if not len(learn):
        return
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=_LEARNING_RATE, weight_decay=_DECAY)
    best, waited = wanted.square().mean(), 0
    kept = {name: value.clone() for name, value in mlp.state_dict().items()}
    for step in range(_STEPS):
        if step and step % _CHECK_EVERY == 0:
            with torch.no_grad():
                error = (mlp(check) - wanted).square().mean()
            waited += 1
            if error < best:
                best, waited = error, 0
                kept = {name: value.clone() for name, value in mlp.state_dict().items()}
            if waited > _PATIENCE:
                break
        rows = torch.randint(len(learn), (min(_BATCH, len(learn)),), generator=generator)
        loss = (mlp(learn[rows]) - target[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mlp.load_state_dict(kept)
    last = mlp[2]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():  # a column that the MLP only makes worse keeps its ridge
        told = mlp(check)
        share = ((told * wanted).sum(dim=0) / told.square().sum(dim=0).clamp(min=1e-12)).clamp(0, 1)
        last.weight.mul_(share[:, None])
        last.bias.mul_(share)


def _folds(groups: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Which of up to five parts each row is in: whole groups, or stretches of time where there are fewer than three."""
    ids, member = groups.unique(return_inverse=True)
    if len(ids) < 3:
        return torch.arange(len(groups)) * _FOLDS // max(len(groups), 1)
    return member % min(_FOLDS, len(ids))


def _explained(mapping: Map, x: Tensor, y: Tensor, groups: Tensor, seed: int) -> ExplainedVariance:
    with torch.no_grad():
        return explained_variance((mapping(x) - y).square(), y, groups, seed=seed)
