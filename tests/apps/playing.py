"""Ten-line worlds, a server in a thread and a page without a browser, for the tests of `dreamdojo play`."""

import contextlib
import json
import queue
import threading
import time
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from websockets.sync.client import connect

from dreamdojo.apps.play import PlaySettings, PlayWorld, Start, serve
from dreamdojo.apps.play.messages import unpack
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import SimulationError
from dreamdojo.world import Observation, Prediction

ARM = Embodiment(
    name="square/velocity",
    action=(
        Field(
            name="velocity",
            axes=("x", "y", "z", "yaw"),
            unit="m/s",
            low=(-0.5,) * 4,
            high=(0.5,) * 4,
            resampling="mean",
            integrates="position",
        ),
        Field(name="gripper", axes=("opening",), unit="1", low=(0.0,), high=(1.0,)),
    ),
    state=(Field(name="position", axes=("x", "y", "z", "yaw"), unit="m", low=(0.0,) * 4, high=(1.0,) * 4),),
)
JOINTS = Embodiment(
    name="humanoid/joint_position",
    action=(
        Field(
            name="joint_position",
            axes=tuple(f"joint_{i}" for i in range(26)),
            unit="rad",
            low=(-1.0,) * 26,
            high=(3.0,) * 26,
        ),
    ),
    state=(
        Field(
            name="joint_position",
            axes=tuple(f"joint_{i}" for i in range(26)),
            unit="rad",
            low=(-1.0,) * 26,
            high=(3.0,) * 26,
        ),
    ),
)


class Square:
    """A bright square that goes where it is driven: x is up in the picture, y is left."""

    cameras = ("head",)

    def __init__(self, embodiment=ARM, *, fps=20.0, k=1, size=64, seconds=0.0):
        self.embodiment, self.fps, self.actions_per_step = embodiment, fps, k
        self.size, self.seconds, self.actions = size, seconds, []

    def reset(self, observation=None, *, seed=0):
        self.position = np.full(self.embodiment.state_dim, 0.2 + 0.3 * seed, dtype=np.float32)
        self.actions.clear()
        return Observation(frames={"head": self.draw()[None, None]}, state=torch.from_numpy(self.position)[None, None])

    def step(self, actions):
        time.sleep(self.seconds)
        frames, states = [], []
        for action in actions[0].numpy():
            self.actions.append(action)
            moved = self.embodiment.integrate(self.position, action, 1 / self.fps)
            self.position = np.clip(action if moved is None else moved, 0, 1).astype(np.float32)
            frames.append(self.draw())
            states.append(torch.from_numpy(self.position.copy()))
        return Prediction(
            frames={"head": torch.stack(frames)[None]}, state=torch.stack(states)[None], state_source="integrator"
        )

    def observe(self, observation, actions): ...

    def fork(self, n):
        return self

    def close(self): ...

    def draw(self):
        ramp = torch.linspace(30, 90, self.size)
        picture = torch.stack(
            [ramp.expand(self.size, -1), ramp[:, None].expand(-1, self.size), ramp.expand(self.size, -1)]
        )
        up, left = (int((1 - value) * self.size * 0.8) for value in self.position[:2])
        picture[:, up : up + self.size // 5, left : left + self.size // 5] = torch.tensor([250.0, 200, 90])[
            :, None, None
        ]
        return picture.to(torch.uint8)


class Broken(Square):
    """Steps twice, then its physics becomes unstable."""

    def step(self, actions):
        if len(self.actions) >= 2:
            raise SimulationError("the arm left the table")
        return super().step(actions)


def starts(num=3):
    scene = Observation(frames={"head": torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8)})
    return [
        Start(
            name=f"Scene {seed}",
            thumbnail=np.full((64, 64, 3), 50 + 70 * seed, dtype=np.uint8),
            observation=scene,
            seed=seed,
        )
        for seed in range(num)
    ]


def side_by_side(**kwargs):
    return {
        "dream": PlayWorld(world=Square(**kwargs), from_observation=True, label="Dream"),
        "dojo": PlayWorld(world=Square(**kwargs), from_observation=False, label="Dojo"),
    }


@contextlib.contextmanager
def serving(worlds, **settings):
    addresses, stop = queue.Queue(), threading.Event()
    kwargs = {"announce": addresses.put, "stop": stop}
    arguments = (worlds, starts(), PlaySettings(**{"port": 0, **settings}))
    thread = threading.Thread(target=serve, args=arguments, kwargs=kwargs)
    thread.start()
    try:
        yield addresses.get(timeout=10)
    finally:
        stop.set()
        thread.join(timeout=10)
        assert not thread.is_alive()


class Page:
    """A page without a browser: shows every frame at once, unless told to be slow."""

    def __init__(self, url, *, page="", slow=False, **kwargs):
        self.stack = contextlib.ExitStack()
        address = f"{url.replace('http', 'ws')}/ws?page={page}"
        self.socket = self.stack.enter_context(connect(address, max_size=2**24, **kwargs))
        self.slow, self.sent, self.frames = slow, 0, []
        self.hello = self.text("hello")
        self.session = self.text("session")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def send(self, **message):
        self.socket.send(json.dumps(message))

    def next(self, timeout=15.0):
        """The next message: a dict, or the header of a frame with its decoded pictures."""
        message = self.socket.recv(timeout)
        if isinstance(message, str):
            note = json.loads(message)
            if note["type"] == "session":
                self.session = note
            return note
        header, pictures = unpack(message)
        header["images"] = [np.asarray(Image.open(BytesIO(data))) for data in pictures]
        self.frames.append(header)
        if not self.slow:
            self.shown(header)
        return header

    def shown(self, header):
        self.send(type="shown", sequence=header["sequence"])

    def until(self, wanted, timeout=15.0):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if wanted(message := self.next(deadline - time.monotonic())):
                return message
        raise TimeoutError

    def text(self, kind):
        return self.until(lambda message: message["type"] == kind)

    def session_with(self, **expected):
        """Wait until the session is in this state, if it is not in it already."""
        if not expected.items() <= self.session.items():
            self.until(lambda message: message["type"] == "session" and expected.items() <= message.items())
        return self.session

    def frame(self, wanted=lambda header: True):
        return self.until(lambda message: message["type"] == "frame" and wanted(message))

    def drive(self, values, **kwargs):
        self.sent += 1
        episode = self.session["episode"]
        self.send(**{"type": "drive", "episode": episode, "values": values, "id": self.sent, "time": 1.5, **kwargs})
        return self.sent
