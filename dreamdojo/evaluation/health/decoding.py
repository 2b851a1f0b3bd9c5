"""Whether the decoder listens: what a latent action gains, and what share of what it could gain.

    dPSNR       = PSNR(next frame, decode(frame, own)) - PSNR(next frame, decode(frame, other))
    utilisation = (E(without) - E(inferred)) / (E(without) - E(oracle))

`E` is the mean squared error of the decoded next frame, summed over pairs. `other` is the latent action of a pair of
another episode, or zero. `without` decodes the mean latent action of the set: what is left when it says nothing about
the pair. `oracle` is the best latent action that gradient descent finds for each pair through the frozen decoder: what
the decoder could use if the encoder said it. Utilisation is 0 where the inferred latent action helps no more than the
mean one and 1 where none better is found; it cannot be told where even the oracle gains next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamdojo.evaluation.health.pairs import CHUNK, PairModel, Pairs, decode
from dreamdojo.metrics import Interval, bootstrap_interval, mean_interval, psnr

SMALLEST_GAIN = 0.01
"""An oracle that lowers the error by a smaller share than this shows a decoder that does not listen at all."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """PSNR in dB of the decoded next frame, means over episodes."""

    own: Interval
    """With the pair's own latent action."""
    other: Interval
    """With that of a pair of another episode."""
    zero: Interval
    """With zeros."""
    copy: Interval
    """Of the first frame itself."""
    own_minus_other: Interval
    own_minus_zero: Interval
    own_minus_copy: Interval

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {name: getattr(self, name).to_json() for name in self.__dataclass_fields__}


def measure_decoding(
    model: PairModel, pairs: Pairs, rows: Int[Tensor, " m"], *, device: torch.device | None = None
) -> Decoding:
    """Decode the pairs of `rows` with their own and with other latent actions.

    `rows` must rise and no episode may have more than half of them, so that half the set further on is another episode.
    """
    pictures = pairs.pictures(rows)
    latents = pairs.mean[rows]
    given = {
        "own": latents,
        "other": latents.roll(len(rows) // 2, dims=0),
        "zero": torch.zeros_like(latents),
    }
    drawn = {name: decode(model, pictures[:, 0], latent, device=device) for name, latent in given.items()}
    truth = pictures[:, 1]
    values = {name: pairs.by_episode(psnr(frames, truth), rows) for name, frames in drawn.items()}
    values["copy"] = pairs.by_episode(psnr(pictures[:, 0], truth), rows)
    return Decoding(
        **{name: mean_interval(value) for name, value in values.items()},
        **{f"own_minus_{name}": mean_interval(values["own"] - values[name]) for name in ("other", "zero", "copy")},
    )


@dataclass(frozen=True, kw_only=True)
class Utilisation:
    """How much of what the decoder can use it is told; errors are mean squared, over pairs."""

    share: Interval
    """See the formula above; NaN where the oracle gains too little to divide by."""
    without: float
    inferred: float
    oracle: float
    """The better of the two searches, pair by pair."""
    from_inferred: float
    """The search that starts at the inferred latent action."""
    from_zero: float
    """The search that starts at zero."""
    pairs: int
    steps: int

    @property
    def gain(self) -> float:
        """The share of the error without a latent action that the oracle removes."""
        return (self.without - self.oracle) / max(self.without, 1e-12)

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        numbers = ("without", "inferred", "oracle", "from_inferred", "from_zero", "pairs", "steps", "gain")
        return {"share": self.share.to_json(), **{name: getattr(self, name) for name in numbers}}


def measure_utilisation(
    model: PairModel,
    pairs: Pairs,
    rows: Int[Tensor, " m"],
    *,
    steps: int,
    seed: int,
    device: torch.device | None = None,
) -> Utilisation:
    """Compare the inferred latent actions of `rows` with the best that `steps` of Adam find, from two starts."""
    pictures = pairs.pictures(rows).to(device)
    frames, truth = pictures[:, 0], pictures[:, 1]
    inferred = pairs.mean[rows].to(device)
    mean = pairs.mean.mean(dim=0).to(device).expand_as(inferred)
    spread = max(pairs.spread / math.sqrt(inferred.shape[1]), 0.1)

    def search(begin: Tensor) -> Tensor:
        chunks = zip(*(x.split(CHUNK) for x in (frames, truth, begin)), strict=True)
        return torch.cat([_best_error(model, *chunk, rate=0.1 * spread, steps=steps) for chunk in chunks])

    with torch.no_grad():
        without, own = (_error(model, frames, truth, latent) for latent in (mean, inferred))
    from_inferred, from_zero = search(inferred), search(torch.zeros_like(inferred))
    oracle = torch.minimum(from_inferred, from_zero)
    by_episode = torch.stack([pairs.by_episode(error.double().cpu(), rows) for error in (without, own, oracle)], dim=1)

    def share(errors: Tensor) -> Tensor:
        without, own, oracle = errors.sum(dim=0)
        enough = without - oracle > SMALLEST_GAIN * without
        return torch.where(enough, (without - own) / (without - oracle), torch.nan)

    return Utilisation(
        share=bootstrap_interval(by_episode, share, seed=seed),
        **{
            name: error.mean().item()
            for name, error in {
                "without": without,
                "inferred": own,
                "oracle": oracle,
                "from_inferred": from_inferred,
                "from_zero": from_zero,
            }.items()
        },
        pairs=len(rows),
        steps=steps,
    )


def _error(
    model: PairModel,
    frames: Float[Tensor, "n c h w"],
    truth: Float[Tensor, "n c h w"],
    latent_action: Float[Tensor, "n l"],
) -> Float[Tensor, " n"]:
    drawn = model.decode(frames[:, None], latent_action[:, None])[:, 0].float()
    return (drawn - truth).square().mean(dim=(1, 2, 3))


def _best_error(
    model: PairModel,
    frames: Float[Tensor, "n c h w"],
    truth: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n l"],
    *,
    rate: float,
    steps: int,
) -> Float[Tensor, " n"]:
    """The lowest error of each pair that Adam meets on its way, its start included."""
    latent = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], lr=rate)
    best = torch.full((len(start),), torch.inf, device=start.device)
    for step in range(steps + 1):
        with torch.enable_grad():
            error = _error(model, frames, truth, latent)
        best = torch.minimum(best, error.detach())
        if step == steps or not error.requires_grad:  # a decoder without a way back from the picture: nothing to search
            break
        (latent.grad,) = torch.autograd.grad(error.sum(), [latent], allow_unused=True)
        if latent.grad is None:
            break
        optimizer.step()
    return best
