"""Probes come back from disk as they were, and the object goal measures what they see."""

import pytest
import torch

from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.objectives import ObjectGoal
from dreamdojo.errors import CheckpointError, DataError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.keypoints import HeatmapNet, ProbeError
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.evaluation.stored_probes import load_probes, save_probes

ERROR = ProbeError(mean=1.0, median=0.5, found=0.9, false_alarms=0.1, count=20, gate=3.0)


def net(channels):
    torch.manual_seed(channels)
    return HeatmapNet(channels, width=8).eval()


class Brightest(HeatmapNet):
    """Sees a thing where one channel of the picture in question is brightest, and nothing in the dark."""

    def __init__(self, channels, channel):
        super().__init__(channels, width=8)
        self.channel = channel

    def forward(self, x):
        heat = 60 * torch.nn.functional.max_pool2d(x[:, self.channel : self.channel + 1], 2)[:, 0].float()
        return heat, torch.full((len(x),), 30.0)


def test_probes_come_back_as_they_were(tmp_path):
    effector, objects = EffectorProbe(net=net(3), error=ERROR), ObjectProbe(net=net(9), error=ERROR)
    save_probes(tmp_path, effector, objects)
    again, _ = load_probes(tmp_path)
    frames = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(again.locate(frames).position, effector.locate(frames).position)
    assert again.error == ERROR
    save_probes(tmp_path / "alone", effector, None)
    assert load_probes(tmp_path / "alone")[1] is None
    (tmp_path / "object.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="expected a position probe"):
        load_probes(tmp_path)
    with pytest.raises(DataError, match="position probes"):
        load_probes(tmp_path / "nothing")


def film(thing, hand, frames=5):
    """A red thing and a green hand at cells (u, v) of 32, still for some frames; None leaves it out."""
    pictures = torch.zeros(frames, 3, 32, 32, dtype=torch.uint8)
    for channel, place in enumerate((thing, hand)):
        if place is not None:
            u, v = place
            pictures[:, channel, v : v + 2, u : u + 2] = 255
    return pictures


def test_an_object_goal_costs_the_things_distance_and_a_share_of_the_hands():
    goal = ObjectGoal(
        objects=ObjectProbe(net=Brightest(9, 0), error=ERROR),
        effector=EffectorProbe(net=Brightest(3, 1), error=ERROR),
        start=film((8, 8), None)[0],
        mask=film((8, 8), None)[0, 0] > 0,
        goal=torch.tensor([9.0, 9.0]) / 32,
    )
    films = [film((8, 8), (8, 8)), film((24, 8), (8, 8)), film((8, 8), (8, 24)), film(None, (8, 8))]
    imagined = Imagined(actions=torch.zeros(4, 5, 2), frames={"head": torch.stack(films)}, state=None, truth=None)
    there, moved, far, gone = goal(imagined).tolist()
    assert there == pytest.approx(0.0, abs=0.02)
    assert moved == pytest.approx(0.5 + 0.3 * 0.5, abs=0.02)
    assert far == pytest.approx(0.3 * 0.5, abs=0.02)
    assert gone > 1.0  # a thing that is lost costs more than any place in the picture
