"""Our side of the openpi protocol, against the real client package's wire format and against its client."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.policies.openpi import OpenpiKeys, OpenpiPolicy, decode, encode
from dreamdojo.world import Observation

server = pytest.importorskip("websockets.sync.server")
ConnectionClosed = pytest.importorskip("websockets.exceptions").ConnectionClosed
pytest.importorskip("msgpack")

STATES = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
FRAMES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 1, 3, 4, 4)


@contextmanager
def serving(answer: Callable[[dict], dict | str], pack: Callable = encode, unpack: Callable = decode) -> Iterator[str]:
    """A server as openpi's: metadata first, then an answer to each request."""

    def handle(socket: server.ServerConnection) -> None:
        socket.send(pack({"name": "toy"}))
        for message in socket:
            said = answer(unpack(message))
            socket.send(said if isinstance(said, str) else pack(said))

    with server.serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}"
        finally:
            running.shutdown()
            thread.join()


def echo(request: dict) -> dict:
    """Actions that tell what was received: the state, the mean of the picture, the length of the prompt."""
    state, picture = request["observation/state"], request["observation/image"]
    assert picture.dtype == np.uint8 and picture.shape == (4, 4, 3)
    row = np.array([*state, picture.mean(), len(request["prompt"])], np.float32)
    return {"actions": np.stack([row, row + 100, row + 200])}


def check_echo(address: str) -> None:
    policy = OpenpiPolicy(address, keys=OpenpiKeys(prompt="push", size=None), execute=2)
    actions = policy.act(Observation(frames={"head": FRAMES}, state=STATES))
    policy.close()
    assert policy.metadata == {"name": "toy"} and actions.shape == (2, 2, 4)
    means = FRAMES.float().mean(dim=(1, 2, 3, 4))
    expected = torch.cat([STATES[:, 0], means[:, None], torch.full((2, 1), 4.0)], dim=1)
    torch.testing.assert_close(actions[:, 0], expected)
    torch.testing.assert_close(actions[:, 1], expected + 100)


def test_every_world_gets_its_own_answer() -> None:
    with serving(echo) as address:
        check_echo(address)


def test_the_real_packages_bytes_are_ours() -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy", reason="openpi-client is not installed")
    thing = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.float32(1.5), "c": {"d": "text", "e": [1, 2.0]}}
    assert encode(thing) == theirs.packb(thing)
    back = decode(theirs.packb(thing))
    np.testing.assert_array_equal(back["a"], thing["a"])
    assert back["a"].flags.writeable and back["b"] == 1.5 and back["c"] == thing["c"]
    with serving(echo, theirs.packb, theirs.unpackb) as address:
        check_echo(address)


@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")
def test_the_real_client_understands_our_server() -> None:
    package = pytest.importorskip("openpi_client.websocket_client_policy", reason="openpi-client is not installed")
    with serving(echo) as address:
        client = package.WebsocketClientPolicy(address)
        request = {"observation/state": STATES[0, 0].numpy(), "observation/image": np.ones((4, 4, 3), np.uint8)}
        answer = client.infer({**request, "prompt": "lift it"})
        client._ws.close()
    np.testing.assert_allclose(answer["actions"][0], [1, 2, 1, 7])


@pytest.mark.parametrize(
    ("answer", "words"), [("Traceback: no such key", "no such key"), ({"action": 1}, "actions n a")]
)
def test_what_the_server_gets_wrong_is_said(answer: dict | str, words: str) -> None:
    with serving(lambda request: answer) as address:
        policy = OpenpiPolicy(address, keys=OpenpiKeys(size=None))
        with pytest.raises(DataError, match=words):
            policy.act(Observation(frames={"head": FRAMES}, state=STATES))
        policy.close()


def test_a_server_that_greets_with_an_error_is_left_again() -> None:
    left = threading.Event()

    def handle(socket: server.ServerConnection) -> None:
        socket.send("no checkpoint")
        try:
            socket.recv()
        except ConnectionClosed:
            left.set()

    with server.serve(handle, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            with pytest.raises(DataError, match="no checkpoint"):
                OpenpiPolicy(f"ws://127.0.0.1:{running.socket.getsockname()[1]}")
            assert left.wait(2)
        finally:
            running.shutdown()
            thread.join()


def test_nobody_at_the_address() -> None:
    with pytest.raises(DataError, match="Start it"):
        OpenpiPolicy("ws://127.0.0.1:9", timeout=2.0)


def test_objects_are_never_unpickled() -> None:
    hostile = encode({"x": np.zeros(2)}).replace(b"<f8", b"|O8")
    with pytest.raises(DataError, match="something else"):
        decode(hostile)
    with pytest.raises(DataError, match="numbers or texts"):
        encode({"x": np.array([object()])})
