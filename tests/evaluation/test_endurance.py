import torch

from dreamdojo.evaluation.endurance import colour_drift, energy_drift, error_after_return, unrest, was_hidden
from dreamdojo.evaluation.keypoints import Located
from dreamdojo.evaluation.rollouts import Clips, SceneTruth


def video(seed=0, frames=8):
    return torch.randint(
        0, 255, (2, frames, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_a_picture_that_yellows_and_blurs_late_is_seen_to():
    truth = video() // 2
    made = truth.clone()
    made[:, -2:, 0] += 51
    early, late = colour_drift(made, truth, 2)
    assert not early.any()
    torch.testing.assert_close(late, torch.full((2,), 0.2))
    made = truth.clone()
    made[:, -2:] = 100
    early, late = energy_drift(made, truth, 2)
    torch.testing.assert_close(early, torch.ones(2))
    assert not late.any()


def test_a_world_at_rest_has_no_unrest():
    assert not unrest(video()[:, :1].expand(-1, 5, -1, -1, -1)).any()
    assert (unrest(video()) > 0.1).all()


def test_an_object_has_returned_when_it_was_long_enough_out_of_view():
    seen = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1, 1]).bool()[None, :, None].expand(1, 9, 2)
    back = was_hidden(seen, torch.tensor([[True, False]]), hidden_for=3)
    assert back[0, :, 0].tolist() == [False] * 7 + [True] * 2 and not back[0, :, 1].any()


def test_objects_that_came_back_are_scored_apart_from_those_that_stayed():
    visible = torch.ones(1, 10, 2).bool()
    visible[0, 2:6, 0] = False
    positions = torch.full((1, 10, 2, 2), 0.5)
    masks = torch.ones(1, 2, 16, 16).bool()
    scene = SceneTruth(
        effector=torch.zeros(1, 10, 2),
        effector_visible=torch.ones(1, 10).bool(),
        masks=masks,
        objects_start=positions[:, 0],
        objects=positions,
        objects_visible=visible,
    )

    class Right:
        """Half a picture to the right of the truth."""

        error = None

        def locate(self, start, mask, frames):
            n = len(frames)
            return Located(position=torch.tensor([1.0, 0.5]).expand(n, 2), found=torch.ones(n).bool())

    truth = video(frames=10)[:1]
    clips = Clips(last_context=truth[:, 0], truth=truth, scene=scene)
    found = error_after_return(clips, truth, Right(), every=1)
    torch.testing.assert_close(found["returned"], torch.tensor([8.0]))
    torch.testing.assert_close(found["stayed"], torch.tensor([8.0]))
    visible[0, 2:6, 0] = True
    assert error_after_return(clips, truth, Right(), every=1)["returned"].isnan().all()
