"""UniPC, the published sampler: a multistep predictor-corrector for the rectified-flow path (arXiv 2302.04867).

Order 2 in its B2 variant, on predictions of the clean sample `m = x - sigma v`. With `lambda = ln((1 - s) / s)`,
`h = lambda' - lambda`, `B = expm1(-h)`, `a = 1 - s'` and `r = (lambda_before - lambda) / h`, the step from s to s' is

    predict   x' = (s' / s) x - a B m  [ - a B / 2 (m_before - m) / r ]
    correct   x' = (s' / s) x - a B m - a B (rho_0 (m_before - m) / r + rho_1 (m' - m))

where m' is the model at the predicted x'. The first step has no m_before; the last one is of first order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.errors import ConfigError

LAST_LEVEL = 0.001
"""The noise levels are spaced evenly from 1 - LAST_LEVEL down to 0 before the shift."""


@dataclass(frozen=True)
class UniPCSchedule:
    """Noise levels, and the times that the network is told."""

    sigma: Float[Tensor, " steps_1"]
    """`steps + 1` noise levels, the last is 0; float32."""
    time: Float[Tensor, " steps"]
    """What stands in for sigma in the network's time embedding: whole thousandths, as published."""


def unipc_schedule(steps: int, shift: float) -> UniPCSchedule:
    """The published schedule: `steps` levels from about 1, shifted towards noise, then 0."""
    if steps < 1:
        raise ConfigError(f"UniPC needs at least one step, got {steps}")
    even = np.linspace(1 - LAST_LEVEL, 0.0, steps + 1)[:-1]
    sigma = shift * even / (1 + (shift - 1) * even)
    time = torch.from_numpy(np.floor(1000 * sigma) / 1000).float()
    return UniPCSchedule(torch.from_numpy(np.append(sigma, 0.0)).float(), time)


class UniPC:
    """The solver's memory along one trajectory. It knows no network: it is given clean predictions."""

    def __init__(self, sigma: Float[Tensor, " steps_1"]) -> None:
        self.sigma = sigma.double()
        self.log_ratio = torch.log((1 - self.sigma) / self.sigma)
        self.index = 0
        self._clean: list[Tensor] = []
        self._before: Tensor | None = None

    def step(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """From the state at level `index` and the model's clean prediction there to the state at the next level."""
        index = self.index
        if self._before is not None:
            noisy = self._correct(self._before, clean, index - 1)
        self._clean = [*self._clean[-1:], clean]
        order = min(index + 1, 2, len(self.sigma) - 1 - index)
        self._before = noisy
        self.index += 1
        return self._predict(noisy, index, order)

    def _coefficients(self, index: int) -> tuple[float, float, float]:
        """`s' / s`, `a B` and `-h` of the step from level `index`."""
        here, there = self.sigma[index], self.sigma[index + 1]
        minus_h = self.log_ratio[index] - self.log_ratio[index + 1]
        return (there / here).item(), ((1 - there) * torch.expm1(minus_h)).item(), minus_h.item()

    def _slope(self, index: int) -> tuple[Tensor, float]:
        """`(m_before - m) / r` and `r` at level `index`, for the clean predictions at it and before it."""
        before, clean = self._clean[-2:]
        h = self.log_ratio[index + 1] - self.log_ratio[index]
        r = ((self.log_ratio[index - 1] - self.log_ratio[index]) / h).item()
        return (before - clean) / r, r

    def _predict(self, noisy: Tensor, index: int, order: int) -> Tensor:
        shrink, gain, _ = self._coefficients(index)
        ahead = shrink * noisy - gain * self._clean[-1]
        return ahead - gain * 0.5 * self._slope(index)[0] if order == 2 else ahead

    def _correct(self, start: Tensor, clean_ahead: Tensor, index: int) -> Tensor:
        """The state at level `index + 1` again, now that the model was asked there."""
        shrink, gain, minus_h = self._coefficients(index)
        clean = self._clean[-1]
        change = clean_ahead - clean
        base = shrink * start - gain * clean
        if len(self._clean) < 2:
            return base - gain * 0.5 * change
        slope, r = self._slope(index)
        bend = np.expm1(minus_h)
        first = bend / minus_h - 1
        second = first / minus_h - 0.5
        system = np.array([[1.0, 1.0], [r, 1.0]])
        rho = np.linalg.solve(system, np.array([first / bend, 2 * second / bend]))
        return base - gain * (rho[0] * slope + rho[1] * change)


def unipc(clean: Callable[[Tensor, int], Tensor], noise: Tensor, schedule: UniPCSchedule) -> Tensor:
    """Integrate from noise to data; `clean(noisy, index)` is the model's clean prediction at level `index`."""
    solver, x = UniPC(schedule.sigma), noise
    for index in range(len(schedule.time)):
        x = solver.step(x, clean(x, index))
    return x
