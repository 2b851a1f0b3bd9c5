"""A robot without physics, a predictor without a network, an arm with the methods of lerobot's: for teleop's tests."""

import contextlib
import queue
import threading

import numpy as np
import torch

from dreamdojo.apps.play import PlaySettings
from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.server import serve_app
from dreamdojo.apps.teleop.app import create_cockpit
from dreamdojo.apps.teleop.cockpit import Cockpit
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.onboard import Safeguards
from dreamdojo.apps.teleop.robot import seen
from dreamdojo.apps.teleop.teleoperation import Teleoperation
from dreamdojo.world import Prediction
from tests.apps.playing import ARM, PlayWorld, Square, starts


class SquareRobot:
    """The square of play's tests, as a robot."""

    simulated = True

    def __init__(self, *, fps=10.0, size=32):
        self.square = Square(fps=fps, size=size)
        self.embodiment, self.fps = self.square.embodiment, fps
        self.actions, self.halted = [], 0

    def reset(self, *, seed):
        self.square.reset(seed=0)
        self.square.position[:] = 0.5 + 0.001 * seed
        self.actions.clear()
        return self._look()

    def act(self, action):
        self.actions.append(action)
        self.square.step(torch.from_numpy(action)[None, None])
        return self._look()

    def halt(self):
        self.halted += 1

    def close(self): ...

    def _look(self):
        return seen(self.square.draw().permute(1, 2, 0).numpy(), self.square.position.copy())


class Perfect:
    """Predicts the square as it really moves."""

    def __init__(self, robot, *, wrong=0.0):
        self.square, self.wrong, self.calls = Square(fps=robot.fps, size=robot.square.size), wrong, []

    def reset(self, seen, *, seed, tick=0):
        self.real = self.now = seen.state[0, -1].numpy()
        self.calls.append(("reset", tick))

    def anchor(self, seen, actions, tick):
        self.real = self.now = seen.state[0, -1].numpy()
        self.calls.append(("anchor", tick, seen.frames["head"].clone(), actions.clone()))

    def predict(self, actions):
        self.now = self.real
        return self.extend(actions)

    def extend(self, action):
        frames, states = [], []
        for row in action[0].numpy():
            moved = ARM.integrate(self.now, row, 1 / self.square.fps)
            self.now = np.clip(moved + self.wrong, 0, 1).astype(np.float32)
            self.square.position = self.now
            frames.append(self.square.draw())
            states.append(torch.from_numpy(self.now.copy()))
        return Prediction(
            frames={"head": torch.stack(frames)[None]}, state=torch.stack(states)[None], state_source="integrator"
        )


class Follower:
    """An arm with the methods of `lerobot.robots.Robot`."""

    name = "so101_follower"
    action_features = {"pan.pos": float, "lift.pos": float, "gripper.pos": float}  # noqa: RUF012
    observation_features = {**action_features, "front": (48, 64, 3)}  # noqa: RUF012

    def __init__(self):
        self.is_connected = False
        self.positions = {"pan.pos": 10.0, "lift.pos": -20.0, "gripper.pos": 50.0}
        self.sent = []

    def connect(self):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def get_observation(self):
        assert self.is_connected
        return {**self.positions, "front": np.full((48, 64, 3), 90, np.uint8)}

    def send_action(self, action):
        assert self.is_connected
        self.sent.append(dict(action))
        self.positions.update(action)
        return action

    def get_action(self):
        """What a leader has instead."""
        return dict(self.positions)


def controls_of(robot):
    return Controls.of(robot.embodiment, screen_right="-y", screen_up="+x")


def teleoperation(robot, **safeguards):
    return Teleoperation(robot, controls_of(robot), Safeguards(**safeguards))


@contextlib.contextmanager
def cockpit_served(
    robot, predictor, *, link=None, safeguards=None, dreams=True, recorder=None, instruments=None, **settings
):
    settings = PlaySettings(**{"port": 0, **settings})
    cockpit = Cockpit(
        robot,
        predictor,
        settings=settings,
        safeguards=safeguards or Safeguards(),
        link=link or LinkSettings(),
        shown=(robot.square.size,) * 2,
        recorder=recorder,
        instruments=instruments,
    )
    worlds = {}
    if dreams:
        worlds["dream"] = PlayWorld(world=Square(fps=robot.fps), from_observation=True, label="Dream")
    app = create_cockpit(cockpit, worlds, starts(), settings)
    addresses, stop = queue.Queue(), threading.Event()
    thread = threading.Thread(target=serve_app, args=(app, settings), kwargs={"announce": addresses.put, "stop": stop})
    thread.start()
    try:
        yield addresses.get(timeout=10), cockpit
    finally:
        stop.set()
        thread.join(timeout=10)
        cockpit.close()
        assert not thread.is_alive()
