"""A policy behind an openpi server: msgpack over a WebSocket, one world at a time.

The protocol is that of `openpi-client` 0.1: on connecting the server sends its metadata; each request is a map of
observations, each answer a map with `actions` `n a`; a text instead of bytes is the server's error. Arrays travel as
maps of their bytes, type and shape (`encode`, `decode`); nothing is ever unpickled. Needs `pip install
"dreamdojo[policies]"`; the `openpi-client` package itself, which wants numpy below 2, does not have to be installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdojo.errors import DataError, MissingDependencyError
from dreamdojo.video import resize
from dreamdojo.world import Observation

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


@dataclass(frozen=True, kw_only=True)
class OpenpiKeys:
    """Under what names the server expects things; every openpi model has its own."""

    images: Mapping[str, str] = field(default_factory=lambda: {"head": "observation/image"})
    """Camera -> key; pictures are `h w 3` uint8."""
    state: str | None = "observation/state"
    """Key of the proprioception; None sends none."""
    prompt: str = ""
    """What to do, in words."""
    size: tuple[int, int] | None = (224, 224)
    """Height and width that pictures are resized to; None leaves them."""


class OpenpiPolicy:
    """Asks a server for every world's next actions.

    Args:
        address: e.g. `ws://127.0.0.1:8000`.
        keys: what the server expects.
        api_key: sent as `Authorization: Api-Key ...` where given.
        execute: carry out only so many of the actions of an answer.
        timeout: seconds to wait for the connection and for each answer.

    Raises:
        MissingDependencyError: if `msgpack` or `websockets` is not installed.
        DataError: if nobody answers at the address.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: OpenpiKeys | None = None,
        api_key: str | None = None,
        execute: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        _require_packages()
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        self._address, self._keys, self._execute, self._timeout = address, keys or OpenpiKeys(), execute, timeout
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        try:
            with ExitStack() as opening:
                self._socket = opening.enter_context(
                    connect(address, compression=None, max_size=None, additional_headers=headers, open_timeout=timeout)
                )
                self.metadata: dict[str, Any] = self._receive()
                self._open = opening.pop_all()
        except (OSError, WebSocketException) as error:
            raise DataError(
                f"{address}: expected an openpi policy server, found none ({error}). Start it, or correct the address."
            ) from error

    metadata: dict[str, Any]
    """What the server says about itself."""

    def reset(self, *, seed: int = 0) -> None:
        """The protocol knows no reset: a server answers to what it is shown."""
        del seed

    def act(self, observation: Observation) -> Tensor:
        """The servers' actions `b n a`; worlds are asked one after the other.

        Raises:
            DataError: if the server reports an error, closes, or its answer holds no `actions` `n a`.
        """
        batch = len(next(iter(observation.frames.values())))
        answers = [self._ask(self._request(observation, number)) for number in range(batch)]
        length = min(min(map(len, answers)), self._execute or len(answers[0]))
        return torch.from_numpy(np.stack([answer[:length] for answer in answers]).astype(np.float32))

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def _request(self, observation: Observation, number: int) -> dict[str, Any]:
        keys = self._keys
        request: dict[str, Any] = {"prompt": keys.prompt}
        for camera, key in keys.images.items():
            if camera not in observation.frames:
                raise DataError(f"the server wants the camera {camera!r}, there is: {', '.join(observation.frames)}")
            picture = observation.frames[camera][number, -1].permute(1, 2, 0).cpu().numpy()
            request[key] = picture if keys.size is None else resize(picture[None], keys.size)[0]
        if keys.state is not None:
            if observation.state is None:
                raise DataError(f"the server wants proprioception as {keys.state!r}, the world has none")
            request[keys.state] = observation.state[number, -1].cpu().numpy()
        return request

    def _ask(self, request: dict[str, Any]) -> np.ndarray:
        from websockets.exceptions import WebSocketException

        try:
            self._socket.send(encode(request))
            answer = self._receive()
        except (OSError, WebSocketException) as error:
            raise DataError(f"{self._address}: the policy server ended the connection ({error})") from error
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or not len(actions):
            found = f"an array {actions.shape}" if isinstance(actions, np.ndarray) else ", ".join(map(str, answer))
            raise DataError(f"{self._address}: expected an answer with actions n a, found {found}")
        return actions

    def _receive(self) -> dict[str, Any]:
        message = self._socket.recv(timeout=self._timeout)
        if isinstance(message, str):
            raise DataError(f"{self._address}: the policy server reports an error:\n{message.strip()}")
        answer = decode(message)
        if not isinstance(answer, dict):
            raise DataError(f"{self._address}: expected a map from the policy server, got a {type(answer).__name__}")
        return answer


def encode(value: Any) -> bytes:
    """A map of numbers, texts and arrays as the protocol's bytes.

    Raises:
        DataError: if an array holds objects, records or complex numbers.
    """
    import msgpack

    def packed(thing: Any) -> Any:
        if isinstance(thing, np.ndarray | np.generic):
            if thing.dtype.kind in "VOc":
                raise DataError(f"expected an array of numbers or texts, got one of {thing.dtype}")
            marker, data = (_ARRAY, thing.tobytes()) if isinstance(thing, np.ndarray) else (_SCALAR, thing.item())
            shape = {b"shape": thing.shape} if isinstance(thing, np.ndarray) else {}
            return {marker: True, b"data": data, b"dtype": thing.dtype.str, **shape}
        raise DataError(f"expected numbers, texts and arrays, got a {type(thing).__name__}")

    data = msgpack.packb(value, default=packed)
    assert data is not None
    return data


def decode(data: bytes) -> Any:
    """The inverse of `encode`; arrays are copies of their own.

    Raises:
        DataError: if the bytes are not of the protocol.
    """
    import msgpack

    def unpacked(thing: dict[Any, Any]) -> Any:
        if _ARRAY in thing:
            flat = np.frombuffer(thing[b"data"], dtype=_plain_type(thing[b"dtype"]))
            return flat.reshape(thing[b"shape"]).copy()
        if _SCALAR in thing:
            return _plain_type(thing[b"dtype"]).type(thing[b"data"])
        return thing

    try:
        return msgpack.unpackb(data, object_hook=unpacked)
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise DataError(f"expected msgpack with arrays as openpi sends them, found something else ({error})") from error


def _plain_type(name: Any) -> np.dtype:
    kind = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if kind.kind in "VOc":
        raise ValueError(f"arrays of {kind} are not accepted")
    return kind


def _require_packages() -> None:
    try:
        import msgpack  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            'a policy server is spoken to through msgpack and websockets: pip install "dreamdojo[policies]"'
        ) from error
