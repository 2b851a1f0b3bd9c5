"""How far the members of a prediction spread, and how wrong it then is.

On held-out episodes, for every prediction h frames ahead: the spread of its members s, its error e against the real
frame, and the error of showing the last real frame instead (all root mean square over the pixels, in [0, 1]).

    expected error     E(s, h) = a + b s + c h                     least squares over half of the episodes
    bound              q E(s, h),  q the share-quantile of e / E   over the same half, as in conformal prediction
    coverage           how often e <= q E                          over the other half

Where the bound is no better than the error of the late picture itself, the prediction does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamdojo.apps.teleop.predict import Imagined
from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.errors import DataError
from dreamdojo.files import read_json, write_json
from dreamdojo.metrics import fit_ridge, mean_interval, unit_range
from dreamdojo.rollout.session import CAMERA
from dreamdojo.rollout.starts import fitted
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation

SMALLEST = 1 / 255
"""Smallest error that is expected: one step of an eight-bit picture."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Predictions of one episode, one row each."""

    ahead: Int[Tensor, " n"]
    """Frames ahead of the last real one."""
    spread: Float[Tensor, " n"]
    """Of the members."""
    error: Float[Tensor, " n"]
    """Of the prediction that is shown."""
    late: Float[Tensor, " n"]
    """Of the last real frame, shown instead."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From spread to expected error."""

    offset: float
    """a."""
    slope: float
    """b."""
    per_frame: float
    """c."""
    quantile: float
    """q."""
    level: float
    """Share of errors that the bound is to cover."""
    late: tuple[float, ...]
    """Mean error of the late picture, 1, 2, ... frames ahead."""
    coverage: float | None = None
    """Share of held-out errors within the bound, on episodes that were not fitted on."""
    coverage_low: float | None = None
    """Lower end of its 95 % interval over episodes; None for a single one."""
    coverage_high: float | None = None
    """Upper end."""
    unknown: float | None = None
    """Share of held-out predictions that say they do not know."""
    episodes: int = 0
    """Episodes that the coverage was measured on."""
    members: int = 0
    """Members whose spread was measured."""

    def expected(self, spread: float, ahead: int) -> float:
        """The expected error."""
        return max(SMALLEST, self.offset + self.slope * spread + self.per_frame * ahead)

    def bound(self, spread: float, ahead: int) -> float:
        """What `level` of all errors stay below."""
        return self.quantile * self.expected(spread, ahead)

    def knows(self, spread: float, ahead: int) -> bool:
        """Whether the prediction is expected to be better than the late picture it is drawn over."""
        return self.expected(spread, ahead) < self.late[min(ahead, len(self.late)) - 1]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read it back.

        Raises:
            DataError: if it is not there, or not one.
        """
        raw = read_json(path, of="calibration")
        try:
            return cls(**{**raw, "late": tuple(raw["late"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: expected a calibration, found {error}. Make it again.") from error


def fit_calibration(samples: Sequence[Sample], *, level: float = 0.9, members: int = 0) -> Calibration:
    """Fit on every other episode, and measure the coverage on those between.

    Raises:
        DataError: if there are fewer than two episodes.
    """
    if len(samples) < 2:
        raise DataError(f"expected at least 2 held-out episodes, one of them to measure on, got {len(samples)}")
    ahead, spread, error = (_joined(samples[::2], name) for name in ("ahead", "spread", "error"))
    features = torch.stack([spread, ahead.float()], dim=1)
    fit = fit_ridge(features, error[:, None], strength=0.0)
    slope, per_frame = fit.weight[:, 0].tolist()
    fitted = Calibration(
        offset=float(fit.bias[0]),
        slope=slope,
        per_frame=per_frame,
        quantile=1.0,
        level=level,
        late=_late(samples[::2]),
        members=members,
    )
    ratio = error / _expected(fitted, spread, ahead)
    rank = min(1.0, level * (1 + 1 / len(ratio)))
    values = {**asdict(fitted), "quantile": float(ratio.quantile(rank)), "late": fitted.late}
    found = Calibration(**values)
    covered, knows = [], []
    for sample in samples[1::2]:
        expected = _expected(found, sample.spread, sample.ahead)
        covered.append((sample.error <= found.quantile * expected).double().mean())
        late = torch.tensor(found.late)[sample.ahead - 1]
        knows.append((expected < late).double().mean())
    shares = torch.stack(covered)
    interval = mean_interval(shares).to_json()
    return Calibration(
        **{
            **values,
            "coverage": interval["mean"],
            "coverage_low": interval["low"],
            "coverage_high": interval["high"],
            "unknown": 1 - float(torch.stack(knows).mean()),
            "episodes": len(shares),
        }
    )


def collect(
    predictor: Imagined,
    dataset: Dataset,
    episodes: Sequence[int],
    *,
    horizon: int,
    every: int = 8,
    camera: str | None = None,
    report: Report = silent,
) -> list[Sample]:
    """Predict held-out episodes from every `every`-th of their frames, `horizon` frames ahead, and compare.

    Raises:
        DataError: if an episode has no actions, or not `horizon` frames after its first.
    """
    session = predictor.session
    samples = []
    for number, index in enumerate(episodes):
        report(number, len(episodes), f"episode {index}")
        rows = resample(dataset, index, session.fps)
        pictures = dataset.frames(index, [int(i) for i in rows.frame_indices], camera)
        frames = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)[None].contiguous()
        state = None if rows.states is None else torch.from_numpy(rows.states)[None]
        metres = None if session.depth is None else dataset.depth(index, [int(i) for i in rows.frame_indices], camera)
        depth = None if metres is None else {CAMERA: torch.from_numpy(metres)[None, :, None]}
        if rows.actions is None:
            raise DataError(f"{dataset.root}: expected a robot's episodes with actions, found none in episode {index}")
        if len(rows.actions) < horizon:
            raise DataError(
                f"{dataset.root}: expected episodes of at least {horizon} actions at {session.fps:g} Hz, found "
                f"{len(rows.actions)} in episode {index}. Calibrate with a shorter horizon."
            )
        actions = torch.from_numpy(rows.actions)[None]
        real = fitted(Observation(frames={CAMERA: frames}, state=state, depth=depth), session.size)
        samples.append(_sample(predictor, real, actions, horizon=horizon, every=every, seed=index))
    return samples


def _sample(predictor: Imagined, real: Observation, actions: Tensor, *, horizon: int, every: int, seed: int) -> Sample:
    frames = real.frames[CAMERA]
    predictor.reset(_part(real, 0, 1), seed=seed)
    found: list[tuple[int, float, float, float]] = []
    for at in range(0, frames.shape[1] - horizon, every):
        if at:
            predictor.anchor(_part(real, at - every + 1, at + 1), actions[:, at - every : at], at)
        told = predictor.predict(actions[:, at : at + horizon])
        truth, shown = frames[0, at + 1 : at + 1 + horizon], told.frames[CAMERA][0]
        wrong, late = rms(shown, truth), rms(frames[0, at : at + 1].expand_as(truth), truth)
        certain = told.uncertainty[0] if told.uncertainty is not None else torch.zeros(horizon)
        found += [(h + 1, float(certain[h]), float(wrong[h]), float(late[h])) for h in range(horizon)]
    table = torch.tensor(found)
    return Sample(ahead=table[:, 0].long(), spread=table[:, 1], error=table[:, 2], late=table[:, 3])


def rms(first: Tensor, second: Tensor) -> Tensor:
    """Root mean square difference of frames `t c h w` uint8, per frame, in [0, 1]."""
    return (unit_range(first) - unit_range(second)).square().mean(dim=(1, 2, 3)).sqrt()


def _part(real: Observation, first: int, last: int) -> Observation:
    return Observation(
        frames={CAMERA: real.frames[CAMERA][:, first:last]},
        state=None if real.state is None else real.state[:, first:last],
        depth=None if real.depth is None else {CAMERA: real.depth[CAMERA][:, first:last]},
    )


def _expected(calibration: Calibration, spread: Tensor, ahead: Tensor) -> Tensor:
    told = calibration.offset + calibration.slope * spread + calibration.per_frame * ahead
    return told.clamp(min=SMALLEST)


def _late(samples: Sequence[Sample]) -> tuple[float, ...]:
    ahead, late = _joined(samples, "ahead"), _joined(samples, "late")
    return tuple(float(late[ahead == h].mean()) for h in range(1, int(ahead.max()) + 1))


def _joined(samples: Sequence[Sample], name: str) -> Tensor:
    return torch.cat([getattr(sample, name) for sample in samples])
