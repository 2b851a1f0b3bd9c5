"""What a latent action answers to: motion it should tell of, and stillness, light and a moved camera it should not.

Every answer is a distance between latent actions in units of their spread (root mean square distance from their mean):

    motion   |z(frame, next frame) - z(frame, frame)|          what the hand does
    light    |z(frame, frame in another light) - z(frame, frame)|
    camera   |z(frame, frame seen from aside) - z(frame, frame)|
    still    |z(frame, frame) - mean of these|                 what the picture alone does: 0 unless the latent action
                                                               tells the picture instead of the motion
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamdojo.evaluation.health.pairs import PairModel, Pairs, encode
from dreamdojo.metrics import Interval, mean_interval

GAIN = 0.1
"""Every colour channel becomes brighter or darker by this share."""
SHIFT = 1 / 32
"""The camera moves by this share of the picture's side (2 pixels of 64) along both axes."""
ZOOM = 0.02
"""And nearer or farther by this share."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """How far latent actions move, in units of their spread; NaN where they are all the same."""

    motion: Interval
    still: Interval
    light: Interval
    camera: Interval

    def relative(self, name: str) -> float:
        """An answer as a share of that to motion."""
        return getattr(self, name).mean / self.motion.mean if self.motion.mean > 0 else float("nan")

    def to_json(self) -> dict[str, object]:
        """Plain structures for a results file."""
        return {name: getattr(self, name).to_json() for name in self.__dataclass_fields__}


def still_latents(
    model: PairModel, pairs: Pairs, rows: Int[Tensor, " m"], *, device: torch.device | None = None
) -> Float[Tensor, "m l"]:
    """Latent actions of the first frames of `rows` beside themselves."""
    first = pairs.pictures(rows)[:, 0]
    return encode(model, torch.stack([first, first], dim=1), device=device)[0]


def measure_response(
    model: PairModel,
    pairs: Pairs,
    rows: Int[Tensor, " m"],
    still: Float[Tensor, "m l"],
    *,
    seed: int,
    device: torch.device | None = None,
) -> Response:
    """Show the model what should and what should not move its latent action; `still` is of the same `rows`."""
    generator = torch.Generator().manual_seed(seed)
    first = pairs.pictures(rows)[:, 0]

    def answer(second: Tensor) -> Tensor:
        return encode(model, torch.stack([first, second], dim=1), device=device)[0] - still

    distances = {
        "motion": pairs.mean[rows] - still,
        "still": still - still.mean(dim=0),
        "light": answer(in_another_light(first, generator)),
        "camera": answer(seen_from_aside(first, generator)),
    }
    spread = pairs.spread if pairs.spread > 1e-5 else float("nan")
    sizes = {name: mean_interval(pairs.by_episode(d.norm(dim=1) / spread, rows)) for name, d in distances.items()}
    return Response(**sizes)


def in_another_light(frames: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Every channel of every picture brighter or darker by `GAIN`."""
    return (frames * (1 + GAIN * _signs(frames, frames.shape[1], generator)[..., None, None])).clamp(0, 1)


def seen_from_aside(frames: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Pictures of a camera that moved by `SHIFT` along both axes and by `ZOOM` nearer or farther."""
    signs = _signs(frames, 3, generator)
    eye = torch.eye(2).expand(len(frames), 2, 2) * (1 + ZOOM * signs[:, :1, None])
    grid = nn.functional.affine_grid(
        torch.cat([eye, 2 * SHIFT * signs[:, 1:, None]], dim=2), list(frames.shape), align_corners=False
    )
    return nn.functional.grid_sample(frames, grid, padding_mode="reflection", align_corners=False)


def _signs(frames: Tensor, count: int, generator: torch.Generator) -> Float[Tensor, "n count"]:
    return 2.0 * torch.randint(2, (len(frames), count), generator=generator) - 1
