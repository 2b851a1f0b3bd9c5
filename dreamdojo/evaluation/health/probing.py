"""How much of the true motion can be read off latent actions: by a line, by a small network, across bodies.

A probe is fitted on some episodes and judged on others. Beside its R2 stand two controls: the same procedure on targets
shuffled between episodes, and what the probe says of pairs in which nothing moves, which should be next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamdojo.evaluation.health.pairs import Pairs, Targets
from dreamdojo.evaluation.linear_probe import (
    LinearProbe,
    Probed,
    folds_by_episode,
    probe_episodes,
)
from dreamdojo.metrics import Interval, choose_ridge, explained_variance

HIDDEN = 64
"""Width of the probing network."""


@dataclass(frozen=True)
class MLPReader:
    """A network between standardised features and targets, one snapshot per target."""

    networks: tuple[nn.Sequential, ...]
    x_mean: Float[Tensor, " d"]
    x_std: Float[Tensor, " d"]
    y_mean: Float[Tensor, " k"]
    y_std: Float[Tensor, " k"]

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The targets at `x`, in their own units."""
        z = ((x - self.x_mean) / self.x_std).float()
        columns = [network(z)[:, k] for k, network in enumerate(self.networks)]
        return torch.stack(columns, dim=1).double() * self.y_std + self.y_mean


def fit_mlp(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], fold: Int[Tensor, " n"], *, steps: int = 300
) -> MLPReader:
    """A two-layer network by AdamW; the first fold says for each target when to stop."""
    x_mean, x_std = x.mean(dim=0), x.std(dim=0).clamp(min=1e-12)
    y_mean, y_std = y.mean(dim=0), y.std(dim=0).clamp(min=1e-12)
    features, targets = ((x - x_mean) / x_std).float(), ((y - y_mean) / y_std).float()
    inside, outside = fold != fold.min(), fold == fold.min()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(x.shape[1], y.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    best = torch.full((y.shape[1],), torch.inf)
    kept = [{name: value.clone() for name, value in network.state_dict().items()} for _ in best]
    for step in range(steps + 1):
        if step % 20 == 0:
            with torch.no_grad():
                error = (network(features[outside]) - targets[outside]).square().mean(dim=0)
            for k in (error < best).nonzero()[:, 0].tolist():
                kept[k] = {name: value.clone() for name, value in network.state_dict().items()}
            best = torch.minimum(best, error)
        loss = (network(features[inside]) - targets[inside]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    networks = []
    for state in kept:
        snapshot = _network(x.shape[1], y.shape[1])
        snapshot.load_state_dict(state)
        networks.append(snapshot)
    return MLPReader(tuple(networks), x_mean, x_std, y_mean, y_std)


def _network(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, out))


@dataclass(frozen=True, kw_only=True)
class StillControl:
    """What a linear probe says of a pair of twice the same frame, beside what truly happens in a typical pair."""

    still: float
    """Mean absolute prediction where nothing moves."""
    typical: float
    """Mean absolute true value of the held-out pairs."""

    @property
    def share(self) -> float:
        """`still` as a share of `typical`: 0 where stillness is known as such."""
        return self.still / max(self.typical, 1e-12)


@dataclass(frozen=True, kw_only=True)
class MotionProbes:
    """Everything that was read off the latent actions of one body."""

    linear: LinearProbe
    mlp: LinearProbe
    still: dict[str, StillControl]
    """By dimension."""

    @property
    def names(self) -> tuple[str, ...]:
        """Dimensions that vary and were probed."""
        return tuple(dimension.name for dimension in self.linear.dimensions)

    @property
    def above_chance(self) -> tuple[str, ...]:
        """Dimensions that the line or the network reads better than 95 % of the shuffles, interval and all."""
        pairs = zip(self.linear.dimensions, self.mlp.dimensions, strict=True)
        return tuple(first.name for first, second in pairs if first.above_chance or second.above_chance)

    def r2(self, name: str) -> Interval | None:
        """R2 of the linear probe; None where the dimension does not vary."""
        return next((dimension.r2 for dimension in self.linear.dimensions if dimension.name == name), None)

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        still = {
            name: {"still": control.still, "typical": control.typical, "share": control.share}
            for name, control in self.still.items()
        }
        return {"linear": self.linear.to_json(), "mlp": self.mlp.to_json(), "still": still}


def probe_motion(
    pairs: Pairs,
    targets: Targets,
    still: Float[Tensor, "m l"],
    rows: Int[Tensor, " m"],
    *,
    seed: int,
    permutations: int = 20,
) -> MotionProbes:
    """Probe the latent actions of `pairs` for `targets`.

    Args:
        pairs: whose latent actions.
        targets: what is to be read off them.
        still: latent actions of the first frames of `rows` beside themselves.
        rows: pairs that `still` belongs to.
        seed: decides which episodes are held out, the folds and the shuffles.
        permutations: how often targets are shuffled for the null of the line; a quarter as often for the network.

    Raises:
        DataError: if there are too few episodes.
    """
    targets = targets.varying()
    linear = _probe(pairs, targets, seed=seed, permutations=permutations)
    mlp = probe_episodes(
        pairs.mean,
        targets.values,
        pairs.episode,
        names=targets.names,
        seed=seed,
        fit=fit_mlp,
        permutations=max(permutations // 4, 1),
    )
    unseen = linear.held_out[rows]
    at_rest = linear.reader.predict(still[unseen].double()).abs().mean(dim=0).tolist()
    typical = targets.values[linear.held_out].abs().mean(dim=0).tolist()
    control = {
        name: StillControl(still=rest, typical=usual)
        for name, rest, usual in zip(targets.names, at_rest, typical, strict=True)
    }
    return MotionProbes(linear=linear.probe, mlp=mlp.probe, still=control)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A line fitted on one body's latent actions and read on another's."""

    source: str
    target: str
    standardised: bool
    """Whether the latent actions of each body were brought to mean 0 and deviation 1 first, which needs no labels."""
    r2: dict[str, Interval]
    """By dimension, on held-out episodes of the target."""
    own: dict[str, Interval]
    """What a line fitted on the target's other episodes reaches on the same ones."""

    @property
    def drop(self) -> dict[str, float]:
        """How much is lost by dimension against the target's own line, where both have an R2."""
        lost = {name: self.own[name].mean - self.r2[name].mean for name in self.r2}
        return {name: value for name, value in lost.items() if math.isfinite(value)}

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {
            "source": self.source,
            "target": self.target,
            "standardised": self.standardised,
            "r2": {name: interval.to_json() for name, interval in self.r2.items()},
            "own": {name: interval.to_json() for name, interval in self.own.items()},
            "drop": self.drop,
        }


def transfer_probe(source: Pairs, target: Pairs, *, seed: int, standardised: bool = False) -> Transfer | None:
    """Fit a line on all episodes of `source` and read held-out episodes of `target` with it.

    None where either has no true motion, or they share no dimension that varies.

    Raises:
        DataError: if there are too few episodes.
    """
    shared = _shared(source, target)
    if shared is None:
        return None
    from_motion, to_motion = shared
    own = _probe(target, to_motion, seed=seed, permutations=0)
    there = _latents(target, standardised=standardised)[own.held_out]
    reader = choose_ridge(
        _latents(source, standardised=standardised), from_motion.values.double(), _folds(source, seed=seed)
    )
    r2 = _by_dimension(reader.predict(there), to_motion, target, own.held_out, seed=seed)
    return Transfer(
        source=source.name,
        target=target.name,
        standardised=standardised,
        r2=r2,
        own={dimension.name: dimension.r2 for dimension in own.probe.dimensions},
    )


def read_elsewhere(source: Pairs, target: Pairs, *, seed: int) -> Transfer | None:
    """The very line that `source` is judged by, read on all episodes of `target`, beside what it reaches at home.

    For the same body in scenes that are unlike those the line knows. None where either has no true motion.

    Raises:
        DataError: if there are too few episodes.
    """
    shared = _shared(source, target)
    if shared is None:
        return None
    home = _probe(source, shared[0], seed=seed, permutations=0)
    everywhere = torch.ones(len(target), dtype=torch.bool)
    predicted = home.reader.predict(target.mean.double())
    return Transfer(
        source=source.name,
        target=target.name,
        standardised=False,
        r2=_by_dimension(predicted, shared[1], target, everywhere, seed=seed),
        own={dimension.name: dimension.r2 for dimension in home.probe.dimensions},
    )


def _shared(source: Pairs, target: Pairs) -> tuple[Targets, Targets] | None:
    if source.motion is None or target.motion is None:
        return None
    there = target.motion.varying().names
    names = [name for name in source.motion.varying().names if name in there]
    return (source.motion.only(names), target.motion.only(names)) if names else None


def _probe(pairs: Pairs, targets: Targets, *, seed: int, permutations: int) -> Probed:
    return probe_episodes(
        pairs.mean, targets.values, pairs.episode, names=targets.names, seed=seed, permutations=permutations
    )


def _by_dimension(
    predicted: Float[Tensor, "m k"], targets: Targets, pairs: Pairs, rows: Tensor, *, seed: int
) -> dict[str, Interval]:
    truth = targets.values[rows].double()
    r2 = explained_variance((predicted - truth).square(), truth, pairs.episode[rows], seed=seed)
    return dict(zip(targets.names, r2.columns, strict=True))


def _latents(pairs: Pairs, *, standardised: bool) -> Float[Tensor, "n l"]:
    latents = pairs.mean.double()
    if not standardised:
        return latents
    return (latents - latents.mean(dim=0)) / latents.std(dim=0).clamp(min=1e-12)


def _folds(pairs: Pairs, *, seed: int) -> Int[Tensor, " n"]:
    ids = pairs.episode.unique()
    order = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))]
    return folds_by_episode(pairs.episode, order, min(5, len(ids)))
