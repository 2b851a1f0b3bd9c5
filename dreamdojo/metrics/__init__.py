"""Numbers that compare predictions with the truth, and say how far to trust them. Needs torch and nothing else."""

from dreamdojo.metrics.depth import depth_error
from dreamdojo.metrics.frames import (
    MIN_MOVING_FRACTION,
    MOVING_THRESHOLD,
    MSE_FLOOR,
    MovingPSNR,
    gradient_energy,
    gradient_energy_ratio,
    moving_pixels,
    moving_psnr,
    psnr,
    ssim,
    unit_range,
)
from dreamdojo.metrics.frechet import frechet_distance
from dreamdojo.metrics.ridge import ChosenRidge, RidgeFit, choose_ridge, fit_ridge
from dreamdojo.metrics.statistics import (
    ExplainedVariance,
    Interval,
    bootstrap_interval,
    explained_variance,
    mean_interval,
    paired_interval,
    r2_score,
    student_t_quantile,
    wilson_interval,
)

__all__ = [
    "MIN_MOVING_FRACTION",
    "MOVING_THRESHOLD",
    "MSE_FLOOR",
    "ChosenRidge",
    "ExplainedVariance",
    "Interval",
    "MovingPSNR",
    "RidgeFit",
    "bootstrap_interval",
    "choose_ridge",
    "depth_error",
    "explained_variance",
    "fit_ridge",
    "frechet_distance",
    "gradient_energy",
    "gradient_energy_ratio",
    "mean_interval",
    "moving_pixels",
    "moving_psnr",
    "paired_interval",
    "psnr",
    "r2_score",
    "ssim",
    "student_t_quantile",
    "unit_range",
    "wilson_interval",
]
