"""What predicted depth warns of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo import teleop
from dreamdojo.apps.play.messages import Command
from dreamdojo.apps.play.settings import PlaySettings
from dreamdojo.apps.teleop.cockpit import Cockpit, Instruments
from dreamdojo.apps.teleop.correct import suggest
from dreamdojo.apps.teleop.hazards import Lookout, Tracks, contact, harm
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.onboard import Safeguards
from dreamdojo.apps.teleop.predict import Ghost, Imagined
from dreamdojo.apps.teleop.robot import DojoRobot
from dreamdojo.apps.teleop.teleoperation import Wish
from dreamdojo.dojo.simulation import Simulation
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.keypoints import Located
from tests.apps.playing import starts
from tests.apps.teleoperating import Perfect, SquareRobot, controls_of, teleoperation
from tests.rollout.test_depth_session import rgbd, with_depth
from tests.rollout.test_session import first_frame

DOWN = np.array([0, 0, -0.4, 0, 1], np.float32)


def above(seen):
    """The square is as far above a table, one metre away, as its third coordinate says."""
    bright = seen.frames["head"].float().mean(dim=2, keepdim=True) > 100
    height = seen.state[..., 2].view(*seen.state.shape[:2], 1, 1, 1)
    return replace(seen, depth={"head": torch.where(bright, 1.0 - height, 1.0)})


class DeepRobot(SquareRobot):
    def _look(self):
        return above(super()._look())


class DeepPerfect(Perfect):
    def extend(self, action):
        return above(super().extend(action))


class Centre:
    """Finds the square by its brightness."""

    error = None

    def locate(self, frames):
        bright = frames.float().mean(dim=1) > 100
        places = [(row.nonzero().float().mean(dim=0).flip(0) + 0.5) / frames.shape[-1] for row in bright]
        return Located(position=torch.stack(places), found=torch.ones(len(frames), dtype=torch.bool))


def cockpit(robot, predictor):
    size = (robot.square.size,) * 2
    made = Cockpit(
        robot,
        predictor,
        settings=PlaySettings(gain=1.0),
        safeguards=Safeguards(),
        link=LinkSettings.of_round_trip(0.5, fps=robot.fps),
        shown=size,
        instruments=Instruments(lookout=Lookout(Centre(), None)),
    )
    made.begin(starts(1)[0])
    return made


@pytest.mark.parametrize("deep", [True, False])
def test_the_cockpit_warns_before_the_gripper_touches_down_where_depth_is_predicted(deep):
    robot = (DeepRobot if deep else SquareRobot)(fps=10.0)
    made = cockpit(robot, (DeepPerfect if deep else Perfect)(robot))
    warned, height = None, []
    for _ in range(24):
        (shot,) = made.advance(Command(values=np.array([0, 0, -0.8, 0, 1], np.float32)))
        height.append(float(robot.square.position[2]))
        if warned is None and shot.notes["hazards"]:
            warned = (shot.notes["hazards"][0], height[-1])
    made.close()
    assert height[-1] == 0, "it came down in the end"
    if deep:
        assert "gripper will touch down" in warned[0] and warned[1] > 0.06
    else:
        assert warned is None


def test_a_real_frame_comes_with_its_depth_and_a_lost_one_with_what_was_predicted():
    robot = DeepRobot(fps=10.0)
    anchored = []

    class Listening(DeepPerfect):
        def anchor(self, seen, actions, tick):
            anchored.append(seen)
            super().anchor(seen, actions, tick)

    predictor, tele = Listening(robot), teleoperation(robot)
    predictor.reset(tele.reset(seed=0).seen, seed=0)
    for i in range(20):
        link = LinkSettings(up=0.1, down=0.2, loss=0.5 if i > 4 else 0.0)
        tele.fulfil(tele.exchange(Wish(action=DOWN, link=link)), predictor)
    assert any(seen.frames["head"].shape[1] > 1 for seen in anchored), "frames were lost"
    for seen in anchored:
        assert seen.depth["head"].shape[1] == seen.frames["head"].shape[1]


def test_the_dojos_gripper_that_comes_down_on_the_table_is_seen_by_its_depth():
    robot = DojoRobot(Simulation("arm", fps=10.0), size=64, depth=True)
    first, ghost = robot.reset(seed=1), Ghost(robot)
    ghost.reset(first, seed=1)

    def falls(speed, opening=1.0):
        actions = torch.tensor([[0, 0, speed, 0, opening]]).expand(1, 24, 5)
        told = ghost.predict(actions)
        places = np.concatenate([first.state[0, :, :3].numpy(), told.state[0, :, :3].numpy()])
        gripper = torch.from_numpy(robot.simulation.pixel(places)).float()
        none = torch.zeros(0, 25)
        tracks = Tracks(
            gripper=gripper,
            gripper_found=torch.ones(25, dtype=torch.bool),
            objects=none[..., None].expand(0, 25, 2),
            objects_found=none.bool(),
        )
        depth = torch.cat([first.depth["head"][0, :, 0], told.depth["head"][0, :, 0]])
        return contact(depth, tracks, fps=10), harm(tracks, depth), places

    for opening in (0.0, 1.0):
        hazard, cost, places = falls(-0.05, opening)
        assert hazard.kind == "contact" and 0.02 < places[round(10 * hazard.seconds), 2] < 0.07
    still, nothing, _ = falls(0.0)
    assert still is None and cost > nothing == 0


def test_a_model_of_depth_predicts_it_for_the_cockpit_and_for_the_search():
    seen = with_depth(first_frame())
    predictor = Imagined(rgbd(), members=2)
    predictor.reset(seen, seed=0)
    told = predictor.predict(torch.zeros(1, 3, 2))
    assert told.depth["head"].shape == (1, 3, 1, 16, 16)
    asked = []

    def cost(told):
        asked.append(told.depth["head"].shape[:2])
        return told.depth["head"].flatten(1).amax(dim=1)

    branch, _ = predictor.branch()
    robot = SquareRobot()
    pusher = type("Body", (), {"embodiment": predictor.session.embodiment})
    suggest(branch, np.zeros(2, np.float32), controls_of(pusher), cost, candidates=4, horizon=2)
    assert asked == [(4, 2)]
    with pytest.raises(ConfigError, match="depth"):
        robot.embodiment = predictor.session.embodiment
        robot.fps = predictor.session.fps
        teleop.make_predictor("model", robot, predictor.session)
