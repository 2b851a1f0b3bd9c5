"""How close predicted frames are to the true ones.

Pictures are floats in [0, 1], channels before rows before columns. Every function keeps the clip and frame axes, so
that two methods can be compared clip by clip before anything is averaged.

    psnr              -10 log10(mse)
    ssim              (2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx^2 + sy^2 + c2)), averaged over the picture
    moving            the same PSNR over the pixels that changed since the last context frame
    gradient energy   |dx|^2 + |dy|^2 of the prediction over that of the truth, in those pixels: 1 is as sharp

Moving pixels are chosen by the truth alone, hence the same pixels, and the same clips, for every method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.errors import DataError

MSE_FLOOR = 1.0 / (12 * 255**2)
"""Mean square of 8-bit rounding. No error is counted below it, so equal pictures score 58.9 dB and not infinity."""

MOVING_THRESHOLD = 0.1
"""A pixel moves where one of its channels changes by more than this, of a range of 1."""

MIN_MOVING_FRACTION = 0.002
"""Below this share of moving pixels (8 of 64 x 64) nothing is said about motion: the result is NaN."""

SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03


def unit_range(frames: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """8-bit frames as floats in [0, 1], the range every metric here expects."""
    return frames.float() / 255


def psnr(predicted: Float[Tensor, "*b c h w"], truth: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio in dB of each picture; 58.9 dB where they are equal (see `MSE_FLOOR`)."""
    return _decibel((predicted - truth).square().mean(dim=(-3, -2, -1)))


def ssim(predicted: Float[Tensor, "*b c h w"], truth: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Structural similarity of each picture, averaged over channels: 1 is equal, 0 is unrelated.

    Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only where the whole window fits.

    Raises:
        DataError: if a picture is smaller than the window.
    """
    height, width = truth.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise DataError(
            f"SSIM needs pictures of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {height} x {width}. "
            "Compare larger pictures, or use psnr, which has no window."
        )
    x, y = predicted.reshape(-1, *truth.shape[-3:]), truth.reshape(-1, *truth.shape[-3:])
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(-3, -2, -1)).reshape(truth.shape[:-3])


def moving_pixels(
    truth: Float[Tensor, "b t c h w"], last_context: Float[Tensor, "b c h w"], *, threshold: float = MOVING_THRESHOLD
) -> Bool[Tensor, "b t h w"]:
    """Which pixels of each true frame differ from the last frame that was given, by more than `threshold`."""
    return (truth - last_context[:, None]).abs().amax(dim=2) > threshold


@dataclass(frozen=True, kw_only=True)
class MovingPSNR:
    """PSNR in dB over moving pixels; NaN where fewer than `MIN_MOVING_FRACTION` of the pixels move."""

    frame: Float[Tensor, "b t"]
    """Of each frame by itself."""
    clip: Float[Tensor, " b"]
    """Of each clip: squared errors pooled over all its moving pixels, so that frames count by how much moves."""


def moving_psnr(
    predicted: Float[Tensor, "b t c h w"], truth: Float[Tensor, "b t c h w"], moving: Bool[Tensor, "b t h w"]
) -> MovingPSNR:
    """PSNR over the pixels marked by `moving_pixels`: copying the last frame is no help there.

    A clip in which nothing moves has no such number. It is NaN, and the intervals of `statistics` leave it out and
    say how many clips they stand on; `moving` depends on the truth alone, so it is left out for every method.
    """
    error = (predicted - truth).square().mean(dim=2) * moving
    pixels = moving.shape[-2] * moving.shape[-1]
    sums, counts = error.sum(dim=(-2, -1)), moving.sum(dim=(-2, -1))
    return MovingPSNR(
        frame=_pooled_decibel(sums, counts, pixels),
        clip=_pooled_decibel(sums.sum(dim=1), counts.sum(dim=1), pixels * moving.shape[1]),
    )


def gradient_energy(frames: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b h-1 w-1"]:
    """Squared forward differences along rows and columns, averaged over channels: high at sharp edges."""
    down = frames[..., 1:, :-1] - frames[..., :-1, :-1]
    right = frames[..., :-1, 1:] - frames[..., :-1, :-1]
    return (down.square() + right.square()).mean(dim=-3)


def gradient_energy_ratio(
    predicted: Float[Tensor, "b t c h w"], truth: Float[Tensor, "b t c h w"], moving: Bool[Tensor, "b t h w"]
) -> Float[Tensor, "b t"]:
    """Gradient energy of the prediction over that of the truth in moving pixels, frame by frame.

    1 is as sharp as the truth and 0 is flat: blur that PSNR rewards shows here. It says nothing about whether the edges
    are in the right place. NaN where too little moves (see `MIN_MOVING_FRACTION`) or the truth is flat.
    """
    inside = moving[..., :-1, :-1]
    numerator = (gradient_energy(predicted) * inside).sum(dim=(-2, -1))
    denominator = (gradient_energy(truth) * inside).sum(dim=(-2, -1))
    enough = inside.float().mean(dim=(-2, -1)) >= MIN_MOVING_FRACTION
    return torch.where(enough & (denominator > 0), numerator / denominator, torch.nan)


def _decibel(mse: Tensor) -> Tensor:
    return -10 * mse.clamp(min=MSE_FLOOR).log10()


def _pooled_decibel(sums: Tensor, counts: Tensor, pixels: int) -> Tensor:
    enough = counts >= MIN_MOVING_FRACTION * pixels
    return torch.where(enough & (counts > 0), _decibel(sums / counts.clamp(min=1)), torch.nan)


def _window_mean(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    return _window(x.shape[-2], like=x) @ x @ _window(x.shape[-1], like=x).mT


def _window(length: int, *, like: Tensor) -> Float[Tensor, "inside length"]:
    """Gaussian mean at every place where the whole window fits, as a matrix: faster than a one-channel convolution."""
    start = torch.arange(length - SSIM_WINDOW + 1, device=like.device)[:, None]
    offset = torch.arange(length, device=like.device) - start - SSIM_WINDOW // 2
    weight = (-offset.to(like.dtype).square() / (2 * SSIM_SIGMA**2)).exp() * (offset.abs() <= SSIM_WINDOW // 2)
    return weight / weight.sum(dim=1, keepdim=True)
