import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.evaluation.rollouts import COPY, Clips, DepthTruth, score_rollouts
from dreamdojo.evaluation.sections import against_copy_section, depth_section


@pytest.fixture
def clips():
    """A bright square, 20 cm above a table at 1 m, appears in the two true frames; a corner was not measured."""
    last, truth = torch.full((4, 3, 16, 16), 50, dtype=torch.uint8), torch.full((4, 2, 3, 16, 16), 50)
    truth[..., 4:8, 4:8] = 200
    depth = torch.ones(4, 2, 1, 16, 16)
    depth[..., 4:8, 4:8] = 0.8
    counted = torch.ones(4, 2, 1, 16, 16, dtype=torch.bool)
    counted[..., :2, :2] = False
    of_depth = DepthTruth(last_context=torch.ones(4, 1, 16, 16), truth=depth, counted=counted)
    return Clips(last_context=last, truth=truth.to(torch.uint8), depth=of_depth)


def test_depth_errors_stand_beside_the_copied_last_frame(clips):
    guess = clips.depth.truth + 0.01 * torch.rand(4, 2, 1, 16, 16)
    guess[..., :2, :2] = 5.0  # where nothing was measured
    scores = score_rollouts(
        clips,
        {"model": clips.truth},
        other_actions={"model": clips.truth},
        horizons=(1, 2),
        depths={"model": guess},
        other_depths={"model": guess},
    )
    assert scores.mean("moving_depth_error", COPY, 1).mean == pytest.approx(20, rel=1e-4)
    assert scores.mean("depth_error", COPY, 2).mean == pytest.approx(20 * 16 / (256 - 4), rel=1e-4)
    assert 0 < scores.mean("depth_error", "model", 1).mean < 1
    section = depth_section(scores, 0.25, horizons=(1, 2))
    assert section.blocks[0].tone == "good" and "beats copying" in section.blocks[0].text
    assert any("0.25 cm" in getattr(block, "text", "") for block in section.blocks)
    tables = [table for table in against_copy_section(scores, horizons=(1, 2)).blocks if "Depth" in table.columns[0]]
    assert [table.better for table in tables] == ["lower", "lower"]


def test_depth_of_some_methods_only_is_refused(clips):
    with pytest.raises(DataError, match=r"expected the depth of \['model'\]"):
        score_rollouts(clips, {"model": clips.truth}, other_actions={}, horizons=(1,))


def test_without_true_depth_there_is_no_number(clips):
    plain = Clips(last_context=clips.last_context, truth=clips.truth)
    scores = score_rollouts(plain, {"model": clips.truth}, other_actions={}, horizons=(1,))
    assert "depth_error" not in scores.to_json()["mean"]
