"""ST-LPIPS with the weights of its wheel, and features of clips from TorchScript files."""

import importlib
import sys
import types

import pytest
import torch
from torch import nn

from dreamdojo.errors import CheckpointError, DataError, MissingDependencyError
from dreamdojo.evaluation import perceptual
from dreamdojo.evaluation.perceptual import (
    PACKAGE,
    ShiftTolerantLPIPS,
    frechet_video_distances,
    open_features,
    open_lpips,
    read_lpips,
)

CPU = torch.device("cpu")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="stlpips-pytorch (the extra perceptual) is not installed"
)


def pictures(count, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@needs_weights
def test_equal_pictures_are_at_no_distance_and_worse_ones_farther():
    lpips = open_lpips(CPU)
    truth = nn.functional.interpolate(pictures(2, 8), size=(64, 64), mode="bilinear")
    little, much = truth + 0.02 * pictures(2, seed=1), 0.5 * truth + 0.5 * pictures(2, seed=1)
    assert torch.equal(lpips(truth, truth), torch.zeros(2))
    assert (lpips(truth, much) > lpips(truth, little)).all() and (lpips(truth, little) > 0).all()
    torch.testing.assert_close(lpips(truth, much), lpips(much, truth))
    shifted = torch.roll(truth, 1, dims=-1)
    assert (lpips(truth, shifted) < lpips(truth, much)).all()


@needs_weights
def test_it_is_what_the_package_computes(monkeypatch):
    """Its own code imports three packages for parts that are not used here; empty ones stand in."""
    for name, content in {"torchvision": "models", "IPython": "embed", "torchsummary": "summary"}.items():
        module = types.ModuleType(name)
        setattr(module, content, None)
        monkeypatch.setitem(sys.modules, name, module)
    try:
        package = importlib.import_module(f"{PACKAGE}.stlpips")
    except (ImportError, SyntaxError, AttributeError) as error:
        pytest.skip(f"the package's own code does not import here: {error}")
    original = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    first, second = pictures(3, seed=2), pictures(3, seed=3)
    with torch.no_grad():
        expected = original(first, second, normalize=True).flatten()
    torch.testing.assert_close(open_lpips(CPU)(first, second), expected, rtol=1e-4, atol=1e-6)


def test_large_pictures_are_compared_in_parts(monkeypatch):
    lpips = ShiftTolerantLPIPS().eval()
    first, second = pictures(5, 32), pictures(5, 32, seed=1)
    whole = lpips(first, second)
    monkeypatch.setattr(perceptual, "PIXELS_AT_ONCE", 2 * 32 * 32)
    torch.testing.assert_close(lpips(first, second), whole)
    with pytest.raises(DataError, match="at least 24 x 24 pixels, got 16x16"):
        lpips(pictures(1, 16), pictures(1, 16))


def test_what_is_missing_or_foreign_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dreamdojo\[perceptual\]"'):
        open_lpips(CPU)
    torch.save({"net.slice1.0.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth does not fit this model: missing"):
        read_lpips(tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="expected the weights of ST-LPIPS"):
        read_lpips(tmp_path / "nowhere.pth")


class MeanColours(nn.Module):
    """A feature network: the mean of each channel over a clip."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(1, 3, 4))


class NoVectors(nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips


def test_the_frechet_video_distance_of_a_torchscript_file(tmp_path):
    torch.jit.script(MeanColours()).save(tmp_path / "colours.pt")
    features = open_features(tmp_path / "colours.pt", CPU)
    truth = torch.randint(0, 200, (9, 4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = frechet_video_distances(features, truth, {"same": truth, "brighter": truth + 51})
    # a shift of every feature by 51 / 255 in three channels, the spread unchanged
    assert found == pytest.approx({"same": 0.0, "brighter": 3 * 0.2**2}, abs=1e-6)


def test_feature_files_that_cannot_serve_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="found nothing"):
        open_features(tmp_path / "nowhere.pt", CPU)
    (tmp_path / "text.pt").write_text("words")
    with pytest.raises(CheckpointError, match="expected TorchScript"):
        open_features(tmp_path / "text.pt", CPU)
    torch.jit.script(NoVectors()).save(tmp_path / "none.pt")
    with pytest.raises(DataError, match=r"expected features b d of 2 clips .* found \(2, 4, 3, 8, 8\)"):
        open_features(tmp_path / "none.pt", CPU)(torch.zeros(2, 4, 3, 8, 8))
