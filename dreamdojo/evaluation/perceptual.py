"""Two judges that were trained by others: a distance between pictures, and features of clips.

ST-LPIPS (Ghildyal and Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022) is LPIPS over an AlexNet that is
blurred before it is thinned out, with weights fitted to what people call similar. They come in the wheel of
`stlpips-pytorch`, whose own code wants torchvision and more; only its weights file is read here.

    distance = sum over layers of mean over places of w . (f(x) / |f(x)| - f(y) / |f(y)|)^2

Features of clips, for the Fréchet video distance, come from a TorchScript file that the user brings: the usual network
(I3D on Kinetics) is not ours to ship.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import CheckpointError, DataError, MissingDependencyError
from dreamdojo.metrics import frechet_distance, unit_range
from dreamdojo.training.checkpoint import check_fit

PictureDistance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Two sets of pictures `n 3 h w` in [0, 1] -> their distances `n`, 0 where they are equal."""

VideoFeatures: TypeAlias = Callable[[Tensor], Tensor]
"""Clips `b t 3 h w` in [0, 1] -> feature vectors `b d`."""

PACKAGE, WEIGHTS = "stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth"
MIN_SIDE = 24
"""Smaller pictures leave nothing to pool in the deepest layer."""
PIXELS_AT_ONCE = 2**20


class Blur(nn.Module):
    """Every second pixel of what a 3x3 binomial filter makes of the picture, which is mirrored at its borders."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (row[:, None] * row).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Channel by channel."""
        mirrored = nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return nn.functional.conv2d(mirrored, self.filt, stride=2, groups=x.shape[1])


class ShiftTolerantAlexNet(nn.Module):
    """The five layers whose features are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, 64, 11, padding=2), Blur(64), nn.ReLU()),
                nn.Sequential(nn.MaxPool2d(3, stride=1), Blur(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                nn.Sequential(nn.MaxPool2d(3, stride=1), Blur(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            ]
        )

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Features after each layer, of length 1 at each place."""
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return features


class ShiftTolerantLPIPS(nn.Module):
    """A `PictureDistance`."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = ShiftTolerantAlexNet()
        self.weigh = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in (64, 192, 384, 256, 256))
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, first: Float[Tensor, "n 3 h w"], second: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distance of each pair, on the CPU; in parts, so that large pictures fit.

        Raises:
            DataError: if the pictures are too small.
        """
        height, width = first.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise DataError(f"ST-LPIPS needs pictures of at least {MIN_SIDE} x {MIN_SIDE} pixels, got {height}x{width}")
        count = max(1, PIXELS_AT_ONCE // (height * width))
        return torch.cat([self._pairs(*pair) for pair in zip(first.split(count), second.split(count), strict=True)])

    def _pairs(self, first: Tensor, second: Tensor) -> Tensor:
        shown = torch.cat([first, second]).to(self.shift.device)
        distance = torch.zeros(len(first), device=self.shift.device)
        for weigh, features in zip(self.weigh, self.net((2 * shown - 1 - self.shift) / self.scale), strict=True):
            one, other = features.chunk(2)
            distance += weigh((one - other).square()).mean(dim=(1, 2, 3))
        return distance.cpu()


def open_lpips(device: torch.device) -> ShiftTolerantLPIPS:
    """ST-LPIPS with the published weights.

    Raises:
        MissingDependencyError: naming the extra to install.
        CheckpointError: if the package holds other weights.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError(
            'LPIPS needs the weights of the package stlpips-pytorch, found none: pip install "dreamdojo[perceptual]"'
        )
    return read_lpips(Path(package.submodule_search_locations[0]) / WEIGHTS).to(device)


def read_lpips(path: Path) -> ShiftTolerantLPIPS:
    """ST-LPIPS with the weights of a published file.

    Raises:
        CheckpointError: if there is none, or it is not of the published layout.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: expected the weights of ST-LPIPS, found {error}") from error
    model = ShiftTolerantLPIPS()
    if not isinstance(published, Mapping) or not all(isinstance(value, Tensor) for value in published.values()):
        raise CheckpointError(f"{path}: expected tensors by name, found a {type(published).__name__}")
    ours = {_our_name(name): value for name, value in published.items()}
    check_fit(path, *({name: tuple(v.shape) for name, v in each.items()} for each in (model.state_dict(), ours)))
    model.load_state_dict(ours)
    return model.eval().requires_grad_(False)


def _our_name(published: str) -> str:
    """`net.slice2.5.weight` -> `net.layers.1.2.weight`: published layers count through all slices."""
    first = {"slice1": 0, "slice2": 3, "slice3": 7, "slice4": 11, "slice5": 13}
    parts = published.split(".")
    if parts[0] == "net" and len(parts) == 4 and parts[1] in first:
        return f"net.layers.{int(parts[1][-1]) - 1}.{int(parts[2]) - first[parts[1]]}.{parts[3]}"
    if parts[0].startswith("lin") and len(parts) == 4:
        return f"weigh.{parts[0][3:]}.{parts[3]}"
    return published.removeprefix("scaling_layer.")


def open_features(path: Path, device: torch.device) -> VideoFeatures:
    """Features of clips by a TorchScript file that takes `b t 3 h w` in [0, 1] and returns `b d`.

    Raises:
        CheckpointError: if there is none, or it is not TorchScript.
        DataError: (when called) if what it returns is not one vector per clip.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a TorchScript file of a feature network, found nothing")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected TorchScript (torch.jit.save), found {str(error).partition(chr(10))[0]}"
        ) from error

    @torch.no_grad()
    def features(clips: Tensor) -> Tensor:
        found = network(clips.to(device))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(clips):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(
                f"{path}: expected features b d of {len(clips)} clips b t 3 h w in [0, 1], found {what}. Wrap the "
                "network so that it takes and returns these."
            )
        return found.float().cpu()

    return features


def frechet_video_distances(
    features: VideoFeatures, truth: Tensor, methods: Mapping[str, Tensor], *, batch: int = 4
) -> dict[str, float]:
    """Fréchet distance of each method's clips to the true ones, all `b t 3 h w` uint8.

    Raises:
        DataError: if there are fewer than two clips.
    """

    def of(clips: Tensor) -> Tensor:
        return torch.cat([features(unit_range(part)) for part in clips.split(batch)])

    true = of(truth)
    return {name: frechet_distance(of(clips), true) for name, clips in methods.items()}
